"""The public functions, through the real extension."""

import doctest
import json
from collections.abc import Callable
from pathlib import Path

import pytest

import bitnet_perfgate as gate
from bitnet_perfgate import display, documents
from conftest import DECODE, DEQUANTIZE, PRODUCT, TINY_MODEL


def test_everything_in_all_exists() -> None:
    assert sorted(gate.__all__) == sorted(set(gate.__all__))
    for name in gate.__all__:
        assert hasattr(gate, name), name


def test_doctests() -> None:
    for module, examples in ((documents, 2), (display, 2)):
        found = doctest.testmod(module)
        assert found.attempted == examples
        assert found.failed == 0


def test_a_run_agrees_times_and_judges(small_run: gate.Result) -> None:
    recording, verdict = small_run.recording, small_run.verdict
    assert recording["schema"] == "bitnet-perfgate/recording/1"
    assert verdict["schema"] == "bitnet-perfgate/verdict/1"
    assert recording.workload_ids == [DEQUANTIZE, PRODUCT, DECODE]
    assert recording.backends[0] == "rust-scalar"
    assert recording.incomplete is None
    assert verdict["baseline"] is None
    assert verdict["agreement"]["n"] == len(recording.agreements) > 0
    assert verdict["agreement"]["failures"] == []
    assert verdict.exit_code == {"pass": 0, "fail": 1, "neutral": 3}[verdict.verdict]
    method, result, reason = verdict.evidence.split("; ")
    assert method.startswith("method: ")
    assert result.startswith("result: agreement ")
    assert reason.startswith("reason: ")


def test_every_sample_of_a_comparison_is_in_the_recording(small_run: gate.Result) -> None:
    timed = [row for row in small_run.table if row.ratio is not None]
    assert {row.workload for row in timed} == {DEQUANTIZE, PRODUCT, DECODE}
    series = {(s["workload"], s["backend"]) for s in small_run.recording["series"]}
    for row in timed:
        assert (row.workload, row.subject) in series
        assert (row.workload, row.other) in series
        assert row.n_blocks >= 8
        assert row.subject_ns is not None
        assert row.subject_ns > 0
        assert row.interval is not None
        assert row.ratio is not None
        assert row.interval[0] <= row.ratio <= row.interval[1]


def test_the_verdict_follows_from_the_recording_alone(small_run: gate.Result, tmp_path: Path) -> None:
    path = tmp_path / "a.recording.json"
    saved = small_run.save(path, ["a command"])
    again = gate.load_recording(path)
    assert again.recording.data == small_run.recording.data
    assert again.verdict.data == small_run.verdict.data
    assert again.table == small_run.table
    written = json.loads((tmp_path / "a.verdict.json").read_text("ascii"))
    assert written == saved.verdict.data
    assert written == {**small_run.verdict.data, "recording": path.name, "commands": ["a command"]}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.recording.json", "a.verdict.json"]


def test_crossval_times_nothing(small_crossval: gate.Result) -> None:
    assert small_crossval.recording["series"] == []
    assert small_crossval.recording["plan"]["launches"] == 0
    assert all(row.ratio is None for row in small_crossval.table)
    assert small_crossval.verdict["agreement"]["exact"] == small_crossval.verdict["agreement"]["n"] > 0


def test_the_seed_decides_the_inputs() -> None:
    rows = [gate.crossval(workloads=[PRODUCT], seed=seed).recording["accuracy"] for seed in (1, 1, 2)]
    assert rows[0] == rows[1]
    assert rows[0] != rows[2]


def test_without_the_reference_nothing_passes() -> None:
    result = gate.crossval(workloads=[DEQUANTIZE, PRODUCT, DECODE], skip_cpp=True)
    assert result.verdict.verdict == "neutral"
    assert {"what": "cpp-*", "reason": "C++ skipped by request"} in list(result.recording.skipped)
    assert not any(row["backend"].startswith("cpp-") for row in result.recording.agreements)


def test_one_workload_alone_is_not_the_required_suite(small_crossval: gate.Result) -> None:
    one = gate.crossval(workloads=[PRODUCT])
    assert (one.verdict.verdict, one.verdict.exit_code) == ("neutral", 3)
    assert "category quantization" in one.verdict.evidence
    assert small_crossval.verdict.exit_code == 0
    # The same with a workload of each category lacks nothing.
    completeness = {rule["name"]: rule["verdict"] for rule in small_crossval.verdict["rules"]}["completeness"]
    assert completeness == "pass"


def test_a_plan_measures_nothing_and_names_everything() -> None:
    plan = gate.plan()
    assert plan.workload_ids == [workload["id"] for workload in gate.workloads()["workloads"]]
    assert plan["series"] == plan["agreements"] == plan["accuracy"] == []
    names = [backend["name"] for backend in gate.doctor()["backends"] if backend["available"]]
    assert plan.backends == names
    assert set(gate.plan(profile="full").workload_ids) > {PRODUCT}
    only = gate.plan(categories=["quantization"])["plan"]["workloads"]
    assert {workload["category"] for workload in only} == {"quantization"}


def test_progress_is_told_in_order_and_may_stop() -> None:
    told: list[tuple[int, int, float, str, str]] = []

    def watch(done: int, total: int, fraction: float, what: str, phase: str) -> None:
        told.append((done, total, fraction, what, phase))
        if phase == "timing" and fraction > 0.2:
            raise KeyboardInterrupt

    result = gate.run(workloads=[PRODUCT, DEQUANTIZE], progress=watch)
    assert result.recording.incomplete == "interrupted"
    assert result.verdict.verdict != "pass"  # what was measured may already show a failure
    assert [phase for *_, phase in told].index("plan") == 0
    assert "can confirm" in told.pop(0)[3]
    assert {what for _, _, _, what, _ in told} == {PRODUCT}
    assert [done + fraction for done, _, fraction, _, _ in told] == sorted(
        done + f for done, _, f, _, _ in told
    )
    # Blocks that were finished are kept.
    blocks = [max(series["block"]) + 1 for series in result.recording["series"]]
    assert blocks
    assert 0 < min(blocks) < result.recording["plan"]["blocks"]


def test_an_exception_of_the_display_is_raised_as_it_is() -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("of the display")

    with pytest.raises(ZeroDivisionError, match="of the display"):
        gate.crossval(workloads=[PRODUCT], progress=broken)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: gate.run(workloads=["matmul/i2s/640x2560/b1/t1/hot"]), f'did you mean "{PRODUCT}"'),
        (lambda: gate.run(categories=["kernel"]), "known: quantization, kernels, mixed_precision"),
        (lambda: gate.run(backends=["rust-avx3"]), "known here: rust-scalar"),
        (lambda: gate.run(profile="slow"), "known: quick, full"),
        (lambda: gate.run(iterations=0), "at least 1"),
        (lambda: gate.run(warmup=0), "warmup_calls"),
        (lambda: gate.run(seed=-1), "u64"),
        (lambda: gate.run(workloads=PRODUCT), "expected a list"),
        (lambda: gate.run(model=TINY_MODEL, workloads=[PRODUCT]), "model"),
        (lambda: gate.workloads("slow"), "known: quick, full"),
        (lambda: gate.identify(TINY_MODEL, tensor="nobody"), "nobody"),
        (lambda: gate.make_model("x.gguf", "huge"), "tiny"),
        (lambda: gate.make_model("x.gguf", "tiny", "i9_s"), "i2_s"),
    ],
)
def test_unusable_arguments_are_named(call: Callable[[], object], words: str) -> None:
    with pytest.raises(gate.InputError, match=words) as caught:
        call()
    assert isinstance(caught.value, ValueError)


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    for call in (gate.load_recording, gate.identify, lambda path: gate.run(model=path)):
        with pytest.raises(gate.FileError, match=r"none\.gguf") as caught:
            call(tmp_path / "none.gguf")
        assert isinstance(caught.value, OSError)


def test_a_recording_that_is_none_is_refused(tmp_path: Path, small_crossval: gate.Result) -> None:
    path = tmp_path / "x.recording.json"
    small_crossval.recording.save(path)
    whole = path.read_text("utf-8")
    for text in ("", "{}", whole[: len(whole) // 2], whole.replace("recording/1", "recording/9"), "[1]"):
        path.write_text(text, "utf-8")
        with pytest.raises(gate.InputError, match=r"x\.recording\.json"):
            gate.load_recording(path)


def test_saving_refuses_what_is_no_file(tmp_path: Path, small_crossval: gate.Result) -> None:
    for path in (Path("/dev/null"), tmp_path, tmp_path / "none" / "x.json"):
        with pytest.raises(gate.FileError):
            small_crossval.save(path)
    assert Path("/dev/null").is_char_device()
    assert list(tmp_path.iterdir()) == []
