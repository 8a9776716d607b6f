"""Samples measured elsewhere: judge two arrays of times, with or without earlier A/A trials.

Nothing here measures. A trial is a mapping (or a JSON file) with ``baseline`` and ``candidate``, nanoseconds
of wall time per sample in the order taken; optional are ``baseline_cpu`` and ``candidate_cpu`` (CPU time of
the same samples), ``launch`` (process pair of each sample), ``order`` (who went first), ``mode`` (``seq``,
``int``, ``intpin``, ``int5pin``, ``duet``) and ``id``. A trial that does not say that its sides alternated is
read as one after the other. A calibration is ``{"trials": [...]}``: earlier trials of a build against itself,
collected in the same way.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any, cast

from bitnet_perfgate import _core

StrPath = str | os.PathLike[str]
Calibration = StrPath | Mapping[str, Any]


def judge_trial(
    trial: StrPath | Mapping[str, Any],
    calibration: Calibration | None = None,
    margin: float = 0.05,
    strict: bool = False,
) -> dict[str, Any]:
    """Is the candidate slower than the baseline by more than ``margin``?

    Args:
        trial: the trial, or the path of its JSON file.
        calibration: earlier A/A trials of the same mode, or the path of their file; without at least
            eight, a floor by mode holds, and ``seq`` and ``int`` never pass.
        margin: the largest slow-down that is no failure, a share: 0.05 is 5 %.
        strict: slow-downs that are only likely are neutral instead of red.

    Returns:
        ``verdict`` (``pass``, ``fail``, ``neutral``), ``certainty`` (``confirmed``, ``likely``,
        ``inconclusive``), ``severity`` (``most_likely``, ``at_least``), ``ratio`` and ``interval`` (time of
        the candidate over the baseline), ``mde`` (ratio - 1), ``reason``, ``meter`` (``cpu`` where it is
        given), ``mode``, ``n_blocks``, ``n_launches``, ``disturbance``, ``floor`` (half width, ln of a
        ratio), ``n_calibration``, ``limit``, and ``id`` where the trial has one. ``severity``, ``ratio``,
        ``interval`` and ``mde`` are ``None`` if the samples are too few; the verdict is neutral then.

    Raises:
        InputError: what was given is no trial; the message names the place.
        FileError: a file cannot be opened or read.

    Example:
        >>> samples = [1000.0 + i % 7 for i in range(60)]
        >>> answer = judge_trial({"baseline": samples, "candidate": samples, "mode": "intpin"})
        >>> answer["verdict"], answer["certainty"], answer["n_blocks"]
        ('pass', 'confirmed', 20)
    """
    judge = _judge(calibration, margin, strict)
    if isinstance(trial, Mapping):
        return _document(judge.judge_text(_text(trial)))
    return _document(judge.judge_file(trial))


def judge_trials(
    path: StrPath,
    calibration: Calibration | None = None,
    margin: float = 0.05,
    strict: bool = False,
) -> Iterator[dict[str, Any]]:
    """Judges a file of JSON lines: one trial a line, one answer for each in their order.

    Blank lines are passed over. Lines are read as they are asked for: the first one that is no trial
    raises `InputError`, which names file and line, after the answers before it. Arguments, answers and errors are those of `judge_trial`.

    Example:
        >>> [answer["verdict"] for answer in judge_trials("trials.jsonl")]  # doctest: +SKIP
    """
    return map(_document, _judge(calibration, margin, strict).judge_lines(path))


def _judge(calibration: Calibration | None, margin: float, strict: bool) -> _core.TrialJudge:
    if isinstance(calibration, Mapping):
        return _core.TrialJudge(margin, strict, calibration=_text(calibration))
    return _core.TrialJudge(margin, strict, calibration_path=calibration)


def _document(answer: str) -> dict[str, Any]:
    return cast(dict[str, Any], json.loads(answer))


def _text(document: Mapping[str, Any]) -> str:
    """JSON text; arrays of NumPy and other libraries become lists."""

    def listed(value: object) -> Any:
        if hasattr(value, "tolist"):
            return value.tolist()
        raise _core.InputError(f"trial: a {type(value).__name__} cannot be written as JSON")

    return json.dumps(document, default=listed)
