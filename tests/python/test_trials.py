"""Samples measured elsewhere, through the real extension."""

import doctest
import json
import math
from pathlib import Path
from typing import Any

import pytest

import bitnet_perfgate as gate
from bitnet_perfgate import trials
from conftest import REPOSITORY

REAL = REPOSITORY / "tests" / "golden" / "trials" / "real.jsonl"


def trial(ratio: float = 1.0, **changes: Any) -> dict[str, Any]:
    noise = [1e6 * (1 + 0.001 * (i % 5)) for i in range(60)]
    return {"baseline": noise, "candidate": [ratio * x for x in noise], "mode": "intpin", **changes}


def test_doctests() -> None:
    found = doctest.testmod(trials)
    assert (found.attempted, found.failed) == (2, 0)


def test_a_mapping_and_a_file_give_the_same_answer(tmp_path: Path) -> None:
    path = tmp_path / "trial.json"
    path.write_text(json.dumps(trial(1.2, id="x")))
    answer = trials.judge_trial(trial(1.2, id="x")).data
    assert answer == trials.judge_trial(path).data == trials.judge_trial(str(path)).data
    assert (answer["id"], answer["verdict"], answer["certainty"]) == ("x", "fail", "confirmed")
    assert answer["severity"] == {"most_likely": "critical", "at_least": "critical"}
    assert answer["ratio"] == pytest.approx(1.2)
    assert answer["interval"] == pytest.approx([1.2 * math.exp(-0.02), 1.2 * math.exp(0.02)])
    assert {"mde", "reason", "n_blocks", "n_launches", "meter", "disturbance"} <= answer.keys()


def test_margin_and_strictness_are_used() -> None:
    likely = trials.judge_trial(trial(1.06)).data
    assert (likely["verdict"], likely["certainty"]) == ("fail", "likely")
    assert trials.judge_trial(trial(1.06), strict=True).verdict == "neutral"
    assert trials.judge_trial(trial(1.06), margin=0.10).verdict == "pass"
    for margin in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(gate.InputError, match="margin is"):
            trials.judge_trial(trial(), margin=margin)


def test_calibration_decides_what_an_unpinned_trial_may_say() -> None:
    slow = trial(1.08, mode="int")
    assert trials.judge_trial(slow).verdict == "neutral"
    equal = trial(mode="int")
    assert trials.judge_trial(slow, {"trials": [equal] * 8}).verdict == "fail"
    assert trials.judge_trial(slow, {"trials": [equal] * 7}).verdict == "neutral"


def test_real_trials_are_answered_line_by_line() -> None:
    lines = REAL.read_text().splitlines()
    answers = [answer.data for answer in trials.judge_trials(REAL)]
    assert [answer["id"] for answer in answers] == [json.loads(line)["id"] for line in lines]
    assert {answer["verdict"] for answer in answers} == {"pass", "neutral", "fail"}


def test_the_first_bad_line_is_named_after_the_answers_before_it(tmp_path: Path) -> None:
    path = tmp_path / "many.jsonl"
    path.write_text(json.dumps(trial()) + "\n\n{}\n")
    answers = trials.judge_trials(path)
    assert next(answers).verdict == "pass"
    with pytest.raises(gate.InputError, match=r"many\.jsonl:3: at baseline: is missing"):
        next(answers)
    assert list(answers) == []


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (trial(candidate=[math.nan]), r"trial: cannot be written as JSON"),
        (trial(candidate=[0] * 60), r"trial: at candidate\[0\]: is 0, expected a positive time in ns"),
        (trial(candidate=[1.0]), r"trial: at candidate: has 1 samples, baseline 60"),
        (trial(launch=[{1}]), r"cannot be written as JSON"),
        ({}, r"trial: at baseline: is missing"),
    ],
)
def test_what_is_no_trial_is_an_input_error(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(gate.InputError, match=message) as caught:
        trials.judge_trial(bad)
    assert isinstance(caught.value, ValueError)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[", '{"baseline":[1', "[" * 100_000, "\x00", "1e999"])
def test_files_that_hold_no_trial_are_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.json"
    path.write_text(text)
    for calibration in (None, path):
        with pytest.raises(gate.InputError, match=r"broken\.json: ") as caught:
            trials.judge_trial(trial() if calibration else path, calibration)
        assert "\n" not in str(caught.value)


def test_missing_files_are_file_errors(tmp_path: Path) -> None:
    missing = tmp_path / "no-such"
    with pytest.raises(gate.FileError, match="no-such"):
        trials.judge_trial(missing)
    with pytest.raises(gate.FileError, match="no-such"):
        list(trials.judge_trials(missing))
    with pytest.raises(gate.FileError, match="no-such"):
        trials.judge_trial(trial(), missing)
