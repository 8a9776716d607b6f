"""Is it slower than before: against accepted recordings, other builds, other recordings. Rust judges."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bitnet_perfgate import _core
from bitnet_perfgate.documents import Document, Recording, Result, Verdict
from bitnet_perfgate.imports import compare_imported, is_imported
from bitnet_perfgate.runs import DEFAULT_SEED, Progress, StrPath, judgement, measure_against, plan

BASELINES_FOLDER = Path("benchmark-results/baselines")
MOST_SESSIONS = 12
RECORD_COMMAND = "python -m bitnet_perfgate baseline record"


def gate(
    *,
    baseline: StrPath = BASELINES_FOLDER,
    model: StrPath | None = None,
    categories: Iterable[str] = (),
    workloads: Iterable[str] = (),
    backends: Iterable[str] = (),
    plugins: Iterable[StrPath] = (),
    profile: str = "quick",
    iterations: int = 1,
    warmup: int = 1,
    counts: str = "wall",
    seed: int = DEFAULT_SEED,
    skip_cpp: bool = False,
    thresholds: StrPath | None = None,
    strict: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Measures as `run` does, and judges a regression against accepted recordings of this machine and builds.

    ``baseline`` is the folder of a store, or one recording. Nothing is written: only `accept_baseline`
    writes baselines. Without one the verdict is neutral and says how to record one. The other arguments
    and the errors are those of `run`.
    """
    options: dict[str, Any] = {
        "model": model,
        "categories": categories,
        "workloads": workloads,
        "backends": backends,
        "plugins": plugins,
        "seed": seed,
        "skip_cpp": skip_cpp,
    }
    timing: dict[str, Any] = {
        "profile": profile,
        "iterations": iterations,
        "warmup": warmup,
        "counts": counts,
    }
    planned = plan(**options, **timing)
    against = judgement(thresholds, strict, **sessions_of(Path(baseline), planned))
    return measure_against(options, against, progress, **timing)


def sessions_of(baseline: Path, planned: Recording) -> dict[str, Any]:
    """Which accepted recordings today is compared with, or why there are none."""
    retry = "python -m bitnet_perfgate gate --iterations 3"
    if baseline.is_file():
        return {"baselines": [str(baseline)], "baseline_name": baseline.name, "retry": retry}
    name, paths = _core.find_baselines(baseline, planned.to_json(), MOST_SESSIONS)
    found = {"baselines": [str(path) for path in paths], "baseline_name": name, "retry": retry}
    if not paths:
        found["why_missing"] = f"{baseline} holds no baseline of this machine and these builds ({name})"
        found["record_command"] = RECORD_COMMAND
    return found


def compare(
    earlier: StrPath | Sequence[StrPath],
    later: StrPath,
    *,
    thresholds: StrPath | None = None,
    strict: bool = False,
    names: Mapping[str, str] | None = None,
    same_machine: bool = False,
) -> Result:
    """Judges the recording ``later`` against one or several ``earlier`` ones, oldest first.

    What was not measured in the same blocks is compared through the ratio to the C++ reference; with fewer
    than three earlier recordings the answer is neutral at best, and red only beyond 15 %. Two imported
    recordings are judged by `compare_imported`, whose are ``names`` and ``same_machine``.

    Raises `FileError` and `InputError` as `load_recording`.
    """
    paths = [earlier] if isinstance(earlier, str | os.PathLike) else list(earlier)
    if not paths:
        raise _core.InputError("compare: no earlier recording is named")
    if any(is_imported(path) for path in (*paths, later)):
        if len(paths) != 1:
            raise _core.InputError(
                f"compare: {len(paths) + 1} recordings given, some imported; expected EARLIER LATER; "
                "`import` takes several files of one side"
            )
        return compare_imported(
            paths[0],
            later,
            names=names,
            same_machine=same_machine,
            thresholds=thresholds,
            strict=strict,
        )
    if names or same_machine:
        raise _core.InputError("compare: names and same_machine: expected imported recordings")
    named = ", ".join(Path(path).name for path in paths)
    retry = "python -m bitnet_perfgate compare --rev REF"
    against = judgement(
        thresholds, strict, baselines=[os.fspath(path) for path in paths], baseline_name=named, retry=retry
    )
    text = _core.load_recording(os.fspath(later))
    verdict = _core.judge(text, json.dumps(against))
    return Result.of(Recording(json.loads(text)), Verdict(json.loads(verdict)))


def compare_libraries(
    old: StrPath,
    new: StrPath | None = None,
    *,
    name: str | None = None,
    categories: Iterable[str] = (),
    workloads: Iterable[str] = (),
    backends: Iterable[str] = (),
    profile: str = "quick",
    iterations: int = 1,
    warmup: int = 1,
    counts: str = "wall",
    seed: int = DEFAULT_SEED,
    thresholds: StrPath | None = None,
    strict: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Times two builds of this project in the same blocks, backend by backend, and judges the new one.

    ``old`` and ``new`` are shared libraries that export ``bitnet_backend_v1``; without ``new`` it is the
    build that runs now. Both are loaded through the same contract, and the old one twice: what two copies
    of one build differ by is the floor of every interval. Loading a library runs its code.
    """
    with tempfile.TemporaryDirectory(prefix="perfgate-builds-") as folder:
        copies = {
            side: _copy(path, Path(folder) / f"{side}.so")
            for side, path in (("old", old), ("old_again", old), ("new", new or this_build()))
        }
        options: dict[str, Any] = {
            "model": None,
            "categories": categories,
            "workloads": workloads,
            "backends": backends,
            "plugins": (),
            "seed": seed,
            "builds": copies,
        }
        retry = "python -m bitnet_perfgate compare --library FILE --iterations 3"
        against = judgement(thresholds, strict, revision=name or Path(old).name, retry=retry)
        try:
            timing: dict[str, Any] = {
                "profile": profile,
                "iterations": iterations,
                "warmup": warmup,
                "counts": counts,
            }
            return measure_against(options, against, progress, **timing)
        except _core.InputError as error:
            # Named as the caller named them, not as their copies.
            text = str(error)
            for copy, path in ((copies["old"], old), (copies["new"], new or this_build())):
                text = text.replace(copy, os.fspath(path))
            raise _core.InputError(text) from None


def this_build() -> Path:
    """The shared library that runs now."""
    file = _core.__file__
    if file is None:
        raise _core.InputError("this build does not know its own file; name the new library")
    return Path(file)


def _copy(source: StrPath, target: Path) -> str:
    """A copy of a library: the same file loaded twice would be loaded once."""
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        raise _core.FileError(f"{source}: cannot read it: {error.strerror or error}") from error
    return str(target)


def accept_baseline(
    recording: StrPath | Recording,
    *,
    why: str,
    who: str | None = None,
    baseline: StrPath = BASELINES_FOLDER,
    platform: str | None = None,
) -> Path:
    """Adds a recording to the baselines of its machine and builds; returns the new file.

    Refuses with `InputError` what is incomplete, holds no samples, disagrees with the oracle or looks made
    up. ``platform`` is ``<os>-<arch>``; another one than the recording's is refused.
    """
    text = (
        recording.to_json()
        if isinstance(recording, Recording)
        else _core.load_recording(os.fspath(recording))
    )
    return Path(_core.accept_baseline(os.fspath(baseline), text, who or _user(), why, platform))


def list_baselines(baseline: StrPath = BASELINES_FOLDER) -> list[Document]:
    """Every baseline of a store, oldest first within a machine: where, of which machine, who, when, why."""
    return [Document(row) for row in json.loads(_core.list_baselines(os.fspath(baseline)))]


def diff_baselines(earlier: StrPath, later: StrPath) -> Document:
    """What keeps two recordings from being compared, and which workloads appeared and vanished."""
    texts = [_core.load_recording(os.fspath(path)) for path in (earlier, later)]
    then, now = (set(Recording(json.loads(text)).workload_ids) for text in texts)
    return Document(
        {
            "mismatches": json.loads(_core.mismatches(*texts)),
            "appeared": sorted(now - then),
            "vanished": sorted(then - now),
        }
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
