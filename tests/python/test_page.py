"""Plots and the HTML page: what they hold, and what they do without data, matplotlib or manners."""

import base64
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import bitnet_perfgate as perfgate
from bitnet_perfgate import html, plots
from conftest import PRODUCT, command, environment, rejudged, under_ceilings

VOID = {"meta", "br", "img", "input", "hr", "link"}


class Page(HTMLParser):
    """Tags in balance, and what the page would load."""

    def __init__(self, text: str) -> None:
        """Reads the whole text."""
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.files: dict[str, bytes] = {}
        self.tags: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keeps what it loads and offers."""
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        values = dict(attrs)
        for name, value in values.items():
            assert not name.startswith("on"), f"{tag} {name}"
            if name in ("src", "srcset", "href", "xlink:href", "data", "action") and value:
                self.loads.append(value)
        if tag == "a" and "download" in values:
            data = (values["href"] or "").removeprefix("data:application/json;base64,")
            self.files[values["download"] or ""] = base64.b64decode(data, validate=True)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Both at once."""
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        """Closes what was opened last."""
        assert self.open.pop() == tag


def test_the_page_is_whole_and_loads_nothing(small_run: perfgate.Result) -> None:
    text = perfgate.report(small_run, format="html")
    page = Page(text)
    assert "script" not in page.tags
    for address in page.loads:
        assert address.startswith(("#", "data:application/json;base64,")), address[:80]
    assert "@import" not in text
    assert all(place.startswith("#") for place in re.findall(r"url\(([^)]*)\)", text))
    titles = re.findall(r"<h2>(.*?)</h2>", text)
    assert titles[0] == f"Gate Decision: {small_run.verdict.verdict.upper()}"
    assert titles[1:] == [
        "Neural Network Performance Summary",
        "Benchmark Results Matrix",
        "Plots",
        "Commands Executed",
        "Performance Analysis",
        "Cross-Validation Status",
        "Next Steps &amp; Routing",
        "Raw data",
    ]


def test_the_raw_data_is_inside(small_run: perfgate.Result) -> None:
    files = Page(perfgate.report(small_run, format="html")).files
    assert len(files) == 2
    documents = {name.rpartition(".")[0].rpartition(".")[2]: json.loads(text) for name, text in files.items()}
    assert documents == {"recording": small_run.recording.data, "verdict": small_run.verdict.data}


def test_plots_are_inline_or_say_why_not(small_run: perfgate.Result) -> None:
    text = perfgate.report(under_ceilings(small_run), format="html")
    assert text.count("<svg") == 3
    assert "Is anything slower than allowed?" in text
    assert "Baseline history: not measured (there is no accepted recording" in text
    assert "come to what this machine can do?" in text
    without = perfgate.report(rejudged(small_run, ceilings={}), format="html")
    assert without.count("<svg") == 2
    assert "Roofline: not measured (the recording holds no measured ceilings of this machine)" in without
    # Colours are the page's own, so that light and dark are.
    svg = text[text.index("<svg") : text.rindex("</svg>")]
    assert not re.findall(r"(?:fill|stroke): #(?!000000|ffffff)[0-9a-f]{6}", svg)


def test_every_sample_of_both_sides_is_drawn(small_run: perfgate.Result) -> None:
    place = plots.judged(small_run)[0][0]
    comparison = small_run.verdict["comparisons"][place]
    above, below = plots.paired_samples(small_run, place).axes
    # What was measured afresh is judged, and drawn, by that alone.
    drawn_launches = {
        launch["index"]
        for launch in small_run.recording["launches"]
        if launch.get("stage", 1) == comparison["stage"]
    }
    sides = {
        series["backend"]: sum(launch in drawn_launches for launch in series["launch"])
        for series in small_run.recording["series"]
        if series["workload"] == comparison["workload"] and series["meter"] == "wall_ns"
    }
    drawn = [len(dots.get_offsets()) for dots in above.collections]  # type: ignore[arg-type]
    assert drawn == [sides[comparison["subject"]], sides[comparison["other"]]]
    assert len(below.collections[0].get_offsets()) == comparison["n_blocks"]  # type: ignore[arg-type]


def test_a_roofline_needs_ceilings(small_run: perfgate.Result) -> None:
    with pytest.raises(plots.NotMeasuredError, match="no measured ceilings"):
        plots.roofline(rejudged(small_run, ceilings={}))
    with pytest.raises(plots.NotMeasuredError, match="no product of the subject"):
        plots.roofline(rejudged(small_run, ceilings={"dram_read_t1_gb_per_s": 20.0}))


@pytest.mark.parametrize("theme", [plots.LIGHT, plots.DARK])
def test_a_roofline_has_a_line_for_each_ceiling_and_a_mark_for_each_product(
    small_run: perfgate.Result, theme: plots.Theme
) -> None:
    result = under_ceilings(small_run)
    subject = next(row.subject for row in small_run.table if row.required)
    isa = subject.partition("-")[2]
    (row,) = [row for row in result.verdict["efficiencies"] if row["backend"] == subject]
    assert (row["workload"], row["bandwidth"]) == (PRODUCT, "l1_read_t1_gb_per_s")
    (axes,) = plots.roofline(result, theme).axes
    assert [text.get_text() for text in axes.texts] == [f"int8 dot {isa} 400 GOP/s"]
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["L1 200 GB/s", "memory 20 GB/s"]
    marks = [line for line in axes.lines if line.get_linestyle() == "None"]
    assert len(marks) == 1
    rate = marks[0].get_xydata()[0][1]  # type: ignore[index]
    work = next(row["work"] for row in result.recording["plan"]["workloads"] if row["id"] == PRODUCT)
    assert rate == pytest.approx(work["ops"] / row["fastest_ns"])


def test_a_history_has_a_point_for_each_recording(small_run: perfgate.Result) -> None:
    (axes,) = plots.history([small_run, small_run], small_run).axes
    assert len(axes.get_xticks()) == 3
    with pytest.raises(plots.NotMeasuredError, match="no accepted recording"):
        plots.history([], small_run)


@pytest.mark.parametrize("theme", [plots.LIGHT, plots.DARK])
def test_colours_can_be_told_from_their_ground(theme: plots.Theme) -> None:
    """Contrast at least 4.5 for text and 3 for marks (WCAG 2.1)."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(colour: str) -> float:
        pair = sorted((luminance(colour), luminance(theme.surface)))
        return (pair[1] + 0.05) / (pair[0] + 0.05)

    assert min(contrast(colour) for colour in (theme.ink, theme.muted)) >= 4.5
    assert min(map(contrast, (theme.subject, theme.other, *theme.severity.values()))) >= 3.0


def test_a_plot_is_a_png(small_run: perfgate.Result) -> None:
    for theme in (plots.LIGHT, plots.DARK):
        assert plots.png(plots.forest(small_run, theme)).startswith(b"\x89PNG")


def test_names_from_strangers_stay_text(small_run: perfgate.Result) -> None:
    evil = "<script>alert(1)</script>\x1b\"'&"
    verdict = {
        **small_run.verdict.data,
        "evidence": f"method: {evil}; result: x; reason: y",
        "commands": [evil],
    }
    verdict["summary"] = evil
    result = perfgate.Result(small_run.recording, perfgate.Verdict(verdict), small_run.table)
    text = perfgate.report(result, format="html")
    assert "script" not in Page(text).tags
    assert "\x1b" not in text


def test_without_matplotlib_the_page_says_so(small_run: perfgate.Result, tmp_path: Path) -> None:
    small_run.save(tmp_path / "s.recording.json")
    (tmp_path / "matplotlib.py").write_text("raise ImportError('not here')\n")
    done = subprocess.run(
        command("report", "s.verdict.json", "--format", "html"),
        cwd=tmp_path,
        env=environment(PYTHONPATH=":".join([str(tmp_path), *sys.path])),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "pip install bitnet-perfgate[plots]" in done.stdout
    assert "<svg" not in done.stdout


def test_nothing_is_imported_before_it_is_needed() -> None:
    late = "'matplotlib', 'pandas', 'github', 'IPython'"
    code = f"import sys, bitnet_perfgate.cli; print([m for m in ({late}) if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


MEASURE = """<script>addEventListener('load', () => parent.postMessage(
  [document.documentElement.scrollWidth, document.querySelectorAll('svg').length], '*'))</script>"""
FRAME = """<body><iframe src="page.html" style="width:{width}px;height:900px;border:0"></iframe>
<p id="found"></p><script>addEventListener('message', event => {{
  document.getElementById('found').textContent = event.data.join(' '); }})</script></body>"""


@pytest.mark.deep
@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_the_page(small_run: perfgate.Result, tmp_path: Path, width: int) -> None:
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    assert browser, "chromium is needed: apt-get install chromium"
    page = html.page(small_run)
    (tmp_path / "page.html").write_text(page + MEASURE)
    (tmp_path / "frame.html").write_text(FRAME.format(width=width))
    done = subprocess.run(
        [
            *(browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"),
            *("--virtual-time-budget=3000", f"--user-data-dir={tmp_path}/profile", "--dump-dom"),
            (tmp_path / "frame.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "CONSOLE" not in done.stderr
    found = re.search(r'<p id="found">(\d+) (\d+)</p>', done.stdout)
    assert found, done.stdout
    scroll_width, plots_shown = map(int, found.groups())
    assert scroll_width <= width, "the page is wider than the window"
    assert plots_shown == page.count("<svg")
