"""A recording and its verdict, rendered. Rust writes sections, Markdown and JUnit; nothing is decided."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bitnet_perfgate import _core, display
from bitnet_perfgate.documents import Document, Recording, Result, Verdict

StrPath = str | os.PathLike[str]
ReportFormat = Literal["human", "json", "junit", "markdown", "html"]
FORMATS: tuple[str, ...] = ("human", "json", "junit", "markdown", "html")
PLAIN_WIDTH = 110


@dataclass(frozen=True)
class Report(Document):
    """Every section of a report as data, in the order shown; `docs/READ_A_VERDICT.md` explains them.

    Fields: ``title``, ``decision``, ``evidence``, ``summary``; lists of ``name`` and ``text``: ``setting``,
    ``performance``, ``analysis``, ``crossval``, ``next``; ``matrix`` (rows of ``component``, ``features``,
    ``baseline``, ``current``, ``delta``, ``status``, ``reason``), ``matrix_notes``, ``commands``.
    """

    @property
    def matrix(self) -> Sequence[Mapping[str, str]]:
        """Rows of the benchmark results matrix."""
        rows: Sequence[Mapping[str, str]] = self.data["matrix"]
        return rows


def load_verdict(verdict: StrPath, recording: StrPath | None = None) -> Result:
    """Reads a verdict and the recording it is about; without a name, the one the verdict names, beside it.

    Raises `FileError` if a file cannot be read, `InputError` if it is none of its kind, or if the two do not
    belong together.
    """
    path = Path(verdict)
    if recording is None:
        named = _core.recording_of(path)
        if named is None:
            raise _core.InputError(f"{path}: names no recording; say which with --recording")
        if Path(named).name != named:
            raise _core.InputError(f"{path}: names the recording {named!r}, expected a file name beside it")
        recording = path.with_name(named)
    text = _core.load_recording(os.fspath(recording))
    judged = Verdict(json.loads(_core.load_verdict(path, text)))
    return Result.of(Recording(json.loads(text)), judged)


def sections(result: Result) -> Report:
    """The report of a result, as data."""
    return Report(json.loads(_core.report_sections(*_documents(result))))


def report(
    verdict: StrPath | Result,
    recording: StrPath | None = None,
    *,
    format: str = "markdown",
    baseline: StrPath | None = None,
) -> str:
    """A verdict rendered as ``human``, ``json``, ``junit``, ``markdown`` or ``html``.

    ``verdict`` is a file or the result of a run. ``baseline`` is a folder of accepted recordings whose
    history the HTML page draws. Errors are those of `load_verdict`.

    Example:
        >>> print(report("benchmark-results/x.verdict.json"))  # doctest: +SKIP
    """
    result = verdict if isinstance(verdict, Result) else load_verdict(verdict, recording)
    if format == "json":
        return result.verdict.to_json() + "\n"
    if format == "markdown":
        return _core.report_markdown(*_documents(result))
    if format == "junit":
        return _core.report_junit(*_documents(result))
    if format == "html":
        from bitnet_perfgate import html

        return html.page(result, baseline)
    if format == "human":
        return _plain(result)
    raise _core.InputError(f"no format is called {format!r}; known: {', '.join(FORMATS)}")


def _plain(result: Result) -> str:
    console = display.console_on(io.StringIO())
    console.width = PLAIN_WIDTH
    with console.capture() as captured:
        display.show_result(console, result, [], 0)
    return "".join(f"{line.rstrip()}\n" for line in captured.get().splitlines())


def _documents(result: Result) -> tuple[str, str]:
    return result.recording.to_json(), result.verdict.to_json()


def comparison_blocks(result: Result) -> list[list[dict[str, Any]]]:
    """For each comparison of the verdict its blocks: ``launch`` and ``ratio``; empty if not interleaved."""
    rows: list[list[dict[str, Any]]] = json.loads(_core.comparison_blocks(*_documents(result)))
    return rows
