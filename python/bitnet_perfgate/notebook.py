"""What notebooks show of the documents: cards, tables with units, a small plot where matplotlib is here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from bitnet_perfgate import html, model_plots, plots
from bitnet_perfgate.display import printable
from bitnet_perfgate.documents import Document, Recording, Result, TimeBreakdown, Trace, Verdict
from bitnet_perfgate.reports import sections

MOST_ROWS = 60
HEADINGS = ("workload", "subject", "against", "time ratio", "interval", "verdict", "reason")


def result_html(result: Result) -> str:
    """Decision and evidence, the matrix with units, and the intervals as a plot."""
    report = sections(result)
    return _framed(
        html.card(report), html.matrix(report), html.drawn(lambda: plots.forest(result), "Intervals")
    )


def verdict_html(verdict: Verdict) -> str:
    """Decision, evidence, route, and the judged comparisons."""
    route = verdict["route"]
    judged = [row for row in verdict.comparisons if row.verdict]
    failures = verdict["agreement"]["failures"]
    return _framed(
        _card(verdict.verdict, f"<b>Evidence</b> <code>{_text(verdict.evidence)}</code>"),
        f"<p><b>Agreement</b>: {_text(_agreement(verdict))}</p>",
        _table(FAILURES, [_failure(row) for row in failures]) if failures else "",
        _table(HEADINGS, [_cells(row.data) for row in judged]) if judged else f"<p>{NOTHING_JUDGED}</p>",
        f"<p><b>Next</b>: {_text(route['next'])}: {_text(route['reason'])}</p>",
    )


def verdict_markdown(verdict: Verdict) -> str:
    """The same as Markdown."""
    judged = [row for row in verdict.comparisons if row.verdict]
    failures = verdict["agreement"]["failures"]
    parts = [f"**{verdict.verdict.upper()}** {_code(verdict.evidence)}", f"Agreement: {_agreement(verdict)}"]
    if failures:
        parts.append(_markdown_table(FAILURES, [_failure(row) for row in failures]))
    parts.append(comparisons_markdown(judged) if judged else NOTHING_JUDGED)
    return "\n\n".join(parts)


def comparisons_html(comparisons: Sequence[Document]) -> str:
    """Comparisons as a table."""
    return _framed(_table(HEADINGS, [_cells(row.data) for row in comparisons]))


def comparisons_markdown(comparisons: Sequence[Document]) -> str:
    """Comparisons as a table."""
    return _markdown_table(HEADINGS, [_cells(row.data) for row in comparisons])


def recording_html(recording: Recording) -> str:
    """Machine, plan and how much was measured."""
    facts = "".join(f"<li><b>{name}</b>: {_text(text)}</li>" for name, text in _facts(recording))
    return _framed(f"<ul>{facts}</ul>", _table(SERIES, _series(recording)))


def recording_markdown(recording: Recording) -> str:
    """The same as Markdown."""
    facts = "\n".join(f"- **{name}**: {_code(text)}" for name, text in _facts(recording))
    return f"{facts}\n\n{_markdown_table(SERIES, _series(recording))}"


def trial_html(answer: Document) -> str:
    """The answer on two sides timed by the caller."""
    return _framed(_card(answer["verdict"], f"<div>{_text(_trial(answer.data))}</div>"))


def trial_markdown(answer: Document) -> str:
    """The same as Markdown."""
    return f"**{answer['verdict'].upper()}** {_code(_trial(answer.data))}"


def trace_html(trace: Trace) -> str:
    """Where two engines part: one sentence, the map, the operations that differ."""
    return _framed(
        f"<p>{_text(_parted(trace))}</p>",
        html.drawn(lambda: model_plots.divergence(trace), "Divergence"),
        _table(DIFFERENCES, _differences(trace)) if trace["parted"] else "",
    )


def trace_markdown(trace: Trace) -> str:
    """The same without the map."""
    table = f"\n\n{_markdown_table(DIFFERENCES, _differences(trace))}" if trace["parted"] else ""
    return _parted(trace) + table


def breakdown_html(breakdown: TimeBreakdown) -> str:
    """Share of the time of each operation."""
    return _framed(
        html.drawn(lambda: model_plots.time_breakdown(breakdown), "Time"),
        _table(SHARES, _shares(breakdown)),
    )


def breakdown_markdown(breakdown: TimeBreakdown) -> str:
    """The same as a table."""
    return _markdown_table(SHARES, _shares(breakdown))


DIFFERENCES = ("operation", "differing values", "max abs", "relative", "codes flipped")
SHARES = ("phase", "operation", "time, ms", "share, per cent")


def _parted(trace: Trace) -> str:
    sides = f"{trace['subject']} and {trace['reference']}"
    first = trace["first"]
    if first is None:
        return f"{sides} do not part on {len(trace['tokens'])} tokens"
    return f"{sides} part at {first['name']}, position {first['position']}, value {first['index']}"


def _differences(trace: Trace) -> list[list[str]]:
    return [
        [
            row["name"],
            f"{row['differing']:,} of {row['values']:,}",
            f"{row['max_abs']:.3g}",
            f"{row['relative']:.3g}",
            "" if row["codes_flipped"] is None else str(row["codes_flipped"]),
        ]
        for row in trace["operations"]
        if row["differing"]
    ]


def _shares(breakdown: TimeBreakdown) -> list[list[str]]:
    return [
        [
            phase["phase"],
            row["operation"],
            f"{row['elapsed_ns'] * 1e-6:.3f}",
            f"{100 * row['elapsed_ns'] / phase['elapsed_ns']:.1f}",
        ]
        for phase in breakdown["phases"]
        for row in phase["operations"]
    ]


FAILURES = ("workload", "backend", "first difference", "cause")
NOTHING_JUDGED = "No speed was judged."


def _agreement(verdict: Verdict) -> str:
    found = verdict["agreement"]
    return f"{found['exact']} of {found['n']} results equal the oracle's to the bit"


def _failure(row: Mapping[str, Any]) -> list[str]:
    first = row.get("first_mismatch")
    where = f"at {first['index']}: expected {first['expected']}, got {first['actual']}" if first else "-"
    return [row["workload"], row["backend"], where, row.get("cause") or "unknown"]


SERIES = ("workload", "backend", "meter", "launches", "samples")


def _series(recording: Recording) -> list[list[str]]:
    return [
        [
            row["workload"],
            row["backend"],
            row["meter"],
            str(len(set(row["launch"]))),
            str(len(row["value_ns"])),
        ]
        for row in recording["series"]
    ]


def _facts(recording: Recording) -> list[tuple[str, str]]:
    plan, machine, tool = recording["plan"], recording["fingerprint"], recording["tool"]
    facts = [
        ("Recording", f"bitnet_perfgate {tool['version']}, {recording['created']}"),
        ("Machine", f"{machine['cpu_model'] or 'unknown CPU'}, {machine['cores']} CPUs"),
        ("Plan", f"{plan['profile']} profile, {len(plan['workloads'])} workloads, seed {plan['seed']}"),
        ("Backends", ", ".join(recording.backends)),
        (
            "Agreements",
            f"{sum(row['exact'] for row in recording.agreements)}/{len(recording.agreements)} exact",
        ),
    ]
    if recording.incomplete:
        facts.append(("Incomplete", recording.incomplete))
    return facts


def _trial(answer: Mapping[str, Any]) -> str:
    ratio = "" if answer["ratio"] is None else f"time ratio {_ratio(answer)} by {answer['meter']} time; "
    return f"{ratio}{answer['reason']}"


def _ratio(row: Mapping[str, Any]) -> str:
    bounds = row["interval"]
    return f"{row['ratio']:.3f} ({bounds[0]:.3f} to {bounds[1]:.3f})" if bounds else f"{row['ratio']:.3f}"


def _cells(row: Mapping[str, Any]) -> list[str]:
    bounds = row["interval"]
    return [
        row["workload"],
        row["subject"],
        " ".join(dict.fromkeys((row["against"], row["other"]))),
        "not measured" if row["ratio"] is None else f"{row['ratio']:.3f}",
        f"{bounds[0]:.3f} to {bounds[1]:.3f}" if bounds else "not measured",
        row["verdict"] or "not judged",
        row["reason"],
    ]


def _card(verdict: str, content: str) -> str:
    word = verdict.upper()
    return f'<div class="card {verdict}"><strong>{html.MARKS[word]} {word}</strong><div>{content}</div></div>'


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return "<p>nothing was measured</p>"
    head = "".join(f"<th>{heading}</th>" for heading in headings)
    body = "".join(
        f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in rows[:MOST_ROWS]
    )
    more = f"<p>and {len(rows) - MOST_ROWS} more</p>" if len(rows) > MOST_ROWS else ""
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{more}'


def _markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return "nothing was measured"
    lines = [f"| {' | '.join(headings)} |", f"|{'---|' * len(headings)}"]
    lines += [f"| {' | '.join(map(_code, row))} |" for row in rows[:MOST_ROWS]]
    more = f"\n\nand {len(rows) - MOST_ROWS} more" if len(rows) > MOST_ROWS else ""
    return "\n".join(lines) + more


def _code(text: str) -> str:
    """A code span: nothing in it is markup, and it ends no table cell."""
    safe = printable(text).replace("`", "'").replace("|", "\\|")
    return f"`{safe}`"


def _framed(*parts: str) -> str:
    """The parts in a box of their own, so that neither the notebook's style nor ours reaches the other."""
    colours = html.style_sheet("colours").replace(":root", ".perfgate")
    return f'<div class="perfgate"><style>{colours}{STYLE}</style>{"".join(parts)}</div>'


def _text(text: str) -> str:
    return escape(printable(text))


STYLE = """\
.perfgate { background: var(--surface); color: var(--ink); padding: 8px; }
.perfgate .card { border-left: 6px solid var(--muted); background: var(--panel); padding: 8px 12px; }
.perfgate .card strong { font-size: 1.15em; }
.perfgate .card.pass { border-color: var(--pass); } .perfgate .card.fail { border-color: var(--fail); }
.perfgate .card.neutral { border-color: var(--neutral); }
.perfgate .wide { overflow-x: auto; margin: 8px 0; }
.perfgate table { color: var(--ink); font-size: 13px; }
.perfgate tr { background: transparent !important; }
.perfgate td, .perfgate th { text-align: left !important; vertical-align: top; }
.perfgate td.pass { color: var(--pass); } .perfgate td.fail { color: var(--fail); }
.perfgate td.neutral { color: var(--neutral); } .perfgate td.skipped { color: var(--muted); }
.perfgate code { background: transparent !important; color: inherit !important; }
.perfgate td small { display: block; color: var(--muted); }
.perfgate svg { max-width: 720px; height: auto; }
"""
