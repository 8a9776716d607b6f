"""Samples measured elsewhere, through the real extension."""

import doctest
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bitnet_perfgate as gate
from bitnet_perfgate import trials
from conftest import REPOSITORY

GOLDEN = REPOSITORY / "tests" / "golden" / "trials"


def trial(ratio: float = 1.0, **changes: Any) -> dict[str, Any]:
    noise = [1e6 * (1 + 0.001 * (i % 5)) for i in range(60)]
    return {"baseline": noise, "candidate": [ratio * x for x in noise], "mode": "intpin", **changes}


def test_doctests() -> None:
    found = doctest.testmod(trials)
    assert (found.attempted, found.failed) == (3, 0)


def test_a_mapping_a_file_and_arrays_give_the_same_answer(tmp_path: Path) -> None:
    path = tmp_path / "trial.json"
    path.write_text(json.dumps(trial(1.2, id="x")))
    answer = trials.judge_trial(trial(1.2, id="x"))
    assert answer == trials.judge_trial(path) == trials.judge_trial(str(path))
    assert answer == trials.judge_trial({**trial(id="x"), "candidate": 1.2 * np.array(trial()["baseline"])})
    assert (answer["id"], answer["verdict"], answer["certainty"]) == ("x", "fail", "confirmed")
    assert answer["severity"] == {"most_likely": "critical", "at_least": "critical"}
    assert answer["ratio"] == pytest.approx(1.2)
    assert answer["interval"] == pytest.approx([1.2 * math.exp(-0.02), 1.2 * math.exp(0.02)])
    assert {"mde", "reason", "n_blocks", "n_launches", "meter", "disturbance", "limit"} <= answer.keys()


def test_margin_and_strictness_are_used() -> None:
    likely = trials.judge_trial(trial(1.06))
    assert (likely["verdict"], likely["certainty"]) == ("fail", "likely")
    assert trials.judge_trial(trial(1.06), strict=True)["verdict"] == "neutral"
    assert trials.judge_trial(trial(1.06), margin=0.10)["verdict"] == "pass"
    for margin in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(gate.InputError, match="margin is"):
            trials.judge_trial(trial(), margin=margin)


def test_calibration_decides_what_an_unpinned_trial_may_say() -> None:
    unpinned = trial(mode="int")
    assert trials.judge_trial(unpinned)["verdict"] == "neutral"
    answer = trials.judge_trial(unpinned, calibration={"trials": [unpinned] * 8})
    assert (answer["verdict"], answer["n_calibration"]) == ("pass", 8)
    assert trials.judge_trial(unpinned, calibration={"trials": [unpinned] * 7})["verdict"] == "neutral"


def test_real_trials_are_answered_line_by_line() -> None:
    lines = (GOLDEN / "trials.jsonl").read_text().splitlines()
    answers = list(trials.judge_trials(GOLDEN / "trials.jsonl", calibration=GOLDEN / "calibration.json"))
    assert [answer["id"] for answer in answers] == [json.loads(line)["id"] for line in lines]
    assert {answer["verdict"] for answer in answers} == {"pass", "neutral", "fail"}


def test_the_first_bad_line_is_named_after_the_answers_before_it(tmp_path: Path) -> None:
    path = tmp_path / "many.jsonl"
    path.write_text(json.dumps(trial()) + "\n\n{}\n")
    answers = trials.judge_trials(path)
    assert next(answers)["verdict"] == "pass"
    with pytest.raises(gate.InputError, match=r"many\.jsonl:3: at \.: missing field `baseline`"):
        next(answers)
    assert list(answers) == []


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (trial(baseline=[]), r"trial: at baseline: is empty"),
        (trial(candidate=[math.nan]), r"trial: at candidate\[0\]: expected"),
        (trial(candidate=[0] * 60), r"trial: at candidate\[0\]: is 0, expected a positive time in ns"),
        (trial(candidate=[1.0]), r"trial: at candidate: has 1 samples, baseline has 60"),
        (trial(launch=[{1}]), r"a set cannot be written as JSON"),
        ({}, r"missing field"),
    ],
)
def test_what_is_no_trial_is_an_input_error(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(gate.InputError, match=message) as caught:
        trials.judge_trial(bad)
    assert isinstance(caught.value, ValueError)
    assert "\n" not in str(caught.value)


def test_missing_files_are_file_errors(tmp_path: Path) -> None:
    with pytest.raises(gate.FileError, match="no-such"):
        trials.judge_trial(tmp_path / "no-such")
    with pytest.raises(gate.FileError, match="no-such"):
        trials.judge_trials(tmp_path / "no-such")
    with pytest.raises(gate.FileError, match="no-such"):
        trials.judge_trial(trial(), calibration=tmp_path / "no-such")
