"""The measuring process of a launch: one order on stdin, steps and a recording on stdout, served by Rust."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

from bitnet_perfgate import _core, callables


def command() -> list[str]:
    """The command line that starts a fresh measuring process with this interpreter and this package."""
    return [sys.executable, "-m", "bitnet_perfgate", "worker"]


def main() -> NoReturn:
    """Serves and exits. Ctrl-C reaches the whole terminal; here it is the parent that says when to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Orders and answers own the standard streams; what a callable prints or reads must not come between.
    sys.stdout = sys.stderr
    with Path(os.devnull).open() as nothing:
        sys.stdin = nothing
        sys.exit(_core.worker(callables.found))
