"""The documents of a run as light objects around their JSON. They hold what Rust wrote and compute nothing.

A recording is everything that was measured, raw; a verdict is what was concluded from it. Their fields are
those of the schemas ``bitnet-perfgate/recording/1`` and ``bitnet-perfgate/verdict/1``; times are in ns.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitnet_perfgate import _core

if TYPE_CHECKING:
    import pandas

RECORDING_SUFFIX = ".recording.json"
VERDICT_SUFFIX = ".verdict.json"
EXIT_CODES: Mapping[str, int] = {"pass": 0, "fail": 1, "neutral": 3}


@dataclass(frozen=True)
class Document:
    """A JSON document; ``data`` is the whole of it. Read fields with ``document["field"]``.

    >>> Document({"schema": "example/1"})["schema"]
    'example/1'
    """

    data: Mapping[str, Any]

    def __getitem__(self, field: str) -> Any:
        """One field of the document; ``KeyError`` if it has none of that name."""
        return self.data[field]

    def to_json(self, indent: int | None = None) -> str:
        """The document as JSON text, non-ASCII characters escaped."""
        return json.dumps(self.data, indent=indent, allow_nan=False)


class Trace(Document):
    """Where two engines part; fields as `trace` says. A notebook shows the map of layers and operations."""

    def _repr_html_(self) -> str:
        from bitnet_perfgate import notebook

        return notebook.trace_html(self)

    def _repr_markdown_(self) -> str:
        from bitnet_perfgate import notebook

        return notebook.trace_markdown(self)


class TimeBreakdown(Document):
    """Where the time of a model goes; fields as `time_breakdown` says."""

    def _repr_html_(self) -> str:
        from bitnet_perfgate import notebook

        return notebook.breakdown_html(self)

    def _repr_markdown_(self) -> str:
        from bitnet_perfgate import notebook

        return notebook.breakdown_markdown(self)


class Comparison(Document):
    """One subject against one other side on one workload; fields as in the verdict's schema."""

    @property
    def verdict(self) -> str | None:
        """``pass``, ``fail``, ``neutral``; ``None`` where no rule applies."""
        answer: str | None = self.data["verdict"]
        return answer

    @property
    def ratio(self) -> float | None:
        """Time of the subject over time of the other side."""
        ratio: float | None = self.data["ratio"]
        return ratio

    @property
    def interval(self) -> tuple[float, float] | None:
        """Bounds of the ratio."""
        bounds = self.data["interval"]
        return (bounds[0], bounds[1]) if bounds else None

    def _repr_html_(self) -> str:
        from bitnet_perfgate import notebook

        return notebook.comparisons_html([self])

    def _repr_markdown_(self) -> str:
        from bitnet_perfgate import notebook

        return notebook.comparisons_markdown([self])


@dataclass(frozen=True)
class Recording(Document):
    """Everything one run measured."""

    @property
    def workload_ids(self) -> list[str]:
        """Ids of every planned workload, in the order of tables."""
        return [workload["id"] for workload in self.data["plan"]["workloads"]]

    @property
    def backends(self) -> list[str]:
        """Names of the backends that take part, the oracle first."""
        return [backend["name"] for backend in self.data["plan"]["backends"]]

    @property
    def agreements(self) -> Sequence[Mapping[str, Any]]:
        """One row for each workload and backend compared with the oracle."""
        rows: Sequence[Mapping[str, Any]] = self.data["agreements"]
        return rows

    @property
    def skipped(self) -> Sequence[Mapping[str, Any]]:
        """What was asked for and not done: rows of ``what`` and ``reason``."""
        rows: Sequence[Mapping[str, Any]] = self.data["skipped"]
        return rows

    @property
    def incomplete(self) -> str | None:
        """Why parts of the plan are missing, ``None`` if none are."""
        reason: str | None = self.data.get("incomplete")
        return reason

    def to_pandas(self) -> pandas.DataFrame:
        """A row for each sample: whose, where in the order measured, its calls and its value.

        Needs the extra ``pandas``: ``pip install bitnet-perfgate[pandas]``.
        """
        from bitnet_perfgate import frames

        return frames.samples(self)

    def _repr_html_(self) -> str:
        from bitnet_perfgate import notebook

        return notebook.recording_html(self)

    def _repr_markdown_(self) -> str:
        from bitnet_perfgate import notebook

        return notebook.recording_markdown(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the recording to ``path``, whole or not at all. Raises `FileError`."""
        check_writable(path)
        _core.save_recording(os.fspath(path), self.to_json())


@dataclass(frozen=True)
class Verdict(Document):
    """What was concluded from one recording."""

    @property
    def verdict(self) -> str:
        """``pass``, ``fail`` or ``neutral``."""
        answer: str = self.data["verdict"]
        return answer

    @property
    def summary(self) -> str:
        """One sentence for a person."""
        sentence: str = self.data["summary"]
        return sentence

    @property
    def evidence(self) -> str:
        """``method: ...; result: ...; reason: ...``."""
        line: str = self.data["evidence"]
        return line

    @property
    def comparisons(self) -> list[Comparison]:
        """Every comparison, judged or shown only."""
        return [Comparison(row) for row in self.data["comparisons"]]

    def to_pandas(self) -> pandas.DataFrame:
        """A row for each comparison. Needs the extra ``pandas``."""
        from bitnet_perfgate import frames

        return frames.comparisons(self)

    def _repr_html_(self) -> str:
        from bitnet_perfgate import notebook

        return notebook.verdict_html(self)

    def _repr_markdown_(self) -> str:
        from bitnet_perfgate import notebook

        return notebook.verdict_markdown(self)

    @property
    def exit_code(self) -> int:
        """0 for pass, 1 for fail, 3 for neutral."""
        return EXIT_CODES[self.verdict]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the verdict to ``path``, whole or not at all. Raises `FileError`."""
        write_whole(path, self.to_json(indent=1) + "\n")


@dataclass(frozen=True)
class TableRow:
    """One row of the speed table. Values are ``None`` where nothing was timed."""

    workload: str
    """Workload id."""
    subject: str
    """The backend this row is about."""
    other: str
    """The backend it was timed against."""
    required: bool
    """Whether the verdict depends on it."""
    agreement: str
    """``exact``, ``within bounds``, ``DIFFERS``, ``oracle`` or ``not compared``."""
    subject_value: float | None
    """Rate of the subject in ``unit`` (for a time: the time)."""
    other_value: float | None
    """The same of the other side."""
    unit: str
    """``tok/s``, ``GB/s``, ``GOP/s``, ``Gelem/s``, or a time: ``ns``, ``us``, ``ms``, ``s``."""
    subject_ns: float | None
    """Typical call of the subject."""
    other_ns: float | None
    """The same of the other side."""
    n_blocks: int
    """Blocks both sides have."""
    ratio: float | None
    """Time of the subject over time of the other side: below 1 is faster."""
    interval: tuple[float, float] | None
    """Bounds of the ratio."""
    efficiency: float | None
    """Share of the measured ceiling that binds which the subject's fastest call reaches."""
    binds: str | None
    """That ceiling's name in the recording."""
    verdict: str
    """``pass``, ``neutral``, ``fail``, or ``-`` where no rule applies."""
    reason: str
    """Why."""


@dataclass(frozen=True)
class Result:
    """What a run leaves: the raw recording, the verdict on it, and the speed table as rows."""

    recording: Recording
    verdict: Verdict
    table: Sequence[TableRow]

    @classmethod
    def of(cls, recording: Recording, verdict: Verdict) -> Result:
        """The result of these documents; Rust makes the table."""
        rows = json.loads(_core.speed_table(recording.to_json(), verdict.to_json()))
        intervals = (row["interval"] and tuple(row["interval"]) for row in rows)
        table = [
            TableRow(**{**row, "interval": interval}) for row, interval in zip(rows, intervals, strict=True)
        ]
        return cls(recording, verdict, table)

    @property
    def empty_calls(self) -> dict[tuple[str, str], float]:
        """What the way into a callable costs: ns of an empty call by workload id and backend name.

        An empty call does everything around a Python callable and calls a function of the same signature that
        computes nothing: the median of about 30 in the first process. The times of the backend include it.
        """
        rows = self.recording.agreements
        measured = (row for row in rows if "empty_call_ns" in row["metrics"])
        return {(row["workload"], row["backend"]): row["metrics"]["empty_call_ns"] for row in measured}

    def _repr_html_(self) -> str:
        from bitnet_perfgate import notebook

        return notebook.result_html(self)

    def _repr_markdown_(self) -> str:
        from bitnet_perfgate import reports

        return reports.report(self)

    def save(self, path: str | os.PathLike[str], commands: Sequence[str] = ()) -> Result:
        """Writes the recording to ``path`` and the verdict to `verdict_path` beside it.

        Returns the result as written: its verdict names the recording and the ``commands`` that were run.
        Each file is written whole or not at all; raises `FileError`.
        """
        verdict = Verdict({**self.verdict.data, "recording": Path(path).name, "commands": list(commands)})
        self.recording.save(path)
        verdict.save(verdict_path(path))
        return Result(self.recording, verdict, self.table)


def verdict_path(recording_path: str | os.PathLike[str]) -> Path:
    """Where the verdict of the recording at that path is kept.

    >>> str(verdict_path("a/b.recording.json")), str(verdict_path("c.json")), str(verdict_path("d"))
    ('a/b.verdict.json', 'c.verdict.json', 'd.verdict.json')
    """
    path = Path(recording_path)
    stem = path.name.removesuffix(RECORDING_SUFFIX).removesuffix(".json")
    return path.with_name(stem + VERDICT_SUFFIX)


def write_whole(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Writes a text (UTF-8) or bytes to ``path``, whole or not at all. Raises `FileError`."""
    check_writable(path)
    data = content.encode() if isinstance(content, str) else content
    target = Path(path)
    try:
        with tempfile.NamedTemporaryFile(
            dir=target.parent, prefix=f".{target.name}.", suffix=".tmp", delete=False
        ) as file:
            try:
                # Temporary files are private; documents are as readable as any other new file.
                os.fchmod(file.fileno(), 0o666 & ~_umask())
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                Path(file.name).replace(target)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise _core.FileError(f"{target}: cannot write it: {error.strerror or error}") from error


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raises `FileError` if a document could not be written to ``path``; leaves nothing behind.

    A device or a pipe is refused: documents replace what stands at their path.
    """
    target = Path(path)
    try:
        if target.exists() and not target.is_file():
            raise _core.FileError(f"{target}: cannot write it: exists and is no regular file")
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp"):
            pass
    except _core.FileError:
        raise
    except OSError as error:
        raise _core.FileError(f"{target}: cannot write it: {error.strerror or error}") from error


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
