"""Progress in a notebook or a script: a bar of tqdm, which finds out where it is shown."""

from __future__ import annotations

from typing import IO, Any

MISSING = "tqdm is not installed: pip install bitnet-perfgate[notebook]"


class ProgressBar:
    """What functions that take ``progress`` are given to show a bar, with the time left.

    It ends with its last user: write ``progress=ProgressBar()``, or `close` it. Drawn between two steps only,
    never while something is timed.

    Args:
        file: a text stream instead of stderr; a notebook shows a widget where it can.

    Raises:
        ImportError: tqdm is not installed; the message names the extra.

    Example:
        >>> crossval(workloads=["overhead/call"], progress=ProgressBar())  # doctest: +SKIP
    """

    def __init__(self, file: IO[str] | None = None) -> None:
        """Shows nothing before the first step."""
        try:
            from tqdm.auto import tqdm  # type: ignore[import-untyped]
        except ImportError as error:
            raise ImportError(MISSING) from error
        self._tqdm: Any = tqdm
        self._file = file
        self._bar: Any = None

    def __call__(self, done: int, total: int, fraction: float = 0.0, what: str = "", phase: str = "") -> None:
        """``done`` steps of ``total``, and ``fraction`` of the next one, which is about ``what``."""
        if phase == "plan":
            self._tqdm.write(what, file=self._file)
            return
        if self._bar is None:
            form = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
            self._bar = self._tqdm(total=total, file=self._file, bar_format=form)
        self._bar.total = total
        self._bar.n = min(done + fraction, total)
        self._bar.set_description_str(what, refresh=False)
        self._bar.refresh()

    def close(self) -> None:
        """Leaves the bar as it is; it may be used for another run."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
