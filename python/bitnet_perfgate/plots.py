"""Plots of a recording and its verdict. Each answers the question in its title; none decides anything.

matplotlib is an extra (``pip install bitnet-perfgate[plots]``), loaded only when something is drawn. Every
number comes from the documents: samples as they were measured, ratios, intervals and limits as Rust computed
them. What colours say, marks say too: the palette is safe for colour-blind readers, shapes differ.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bitnet_perfgate import _core
from bitnet_perfgate.display import printable
from bitnet_perfgate.documents import Result
from bitnet_perfgate.reports import comparison_blocks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

SEVERITIES = ("acceptable", "minor", "major", "critical")
MARKS = {"acceptable": "o", "minor": "^", "major": "s", "critical": "D"}
RATIOS = (
    0.01,
    0.02,
    0.05,
    0.1,
    0.2,
    0.3,
    0.5,
    0.7,
    0.8,
    0.9,
    1.0,
    1.1,
    1.2,
    1.5,
    2.0,
    3.0,
    5.0,
    10.0,
    20.0,
    50.0,
)
MOST_TICKS = 7
CLOSE_RATIOS = (0.3, 0.7, 0.9, 1.1, 1.2, 3.0)
# Beyond it the labels of close ratios overlap, however few there are.
WIDE_RANGE = 2.5
TIME_UNITS = ((1e9, "s"), (1e6, "ms"), (1e3, "us"), (1.0, "ns"))
BANDWIDTH, COMPUTE = "_gb_per_s", "_gop_per_s"
LONGEST_NAME = 44


class NotMeasuredError(Exception):
    """There is nothing to draw; the text is the reason."""


@dataclass(frozen=True)
class Theme:
    """Colours of a plot. `LIGHT` and `DARK` are for files; a page replaces its own (`css_svg`)."""

    surface: str
    ink: str
    muted: str
    grid: str
    subject: str
    other: str
    severity: Mapping[str, str]


LIGHT = Theme(
    surface="#ffffff",
    ink="#1b1f24",
    muted="#57606a",
    grid="#d8dee4",
    subject="#0072b2",
    other="#c65400",
    severity={"acceptable": "#0072b2", "minor": "#8a6d00", "major": "#c65400", "critical": "#a3165f"},
)
DARK = Theme(
    surface="#0f1318",
    ink="#e6e9ed",
    muted="#9aa4af",
    grid="#2b323b",
    subject="#62b6ef",
    other="#f0a04b",
    severity={"acceptable": "#62b6ef", "minor": "#e3cc4e", "major": "#f0903a", "critical": "#f07fb5"},
)


def judged(result: Result) -> list[tuple[int, Mapping[str, Any]]]:
    """Comparisons that a rule judges and that have a number, with their place in the verdict: worst first."""
    order = {"fail": 0, "neutral": 1, "pass": 2}
    rows = [
        (place, row)
        for place, row in enumerate(result.verdict["comparisons"])
        if row["verdict"] and row["ratio"]
    ]
    return sorted(
        rows, key=lambda found: (order[found[1]["verdict"]], -found[1]["ratio"] / found[1]["limit"])
    )


def paired_samples(result: Result, place: int | None = None, theme: Theme = LIGHT) -> Figure:
    """Every sample of both sides in the order measured, and the ratio of each block.

    ``place`` is the comparison's index in the verdict; without one, the worst. Raises `NotMeasuredError`
    for a comparison that was not interleaved.
    """
    place = _worst_interleaved(result) if place is None else place
    comparison = result.verdict["comparisons"][place]
    blocks = comparison_blocks(result)[place]
    if not blocks:
        raise NotMeasuredError("the sides were not timed in the same blocks")
    sides = [_series(result, comparison, name) for name in (comparison["subject"], comparison["other"])]
    launches = [
        row["index"] for row in result.recording["launches"] if row.get("stage", 1) == comparison["stage"]
    ]
    starts, total = _starts(sides, launches)
    figure, (above, below) = new_figure(theme, (7.4, 5.4), 2, height_ratios=[3, 2])
    scale, unit = _time_unit(comparison["subject_ns"] or comparison["other_ns"] or 1.0)
    for series, colour, mark in zip(sides, (theme.subject, theme.other), ("o", "x"), strict=True):
        x, y = _positions(series, starts)
        above.scatter(
            x, [ns / scale for ns in y], s=12, c=colour, marker=mark, linewidths=0.9, label=series["backend"]
        )
    above.set_ylabel(f"time per call ({unit})")
    _plain_log(above.yaxis, above.set_yscale)
    add_legend(above, theme, 2)
    seen: dict[int, int] = {}
    places = []
    for block in blocks:
        launch = block["launch"]
        places.append(starts[launch] + seen.get(launch, 0) + 0.5)
        seen[launch] = seen.get(launch, 0) + 1
    below.scatter(places, [block["ratio"] for block in blocks], s=14, c=theme.ink, label="ratio of a block")
    if comparison["interval"]:
        below.axhspan(*comparison["interval"], color=theme.subject, alpha=0.25, lw=0, label="interval")
    below.axhline(
        comparison["ratio"], color=theme.subject, lw=1.6, label=f"estimate {comparison['ratio']:.3f}"
    )
    if comparison["limit"]:
        below.axhline(comparison["limit"], color=theme.severity["major"], lw=1.4, ls="--",
                      label=f"allowed {comparison['limit']:.3f}")  # fmt: skip
    below.axhline(1.0, color=theme.muted, lw=0.8)
    below.set_yscale("log")
    _ratio_ticks(below.yaxis, *below.get_ylim())
    below.set_ylabel("time ratio")
    below.set_xlabel("block, in the order measured; a line starts a fresh process")
    add_legend(below, theme, 4)
    for axes in (above, below):
        axes.set_xlim(0, total)
        for start in list(starts.values())[1:]:
            axes.axvline(start, color=theme.grid, lw=1.0, zorder=0)
    above.tick_params(labelbottom=False)
    subject, other = printable(comparison["subject"]), printable(comparison["other"])
    set_title(figure, theme, f"Did the machine drift, and does {subject} still differ from {other}?",
           _short(comparison["workload"]))  # fmt: skip
    return figure


def forest(result: Result, theme: Theme = LIGHT) -> Figure:
    """The interval of every judged comparison against what is allowed; a panel for each kind of comparison.

    Raises `NotMeasuredError` where nothing was judged with an interval.
    """
    rows = [row for _, row in judged(result) if row["interval"]]
    if not rows:
        raise NotMeasuredError("no judged comparison has an interval")
    kinds = [
        kind for kind in ("baseline", "revision", "reference") if any(row["against"] == kind for row in rows)
    ]
    groups = [[row for row in rows if row["against"] == kind] for kind in kinds]
    heights = [max(len(group), 2) + 1.5 for group in groups]
    size = (7.4, 0.235 * sum(heights) + 1.2 + 0.5 * len(groups))
    figure, all_axes = new_figure(theme, size, len(groups), height_ratios=heights)
    edges = result.verdict["policy"].get("severity")
    for axes, kind, group in zip(all_axes, kinds, groups, strict=True):
        _forest_panel(axes, group, edges if kind != "reference" else None, theme)
        names = {
            "baseline": "against accepted recordings",
            "revision": "against the other build",
            "reference": f"against {printable(group[0]['other'])}",
        }
        axes.set_title(names[kind], loc="left", fontsize=9, color=theme.muted)
    all_axes[-1].set_xlabel("time ratio: right of 1 is slower")
    _severity_legend(figure, rows, theme)
    set_title(figure, theme, "Is anything slower than allowed?", "estimate, interval; a dash marks the limit")
    return figure


def _forest_panel(
    axes: Axes, rows: Sequence[Mapping[str, Any]], edges: Mapping[str, float] | None, theme: Theme
) -> None:
    lowest = min([0.9, *(row["interval"][0] for row in rows)])
    highest = max([1.2, *(row["interval"][1] for row in rows), *(row["limit"] for row in rows)])
    axes.set_xscale("log")
    axes.set_xlim(lowest / 1.03, highest * 1.03)
    if edges:
        bounds = [1 + edges["minor"], 1 + edges["major"], 1 + edges["critical"], highest * 1.03]
        for severity, left, right in zip(SEVERITIES[1:], bounds, bounds[1:], strict=False):
            axes.axvspan(left, max(left, right), color=theme.severity[severity], alpha=0.14, lw=0)
    axes.axvline(1.0, color=theme.muted, lw=1.0)
    for height, row in enumerate(rows):
        severity = row["severity"]["most_likely"] if row["severity"] else "acceptable"
        colour = theme.severity[severity]
        axes.plot(row["interval"], [height, height], color=colour, lw=2.0, solid_capstyle="butt")
        axes.plot(
            [row["ratio"]], [height], marker=MARKS[severity], ms=5.5, color=colour, mec=theme.surface, mew=0.6
        )
        axes.plot([row["limit"]] * 2, [height - 0.33, height + 0.33], color=theme.ink, lw=1.4)
    words = {"pass": "", "neutral": " ?", "fail": " !"}
    labels = [_short(row["workload"]) + words[row["verdict"]] for row in rows]
    axes.set_yticks(range(len(rows)), labels, fontsize=7.5, family="monospace")
    axes.set_ylim(len(rows) - 0.3, -0.7)
    _ratio_ticks(axes.xaxis, lowest / 1.03, highest * 1.03)


def history(
    earlier: Sequence[Result], today: Result, place: int | None = None, theme: Theme = LIGHT
) -> Figure:
    """One workload's ratio to the reference in every accepted recording, and today, with intervals.

    ``earlier`` are accepted recordings judged by themselves, oldest first. Raises `NotMeasuredError`
    without any.
    """
    if not earlier:
        raise NotMeasuredError("there is no accepted recording of this machine and these builds")
    wanted = today.verdict["comparisons"][_worst(today) if place is None else place]
    found = [(_to_reference(result, wanted), result) for result in (*earlier, today)]
    points = [(row, result.recording["created"]) for row, result in found if row and row["interval"]]
    if len(points) < 2:
        raise NotMeasuredError(f"no accepted recording holds {wanted['workload']}")
    figure, (axes,) = new_figure(theme, (7.4, 3.4), 1)
    for x, (row, _) in enumerate(points):
        last = x == len(points) - 1
        colour = theme.other if last else theme.subject
        lower, upper = row["interval"]
        axes.plot([x, x], [lower, upper], color=colour, lw=2.2, solid_capstyle="butt")
        axes.plot([x], [row["ratio"]], marker="D" if last else "o", ms=6, color=colour,
                  label="today" if last else "accepted recording" if x == 0 else None)  # fmt: skip
    axes.set_xticks(range(len(points)), [f"{when[5:10]}\n{when[11:16]}" for _, when in points], fontsize=8)
    axes.set_xlim(-0.6, len(points) - 0.4)
    axes.set_ylabel("time ratio to the reference")
    add_legend(axes, theme, 2)
    question = f"Has {printable(wanted['subject'])} become slower since the accepted recordings?"
    set_title(figure, theme, question, _short(wanted["workload"]))
    return figure


def roofline(result: Result, theme: Theme = LIGHT) -> Figure:
    """Every product of the judged subject under the ceilings it meets; a panel for each number of threads.

    A slope is a bandwidth, a level line the peak of an instruction set. A mark has the colour and shape of
    the slope that its weights come along. Raises `NotMeasuredError` where the recording holds no ceilings.
    """
    ceilings = result.recording["ceilings"]
    if not ceilings:
        raise NotMeasuredError("the recording holds no measured ceilings of this machine")
    subject = next((row.subject for row in result.table if row.required and row.binds), None)
    rows = [row for row in result.verdict.data.get("efficiencies", ()) if row["backend"] == subject]
    panels: dict[int, list[Mapping[str, Any]]] = {}
    for row in rows:
        panels.setdefault(_threads(row["peak"]), []).append(row)
    if not panels:
        raise NotMeasuredError("no product of the subject was timed with all of its ceilings")
    work = {row["id"]: row["work"] for row in result.recording["plan"]["workloads"]}
    figure, all_axes = new_figure(theme, (7.4, 0.9 + 3.7 * len(panels)), len(panels))
    for axes, (threads, own) in zip(all_axes, sorted(panels.items()), strict=True):
        points = [(work[row["workload"]]["ops"], work[row["workload"]]["bytes"], row) for row in own]
        _roofline_panel(axes, points, ceilings, theme)
        name = "1 thread" if threads == 1 else f"{threads} threads"
        axes.set_title(name, loc="left", fontsize=9, color=theme.muted)
    all_axes[-1].set_xlabel("operations per weight byte")
    set_title(figure, theme, f"How close does {printable(str(subject))} come to what this machine can do?",
           "fastest call of each product; a mark on the line of its colour could not be faster")  # fmt: skip
    return figure


def _roofline_panel(
    axes: Axes,
    points: Sequence[tuple[int, int, Mapping[str, Any]]],
    ceilings: Mapping[str, float],
    theme: Theme,
) -> None:
    threads = _threads(points[0][2]["peak"])
    slopes = {
        name: value
        for name, value in ceilings.items()
        if name.endswith(BANDWIDTH) and _threads(name) == threads
    }
    roofs = {name: ceilings[name] for name in sorted({row["peak"] for *_, row in points})}
    roof = max(roofs.values())
    intensities = [ops / size for ops, size, _ in points]
    rates = [ops / row["fastest_ns"] for ops, _, row in points]
    # Every slope meets the highest roof inside.
    left = min(min(intensities), roof / max(slopes.values())) / 2
    right = max(max(intensities) * 2.5, 2 * roof / min(slopes.values()))
    for name, value in slopes.items():
        colour, _ = _level_style(name, theme)
        axes.plot([left, roof / value], [value * left, roof], color=colour, lw=1.4)
    lowest = min(slopes.values())
    for name, value in roofs.items():
        axes.plot([value / max(slopes.values()), right], [value] * 2, color=theme.muted, lw=1.4, ls="--")
        words = name.removesuffix(COMPUTE).rpartition("_t")[0].replace("_", " ")
        axes.annotate(f"{words} {value:.0f} GOP/s", (right, value), xytext=(-3, 4),
                      textcoords="offset points", fontsize=7.5, color=theme.ink, ha="right")  # fmt: skip
    for x, y, (*_, row) in zip(intensities, rates, points, strict=True):
        colour, mark = _level_style(row["bandwidth"], theme)
        face = theme.surface if row["peak"].startswith("f32") else colour
        axes.plot([x], [y], marker=mark, ms=6, mfc=face, mec=colour, mew=1.2, ls="", zorder=3)
    _plain_log(axes.xaxis, axes.set_xscale)
    _plain_log(axes.yaxis, axes.set_yscale)
    axes.set_xlim(left, right)
    axes.set_ylim(min([*rates, lowest * left]) / 1.6, roof * 2)
    axes.set_ylabel("GOP/s")
    _roofline_legend(axes, slopes, [row for *_, row in points], theme)


def _roofline_legend(
    axes: Axes, slopes: Mapping[str, float], rows: Sequence[Mapping[str, Any]], theme: Theme
) -> None:
    """Where weights lie, and how fast they come from there."""
    from matplotlib.lines import Line2D

    handles = []
    for name in sorted(slopes, key=lambda name: -slopes[name]):
        colour, mark = _level_style(name, theme)
        used = mark if any(row["bandwidth"] == name for row in rows) else ""
        label = f"{_place(name)} {slopes[name]:.0f} GB/s"
        handles.append(Line2D([], [], color=colour, marker=used, ms=6, lw=1.4, label=label))
    if any(row["peak"].startswith("f32") for row in rows):
        handles.append(Line2D([], [], marker="o", ms=6, mfc=theme.surface, mec=theme.muted, mew=1.2, lw=0,
                              label="hollow: float weights"))  # fmt: skip
    axes.legend(handles=handles, loc="lower right", fontsize=8, frameon=False, labelcolor=theme.ink,
                title="weights come from", title_fontproperties={"size": 8})  # fmt: skip
    axes.get_legend().get_title().set_color(theme.muted)  # type: ignore[union-attr]


def _threads(ceiling: str) -> int:
    """The number of threads that a ceiling's name tells."""
    return int(ceiling.removesuffix(BANDWIDTH).removesuffix(COMPUTE).rpartition("_t")[2])


def _place(bandwidth: str) -> str:
    """``L2``, ``memory``."""
    place = bandwidth.partition("_")[0]
    return "memory" if place == "dram" else place.upper()


def _level_style(bandwidth: str, theme: Theme) -> tuple[str, str]:
    """Colour and mark of where weights come from."""
    styles = {
        "l1": (theme.subject, "^"),
        "l2": (theme.severity["minor"], "s"),
        "l3": (theme.other, "o"),
        "dram": (theme.severity["critical"], "v"),
    }
    return styles.get(bandwidth.partition("_")[0], (theme.muted, "D"))


def png(figure: Figure, dpi: int = 144) -> bytes:
    """The figure as a PNG file."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=dpi)
    return out.getvalue()


def css_svg(figure: Figure) -> str:
    """A `LIGHT` figure as an ``<svg>`` element whose colours are CSS variables of the page."""
    import matplotlib as mpl

    out = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "perfgate"}):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    names = {name: getattr(LIGHT, name) for name in ("surface", "ink", "muted", "grid", "subject", "other")}
    names.update({f"severity-{name}": colour for name, colour in LIGHT.severity.items()})
    for name, colour in names.items():
        text = text.replace(colour, f"var(--{name})")
    return text


def new_figure(
    theme: Theme, size: tuple[float, float], n_panels: int, height_ratios: Sequence[float] | None = None
) -> tuple[Figure, list[Axes]]:
    """A figure with panels below one another. Raises `NotMeasuredError` where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise NotMeasuredError("matplotlib is not installed: pip install bitnet-perfgate[plots]") from error
    # A figure of its own: pyplot's state, and whatever backend a notebook has chosen, stay alone.
    figure = Figure(figsize=size, facecolor=theme.surface, layout="constrained")
    grid = {"height_ratios": height_ratios} if height_ratios else {}
    found = figure.subplots(n_panels, 1, squeeze=False, gridspec_kw=grid)
    panels: list[Axes] = [row[0] for row in found]
    for axes in panels:
        axes.set_facecolor(theme.surface)
        axes.tick_params(colors=theme.muted, labelcolor=theme.ink, labelsize=8.5)
        axes.xaxis.label.set(color=theme.ink, fontsize=9)
        axes.yaxis.label.set(color=theme.ink, fontsize=9)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        for side in ("left", "bottom"):
            axes.spines[side].set_color(theme.grid)
    return figure, panels


def set_title(figure: Figure, theme: Theme, question: str, detail: str) -> None:
    """The question that the plot answers, and what it is about."""
    text = f"{question}\n{detail}" if detail else question
    figure.suptitle(text, color=theme.ink, fontsize=10.5, x=0.01, ha="left", linespacing=1.5)


def add_legend(axes: Axes, theme: Theme, n_columns: int) -> None:
    """Above the panel, where it covers nothing."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=n_columns, fontsize=8, frameon=False,
                labelcolor=theme.ink, borderaxespad=0.2, handletextpad=0.4, columnspacing=1.2)  # fmt: skip


def _severity_legend(figure: Figure, rows: Sequence[Mapping[str, Any]], theme: Theme) -> None:
    from matplotlib.lines import Line2D

    present = {row["severity"]["most_likely"] for row in rows if row["severity"]}
    handles = [
        Line2D([], [], color=theme.severity[name], marker=MARKS[name], ms=5.5, lw=2.0, label=name)
        for name in SEVERITIES
        if name in present
    ]
    signs = {"neutral": "? undecided", "fail": "! too slow"}
    verdicts = {row["verdict"] for row in rows}
    if verdicts & signs.keys():
        label = "   ".join(sign for verdict, sign in signs.items() if verdict in verdicts)
        handles.append(Line2D([], [], lw=0, label=label))
    figure.legend(
        handles=handles, loc="outside lower left", ncols=5, fontsize=8, frameon=False, labelcolor=theme.ink
    )


def _plain_log(axis: Axis, set_scale: Callable[[str], object]) -> None:
    """A logarithmic axis with numbers people write."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    set_scale("log")
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _ratio_ticks(axis: Axis, lowest: float, highest: float) -> None:
    """Round ratios on a logarithmic axis, fewer where the range is wide."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    ticks = [ratio for ratio in RATIOS if lowest <= ratio <= highest]
    if len(ticks) > MOST_TICKS or highest / lowest > WIDE_RANGE:
        ticks = [ratio for ratio in ticks if ratio not in CLOSE_RATIOS]
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _worst(result: Result) -> int:
    rows = judged(result)
    if not rows:
        raise NotMeasuredError("no comparison was judged")
    return rows[0][0]


def _worst_interleaved(result: Result) -> int:
    blocks = comparison_blocks(result)
    places = [place for place, _ in judged(result) if blocks[place]]
    if not places:
        raise NotMeasuredError("no judged comparison was timed in shared blocks")
    return places[0]


def _to_reference(result: Result, wanted: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The comparison with the reference of the same workload and subject."""
    rows: Sequence[Mapping[str, Any]] = result.verdict["comparisons"]
    same = (
        row
        for row in rows
        if row["against"] == "reference"
        and row["workload"] == wanted["workload"]
        and row["subject"] == wanted["subject"]
        and row["meter"] == "wall_ns"
    )
    return next(same, None)


def _series(result: Result, comparison: Mapping[str, Any], backend: str) -> Mapping[str, Any]:
    for series in result.recording["series"]:
        same = (series["workload"], series["meter"]) == (comparison["workload"], comparison["meter"])
        if same and series["backend"] == backend and series["reference"] == comparison["other"]:
            found: Mapping[str, Any] = series
            return found
    raise _core.InputError(f"the recording holds no samples of {backend} on {comparison['workload']}")


def _starts(sides: Sequence[Mapping[str, Any]], launches: Sequence[int]) -> tuple[dict[int, int], int]:
    """Where each launch begins when their blocks stand in one row, and how many there are."""
    starts: dict[int, int] = {}
    total = 0
    for launch in launches:
        own = [
            block
            for series in sides
            for block, of in zip(series["block"], series["launch"], strict=True)
            if of == launch
        ]
        if own:
            starts[launch] = total
            total += max(own) + 1
    return starts, total


def _positions(series: Mapping[str, Any], starts: Mapping[int, int]) -> tuple[list[float], list[float]]:
    """Place and time per call of each sample; within a block in the order measured."""
    most = max(series["order"], default=0) + 1
    columns = (series[name] for name in ("launch", "block", "order", "value_ns", "iterations"))
    rows = [row for row in zip(*columns, strict=True) if row[0] in starts]
    x = [starts[launch] + block + (order + 0.5) / most for launch, block, order, _, _ in rows]
    return x, [value / calls for *_, value, calls in rows]


def _time_unit(ns: float) -> tuple[float, str]:
    return next(((scale, unit) for scale, unit in TIME_UNITS if ns >= scale), (1.0, "ns"))


def _short(workload: str) -> str:
    """A name that fits beside an axis: a long one loses its middle."""
    name = printable(workload)
    if len(name) <= LONGEST_NAME:
        return name
    keep = (LONGEST_NAME - 1) // 2
    return f"{name[:keep]}…{name[-keep:]}"
