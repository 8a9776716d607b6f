"""Plots about whole models: where two engines part, and where the time of one goes. They decide nothing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bitnet_perfgate.display import printable
from bitnet_perfgate.documents import Document
from bitnet_perfgate.plots import DARK, LIGHT, Theme, add_legend, new_figure, set_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Decades of relative difference that colours tell apart: rounding of float32, and all of it.
FROM, TO = -9, 0
MOST_TICKS = 12
WIDEST = 11.0


def divergence(trace: Document, theme: Theme = LIGHT) -> Figure:
    """Relative difference of every intermediate: layers down, operations across; the first one is marked.

    Raises `NotMeasuredError` where matplotlib is not installed.
    """
    operations = list(dict.fromkeys(row["operation"] for row in trace["operations"]))
    layers = sorted({row["layer"] for row in trace["operations"]})
    cells = [[math.nan] * len(operations) for _ in layers]
    for row in trace["operations"]:
        relative = row["relative"]
        # Equal is drawn as the surface itself: as absent as a difference can be.
        value = math.log10(relative) if relative else math.nan
        cells[layers.index(row["layer"])][operations.index(row["operation"])] = min(max(value, FROM), TO)
    size = (min(2.6 + 0.34 * len(operations), WIDEST), min(2.6 + 0.22 * len(layers), 9.0))
    figure, (axes,) = new_figure(theme, size, 1)
    _paint(axes, figure, cells, theme)
    axes.set_xticks(range(len(operations)), operations, rotation=60, ha="right", fontsize=7.5)
    every = -(-len(layers) // MOST_TICKS)
    axes.set_yticks(range(0, len(layers), every), [_layer_name(layer, trace) for layer in layers[::every]])
    axes.set_ylabel("layer")
    first = trace["first"]
    if first:
        place = (operations.index(first["operation"]), layers.index(first["layer"]))
        axes.plot(*place, marker="o", ms=11, mfc="none", mec=theme.other, mew=2.2)
        detail = f"first at {printable(first['name'])}, position {first['position']} (circle)"
    else:
        detail = "nowhere: every value that was compared is equal within the bound"
    sides = f"{printable(trace['subject'])} and {printable(trace['reference'])}"
    set_title(figure, theme, f"Where do {sides} part?", detail)
    return figure


def _layer_name(layer: int, trace: Document) -> str:
    """What stands behind the last layer, the last norm and the head, counts as one more."""
    return "end" if layer == trace["layers"] else str(layer)


def _paint(axes: Axes, figure: Figure, cells: list[list[float]], theme: Theme) -> None:
    # Colour-blind readers see cividis as everybody does; what differs most stands out most from the surface.
    colours = "cividis" if theme is DARK else "cividis_r"
    image = axes.imshow(cells, aspect="auto", cmap=colours, vmin=FROM, vmax=TO, interpolation="nearest")
    axes.set_xticks([edge - 0.5 for edge in range(1, len(cells[0]))], minor=True)
    axes.set_yticks([edge - 0.5 for edge in range(1, len(cells))], minor=True)
    axes.grid(which="minor", color=theme.surface, lw=1.0)
    axes.tick_params(which="minor", length=0)
    bar = figure.colorbar(image, ax=axes, ticks=range(FROM, TO + 1, 3), pad=0.02, fraction=0.05)
    bar.ax.set_yticklabels([f"$10^{{{tick}}}$" for tick in range(FROM, TO + 1, 3)])
    bar.ax.tick_params(colors=theme.muted, labelcolor=theme.ink, labelsize=8)
    bar.set_label("relative difference (blank: equal)", color=theme.ink, fontsize=8.5)
    bar.outline.set_edgecolor(theme.grid)


def time_breakdown(breakdown: Document, theme: Theme = LIGHT) -> Figure:
    """Share of the time of each operation, prefill and decode side by side.

    Raises `NotMeasuredError` where matplotlib is not installed.
    """
    phases = breakdown["phases"]
    names = [row["operation"] for row in phases[0]["operations"]]
    figure, (axes,) = new_figure(theme, (7.4, 0.9 + 0.36 * len(names)), 1)
    height = 0.8 / len(phases)
    for index, phase in enumerate(phases):
        total = phase["elapsed_ns"]
        shares = [100 * row["elapsed_ns"] / total for row in phase["operations"]]
        at = [place + height * (index - (len(phases) - 1) / 2) for place in range(len(names))]
        colour = theme.subject if index == 0 else theme.other
        rate = f"{phase['tokens'] / (total * 1e-9):.3g} tokens/s"
        bars = axes.barh(at, shares, height * 0.92, color=colour, label=f"{phase['phase']} ({rate})")
        axes.bar_label(bars, [f"{share:.1f}" for share in shares], fontsize=7.5, padding=3, color=theme.ink)
    axes.set_yticks(range(len(names)), names, fontsize=8.5)
    axes.invert_yaxis()
    axes.set_xlabel("share of the time, per cent")
    axes.margins(x=0.09)
    add_legend(axes, theme, 2)
    who = f"{printable(breakdown['backend'])}, {breakdown['threads']} thread(s), one run"
    set_title(figure, theme, "Where does the time of this model go?", who)
    return figure
