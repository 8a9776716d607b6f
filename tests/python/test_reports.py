"""Reports: every format of the command and the function, and the schema of JUnit XML."""

import copy
import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import xmlschema

import bitnet_perfgate as perfgate
from bitnet_perfgate import reports
from conftest import PRODUCT, REPOSITORY, Cli, assert_refused

SECTIONS = [
    "# BitNet.rs Performance Regression Analysis",
    "## Neural Network Performance Summary",
    "## Benchmark Results Matrix",
    "## Commands Executed",
    "## Performance Analysis",
    "## Cross-Validation Status",
    "## Next Steps & Routing",
]


@pytest.fixture
def saved(small_run: perfgate.Result, tmp_path: Path) -> Path:
    """The verdict of the small run as a file, its recording beside it."""
    small_run.save(tmp_path / "s.recording.json", ["python -m bitnet_perfgate run"])
    return tmp_path / "s.verdict.json"


def judged(result: perfgate.Result, answer: str) -> perfgate.Result:
    """The same result with its first judged comparison, and the whole, answered otherwise."""
    data: dict[str, Any] = copy.deepcopy(dict(result.verdict.data))
    data["verdict"] = answer
    row = next(row for row in data["comparisons"] if row["verdict"])
    row.update(verdict=answer, reason="made for this test <&>")
    return perfgate.Result.of(result.recording, perfgate.Verdict(data))


def test_markdown_has_the_sections_in_order_and_the_evidence(small_run: perfgate.Result) -> None:
    text = perfgate.report(small_run)
    places = [text.index(f"{section}\n") for section in SECTIONS]
    assert places == sorted(places)
    assert f"## Gate Decision: {small_run.verdict.verdict.upper()}\n" in text
    assert small_run.verdict.evidence in text
    (throughput,) = [line for line in text.splitlines() if line.startswith("- **Inference Throughput**: ")]
    assert " tok/s" in throughput


def test_the_sections_are_data(small_run: perfgate.Result) -> None:
    report = reports.sections(small_run)
    judged_rows = [row for row in small_run.verdict["comparisons"] if row["verdict"]]
    of_workloads = [row for row in report.matrix if " on " in row["component"]]
    timed = [row for row in of_workloads if row["status"] != "SKIPPED"]
    assert len(timed) == len(judged_rows)
    unit = {row.workload: row.unit for row in small_run.table}
    for row in timed:
        workload = row["component"].split(" on ")[0]
        assert unit[workload] in row["current"]
        assert unit[workload] in row["baseline"]


@pytest.mark.parametrize("answer", ["pass", "neutral", "fail"])
def test_junit_follows_the_schema(small_run: perfgate.Result, answer: str) -> None:
    text = perfgate.report(judged(small_run, answer), format="junit")
    schema = xmlschema.XMLSchema(REPOSITORY / "tests" / "golden" / "junit.xsd")
    schema.validate(text)
    root = ET.fromstring(text)
    cases = [case for suite in root if suite.get("name") == "speed" for case in suite.iter("testcase")]
    outcome = {"pass": None, "neutral": "skipped", "fail": "failure"}[answer]
    found = [child.tag for child in cases[0]]
    assert found == ([outcome] if outcome else [])
    if outcome:
        assert "made for this test <&>" in (cases[0][0].get("message") or "")
    for suite in root:
        counted = {
            "tests": len(suite.findall("testcase")),
            "failures": len(suite.findall("testcase/failure")),
            "skipped": len(suite.findall("testcase/skipped")),
        }
        assert {name: int(suite.get(name) or -1) for name in counted} == counted
    with pytest.raises(xmlschema.XMLSchemaException):
        schema.validate(text.replace("<system-out/>", "", 1))


def test_a_saved_verdict_is_rendered_in_every_format(cli: Cli, saved: Path) -> None:
    result = perfgate.load_verdict(saved)
    for format in reports.FORMATS:
        done = cli("report", saved, "--format", format)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        if format != "human":
            assert done.stdout == perfgate.report(saved, format=format)
        assert result.verdict.evidence.split("; ")[0] in done.stdout
    assert "PASS" in perfgate.report(saved, format="human").upper()
    with pytest.raises(perfgate.InputError, match="no format is called 'pdf'"):
        perfgate.report(saved, format="pdf")


def test_what_a_later_version_wrote_is_kept(cli: Cli, saved: Path) -> None:
    data = {**json.loads(saved.read_text()), "of_tomorrow": {"x": [1.5]}}
    saved.write_text(json.dumps(data))
    assert json.loads(cli("report", saved, "--format", "json").stdout) == data
    assert cli("report", saved, "--format", "markdown").returncode == 0


def test_output_is_a_file_and_replaces_no_input(cli: Cli, saved: Path, tmp_path: Path) -> None:
    done = cli("report", saved, "--format", "markdown", "--output", "r.md")
    assert (done.returncode, done.stdout) == (0, "")
    assert (tmp_path / "r.md").read_text() == perfgate.report(saved)
    before = saved.read_text()
    assert_refused(cli("report", saved, "--format", "markdown", "--output", saved), "it is the input")
    assert saved.read_text() == before


def test_what_is_no_verdict_is_refused(cli: Cli, saved: Path, tmp_path: Path) -> None:
    text = saved.read_text()
    (tmp_path / "cut.verdict.json").write_text(text[: len(text) // 2])
    assert_refused(cli("report", "cut.verdict.json"), "cut.verdict.json: at ")
    assert_refused(cli("report", "none.json"), "none.json: cannot read it")
    assert_refused(cli("report", "s.recording.json"), "bitnet-perfgate/recording/1")
    assert_refused(cli("report", saved, "--recording", saved), "bitnet-perfgate/verdict/1")
    data = json.loads(text)
    (tmp_path / "lost.json").write_text(json.dumps({**data, "recording": "gone.recording.json"}))
    assert_refused(cli("report", "lost.json"), "gone.recording.json")
    (tmp_path / "nameless.json").write_text(json.dumps({**data, "recording": None}))
    assert_refused(cli("report", "nameless.json"), "--recording")
    (tmp_path / "climbs.json").write_text(json.dumps({**data, "recording": "../s.recording.json"}))
    assert_refused(cli("report", "climbs.json"), "expected a file name beside it")
    data["comparisons"][0]["workload"] = "matmul/i2_s/1x128/b1/t1/hot"
    (tmp_path / "other.json").write_text(json.dumps(data))
    assert_refused(cli("report", "other.json"), "is no verdict on this recording")


def test_a_run_prints_the_same_report(cli: Cli, tmp_path: Path) -> None:
    chosen = ("crossval", "--workload", PRODUCT, "--output", "c.recording.json", "-q")
    done = cli(*chosen, "--format", "markdown")
    assert done.returncode in (0, 3), done.stderr
    assert done.stdout == perfgate.report(tmp_path / "c.verdict.json")
    assert "--format markdown" in done.stdout
    assert_refused(cli("compare", "--trial", "t.json", "--format", "junit"), "have human and json only")
