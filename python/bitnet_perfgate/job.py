"""What every command shares around its work: where results go, what stdout and stderr get, how it ends."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, TypeVar

from rich.console import Console

import bitnet_perfgate as gate
from bitnet_perfgate import display, environment, reports
from bitnet_perfgate.documents import RECORDING_SUFFIX, check_writable, verdict_path
from bitnet_perfgate.interruption import EXIT_INTERRUPTED, interruption_announced
from bitnet_perfgate.progress import ProgressDisplay

RESULTS_FOLDER = Path("benchmark-results")
Shown = TypeVar("Shown", bound=gate.Document)


class Job:
    """What `run` and `crossval` share around the measuring: where results go, and how it ends."""

    def __init__(
        self, format: str, output: Path | None, inputs: Sequence[Path], neutral_exit: int, verbosity: int
    ) -> None:
        """Finds out now whether the results can be written, and would replace none of the ``inputs``."""
        self.format = format
        self.neutral_exit = neutral_exit
        self.verbosity = verbosity
        self.target = output or _default_output()
        for document in (self.target, verdict_path(self.target)):
            check_writable(document)
            refuse_to_replace(document, inputs)
        if os.environ.get(environment.CPP_DIR) and verbosity >= 0:
            complain(f"note: {environment.CPP_DIR} is {environment.MEANINGS[environment.CPP_DIR]}")

    def perform(self, measure: Callable[[ProgressDisplay], gate.Result]) -> int:
        """Measures, saves, shows, and returns the exit code."""
        with (
            interruption_announced(complain),
            ProgressDisplay(display.console_on(sys.stderr), self.verbosity) as progress,
        ):
            result = measure(progress)
        unsaved = None
        saved: list[str] = []
        try:
            result = result.save(
                self.target, [shlex.join(["python", "-m", "bitnet_perfgate", *sys.argv[1:]])]
            )
            saved = [str(self.target), verdict_path(self.target).name]
        except gate.FileError as error:
            # What was measured is still shown.
            unsaved = error
        write(shown(result, self.format, saved, self.verbosity))
        if unsaved:
            raise unsaved
        if result.recording.incomplete == "interrupted":
            complain(f"interrupted: what was measured until then is in {self.target}")
            return EXIT_INTERRUPTED
        return self.neutral_exit if result.verdict.verdict == "neutral" else result.verdict.exit_code


def shown(result: gate.Result, format: str, saved: Sequence[str], verbosity: int) -> str:
    """A result as stdout gets it."""
    if format == "human":
        return rendered(lambda console: display.show_result(console, result, saved, verbosity))
    return reports.report(result, format=format)


def refuse_to_replace(document: Path, inputs: Sequence[Path], option: str = "--output") -> None:
    """Raises `FileError` if ``document`` is one of the ``inputs``, under whatever name."""
    for path in inputs:
        if document.exists() and path.exists() and document.samefile(path):
            raise gate.FileError(
                f"{document}: will not write it: it is the input {path}; name another {option}"
            )


def _default_output() -> Path:
    """A new name in `RESULTS_FOLDER`, which is made."""
    try:
        RESULTS_FOLDER.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise gate.FileError(
            f"{RESULTS_FOLDER}: cannot make this folder: {error.strerror}; or name --output"
        ) from error
    stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    names = (
        RESULTS_FOLDER / f"{stamp}{suffix}{RECORDING_SUFFIX}"
        for suffix in ("", *(f"-{n}" for n in range(2, 1000)))
    )
    return next(path for path in names if not path.exists())


def present(document: Shown, format: str, show: Callable[[Console, Shown], None]) -> None:
    """Writes a document to stdout, as JSON or as ``show`` shows it."""
    write(
        document.to_json() + "\n" if format == "json" else rendered(lambda console: show(console, document))
    )


def rendered(show: Callable[[Console], None]) -> str:
    """What ``show`` prints, made for stdout."""
    console = display.console_on(sys.stdout)
    with console.capture() as captured:
        show(console)
    # Tables are padded to their width, which only makes copied text longer.
    return "".join(f"{line.rstrip()}\n" for line in captured.get().splitlines())


def write(text: str) -> None:
    """Writes to stdout. A reader that has seen enough and left is no error, any other failure is."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        discard(sys.stdout)
    except OSError as error:
        raise gate.FileError(f"stdout: cannot write: {error.strerror}") from error


def complain(line: str) -> None:
    """One line on stderr. Nobody is left to tell if this fails."""
    try:
        sys.stderr.write(display.printable(" ".join(line.split())) + "\n")
        sys.stderr.flush()
    except OSError:
        discard(sys.stderr)


def discard(stream: IO[str]) -> None:
    """Sends a stream nowhere: whatever is still buffered must not fail again when the interpreter ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
