"""Progress on stderr: a bar with the time left on a terminal, a few plain lines elsewhere.

Nothing here runs on a thread of its own: the bar is drawn only when Rust calls between two steps, so that it
never works while something is timed.
"""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from bitnet_perfgate.display import printable

REDRAW_S = 0.2
PLAIN_LINES = 10
SLOW_FILE_BYTES = 100_000_000


class ProgressDisplay:
    """Shows how far something is; a context manager. ``verbosity``: -1 nothing, 0 sparse, 1 every step."""

    def __init__(self, console: Console, verbosity: int = 0) -> None:
        """Writes to ``console``, which belongs to stderr."""
        self._console = console
        self._verbosity = verbosity
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._drawn_at = 0.0
        self._last_line: object = None
        if console.is_terminal and not console.is_dumb_terminal and verbosity >= 0:
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=12),
                TextColumn("{task.percentage:>3.0f} %"),
                TimeRemainingColumn(compact=True),
                TextColumn("left"),
            )
            self._bar = Progress(*columns, console=console, auto_refresh=False, transient=True)
            self._task = self._bar.add_task("starting", total=1.0)

    def __enter__(self) -> ProgressDisplay:
        """Begins to show."""
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Takes the bar away."""
        if self._bar:
            self._bar.stop()

    def __call__(self, done: int, total: int, fraction: float, what: str, phase: str) -> None:
        """The progress of a run (`bitnet_perfgate.runs.Progress`)."""
        if phase == "plan":
            self.say(what)
            return
        self.show(done + fraction, total, f"{phase:9} {what}", step=(done, f"[{done + 1}/{total}] {what}"))

    def say(self, sentence: str) -> None:
        """A line of its own."""
        if self._verbosity >= 0:
            try:
                self._console.print(printable(sentence), soft_wrap=True)
            except OSError:
                self._verbosity = -1
                self._bar = None

    def bytes_written(self, done: int, total: int) -> None:
        """The progress of a file that is being written."""
        if total >= SLOW_FILE_BYTES:
            self.show(done, total, "writing", step=(done, f"{done / 1e6:.0f} of {total / 1e6:.0f} MB"))

    def show(self, done: float, total: float, what: str, step: tuple[int, str]) -> None:
        """``done`` of ``total``, doing ``what``; ``step`` is a number and its plain line."""
        if self._verbosity < 0:
            return
        try:
            self._draw(done, total, what, step)
        except OSError:
            # Nobody sees it: that ends the display, never the run.
            self._verbosity = -1
            self._bar = None

    def _draw(self, done: float, total: float, what: str, step: tuple[int, str]) -> None:
        if self._bar:
            now = time.monotonic()
            if now - self._drawn_at >= REDRAW_S or done >= total:
                self._drawn_at = now
                self._bar.update(self._task, description=printable(what), completed=done, total=total)
                self._bar.refresh()
            return
        number, line = step
        mark = number if self._verbosity > 0 else int(number * PLAIN_LINES / max(total, 1))
        if mark != self._last_line:
            self._last_line = mark
            self._console.print(printable(line), soft_wrap=True)
