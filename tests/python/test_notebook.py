"""Rich objects, frames and magics, as a notebook meets them. No assertion is about how fast something is."""

import time
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

import bitnet_perfgate as perfgate
from bitnet_perfgate import side_by_side
from conftest import PRODUCT
from test_page import Page


@pytest.fixture
def shell() -> Any:
    shell: Any = InteractiveShell()  # type: ignore[no-untyped-call]
    shell.run_line_magic("load_ext", "bitnet_perfgate")
    return shell


def test_every_object_shows_itself(small_run: perfgate.Result) -> None:
    comparison = small_run.verdict.comparisons[0]
    trial = perfgate.judge_trial({"baseline": [1e6] * 60, "candidate": [1e6] * 60, "mode": "intpin"})
    for shown in (small_run, small_run.verdict, small_run.recording, comparison, trial):
        page = Page(shown._repr_html_())
        assert "script" not in page.tags
        assert page.loads == [address for address in page.loads if address.startswith("#")]
        assert shown._repr_markdown_().strip()
    assert small_run.verdict.evidence.split("; ")[0] in small_run.verdict._repr_html_()
    assert small_run.verdict.evidence in small_run.verdict._repr_markdown_()
    assert small_run._repr_html_().count("<svg") == 1
    assert "GB/s" in small_run._repr_html_()
    assert f"{comparison.ratio:.3f}" in comparison._repr_markdown_()


def test_strangers_names_stay_text_in_a_notebook(small_run: perfgate.Result) -> None:
    row = {**small_run.verdict["comparisons"][0], "workload": "<b>|`x`\n"}
    comparison = perfgate.Comparison(row)
    assert "<b>" not in comparison._repr_html_().replace("<b>Evidence", "")
    assert len(comparison._repr_markdown_().splitlines()) == 3


def test_frames_hold_every_sample_and_comparison(small_run: perfgate.Result) -> None:
    samples = small_run.recording.to_pandas()
    series = small_run.recording["series"]
    assert len(samples) == sum(len(row["value_ns"]) for row in series)
    first = samples[
        (samples.workload == series[0]["workload"])
        & (samples.backend == series[0]["backend"])
        & (samples.meter == series[0]["meter"])
    ]
    assert list(first.value_ns) == series[0]["value_ns"]
    comparisons = small_run.verdict.to_pandas()
    assert list(comparisons.ratio) == [row["ratio"] for row in small_run.verdict["comparisons"]]
    assert list(comparisons.lower) == [row["interval"][0] for row in small_run.verdict["comparisons"]]
    nothing = perfgate.Recording({**small_run.recording.data, "series": []})
    assert nothing.to_pandas().empty


def test_the_line_magic_runs_and_returns_the_result(shell: Any) -> None:
    result = shell.run_line_magic("perfgate", f"crossval --workload {PRODUCT}")
    assert isinstance(result, perfgate.Result)
    assert result.recording.workload_ids == [PRODUCT]
    for line, words in (
        ("fly", "invalid choice"),
        ("run --nonsense 1", "unrecognized"),
        ("run --full", "%perfgate run"),
        ("crossval --workload nothing", "nothing"),
    ):
        with pytest.raises(perfgate.InputError, match=words):
            shell.run_line_magic("perfgate", line)


def test_the_cell_magic_tells_twice_the_work_from_once(shell: Any) -> None:
    shell.user_ns["n"] = 2000
    slower = shell.run_cell_magic(
        "perfgate", "--pairs 60 --margin 30%", "sum(range(n))\n---\nx = sum(range(3 * n))"
    )
    assert slower.verdict == "fail", slower.data
    assert slower["ratio"] > 1.5
    assert "x" not in shell.user_ns, "what a variant assigns stays its own"
    equal = shell.run_cell_magic("perfgate", "--margin 300% --pairs 60", "sum(range(n))\n---\nsum(range(n))")
    assert equal.verdict == "pass", equal.data


@pytest.mark.parametrize(
    ("line", "cell", "words"),
    [
        ("", "1 + 1", "two variants"),
        ("", "1\n---\n", "two variants"),
        ("", "1\n---\n2\n---\n3", "two variants"),
        ("", "1 +\n---\n2", "the baseline is no Python"),
        ("", "1\n---\n# nothing", "the candidate has no statement"),
        ("--margin much", "1\n---\n2", "--margin 'much'"),
        ("--pairs 1", "1\n---\n2", "pairs is 1"),
    ],
)
def test_a_cell_that_cannot_be_compared_is_refused(shell: Any, line: str, cell: str, words: str) -> None:
    with pytest.raises(perfgate.InputError, match=words):
        shell.run_cell_magic("perfgate", line, cell)


def test_waiting_is_seen() -> None:
    """Wall time decides: CPU time alone would not see a side that sleeps."""
    trial = side_by_side.time_pairs(lambda: None, lambda: time.sleep(0.002), 4)
    assert "candidate_cpu" not in trial
    assert min(trial["candidate"]) > 2e6
    assert len(trial["baseline"]) == len(trial["candidate"]) == 4
    with_cpu = side_by_side.time_pairs(lambda: None, lambda: time.sleep(0.002), 4, cpu_time=True)
    assert max(with_cpu["candidate_cpu"]) < 2e6
