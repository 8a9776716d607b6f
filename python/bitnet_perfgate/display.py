"""Documents as text for a terminal. Decides nothing: every answer stands in the documents.

Everything fits into 80 columns; wider terminals get more columns and digits.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bitnet_perfgate.documents import Document, Recording, Result, TableRow

NARROWEST = 40
WIDE = 110
WIDEST = 140
# Columns of an id in the tables of speed and of counts at 80 columns, with the usual widths beside it.
ID_WIDTH = 37
COUNTED_ID_WIDTH = 28
# Columns beside an id in the table of a plan: the longest category, two spaces and the indent.
CATEGORY_WIDTH = 19
SHOWN_FAILURES = 8
SHOWN_TOGETHER = 3
STYLES = {"pass": "green", "fail": "bold red", "neutral": "yellow", "DIFFERS": "bold red"}
AGREEMENT_WORDS = {"within bounds": "bounds", "not compared": "-"}
UNIT_MEANINGS = {
    "tok/s": "tokens/s",
    "GB/s": "GB/s of packed weight bytes",
    "GOP/s": "GOP/s (2 per weight and row)",
    "Gelem/s": "Gelem/s",
    **{unit: f"{unit} per call" for unit in ("ns", "us", "ms", "s")},
}
SPEED_MEANING = (
    "Rates are those of the typical call: the median over blocks of each block's fastest call. The paired "
    "ratio is the Hodges-Lehmann estimate over blocks in which both sides ran; it need not be the quotient "
    "of the rates."
)
LANGUAGES = {"rust": "Rust", "cpp": "C++"}
REPACKED = {"r64": "to two bits in tiles of 64 rows", "t5": "to five trits per byte, in the same tiles"}
CEILING_UNITS = {"_gb_per_s": "GB/s", "_gop_per_s": "GOP/s"}
BEYOND = (
    "Beyond 100 %: the ceiling was measured in a worse moment, or part of the weights lay in a nearer cache."
)


class _Console(Console):
    """A console whose reader may leave: rich would end the process with 1, which means a failed gate here."""

    def on_broken_pipe(self) -> None:
        """Lets the caller decide."""
        raise BrokenPipeError


def console_on(stream: IO[str]) -> Console:
    """A console on ``stream`` that writes plain text unless it is a terminal, and none of rich's guesses."""
    plain = os.environ.get("NO_COLOR")
    console = _Console(
        file=stream, color_system=None if plain else "auto", highlight=False, markup=False, emoji=False
    )
    console.width = max(console.width, NARROWEST)
    return console


def printable(text: str) -> str:
    r"""The text with nothing a terminal obeys: what is not printable, line ends too, is written out.

    Every name on display passes through here: files, tensors and plugins are named by strangers.

    >>> printable("a\x1b[31m\nb")
    'a\\x1b[31m\\nb'
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def show_result(console: Console, result: Result, saved: Sequence[str], verbosity: int) -> None:
    """A whole run: the scope first; speeds, agreement, accuracy, rules, what is missing; the verdict last."""
    recording = result.recording
    plan = recording["plan"]
    timed = plan["launches"] > 0
    counted = plan.get("meter") == "instructions"
    builds = plan["profile"] == "build-time"
    if verbosity >= 0:
        against = result.verdict.data.get("baseline")
        scope = (
            f"Judged against {printable(against)}."
            if against
            else "No regression was judged: there is no baseline."
        )
        console.print(
            scope if timed else f"Agreement and accuracy only: nothing was timed. {scope}", style="bold"
        )
        _show_setting(console, recording)
        if counted:
            _show_counts(console, result, verbosity)
        elif timed:
            _show_speeds(console, result, verbosity)
            _show_efficiency(console, result, verbosity)
        if not builds:
            _show_agreement(console, result, verbosity)
        _show_accuracy(console, recording, verbosity)
        _show_rules(console, result)
        _show_skipped(console, recording.skipped, verbosity)
        _show_next(console, result, saved)
        console.print()
    _show_verdict(console, result)


def show_plan(console: Console, recording: Recording) -> None:
    """What would be measured."""
    plan = recording["plan"]
    _show_setting(console, recording)
    table = _table("workload", "category")
    for workload in plan["workloads"]:
        table.add_row(_workload(workload["id"], console.width - CATEGORY_WIDTH), workload["category"])
    _section(console, _workloads(len(plan["workloads"])), table)
    _section(console, "Backends", _text(", ".join(recording.backends)))
    _show_skipped(console, recording.skipped, verbosity=1)
    if plan["launches"]:
        blocks, samples = plan["blocks"], plan["samples_per_block"]
        detail = (
            f"{blocks} blocks of {samples} samples per side at most; about {plan['budget_s']:.0f} s in all"
        )
        _section(console, "Timing", _text(detail))
    console.print("\nDry run: nothing was measured, nothing was written.")


def show_workloads(console: Console, document: Document) -> None:
    """The catalogue of a profile."""
    table = _table(
        "workload", "category", "class", *(["weights", "operations"] if console.width >= WIDE else [])
    )
    for workload in document["workloads"]:
        amounts = [f"{workload['weights']:,}", f"{workload['ops']:,}"] if console.width >= WIDE else []
        table.add_row(_text(workload["id"]), workload["category"], workload["class"], *amounts)
    console.print(
        f"{_workloads(len(document['workloads']))} of the {document['profile']} profile", style="bold"
    )
    console.print(Padding(table, (0, 0, 0, 2)))
    unsupported = [{"what": row["id"], "reason": row["reason"]} for row in document["unsupported"]]
    _show_grouped(console, "Not possible", unsupported, verbosity=1)
    backends = [
        (row["name"], "available" if row["available"] else f"not available: {row['why_not']}")
        for row in document["backends"]
    ]
    _show_pairs(console, "Backends", backends)


def show_doctor(console: Console, document: Document, verbosity: int) -> None:
    """What is here and why not."""
    tool, machine = document["tool"], document["fingerprint"]
    console.print(
        _text(f"bitnet_perfgate {_version(tool)}, features {', '.join(tool['features']) or 'none'}"),
        style="bold",
    )
    console.print(
        _text(f"{machine['cpu_model']}, {machine['cores']} CPUs, {machine['os']}-{machine['arch']}")
    )
    console.print(_text(f"SIMD: {' '.join(machine['isa']) or 'none of interest'}"))
    console.print(f"C++ bindings: {document['bindings']}")
    detailed = verbosity > 0 or console.width >= WIDE
    table = _table("backend", "here", "compiler", "optimised", *(["flags"] if detailed else []))
    for backend in document["backends"]:
        here = Text("yes", style="green") if backend["available"] else Text("no", style="yellow")
        # rustc's version begins with its name, a C compiler's does not.
        version = backend["version"].removeprefix(f"{backend['compiler']} ")
        compiler = _text(f"{backend['compiler']} {version}")
        flags = [_text(backend["flags"])] if detailed else []
        table.add_row(_text(backend["name"]), here, compiler, _text(backend["optimisation"]), *flags)
    _section(console, "Backends", table)
    repacking = [(row["name"], REPACKED[row["repacks"]]) for row in document["backends"] if row["repacks"]]
    _show_pairs(console, "Repack I2_S when weights are prepared: shown in runs, never judged", repacking)
    absent = [backend for backend in document["backends"] if not backend["available"]]
    _show_pairs(console, "Not available", [(backend["name"], backend["why_not"] or "") for backend in absent])
    if document["ceilings"]:
        _show_ceilings(console, document["ceilings"])
    variables = document["environment"]
    _show_pairs(
        console,
        "Environment",
        [(row["name"], f"{row['value'] or '(unset)'}: {row['meaning']}") for row in variables],
    )
    _show_pairs(
        console,
        "Not in this version",
        [(row["what"], row["reason"]) for row in document["not_in_this_version"]],
    )


def show_identification(console: Console, document: Document, verbosity: int) -> None:
    """Which layout the tensors of a file are consistent with."""
    console.print(_text(document["file"]), style="bold")
    for tensor in document["tensors"]:
        name = f"{tensor['tensor']}  declared {tensor['declared']}, {tensor['rows']}x{tensor['cols']}"
        console.print(_text(name))
        console.print(Padding(_text(tensor["conclusion"]), (0, 0, 0, 2)))
        if verbosity > 0:
            for layout in tensor["layouts"]:
                why = f": {layout['why']}" if layout["why"] else ""
                console.print(Padding(_text(f"{layout['layout']}: {layout['finding']}{why}"), (0, 0, 0, 4)))


def show_selftest(console: Console, document: Document) -> None:
    """Planted slow-downs and what became of them."""
    table = _table("planted", "judged", "red", "neutral", "pass", "measured", "interval", "wrong at most")
    percent = _percent
    for row in document["found"]:
        table.add_row(
            percent(row["planted"], 0),
            *(str(row[name]) for name in ("n", "fail", "neutral", "pass")),
            percent(row["measured"], 1),
            f"+-{percent(row['half_width'], 1).lstrip('+')}",
            percent(row["wrong_at_most"], 1).lstrip("+"),
        )
    limit = percent(document["margin"], 0).lstrip("+")
    console.print(
        f"{document['rounds']} rounds of {document['launches']} fresh processes in "
        f"{document['budget_s']:.0f} s; red means slower than {limit}",
        style="bold",
    )
    console.print(Padding(table, (0, 0, 0, 2)))
    console.print(
        _text(
            "wrong: red for equal sides, pass beyond the margin; upper 95 % bound. One measurement each: the "
            "gate measures what is red a second time."
        )
    )
    if document["incomplete"]:
        console.print(_text(f"INCOMPLETE ({document['incomplete']})"), style="bold red")


def _percent(share: float | None, digits: int) -> str:
    return "-" if share is None else f"{share * 100:+.{digits}f} %"


def show_difference(console: Console, document: Document) -> None:
    """What two recordings differ in."""
    fields = [(row["field"], f"{row['earlier']!r} -> {row['later']!r}") for row in document["mismatches"]]
    _show_pairs(console, "Not comparable: these differ", fields)
    for name in ("appeared", "vanished"):
        if document[name]:
            _section(
                console,
                f"Workloads that {name}",
                _lines([printable(workload) for workload in document[name]]),
            )
    if not (fields or document["appeared"] or document["vanished"]):
        console.print("comparable: same machine, builds, tool, seed and workloads")


def show_import(console: Console, recording: Recording, target: str) -> None:
    """What was read from another tool's files."""
    origin, samples = recording["origin"], sum(len(row["value_ns"]) for row in recording["series"])
    known = list(origin["benchmarks"].values())
    summaries = sum(1 for row in known if row.get("summary"))
    benchmarks = f"{len(known)} benchmark" if len(known) == 1 else f"{len(known)} benchmarks"
    console.print(
        _text(
            f"{origin['tool']}: {benchmarks} of {', '.join(origin['files'])}, {samples} samples, "
            f"{summaries} known by a summary alone"
        )
    )
    suspects = [{"what": row["name"], "reason": row["suspect"]} for row in known if row.get("suspect")]
    _show_grouped(console, "Suspect: no evidence", suspects, 0)
    _show_grouped(console, "Left out", recording["skipped"], 0)
    console.print(_text(f"Saved {target}"), soft_wrap=True)


def show_imported(console: Console, result: Result, verbosity: int) -> None:
    """Two imported recordings, benchmark by benchmark, and the verdict last."""
    if verbosity >= 0:
        table = _table("benchmark", "ratio", "verdict", "reason")
        for row in result.table:
            ratio, verdict = _text(_ratio(row, 3)), _text(row.verdict, STYLES.get(row.verdict, ""))
            table.add_row(_text(row.workload), ratio, verdict, _text(row.reason))
        _section(console, "Time now over time then (unpaired: below 1 is faster)", table)
        _show_rules(console, result)
        _show_skipped(console, result.verdict["skipped"], verbosity)
        unmet = [(row["name"], row["reason"]) for row in result.verdict["validation"] if not row["ok"]]
        _show_pairs(console, "Evidence that is missing", unmet)
        console.print()
    _show_verdict(console, result)


def show_model(console: Console, document: Document) -> None:
    """A model file that was made."""
    size = f"{document['bytes']:,} bytes, {document['ternary_weights']:,} ternary weights"
    console.print(_text(f"{document['file']}: {size}"))
    console.print(f"preset {document['preset']}, format {document['format']}, seed {document['seed']}")
    console.print(f"sha256 {document['sha256']}", soft_wrap=True)


def _show_setting(console: Console, recording: Recording) -> None:
    plan, machine = recording["plan"], recording["fingerprint"]
    console.print(
        _text(
            f"bitnet_perfgate {_version(recording['tool'])}, {plan['profile']} profile, "
            f"{_workloads(len(plan['workloads']))}, seed {plan['seed']}"
        )
    )
    console.print(_text(f"{machine['cpu_model'] or 'unknown CPU'}, {machine['cores']} CPUs"))
    if model := plan.get("model"):
        console.print(_text(f"weights of {model['file']} (workload ids begin with file:{model['hash8']}/)"))
    if recording.incomplete:
        console.print(
            _text(f"INCOMPLETE ({recording.incomplete}): only what was measured until then"), style="bold red"
        )


def _show_speeds(console: Console, result: Result, verbosity: int) -> None:
    """Required comparisons in full, plugins too; everything else condensed unless asked for."""
    table = result.table
    timed: dict[tuple[str, str], list[TableRow]] = {}
    for row in table:
        if row.subject_value is not None:
            timed.setdefault((row.subject, row.other), []).append(row)
    if not timed:
        _section(console, "Speed", _text("nothing was timed"))
    required = [pair for pair, rows in timed.items() if any(row.required for row in rows)]
    plugins = [pair for pair in timed if pair not in required and "@" in pair[0]]
    rest = [pair for pair in timed if pair not in required and pair not in plugins]
    for pair in required:
        own = [
            row
            for row in table
            if row.subject == pair[0] and (row.other == pair[1] or row.subject_value is None)
        ]
        title = f"Speed of {pair[0]} against {pair[1]} (paired ratio below 1: {pair[0]} is faster)"
        _section(console, title, _speed_table(own, console.width), indent=0)
    for pair in [*plugins, *(rest if verbosity > 0 else [])]:
        title = f"Speed of {pair[0]} against {pair[1]} (shown, not judged)"
        _section(console, title, _speed_table(timed[pair], console.width), indent=0)
    if rest and verbosity <= 0:
        lines = [_condensed(pair, timed[pair]) for pair in rest]
        _section(console, "Also timed, not judged (-v shows all)", _lines(lines))
    _show_empty_calls(console, result)
    if verbosity > 0:
        _show_prepared(console, result.recording)
    if timed and verbosity > 0:
        _section(console, "How to read the numbers", _text(SPEED_MEANING))


def ceiling_label(name: str) -> tuple[str, str]:
    """A ceiling's name without its unit, and the unit.

    >>> ceiling_label("l2_read_t1_gb_per_s")
    ('l2_read_t1', 'GB/s')
    """
    for suffix, unit in CEILING_UNITS.items():
        if name.endswith(suffix):
            return name.removesuffix(suffix), unit
    return name, ""


def _show_efficiency(console: Console, result: Result, verbosity: int) -> None:
    """How much of the ceilings that bind the judged subject reaches: a line for each, or each product."""
    rows = {row.workload: row for row in result.table if row.required and row.binds}
    if not rows:
        return
    ceilings = result.recording["ceilings"]
    subject = printable(next(iter(rows.values())).subject)
    groups: dict[str, list[TableRow]] = {}
    for row in rows.values():
        groups.setdefault(row.binds or "", []).append(row)
    lines = []
    for name, own in sorted(groups.items()):
        label, unit = ceiling_label(name)
        shares = sorted((row.efficiency or 0.0) * 100 for row in own)
        span = f"{shares[0]:.0f} to {shares[-1]:.0f} %" if len(own) > 1 else f"{shares[0]:.0f} %"
        products = "product" if len(own) == 1 else "products"
        rate = f"{_number(ceilings.get(name))} {unit}"
        lines.append(f"{label:22} {rate:>11}: {span} on {len(own)} {products}")
        if verbosity > 0:
            lines += [f"  {(row.efficiency or 0.0) * 100:4.0f} %  {printable(row.workload)}" for row in own]
    if any((row.efficiency or 0.0) > 1.0 for row in rows.values()):
        lines.append(BEYOND)
    _section(console, f"SIMD efficiency of {subject}: its fastest call against the ceiling that binds",
             _lines(lines))  # fmt: skip


def _show_ceilings(console: Console, ceilings: Mapping[str, Any]) -> None:
    """Measured ceilings, a column for each number of threads."""
    rows: dict[tuple[str, str], dict[int, float]] = {}
    for name, value in ceilings["values"].items():
        label, unit = ceiling_label(name)
        what, _, threads = label.rpartition("_t")
        rows.setdefault((what, unit), {})[int(threads)] = value
    counts = sorted({count for row in rows.values() for count in row})
    headings = [f"{count} thread{'s' if count > 1 else ''}" for count in counts]
    table = _table("ceiling", "unit", *headings)
    for (what, unit), row in sorted(rows.items(), key=lambda found: (found[0][1], found[0][0])):
        table.add_row(_text(what), unit, *(_number(row.get(count)) for count in counts))
    title = f"Ceilings of this machine: the fastest of {ceilings['repetitions']} short repetitions each"
    caches = ", ".join(f"L{row['level']} {row['size_bytes'] >> 10} KiB" for row in ceilings["caches"])
    _section(console, title, table, _text(f"caches: {caches or 'sizes unknown'}"))
    absent = [{"what": row["name"], "reason": row["reason"]} for row in ceilings["absent"]]
    _show_grouped(console, "Ceilings not measured", absent, verbosity=1)


def _show_empty_calls(console: Console, result: Result) -> None:
    """What the way into Python callables costs, beside the time of the whole call."""
    whole = {(row.workload, row.subject): row.subject_ns for row in result.table if row.subject_ns}
    lines = [
        f"{workload} on {name}: {ns / 1000:.1f} of {whole[workload, name] / 1000:.1f} us"
        for (workload, name), ns in result.empty_calls.items()
        if (workload, name) in whole
    ]
    if lines:
        _section(console, "Included: the way into Python, by an empty call", _lines(lines))


def _show_prepared(console: Console, recording: Recording) -> None:
    """What each backend that tells it made of weights before the first product, where it is most."""
    most: dict[str, Mapping[str, Any]] = {}
    for row in recording["memory"]:
        if row["meter"] == "prepared_bytes":
            known = most.setdefault(row["backend"], row)
            most[row["backend"]] = max(known, row, key=lambda other: other["value_bytes"])
    rows = recording.agreements
    times = {(row["workload"], row["backend"]): row["metrics"].get("prepare_ns") for row in rows}
    lines = []
    for name, row in most.items():
        ns = times.get((row["workload"], name))
        took = f" in {ns / 1e6:.1f} ms" if ns else ""
        lines.append((name, f"{row['value_bytes'] / 1e6:.1f} MB{took} ({row['workload']})"))
    _show_pairs(console, "Prepared beside the weights, at most; not timed with the products", lines)


def _show_counts(console: Console, result: Result, verbosity: int) -> None:
    """Instruction counts: judged rows, everything if asked for."""
    rows = [row for row in result.verdict["comparisons"] if row["meter"] == "instructions"]
    judged = [row for row in rows if row["verdict"]]
    table = _table("workload", "count of", "against", "ratio", "verdict")
    for row in rows if verbosity > 0 or not judged else judged:
        ratio = "-" if row["ratio"] is None else f"{row['ratio']:.4f}"
        answer = row["verdict"] or "-"
        cells = [
            _workload(row["workload"], console.width if console.width >= WIDE else COUNTED_ID_WIDTH),
            _text(row["subject"]),
            _text(row["other"]),
        ]
        table.add_row(*cells, _text(ratio), _text(answer, STYLES.get(answer, "")))
    counter = result.recording["plan"].get("counter", "an unknown counter")
    title = f"Instructions, counted by {printable(counter)} (below 1: fewer)"
    _section(console, title, table if rows else _text("nothing was counted"))


def _condensed(pair: tuple[str, str], rows: Sequence[TableRow]) -> str:
    ratios = [row.ratio for row in rows if row.ratio is not None]
    span = f"{min(ratios):.2f} to {max(ratios):.2f} times its time" if ratios else "no ratio"
    return f"{pair[0]} against {pair[1]}: {span} on {_workloads(len(rows))}"


def _speed_table(rows: Iterable[TableRow], width: int) -> Table:
    """One line per workload, under a heading for each unit."""
    rows = list(rows)
    wide = width >= WIDE
    sides = _side_labels(rows[0].subject, rows[0].other)
    table = Table(box=None, pad_edge=False, padding=(0, 2 if wide else 1, 0, 0), header_style="bold")
    table.add_column("workload", overflow="fold")
    table.add_column("agrees", no_wrap=True)
    for side in sides:
        table.add_column(printable(side), justify="right", no_wrap=True)
    if wide:
        for side in sides:
            table.add_column(f"{printable(side)} us", justify="right", no_wrap=True)
        table.add_column("blocks", justify="right", no_wrap=True)
    with_ceilings = width >= WIDEST and any(row.binds for row in rows)
    if with_ceilings:
        table.add_column("of ceiling", no_wrap=True)
    table.add_column("paired ratio", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for unit in dict.fromkeys(row.unit for row in rows):
        table.add_row(Text(UNIT_MEANINGS.get(unit, unit or "not timed"), style="dim"))
        for row in rows:
            if row.unit == unit:
                table.add_row(*_speed_cells(row, wide, with_ceilings))
    return table


def _side_labels(subject: str, other: str) -> tuple[str, str]:
    """Short headings for two backends: their languages, or their names where these are equal."""
    if "@" in subject and "@" in other:
        # Two builds of one backend.
        return subject.split("@")[1], other.split("@")[1]
    left, right = (
        "plugin" if "@" in name else LANGUAGES.get(name.split("-")[0], name) for name in (subject, other)
    )
    return (left, right) if left != right else (subject, other)


def _speed_cells(row: TableRow, wide: bool, with_ceilings: bool) -> list[Text]:
    agreement = AGREEMENT_WORDS.get(row.agreement, row.agreement)
    cells = [
        _workload(row.workload, WIDE if wide else ID_WIDTH, "  " if wide else " "),
        _text(agreement, STYLES.get(row.agreement, "")),
    ]
    cells += [_text(_number(row.subject_value)), _text(_number(row.other_value))]
    if wide:
        microseconds = (ns and ns / 1000 for ns in (row.subject_ns, row.other_ns))
        cells += [*(_text(_number(us)) for us in microseconds), _text(str(row.n_blocks or "-"))]
    if with_ceilings:
        share = f"{row.efficiency * 100:.0f} % " if row.efficiency is not None else "-"
        cells.append(_text(share + ceiling_label(row.binds or "")[0]))
    return [*cells, _text(_ratio(row, 3 if wide else 2)), _text(row.verdict, STYLES.get(row.verdict, ""))]


def _show_agreement(console: Console, result: Result, verbosity: int) -> None:
    agreement = result.verdict["agreement"]
    holding = agreement["exact"] < agreement["n"] and not agreement["failures"]
    others = ", the others within their bounds" if holding else ""
    _section(
        console,
        "Agreement",
        _text(f"{agreement['exact']}/{agreement['n']} exact with the oracle rust-scalar{others}"),
    )
    differing = [row for row in result.table if row.agreement == "DIFFERS" and row.subject_value is None]
    shown = differing if verbosity > 0 else differing[:SHOWN_FAILURES]
    for row in shown:
        line = Text.assemble(
            ("DIFFERS ", STYLES["DIFFERS"]), _text(f"{row.workload} on {row.subject}: {row.reason}")
        )
        console.print(Padding(line, (0, 0, 0, 2)))
    if len(shown) < len(differing):
        console.print(f"  and {len(differing) - len(shown)} more (-v shows all)")


def _show_accuracy(console: Console, recording: Recording, verbosity: int) -> None:
    """A line per input set and value: backends that are equal to the bit share one."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in recording["accuracy"]:
        gated = row["workload"].endswith("/gated")
        if gated or verbosity > 0:
            snr = f", SNR {row['snr_db']:.1f} dB" if row.get("snr_db") is not None else ""
            found.setdefault((row["workload"], f"{row['accuracy_percent']:.4f} %{snr}"), []).append(
                row["backend"]
            )
    if not found:
        return
    lines = [
        f"{workload.removeprefix('accuracy/')}: {value} ({', '.join(who)})"
        for (workload, value), who in found.items()
    ]
    _section(console, "Accuracy against float64", _lines(lines))


def _show_rules(console: Console, result: Result) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for rule in result.verdict["rules"]:
        answer = rule["verdict"] or "-"
        table.add_row(_text(answer, STYLES.get(answer, "")), _text(rule["name"]), _text(rule["reason"]))
    _section(console, "Rules", table)


def _show_skipped(console: Console, skipped: Sequence[Mapping[str, Any]], verbosity: int) -> None:
    _show_grouped(console, "Skipped", skipped, verbosity)


def _show_grouped(console: Console, title: str, rows: Sequence[Mapping[str, Any]], verbosity: int) -> None:
    """Rows of ``what`` and ``reason``; those that share a reason share a line, the first few by name."""
    groups: dict[str, list[str]] = {}
    for row in rows:
        groups.setdefault(row["reason"], []).append(row["what"])
    lines = []
    for reason, what in groups.items():
        several = len(what) > SHOWN_TOGETHER and verbosity <= 0
        lines.append((f"{what[0]} and {len(what) - 1} more" if several else ", ".join(what), reason))
    _show_pairs(console, title, lines)


def _show_pairs(console: Console, title: str, pairs: Sequence[tuple[str, str]]) -> None:
    if pairs:
        _section(console, title, *(_text(f"{name}: {text}") for name, text in pairs))


def _show_next(console: Console, result: Result, saved: Sequence[str]) -> None:
    route = result.verdict["route"]
    if power := result.verdict.data.get("power"):
        median, worst = (power[name] * 100 for name in ("median", "worst"))
        sentence = (
            f"Slow-downs beyond {median:.1f} % would have been confirmed on half of the judged workloads, "
            f"beyond {worst:.1f} % on {power['workload']}, where least is seen."
        )
        _section(console, "What this run could see", _text(sentence))
    suggestions = [_text(f"suggestion: {text}") for text in result.verdict["suggestions"]]
    _section(console, "Next", _text(f"{route['next']}: {route['reason']}"), *suggestions)
    if saved:
        console.print(
            "\nSaved " + printable(" and ".join(saved)),
            soft_wrap=not console.is_terminal and not os.environ.get("COLUMNS"),
        )


def _show_verdict(console: Console, result: Result) -> None:
    """The last line. In a file or a pipe it stays one line, unless a width was asked for."""
    verdict = result.verdict
    word = verdict.verdict.upper()
    one_line = not console.is_terminal and not os.environ.get("COLUMNS")
    console.print(
        Text.assemble((word, STYLES[verdict.verdict]), _text(f" evidence: {verdict.evidence}")),
        soft_wrap=one_line,
    )


def _section(console: Console, title: str, *content: Table | Text, indent: int = 2) -> None:
    console.print()
    console.print(_text(title), style="bold")
    for part in content:
        console.print(Padding(part, (0, 0, 0, indent), expand=False))


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings:
        table.add_column(
            heading, overflow="fold", min_width=len("cpp-portable") if heading == headings[0] else None
        )
    return table


def _text(text: str, style: str = "") -> Text:
    return Text(printable(text), style=style)


def _lines(lines: Iterable[str]) -> Text:
    return Text("\n").join(_text(line) for line in lines)


def _workload(name: str, width: int, indent: str = "") -> Text:
    """A workload's id without its file, which stands above; if wider, what follows ``+`` has its own line."""
    if name.startswith("file:"):
        name = name.partition("/")[2]
    head, plus, rest = name.partition("+")
    if plus and len(indent + name) > width:
        return _lines([indent + head, f"{indent}  +{rest}"])
    return _text(indent + name)


def _workloads(count: int) -> str:
    return f"{count} workload" if count == 1 else f"{count} workloads"


def _number(value: float | None) -> str:
    """At most five characters up to 99999."""
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _ratio(row: TableRow, digits: int) -> str:
    if row.ratio is None:
        return "-"
    if row.interval is None:
        return f"{row.ratio:.{digits}f}"
    lower, upper = row.interval
    return f"{row.ratio:.{digits}f} [{lower:.{digits}f}, {upper:.{digits}f}]"


def _version(tool: Mapping[str, Any]) -> str:
    return f"{tool['version']} ({tool['git'][:12]})" if tool["git"] else str(tool["version"])
