"""Baselines, gate, compare, other builds and measuring processes. No assertion is about speed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

import bitnet_perfgate as perfgate
from bitnet_perfgate import _core, regression, worker
from conftest import REPOSITORY, Cli, assert_refused, command, environment

PRODUCT = "matmul/i2_s/640x2560/b1/t1/hot"
SMALL = ("--workload", PRODUCT, "--workload", "quantize/i2_s/640x2560")
CHOSEN = [PRODUCT, "quantize/i2_s/640x2560"]
# Whether Rust is as fast as C++ here and now is no matter of these tests.
ANY_SPEED = "[reference_speed_share]\nquantization = 0.01\nkernels = 0.01\ninference = 0.01\n"


@pytest.fixture(scope="module")
def any_speed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy that leaves the comparison with C++ out of the verdict."""
    path = tmp_path_factory.mktemp("policy") / "any-speed.toml"
    path.write_text(ANY_SPEED)
    return path


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One real recording of two workloads."""
    path = tmp_path_factory.mktemp("recording") / "r.recording.json"
    perfgate.run(workloads=CHOSEN).save(path)
    return path


def rule(verdict: perfgate.Verdict, name: str) -> dict[str, str]:
    """The rule of that name."""
    found: dict[str, str] = next(row for row in verdict["rules"] if row["name"] == name)
    return found


def test_a_run_is_several_fresh_processes_with_an_aa_arm(recording: Path) -> None:
    document = perfgate.load_recording(recording).recording
    assert len(document["launches"]) >= 3
    assert all(launch["aa"] for launch in document["launches"])
    if sys.platform == "linux":
        assert all(isinstance(launch["cpu"], int) for launch in document["launches"])
    twins = [series for series in document["series"] if series["backend"].endswith("+aa")]
    assert {series["workload"] for series in twins} == set(CHOSEN)
    verdict = perfgate.load_recording(recording).verdict
    assert not any("+aa" in row["subject"] for row in verdict["comparisons"])
    assert all(row["n_launches"] >= 3 for row in verdict["comparisons"] if row["required"])


def test_every_kind_of_verdict_follows_the_published_schema(recording: Path) -> None:
    schema = json.loads((REPOSITORY / "docs" / "schemas" / "verdict-1.schema.json").read_text())
    check = jsonschema.Draft202012Validator(schema)
    alone = perfgate.load_recording(recording).verdict
    against = perfgate.compare([recording] * 3, recording).verdict
    builds = perfgate.compare_libraries(regression.this_build(), workloads=CHOSEN[:1]).verdict
    for verdict in (alone, against, builds):
        check.validate(verdict.data)
        for row in verdict["comparisons"]:
            assert set(row) <= set(schema["properties"]["comparisons"]["items"]["properties"])
        assert set(verdict.data) <= set(schema["properties"])
    with pytest.raises(jsonschema.ValidationError):
        check.validate({**alone.data, "verdict": "green"})


def test_gate_without_a_baseline_is_neutral_and_says_how_to_record_one(
    cli: Cli, tmp_path: Path, any_speed: Path
) -> None:
    done = cli("gate", *SMALL, "--baseline", "none", "--format", "json", "--thresholds", any_speed)
    assert done.returncode == 3, done.stderr
    verdict = perfgate.Verdict(json.loads(done.stdout))
    assert rule(verdict, "regression")["verdict"] == "neutral"
    assert "baseline record" in rule(verdict, "regression")["reason"]
    assert not (tmp_path / "none").exists(), "gating writes no baseline"


def test_accepted_recordings_are_found_listed_and_compared_with(
    cli: Cli, tmp_path: Path, recording: Path
) -> None:
    for why in ("first", "second", "third"):
        done = cli("baseline", "accept", str(recording), "--why", why, "--who", "me", "--baseline", "b")
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("accepted: b")
    listed = cli("baseline", "list", "--baseline", "b")
    assert [line.split("me: ")[1] for line in listed.stdout.splitlines()] == ["first", "second", "third"]
    before = sorted(path for path in (tmp_path / "b").rglob("*.json"))
    done = cli("gate", *SMALL, "--baseline", "b", "--format", "json")
    verdict = perfgate.Verdict(json.loads(done.stdout))
    rows = [row for row in verdict["comparisons"] if row["against"] == "baseline" and row["required"]]
    assert {row["workload"] for row in rows} == set(CHOSEN)
    assert all(row["n_baselines"] == 3 and row["raw_ratio"] and row["interval"] for row in rows)
    assert "accepted recordings" in verdict.summary or verdict.verdict != "pass"
    assert sorted(path for path in (tmp_path / "b").rglob("*.json")) == before, "gating writes no baseline"


def test_what_cannot_be_a_baseline_is_refused(cli: Cli, tmp_path: Path, recording: Path) -> None:
    data = json.loads(recording.read_text())
    data["incomplete"] = "crash"
    (tmp_path / "half.json").write_text(json.dumps(data))
    assert_refused(cli("baseline", "accept", "half.json", "--why", "x"), "incomplete (crash)")
    elsewhere = ("--why", "x", "--platform", "macos-aarch64")
    assert_refused(cli("baseline", "accept", str(recording), *elsewhere), "not on macos-aarch64")
    assert_refused(cli("baseline", "accept", "none.json", "--why", "x"), "none.json")
    assert not (tmp_path / "benchmark-results").exists()


def test_recordings_of_other_machines_are_not_compared(
    cli: Cli, tmp_path: Path, recording: Path, any_speed: Path
) -> None:
    data = json.loads(recording.read_text())
    data["fingerprint"]["cpu_model"] = "Another CPU"
    (tmp_path / "other.json").write_text(json.dumps(data))
    done = cli("compare", "other.json", str(recording), "--format", "json", "--thresholds", any_speed)
    assert done.returncode == 3
    verdict = perfgate.Verdict(json.loads(done.stdout))
    assert "not comparable: cpu_model was" in rule(verdict, "regression")["reason"]
    assert "cpu_model" in cli("baseline", "diff", "other.json", str(recording)).stdout
    assert "comparable" in cli("baseline", "diff", str(recording), str(recording)).stdout


def test_one_earlier_recording_is_neutral_at_best(recording: Path, any_speed: Path) -> None:
    verdict = perfgate.compare(recording, recording, thresholds=any_speed).verdict
    assert verdict.verdict == "neutral"
    assert "1 accepted recordings, 3 are needed" in rule(verdict, "regression")["reason"]
    assert perfgate.compare([recording] * 3, recording).verdict["comparisons"][-1]["ratio"] is not None


def test_the_same_build_is_loaded_twice_and_compared_backend_by_backend() -> None:
    result = perfgate.compare_libraries(regression.this_build(), workloads=CHOSEN)
    rows = result.verdict["comparisons"]
    assert {row["against"] for row in rows} == {"revision"}
    assert {row["subject"].split("@")[1] for row in rows} == {"new"}
    assert {row["other"].split("@")[1] for row in rows} == {"old"}
    assert {row["workload"] for row in rows} == set(CHOSEN)
    assert result.verdict["agreement"]["exact"] == result.verdict["agreement"]["n"] > 0


def test_another_revision_needs_a_checkout_and_a_known_name(cli: Cli, tmp_path: Path) -> None:
    assert_refused(cli("compare", "--rev", "HEAD"), "no git checkout of this project")
    assert_refused(cli("compare", "--library", "none.so"), "none.so")
    (tmp_path / "text.so").write_text("text")
    assert_refused(cli("compare", "--library", "text.so"), "text.so: not a loadable shared library")
    root = Path(__file__).parents[2]
    if (root / ".git").exists():
        done = subprocess.run(
            command("compare", "--rev", "no-such-revision", "--output", str(tmp_path / "o.json")),
            cwd=root,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert_refused(done, "no-such-revision", "is no revision of")


def test_one_way_of_comparing_at_a_time(cli: Cli) -> None:
    assert_refused(cli("compare"), "nothing given, expected one of")
    assert_refused(cli("compare", "a.json", "--library", "b.so"), "recordings and --library given")
    assert_refused(cli("compare", "a.json"), "EARLIER... LATER")
    assert_refused(cli("gate", "--library", "a.so", "--rev", "HEAD"), "--library and --rev")


def test_a_policy_file_is_read_strictly(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text("[severity]\nminr = 0.05\n")
    assert_refused(cli("run", *SMALL, "--thresholds", "p.toml"), "p.toml:2:1", "minr")
    assert_refused(cli("gate", "--thresholds", "none.toml"), "none.toml")


def test_a_killed_process_is_a_reason_and_never_a_pass(tmp_path: Path) -> None:
    script = tmp_path / "dies.py"
    script.write_text("import os, signal, sys\nsys.stdin.readline()\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    options = json.dumps({"workloads": CHOSEN, "worker": [sys.executable, str(script)]})
    recording, verdict = (json.loads(text) for text in _core.run(options))
    assert "launch 0 was killed by signal 11 (SIGSEGV) before its first step" in recording["incomplete"]
    assert verdict["verdict"] == "neutral"
    assert recording["series"] == []


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("print('garbage')", 'said "garbage", which is no answer'),
        ("print('{\"step\": 1}')", "which is no answer"),
        ('print(\'{"error": {"file": false, "message": "too bad"}}\')', "too bad"),
    ],
)
def test_a_process_that_talks_nonsense_is_refused(tmp_path: Path, lines: str, words: str) -> None:
    script = tmp_path / "talks.py"
    script.write_text(f"import sys\nsys.stdin.readline()\n{lines}\n")
    options = json.dumps({"workloads": CHOSEN, "worker": [sys.executable, str(script)]})
    with pytest.raises(perfgate.InputError) as raised:
        _core.run(options)
    assert words in str(raised.value)


def test_a_process_that_ends_early_is_a_reason(tmp_path: Path) -> None:
    for program, words in (("import sys; sys.exit(0)", "exit code 0"), ("1/0", "ZeroDivisionError")):
        options = json.dumps({"workloads": CHOSEN, "worker": [sys.executable, "-c", program]})
        assert words in json.loads(_core.run(options)[0])["incomplete"]
    with pytest.raises(perfgate.InputError, match="cannot be started"):
        _core.run(json.dumps({"workloads": CHOSEN, "worker": [str(tmp_path / "none")]}))


def test_a_process_whose_parent_is_gone_ends_by_itself() -> None:
    request = {
        "profile": "full",
        "seed": 42,
        "categories": [],
        "workloads": [],
        "model": None,
        "timing": None,
    }
    order = {"index": 0, "stage": 1, "workloads": None, "twin": False, "pin": False}
    text = json.dumps({"request": request, "selection": {}, "order": order})
    with subprocess.Popen(
        worker.command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(), text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(text + "\n")
        process.stdin.flush()
        assert "step" in json.loads(process.stdout.readline())
        process.stdin.close()
        last = json.loads(process.stdout.read().splitlines()[-1])
        assert process.wait(timeout=60) == 0
    assert last["recording"]["incomplete"] == "interrupted"


def test_an_order_that_is_none_is_an_answer() -> None:
    for text in ("", "{}\n", "garbage\n", '{"request": 1}\n'):
        done = subprocess.run(
            worker.command(), input=text, env=environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert "the order is none" in json.loads(done.stdout)["error"]["message"]


def test_trials_from_the_command_line(cli: Cli, tmp_path: Path) -> None:
    times = [1_000_000 + 97 * (i % 11) for i in range(180)]
    slower = [1.2 * ns for ns in times]
    (tmp_path / "t.json").write_text(json.dumps({"baseline": times, "candidate": slower, "mode": "intpin"}))
    done = cli("compare", "--trial", "t.json", "--format", "json")
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["verdict"], answer["certainty"]) == (1, "fail", "confirmed")
    assert answer["severity"] == {"most_likely": "critical", "at_least": "critical"}
    assert {"ratio", "interval", "mde", "reason"} <= set(answer)
    assert cli("compare", "--trial", "t.json", "--margin", "30%").returncode == 0
    lines = [json.dumps({"id": n, "baseline": times, "candidate": times, "mode": "duet"}) for n in (1, 2)]
    (tmp_path / "many.jsonl").write_text("\n\n".join(lines) + "\n")
    done = cli("compare", "--trials", "many.jsonl", "--format", "json")
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == [1, 2]
    assert done.returncode == 0
    (tmp_path / "empty.jsonl").write_text("\n")
    assert cli("compare", "--trials", "empty.jsonl").returncode == 3, "nothing judged is no pass"
    (tmp_path / "bad.jsonl").write_text(lines[0] + "\n{\n")
    assert_refused_after_output(cli("compare", "--trials", "bad.jsonl"), "bad.jsonl:2: is no JSON")
    assert_refused(cli("compare", "--trial", "t.json", "--margin", "much"), "--margin 'much'")
    assert_refused(cli("compare", "--trial", "t.json", "--calibration", "t.json"), "t.json: at trials")


def assert_refused_after_output(done: subprocess.CompletedProcess[str], words: str) -> None:
    """One line of error and exit code 2, whatever was printed before."""
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert words in done.stderr


def test_interrupting_a_run_leaves_no_process(tmp_path: Path) -> None:
    with subprocess.Popen(
        command("run", "-v", "--output", "i.json"),
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stderr
        process.stderr.readline()
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 130
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
