"""The report as one HTML page: no network, plots inline, the raw data inside and downloadable.

Everything that comes from a document is escaped. Where matplotlib is missing, or there is nothing to draw,
the page says so in the plot's place.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitnet_perfgate import _core, plots
from bitnet_perfgate.display import printable
from bitnet_perfgate.documents import Recording, Result
from bitnet_perfgate.reports import Report, sections
from bitnet_perfgate.runs import load_recording

if TYPE_CHECKING:
    from matplotlib.figure import Figure

StrPath = str | os.PathLike[str]
MOST_SESSIONS = 12
MARKS = {"PASS": "✓", "FAIL": "✗", "NEUTRAL": "?", "SKIPPED": "-"}
COLUMNS = ("component", "features", "baseline", "current", "delta", "status")
HEADINGS = ("Component", "Feature Flags", "Baseline", "Current", "Delta", "Status")


def style_sheet(name: str) -> str:
    """A style sheet of this package: ``colours`` (light and dark) or ``page`` (wide and narrow)."""
    return resources.files("bitnet_perfgate").joinpath(f"{name}.css").read_text("utf-8")


def page(result: Result, baseline: StrPath | None = None) -> str:
    """The page of a result. ``baseline`` is a folder of accepted recordings, whose history is drawn."""
    report = sections(result)
    parts = [
        _head(report),
        f"<p>{_text(report['summary'])}</p>",
        _items(report["setting"]),
        _section("Neural Network Performance Summary", _items(report["performance"])),
        _section("Benchmark Results Matrix", matrix(report) + _notes(report["matrix_notes"])),
        _section("Plots", _plots(result, baseline)),
        _section("Commands Executed", _commands(report["commands"])),
        _section("Performance Analysis", _items(report["analysis"])),
        _section("Cross-Validation Status", _items(report["crossval"])),
        _section("Next Steps &amp; Routing", _items(report["next"])),
        _section("Raw data", _downloads(result)),
    ]
    title = f"{report['decision']}: {report['title']}"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(title)}</title>\n<style>\n{style_sheet('colours')}{style_sheet('page')}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(parts)
        + "\n</main>\n</body>\n</html>\n"
    )


def card(report: Report) -> str:
    """Decision and evidence: the head of the page, and what a notebook shows first."""
    decision = report["decision"]
    return (
        f'<div class="card {decision.lower()}"><strong>{MARKS[decision]} {decision}</strong>'
        f"<div><b>Evidence</b> <code>{_text(report['evidence'])}</code></div></div>"
    )


def matrix(report: Report) -> str:
    """The benchmark results matrix as a table; what is not a pass says why."""
    head = "".join(f'<th scope="col">{name}</th>' for name in HEADINGS)
    rows = []
    for row in report.matrix:
        named = zip(COLUMNS[:-1], HEADINGS, strict=False)
        cells = [f'<td data-name="{heading}">{_text(row[column])}</td>' for column, heading in named]
        why = "" if row["status"] == "PASS" else f"<small>{_text(row['reason'])}</small>"
        status = row["status"]
        cells.append(f'<td data-name="Status" class="{status.lower()}">{MARKS[status]} {status}{why}</td>')
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def drawn(draw: Callable[[], Figure], name: str) -> str:
    """A plot as inline SVG, or the reason why there is none."""
    try:
        svg = plots.css_svg(draw())
    except plots.NotMeasuredError as reason:
        return f"<p>{name}: not measured ({_text(str(reason))})</p>"
    return f'<figure class="wide" role="img" aria-label="{name}">{svg}</figure>'


def _head(report: Report) -> str:
    return f"<h1>{_text(report['title'])}</h1>\n<h2>Gate Decision: {report['decision']}</h2>\n{card(report)}"


def _plots(result: Result, baseline: StrPath | None) -> str:
    return "\n".join(
        [
            drawn(lambda: plots.forest(result), "Intervals"),
            drawn(lambda: plots.paired_samples(result), "Paired samples"),
            drawn(lambda: plots.history(_accepted(result, baseline), result), "Baseline history"),
            drawn(lambda: plots.roofline(result), "Roofline"),
        ]
    )


def _accepted(result: Result, baseline: StrPath | None) -> list[Result]:
    """Accepted recordings of the same machine and builds, judged by themselves, oldest first."""
    if baseline is None or not Path(baseline).is_dir():
        return []
    _, paths = _core.find_baselines(baseline, result.recording.to_json(), MOST_SESSIONS)
    return [load_recording(path) for path in paths]


def _downloads(result: Result) -> str:
    """Links that hold their file: the recording with every sample, and the verdict."""
    named = result.verdict.data.get("recording") or "run.recording.json"
    stem = named.removesuffix(".json").removesuffix(".recording")
    files = [(named, result.recording), (f"{stem}.verdict.json", result.verdict)]
    links = []
    for name, document in files:
        content = document.to_json(indent=None).encode()
        data = base64.b64encode(content).decode()
        size = f"{len(content) / 1000:.0f} kB"
        address = f"data:application/json;base64,{data}"
        links.append(f'<a download="{_text(name)}" href="{address}">{_text(name)}</a> ({size})')
    return f"<p>{' · '.join(links)}</p>{_samples(result.recording)}"


def _samples(recording: Recording) -> str:
    count = sum(len(series["value_ns"]) for series in recording["series"])
    return f"<p>{count} samples in {len(recording['series'])} series.</p>"


def _section(title: str, content: str) -> str:
    return f"<h2>{title}</h2>\n{content}"


def _items(items: Sequence[Mapping[str, Any]]) -> str:
    rows = (f"<li><b>{_text(item['name'])}</b>: {_text(item['text'])}</li>" for item in items)
    return f"<ul>{''.join(rows)}</ul>"


def _notes(notes: Sequence[str]) -> str:
    return "".join(f"<p><small>{_text(note)}</small></p>" for note in notes)


def _commands(commands: Sequence[str]) -> str:
    lines = "\n".join(map(_text, commands))
    return f"<pre>{lines}</pre>" if commands else "<p>not recorded</p>"


def _text(text: str) -> str:
    """Text as text: escaped, control characters written out."""
    return escape(printable(text))
