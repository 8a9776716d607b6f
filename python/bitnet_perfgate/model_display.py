"""Documents about whole models as text for a terminal of 80 columns. Decides nothing."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from bitnet_perfgate.display import _lines as lines
from bitnet_perfgate.display import _section as section
from bitnet_perfgate.display import _table as table
from bitnet_perfgate.display import _text as text
from bitnet_perfgate.display import printable
from bitnet_perfgate.documents import Document

# From hardly any difference to all of it.
SHADES = " .:-=+*#%@"
LARGEST_EXPONENT = 0
SMALLEST_EXPONENT = -9


def show_info(console: Console, document: Document, verbose: bool) -> None:
    """What a file holds."""
    title = [printable(str(document[key])) for key in ("name", "architecture") if document[key]]
    console.print(Text(f"{printable(str(document['file']))}: {', '.join(title) or 'a GGUF file'}"))
    if document["runs"]:
        sides = (
            f"{document['layers']} layers, hidden {document['hidden']}, ffn {document['ffn']}, "
            f"{document['heads']} heads of {document['head_dim']}, {document['kv_heads']} of keys and values",
            f"vocabulary {document['vocab']}, context {document['context']}, head {document['head_type']}",
            f"{document['ternary_weights']:,} ternary weights, {document['bytes']:,} bytes in all",
        )
        section(console, "Model", lines(sides))
    section(console, "Runs here", text("yes" if document["runs"] else f"no: {document['why_not']}"))
    types = table("type", "tensors", "bytes")
    for row in document["types"]:
        types.add_row(text(row["type"]), text(str(row["tensors"])), text(f"{row['bytes']:,}"))
    section(console, "Types", types)
    if verbose:
        tensors = table("tensor", "type", "sides", "bytes")
        for row in document["tensors"]:
            sides_of = "x".join(str(side) for side in row["sides"])
            tensors.add_row(text(row["name"]), text(row["type"]), text(sides_of), text(f"{row['bytes']:,}"))
        section(console, "Tensors (sides: inputs first)", tensors)


def show_generated(console: Console, document: Document) -> None:
    """Tokens, and how long they took."""
    console.print(Text(" ".join(str(token) for token in document["tokens"])))
    seconds = document["decode_ns"] * 1e-9
    rate = f", then {document['decoded'] / seconds:.1f} tokens/s" if document["decoded"] and seconds else ""
    who = f"{document['backend']}, {document['threads']} thread(s)"
    prefill = f"{len(document['prompt'])} tokens of the prompt in {document['prefill_ns'] * 1e-6:.1f} ms"
    console.print(Text(f"{who}: {prefill}{rate} (one run, no measurement)"))


def show_trace(console: Console, document: Document, verbose: bool) -> None:
    """Where two engines part: the map, the table, the logits."""
    many = "one at a time" if document["mode"] == "step" else "at once"
    sides = f"{document['subject']} against {document['reference']}"
    how = (
        f"{len(document['tokens'])} tokens {many}, rounding {document['numerics']}, cache {document['cache']}"
    )
    console.print(Text(f"{sides}, {how}"))
    first = document["first"]
    if first is None:
        equal = (
            "no bit differs"
            if document["bound"] == 0
            else f"nothing differs by more than {document['bound']:g}"
        )
        compared = sum(row["values"] for row in document["operations"])
        section(console, "Divergence", text(f"none: {equal} in {compared:,} values of {_count(document)}"))
    else:
        section(
            console,
            "First divergence",
            lines(
                (
                    f"{first['name']} (layer {first['layer']}, {first['operation']})",
                    f"at position {first['position']}, value {first['index']}: "
                    f"reference {first['reference']:.9g}, subject {first['subject']:.9g}",
                )
            ),
        )
        section(console, "Relative difference, layers down, operations across (key below)", _map(document))
    rows = [row for row in document["operations"] if verbose or row["differing"]]
    if rows:
        operations = table("operation", "differing", "max abs", "relative", "codes flipped")
        for row in rows if verbose else rows[:12]:
            flipped = "" if row["codes_flipped"] is None else str(row["codes_flipped"])
            operations.add_row(
                text(row["name"]),
                text(f"{row['differing']:,} of {row['values']:,}"),
                text(f"{row['max_abs']:.3g}"),
                text(f"{row['relative']:.3g}"),
                text(flipped),
            )
        more = f" (the first 12 of {len(rows)}; -v shows all)" if len(rows) > 12 and not verbose else ""
        section(console, f"Operations that differ{more}" if not verbose else "Operations", operations)
    logits = document["logits"]
    tokens = logits["tokens"]
    section(
        console,
        "Logits",
        text(
            f"top-1 equal {logits['top1']} of {tokens}, top-5 equal {logits['top5']} of {tokens}, "
            f"KL {logits['kl_mean']:.3g} nats (most {logits['kl_max']:.3g}), max abs {logits['max_abs']:.3g}"
        ),
    )
    for row in document["not_shown"]:
        console.print(text(f"not compared: {row['name']}: {row['reason']}"))


def show_breakdown(console: Console, document: Document) -> None:
    """Share of the time of each operation, phases side by side."""
    console.print(
        Text(f"{document['backend']}, {document['threads']} thread(s), one run (no measurement of speed)")
    )
    phases = document["phases"]
    shares = table("operation", *(f"{phase['phase']}, ms (%)" for phase in phases))
    for index, row in enumerate(phases[0]["operations"]):
        cells = []
        for phase in phases:
            elapsed_ns = phase["operations"][index]["elapsed_ns"]
            cells.append(text(f"{elapsed_ns * 1e-6:.2f} ({100 * elapsed_ns / phase['elapsed_ns']:.1f})"))
        shares.add_row(text(row["operation"]), *cells)
    totals = [f"{phase['elapsed_ns'] * 1e-6:.2f}" for phase in phases]
    shares.add_row(text("all"), *map(text, totals))
    section(console, "Time by operation (products with the quantisation of what they read)", shares)
    rates = [
        f"{phase['phase']}: {tokens} tokens, {tokens / (phase['elapsed_ns'] * 1e-9):.4g} tokens/s"
        for phase in phases
        for tokens in (phase["tokens"],)
    ]
    section(console, "Rates", lines(rates))


def _count(document: Document) -> str:
    return f"{len(document['operations'])} intermediates"


def _map(document: Document) -> Text:
    """A character for each layer and operation: the decimal exponent of the relative difference."""
    columns: list[str] = []
    layers: dict[int, dict[str, float]] = {}
    for row in document["operations"]:
        if row["operation"] not in columns:
            columns.append(row["operation"])
        layers.setdefault(row["layer"], {})[row["operation"]] = row["relative"]
    rows = [
        f"{layer:>3} " + "".join(_shade(of.get(column)) for column in columns)
        for layer, of in sorted(layers.items())
    ]
    key = ", ".join(f"{index + 1} {column}" for index, column in enumerate(columns))
    scale = (
        f"'{SHADES[1]}' below 1e{SMALLEST_EXPONENT + 1} ... '{SHADES[-1]}' 1 and more, ' ' equal or absent"
    )
    return lines((*rows, scale, f"columns: {key}"))


def _shade(relative: float | None) -> str:
    if not relative:
        return " "
    exponent = min(max(_exponent(relative), SMALLEST_EXPONENT), LARGEST_EXPONENT)
    share = (exponent - SMALLEST_EXPONENT) / (LARGEST_EXPONENT - SMALLEST_EXPONENT)
    return SHADES[1 + round(share * (len(SHADES) - 2))]


def _exponent(value: float) -> int:
    return int(f"{value:e}".split("e")[1])
