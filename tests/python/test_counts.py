"""Instruction counts, CPU time and build times from the command line. No assertion is about speed."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from conftest import DECODE, REPOSITORY, Cli, assert_refused

PRODUCT = "matmul/i2_s/640x2560/b1/t1/hot"
SMALL = ("--workload", PRODUCT, "--workload", "dequantize/i2_s/640x2560", "--workload", DECODE)
FOLDER = REPOSITORY / "docs" / "schemas"


def rule(verdict: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(row for row in verdict["rules"] if row["name"] == name)
    return found


def checked(name: str, document: dict[str, Any]) -> None:
    """Holds a document to its published schema, and its fields to those the schema names."""
    schema = json.loads((FOLDER / f"{name}-1.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(document)
    assert set(document) <= set(schema["properties"])
    if name == "recording":
        assert set(document["plan"]) <= set(schema["properties"]["plan"]["properties"])


# Where it must be shown, a missing counter is a failure.
needs_valgrind = pytest.mark.skipif(
    shutil.which("valgrind") is None and "CI" not in os.environ, reason="valgrind is not installed"
)


@needs_valgrind
def test_counts_are_recorded_accepted_and_compared_with(cli: Cli, tmp_path: Path) -> None:
    done = cli("run", *SMALL, "--counts", "instructions", "--output", "a.json", "-q")
    recording = json.loads((tmp_path / "a.json").read_text())
    checked("recording", recording)
    assert recording["plan"]["meter"] == "instructions"
    assert recording["plan"]["counter"] in {"perf-event", "callgrind"}
    assert {series["meter"] for series in recording["series"]} == {"instructions"}
    verdict = json.loads((tmp_path / "a.verdict.json").read_text())
    checked("verdict", verdict)
    assert rule(verdict, "reference-speed")["verdict"] is None
    assert "nothing was timed" in verdict["summary"] or verdict["verdict"] != "pass"
    accepted = cli("baseline", "accept", "a.json", "--why", "first", "--baseline", "b")
    assert accepted.returncode == 0, accepted.stderr
    done = cli("gate", *SMALL, "--counts", "instructions", "--baseline", "b", "--format", "json")
    assert done.returncode == 0, done.stdout + done.stderr
    verdict = json.loads(done.stdout)
    rows = [row for row in verdict["comparisons"] if row["required"] and row["against"] == "baseline"]
    assert len(rows) == 3
    assert all(row["verdict"] == "pass" and abs(row["ratio"] - 1) < 0.001 for row in rows)
    # What was counted is no evidence about time.
    done = cli("gate", *SMALL, "--counts", "cpu", "--baseline", "b", "--format", "json")
    assert rule(json.loads(done.stdout), "regression")["verdict"] == "neutral", done.stdout


# Instructions of one call on the AVX2 path: Rust, C++, as counted when this was written.
COUNTED = {
    "matmul/i2_s/640x2560/b1/t1/hot": (243_000, 254_200),
    "matmul/i2_s/640x2560/b16/t1/hot": (2_202_800, 2_157_300),
    "matmul/tl1/640x2560/b1/t1/hot": (339_200, 293_100),
    "matmul/tl2/640x2560/b1/t1/hot": (266_500, 299_000),
    "linear/i2_s/640x2560/b1/t1/hot": (246_600, 258_000),
    "quantize/i2_s/640x2560": (11_326_300, 15_451_400),
    "dequantize/i2_s/640x2560": (739_400, 1_777_300),
    "activation/int8/2560x1": (2_830, 4_210),
}
# Compilers differ; a loop that is no longer vectorised, or a table that is built twice, costs more than this.
GENEROUS = 1.3


@needs_valgrind
def test_main_kernels_keep_their_optimisations(cli: Cli, tmp_path: Path) -> None:
    chosen = [option for workload in COUNTED for option in ("--workload", workload)]
    sides = ("--backend", "rust-avx2", "--backend", "cpp-avx2")
    done = cli("run", *chosen, *sides, "--counts", "instructions", "--output", "k.json", "-q")
    assert done.returncode in {0, 3}, done.stdout + done.stderr
    series = {
        (row["workload"], row["backend"]): row
        for row in json.loads((tmp_path / "k.json").read_text())["series"]
    }
    above = []
    for workload, counted in COUNTED.items():
        for backend, most in zip(("rust-avx2", "cpp-avx2"), counted, strict=True):
            row = series[workload, backend]
            least = min(
                count / calls for count, calls in zip(row["value_ns"], row["iterations"], strict=True)
            )
            print(f"{backend} {workload}: {least:.0f}")
            if not 0 < least <= most * GENEROUS:
                above.append(f"{workload} on {backend}: {least:.0f} instructions, {most} were counted")
    assert not above, above


def test_counting_without_a_counter_says_why(cli: Cli) -> None:
    done = cli("run", *SMALL, "--counts", "instructions", "--dry-run", PATH="/nowhere")
    if done.returncode != 0:
        assert_refused(done, "instructions cannot be counted", "valgrind is not installed")


def test_cpu_time_is_the_judged_meter(cli: Cli) -> None:
    done = cli("run", *SMALL, "--counts", "cpu", "--format", "json", "--output", "c.json")
    verdict = json.loads(done.stdout)
    checked("verdict", verdict)
    assert {row["meter"] for row in verdict["comparisons"]} == {"thread_cpu_ns"}
    assert verdict["power"]["workload"] in SMALL


def test_how_small_a_slow_down_can_be_seen_is_said_before(cli: Cli) -> None:
    done = cli("run", *SMALL, "--output", "p.json")
    assert "5 launches of 12 blocks can confirm here is not known" in done.stderr
    assert "What this run could see" in done.stdout


def project(folder: Path, body: str = "pub fn one() -> u32 { 1 }\n") -> Path:
    (folder / "p" / "src").mkdir(parents=True)
    manifest = '[package]\nname = "small"\nversion = "0.1.0"\nedition = "2021"\n[workspace]\n'
    (folder / "p" / "Cargo.toml").write_text(manifest)
    (folder / "p" / "src" / "lib.rs").write_text(body)
    return folder / "p"


@pytest.mark.skipif(shutil.which("cargo") is None, reason="cargo is not installed")
def test_build_times_are_recorded_and_judged_against_accepted_ones(cli: Cli, tmp_path: Path) -> None:
    project(tmp_path)
    timed = ("build-time", "p", "--repeats", "2", "--baseline", "b", "--format", "json")
    done = cli(*timed, "--output", "a.json")
    assert done.returncode == 3, done.stderr
    verdict = json.loads(done.stdout)
    checked("verdict", verdict)
    assert "holds no baseline" in rule(verdict, "build-time")["reason"]
    assert verdict["route"]["next"] == "review-performance-benchmark"
    recording = json.loads((tmp_path / "a.json").read_text())
    checked("recording", recording)
    assert [row["id"] for row in recording["plan"]["workloads"]] == ["build/clean", "build/incremental"]
    assert all(len(series["value_ns"]) == 2 for series in recording["series"])
    # An earlier recording that took longer: neutral, because one day says too little of days.
    for series in recording["series"]:
        series["value_ns"] = [2 * ns + 1 for ns in series["value_ns"]]
    (tmp_path / "same.json").write_text(json.dumps(recording))
    done = cli("compare", "same.json", "a.json", "--format", "json")
    assert (done.returncode, json.loads(done.stdout)["verdict"]) == (3, "neutral")
    human = cli("build-time", "p", "--repeats", "1", "--baseline", "b", "--output", "h.json")
    assert human.returncode == 3
    assert "build/incremental" in human.stdout or "build-time" in human.stdout


@pytest.mark.skipif(shutil.which("cargo") is None, reason="cargo is not installed")
def test_what_does_not_build_is_one_line(cli: Cli, tmp_path: Path) -> None:
    project(tmp_path, "pub fn one() -> u32 { true }\n")
    assert_refused(cli("build-time", "p", "-q"), "cargo", "build --offline --quiet failed")
    assert_refused(cli("build-time", "none", "-q"), "none")
    (tmp_path / "empty").mkdir()
    assert_refused(cli("build-time", "empty", "-q"), "Cargo.toml is missing")
