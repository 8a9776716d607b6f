"""Ceilings of the machine: measured or named, never invented. No assertion is about speed."""

import io
import json
import math
import re

import pytest

import bitnet_perfgate as perfgate
from bitnet_perfgate import display
from conftest import PRODUCT, Cli, under_ceilings

NAME = re.compile(
    r"((l[1-9]|dram)_read_t[0-9]+_gb|(int8_dot|f32_fma|bf16_dot|f16_fma)_[a-z0-9]+_t[0-9]+_gop)_per_s"
)


def assert_whole(values: dict[str, float], absent: list[str]) -> None:
    """Positive numbers under known names; what runs here has its peak, or a reason why not."""
    assert all(NAME.fullmatch(name) for name in values)
    assert all(math.isfinite(rate) and rate > 0 for rate in values.values())
    assert not set(values) & set(absent)
    here = [
        row["isa"] for row in perfgate.doctor()["backends"] if row["available"] and row["name"][:5] == "rust-"
    ]
    expected = [f"int8_dot_{'portable' if isa == 'scalar' else isa}_t1_gop_per_s" for isa in here]
    assert len(expected) >= 1
    for name in (*expected, "dram_read_t1_gb_per_s", "f32_fma_portable_t1_gop_per_s"):
        assert name in values or name in absent, name


def test_doctor_measures_ceilings_when_asked(cli: Cli) -> None:
    assert perfgate.doctor()["ceilings"] is None
    done = cli("doctor", "--ceilings", "--format", "json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["ceilings"]
    assert_whole(found["values"], [row["name"] for row in found["absent"]])
    assert all(row["reason"] for row in found["absent"])
    assert found["repetitions"] >= 3
    sizes = [row["size_bytes"] for row in found["caches"]]
    assert all(size > 0 for size in sizes)
    shown = cli("doctor", "--ceilings", COLUMNS="80")
    assert "Ceilings of this machine: the fastest of" in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 80


def test_a_run_holds_the_ceilings_of_its_machine(small_run: perfgate.Result) -> None:
    recording = small_run.recording
    absent = [
        row["what"].removeprefix("ceiling ") for row in recording.skipped if row["what"].startswith("ceiling")
    ]
    assert_whole(recording["ceilings"], absent)
    assert recording["ceiling_setting"]["repetitions"] >= 3


def test_what_compares_only_measures_no_ceilings(small_crossval: perfgate.Result) -> None:
    assert small_crossval.recording["ceilings"] == {}
    assert "efficiencies" not in small_crossval.verdict.data


@pytest.mark.parametrize("width", [80, 160])
def test_the_share_is_shown_with_what_binds(small_run: perfgate.Result, width: int) -> None:
    result = under_ceilings(small_run)
    (row,) = [row for row in result.table if row.workload == PRODUCT and row.required]
    (efficiency,) = [
        found
        for found in result.verdict["efficiencies"]
        if (found["workload"], found["backend"]) == (PRODUCT, row.subject)
    ]
    assert (row.efficiency, row.binds) == (efficiency["share"], efficiency["binds"])
    assert efficiency["share"] == pytest.approx(efficiency["bound_ns"] / efficiency["fastest_ns"])
    console = display.console_on(io.StringIO())
    console.width = width
    display.show_result(console, result, [], 0)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    share, label = f"{efficiency['share'] * 100:.0f} %", display.ceiling_label(efficiency["binds"])[0]
    assert f"SIMD efficiency of {row.subject}" in text
    assert re.search(rf"{label} .*: {share} on 1 product", text)
    assert (f"{share} {label}" in text) == (width == 160)
    assert f"{share.replace(' ', '')} of {label}" in perfgate.report(result)
