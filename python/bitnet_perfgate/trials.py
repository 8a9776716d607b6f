"""Samples measured elsewhere: two arrays of times in, pass, fail or neutral out. Rust reads and judges.

A trial is ``{"baseline": [ns...], "candidate": [ns...]}`` with optional ``baseline_cpu``,
``candidate_cpu``, ``launch``, ``order``, ``mode`` (``seq``, ``int``, ``intpin``, ``int5pin``, ``duet``) and
``id``; `docs/STATISTICS.md` says how it is judged.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bitnet_perfgate import _core
from bitnet_perfgate.documents import Document

StrPath = str | os.PathLike[str]
DEFAULT_MARGIN = 0.05
LARGEST_FILE = 1 << 30


class TrialVerdict(Document):
    """The answer on one trial."""

    @property
    def verdict(self) -> str:
        """``pass``, ``fail`` or ``neutral``."""
        answer: str = self.data["verdict"]
        return answer

    def _repr_html_(self) -> str:
        from bitnet_perfgate import notebook

        return notebook.trial_html(self)

    def _repr_markdown_(self) -> str:
        from bitnet_perfgate import notebook

        return notebook.trial_markdown(self)


def judge_trial(
    trial: StrPath | Mapping[str, Any],
    calibration: StrPath | Mapping[str, Any] | None = None,
    *,
    margin: float = DEFAULT_MARGIN,
    strict: bool = False,
) -> TrialVerdict:
    """Judges one trial, a file or a mapping, against the slow-down ``margin`` (0.05 is 5 %).

    ``calibration`` holds earlier trials of two equal sides of the same kind: ``{"trials": [...]}``.

    Raises `FileError` if a file cannot be read, `InputError` if it is no trial.

    >>> times = [1000.0 + i % 7 for i in range(60)]
    >>> judge_trial({"baseline": times, "candidate": times, "mode": "intpin"}).verdict
    'pass'
    """
    judge = _judge(calibration, margin, strict)
    text, name = _text(trial, "trial")
    return TrialVerdict(json.loads(judge.judge(text, name)))


def judge_trials(
    path: StrPath,
    calibration: StrPath | Mapping[str, Any] | None = None,
    *,
    margin: float = DEFAULT_MARGIN,
    strict: bool = False,
) -> Iterator[TrialVerdict]:
    """Judges the trials of a file with one on each line, in order; errors as `judge_trial`."""
    judge = _judge(calibration, margin, strict)
    text, name = _text(path, "trials")
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield TrialVerdict(json.loads(judge.judge(line, f"{name}:{number}")))


def _judge(calibration: StrPath | Mapping[str, Any] | None, margin: float, strict: bool) -> _core.TrialJudge:
    if calibration is None:
        return _core.TrialJudge(margin, strict)
    text, name = _text(calibration, "calibration")
    return _core.TrialJudge(margin, strict, text, name)


def _text(source: StrPath | Mapping[str, Any], name: str) -> tuple[str, str]:
    """The JSON text of a document, and what errors call it."""
    if isinstance(source, Mapping):
        try:
            return json.dumps(source, allow_nan=False), name
        except (TypeError, ValueError, RecursionError) as error:
            raise _core.InputError(f"{name}: cannot be written as JSON: {error}") from error
    path = Path(source)
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise _core.FileError(f"{path}: cannot read it: {error.strerror or error}") from error
    if len(content) > LARGEST_FILE:
        raise _core.InputError(f"{path}: larger than {LARGEST_FILE} bytes")
    try:
        return content.decode(), str(path)
    except UnicodeDecodeError as error:
        raise _core.InputError(f"{path}: is not UTF-8 (byte {error.start})") from error
