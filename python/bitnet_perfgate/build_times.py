"""How long clean and incremental builds take, judged against accepted recordings of builds."""

from __future__ import annotations

import json
import os
from pathlib import Path

from bitnet_perfgate import _core
from bitnet_perfgate.documents import Recording, Result, Verdict
from bitnet_perfgate.regression import BASELINES_FOLDER, sessions_of
from bitnet_perfgate.runs import Progress, StrPath, judgement

REPEATS = 3
ACCEPT_COMMAND = "python -m bitnet_perfgate baseline accept RECORDING --why ..."


def build_time(
    project: StrPath = ".",
    *,
    repeats: int = REPEATS,
    release: bool = False,
    baseline: StrPath = BASELINES_FOLDER,
    thresholds: StrPath | None = None,
    strict: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Builds a Rust project again and again, offline, and judges the times.

    Each repeat is a clean ``cargo build`` and one after a comment was added to the root source, in a copy
    of the sources below ``target/perfgate/build-time``. More than 20 % longer than in the accepted
    recordings fails; with fewer than three of them it is neutral, unless it is longer for sure.

    Raises `InputError` where there is no project or it does not build, with what cargo said.

    Example:
        >>> build_time(repeats=2).verdict.verdict  # doctest: +SKIP
    """
    text = _core.time_builds(os.fspath(project), repeats, release, progress)
    recording = Recording(json.loads(text))
    retry = f"python -m bitnet_perfgate build-time --repeats {2 * repeats}"
    found = {**sessions_of(Path(baseline), recording), "retry": retry}
    if "why_missing" in found:
        found["record_command"] = ACCEPT_COMMAND
    verdict = _core.judge(text, json.dumps(judgement(thresholds, strict, **found)))
    return Result.of(recording, Verdict(json.loads(verdict)))
