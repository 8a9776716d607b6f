"""Other tools' result files as recordings, and two of them judged. Rust reads and judges.

criterion, cargo-criterion, critcmp, google-benchmark, hyperfine, pytest-benchmark, llama-bench and files of
BitNet.rs; `docs/IMPORTS.md` says which field becomes which, and what may be concluded.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from bitnet_perfgate import _core
from bitnet_perfgate.documents import Recording, Result, Verdict

StrPath = str | os.PathLike[str]


def import_results(
    files: StrPath | Sequence[StrPath], *, tool: str | None = None, saved: str = "new"
) -> Recording:
    """Reads another tool's results; several files of one tool are launches of the same benchmarks.

    ``tool`` is seen from the content if it is not named. A criterion tree is the folder
    ``target/criterion``, of which ``saved`` is read: ``new``, ``base`` or a saved baseline's name. Workload
    ids are the other tool's names behind a prefix, ``hyperfine:make all``.

    Raises `FileError` if a file cannot be read, `InputError` if it has another shape: the line names the
    file, the place and what was expected.
    """
    paths = [files] if isinstance(files, str | os.PathLike) else list(files)
    text = _core.import_results([os.fspath(path) for path in paths], tool, saved)
    return Recording(json.loads(text))


def compare_imported(
    earlier: StrPath,
    later: StrPath,
    *,
    names: Mapping[str, str] | None = None,
    same_machine: bool = False,
    thresholds: StrPath | None = None,
    strict: bool = False,
) -> Result:
    """Judges the imported recording ``later`` against ``earlier``, benchmark by benchmark.

    Benchmarks of equal names belong together, and those that ``names`` maps (earlier to later). Their
    samples were never interleaved, so only large slow-downs are red; where one side has no samples nothing
    passes. ``same_machine`` vouches for the machine where the files do not name it; without, nothing passes.

    Raises `FileError` and `InputError` as `load_recording`.
    """
    judgement = {
        "thresholds": os.fspath(thresholds) if thresholds else None,
        "strict": strict,
        "map": list((names or {}).items()),
        "same_machine": same_machine,
    }
    verdict = _core.judge_imported(os.fspath(earlier), os.fspath(later), json.dumps(judgement))
    text = _core.load_recording(os.fspath(later))
    return Result.of(Recording(json.loads(text)), Verdict(json.loads(verdict)))


def is_imported(path: StrPath) -> bool:
    """Whether the recording at ``path`` was imported. Raises as `load_recording`."""
    return "origin" in json.loads(_core.load_recording(os.fspath(path)))


def default_target(source: StrPath) -> Path:
    """Where the recording of a file goes if no other place is named: beside where one stands, under its name.

    >>> str(default_target("results/run.json"))
    'run.recording.json'
    """
    path = Path(source)
    return Path(f"{path.stem if path.suffix else path.name}.recording.json")
