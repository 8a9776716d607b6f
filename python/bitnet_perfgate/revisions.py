"""Another revision beside this one, both built with the same flags. Rust runs git and cargo."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from bitnet_perfgate import _core
from bitnet_perfgate.documents import Result
from bitnet_perfgate.regression import compare_libraries
from bitnet_perfgate.runs import Progress, StrPath


def compare_revision(
    rev: str, *, folder: StrPath = ".", progress: Progress | None = None, **options: Any
) -> Result:
    """Builds the git revision ``rev`` and the working tree of the checkout at ``folder``; judges the latter.

    ``options`` are those of `compare_libraries`. Builds are kept below ``target/perfgate``: a revision that
    is already built is not built again.

    Raises `InputError` for an unknown revision, one that is too old to be loaded beside this one, and a
    build that fails, each with what git or cargo said.
    """
    path = os.fspath(folder)
    old, commit, _ = _core.build_library(path, rev, progress)
    new, head, dirty = _core.build_library(path, None, progress)
    name = f"{rev} ({commit[:12]})"
    if not dirty and head == commit:
        name += ", which is this very revision"
    return compare_libraries(Path(old), Path(new), name=name, progress=progress, **options)
