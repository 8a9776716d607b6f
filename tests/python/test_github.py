"""Check run and ledger against a loopback server that validates every request."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bitnet_perfgate as perfgate
from bitnet_perfgate import ledger, pull_request
from conftest import Cli
from github_server import SHA, TOKEN, FakeGitHub, Fault
from test_reports import judged


@pytest.fixture
def github() -> Iterator[FakeGitHub]:
    with FakeGitHub() as server:
        yield server


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Waiting is noted instead of done."""
    found: list[float] = []
    monkeypatch.setattr(pull_request, "sleep", found.append)
    return found


@pytest.fixture
def ci(github: FakeGitHub, tmp_path: Path) -> dict[str, str]:
    """The environment of a job on a pull request."""
    event = {"pull_request": {"number": 7, "head": {"sha": SHA}}}
    (tmp_path / "event.json").write_text(json.dumps(event))
    return {
        "GITHUB_ACTIONS": "true",
        "GITHUB_API_URL": github.url,
        "GITHUB_TOKEN": TOKEN,
        "GITHUB_REPOSITORY": "acme/kernels",
        "GITHUB_SHA": "f" * 40,
        "GITHUB_EVENT_PATH": str(tmp_path / "event.json"),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
        "GITHUB_SERVER_URL": "https://github.com",
        "GITHUB_RUN_ID": "12",
    }


def said(lines: list[str]) -> list[str]:
    """What was done, without the annotations."""
    return [line for line in lines if not line.startswith("::")]


def skipped(lines: list[str]) -> str:
    """The reason; nothing else may follow it, and no token may be in it."""
    assert lines[-1].startswith("CHECK-SKIPPED: reason="), lines
    assert TOKEN not in "".join(lines)
    return lines[-1].removeprefix("CHECK-SKIPPED: reason=")


@pytest.mark.parametrize(
    ("answer", "conclusion"), [("pass", "success"), ("neutral", "neutral"), ("fail", "failure")]
)
def test_a_verdict_becomes_one_check_run_and_one_comment(
    small_run: perfgate.Result, github: FakeGitHub, ci: dict[str, str], answer: str, conclusion: str
) -> None:
    result = judged(small_run, answer)
    assert said(pull_request.post(result, ci)) == [
        f"check run review:gate:perf: created ({conclusion})",
        "ledger comment: created",
    ]
    (run,), (comment,) = github.check_runs, github.comments
    assert run["conclusion"] == conclusion
    assert run["output"]["summary"] == perfgate.report(result)
    assert f"| review:gate:perf | {answer} |" in comment["body"]
    assert f"**State**: {answer}" in comment["body"]
    assert (Path(ci["GITHUB_STEP_SUMMARY"])).read_text() == perfgate.report(result) + "\n"
    # Once more: nothing is added, and only what changed is changed.
    before = comment["body"]
    again = said(pull_request.post(result, ci))
    assert again == [f"check run review:gate:perf: updated ({conclusion})", "ledger comment: unchanged"]
    assert (len(github.check_runs), len(github.comments)) == (1, 1)
    assert github.comments[0]["body"] == before


def test_other_gates_and_people_keep_their_words(
    small_run: perfgate.Result, github: FakeGitHub, ci: dict[str, str]
) -> None:
    theirs = (
        "Notes of ours\n<!-- gates:start -->\n| Gate | Status | Evidence |\n|---|---|---|\n"
        "| review:gate:tests | pass | 12 of 12 |\n<!-- gates:end -->\nmore notes"
    )
    github.add_comment("<!-- gates:start --> planted by a stranger <!-- gates:end -->", "User", "NONE")
    github.add_comment(theirs, "User", "MEMBER")
    assert said(pull_request.post(small_run, ci))[-1] == "ledger comment: updated"
    assert "planted" in github.comments[0]["body"]
    assert "review:gate:perf" not in github.comments[0]["body"]
    body = github.comments[1]["body"]
    for words in (
        "Notes of ours\n",
        "more notes",
        "| review:gate:tests | pass | 12 of 12 |",
        "review:gate:perf",
    ):
        assert words in body
    assert len(github.comments) == 2


@pytest.mark.parametrize(
    ("fault", "waited"),
    [
        (Fault("GET", "check-runs", 429, {"Retry-After": "7"}), [7.0]),
        (Fault("GET", "check-runs", 403, {"Retry-After": "3"}), [3.0]),
        (Fault("POST", "check-runs", 502), [1.0]),
        (Fault("POST", "check-runs", 503, after=True), [1.0]),
        (Fault("POST", "check-runs", drop=True), [1.0]),
        (Fault("POST", "check-runs", drop=True, after=True), [1.0]),
        (Fault("POST", "comments", 500, after=True), [1.0]),
        (Fault("GET", "comments", drop=True), [1.0]),
        (Fault("GET", "comments", 429, {"Retry-After": "soon"}), [1.0]),
    ],
)
def test_what_passes_is_waited_for_and_nothing_is_made_twice(
    small_run: perfgate.Result,
    github: FakeGitHub,
    ci: dict[str, str],
    waits: list[float],
    fault: Fault,
    waited: list[float],
) -> None:
    github.faults.append(fault)
    lines = said(pull_request.post(small_run, ci))
    assert not any(line.startswith("CHECK-SKIPPED") for line in lines), lines
    assert waits == waited
    assert (len(github.check_runs), len(github.comments)) == (1, 1)


@pytest.mark.parametrize(
    ("faults", "words"),
    [
        ([Fault("POST", "check-runs", 403)], "GitHub answered 403: made to fail with 403"),
        ([Fault("GET", "commits", 404)], "GitHub answered 404"),
        ([Fault("POST", "check-runs", 422)], "GitHub answered 422"),
        ([Fault("GET", "commits", 429, {"Retry-After": "3600"})], "asks to wait 3600 s"),
        (
            [Fault("GET", "commits", 403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "9e9"})],
            "asks to wait",
        ),
        (
            [Fault("GET", "commits", 500) for _ in range(9)],
            "GitHub answered 500: made to fail with 500 (4 attempts)",
        ),
        (
            [Fault("GET", "commits", drop=True) for _ in range(9)],
            "cannot be reached: ConnectionError (4 attempts)",
        ),
    ],
)
def test_what_does_not_pass_is_said_and_changes_nothing(
    small_run: perfgate.Result, github: FakeGitHub, ci: dict[str, str], faults: list[Fault], words: str
) -> None:
    github.faults.extend(faults)
    assert words in skipped(pull_request.post(small_run, ci))
    assert (github.check_runs, github.comments) == ([], [])


def test_a_server_that_repeats_the_token_is_not_quoted(
    small_run: perfgate.Result, github: FakeGitHub, ci: dict[str, str]
) -> None:
    github.faults.append(Fault("GET", "commits", 422, message=f"bad {TOKEN}\nhere"))
    assert skipped(pull_request.post(small_run, ci)) == "GitHub answered 422: bad *** here"


def test_another_apps_check_run_of_this_name_is_left_alone(
    small_run: perfgate.Result, github: FakeGitHub, ci: dict[str, str]
) -> None:
    github.add_run("failure", app={"id": 2})
    result = judged(small_run, "pass")
    assert said(pull_request.post(result, ci))[0] == "check run review:gate:perf: created (success)"
    assert [run["conclusion"] for run in github.check_runs] == ["failure", "success"]


def test_of_two_runs_that_race_the_worse_stands_and_one_comment_stays(
    small_run: perfgate.Result, github: FakeGitHub, ci: dict[str, str]
) -> None:
    """Both look before either has created anything."""
    barrier = threading.Barrier(2, timeout=30)
    seen: dict[tuple[int, str], int] = {}

    def both(method: str, path: str) -> None:
        for kind in ("/check-runs", "/comments"):
            if method == "POST" and path.endswith(kind):
                key = (0, kind)
                with github.lock:
                    seen[key] = seen.get(key, 0) + 1
                    early = seen[key] <= 2
                if early:
                    barrier.wait()

    github.before = both
    results = [judged(small_run, "pass"), judged(small_run, "fail")]
    lines: list[list[str]] = [[], []]

    def run(number: int) -> None:
        lines[number] = said(pull_request.post(results[number], ci))

    threads = [threading.Thread(target=run, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(github.check_runs) == 2, lines
    assert {run["conclusion"] for run in github.check_runs} == {"failure"}
    assert len(github.comments) == 1
    assert github.comments[0]["body"].count("| review:gate:perf |") == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"GITHUB_TOKEN": ""}, "no token (GITHUB_TOKEN is not set)"),
        ({"GITHUB_TOKEN": "wrong"}, "GitHub answered 401"),
        ({"GITHUB_ACTIONS": ""}, "outside CI"),
        ({"GITHUB_REPOSITORY": "../x"}, "expected owner/name"),
        ({"GITHUB_EVENT_PATH": "/nonexistent"}, "GITHUB_EVENT_PATH cannot be read"),
        ({"GITHUB_EVENT_PATH": "", "GITHUB_SHA": "HEAD"}, "the head commit is not known"),
        ({"GITHUB_API_URL": "http://example.com"}, "not https"),
    ],
)
def test_where_nothing_can_be_posted_the_reason_is_said(
    small_run: perfgate.Result, github: FakeGitHub, ci: dict[str, str], change: dict[str, str], words: str
) -> None:
    assert words in skipped(pull_request.post(small_run, {**ci, **change}))
    assert (github.check_runs, github.comments) == ([], [])


def test_a_push_has_a_check_run_and_no_comment(
    small_run: perfgate.Result, github: FakeGitHub, ci: dict[str, str]
) -> None:
    ci.update(GITHUB_EVENT_PATH="", GITHUB_SHA=SHA)
    assert "no pull request" in skipped(pull_request.post(small_run, ci))
    assert len(github.check_runs) == 1


def test_the_command_posts_or_shows_and_never_prints_the_token(
    cli: Cli, small_run: perfgate.Result, github: FakeGitHub, ci: dict[str, str], tmp_path: Path
) -> None:
    judged(small_run, "fail").save(tmp_path / "s.recording.json")
    shown = cli("report", "s.verdict.json", "--post", "github", "--dry-run", **ci)
    assert shown.returncode == 0, shown.stderr
    sent: dict[str, Any] = json.loads(shown.stdout)
    assert github.log == []
    assert (sent["check_run"]["head_sha"], sent["pull_request"]) == (SHA, 7)
    assert not (tmp_path / "summary.md").exists()
    done = cli("report", "s.verdict.json", "--post", "github", **ci)
    assert (done.returncode, done.stderr) == (0, "")
    assert "check run review:gate:perf: created (failure)" in done.stdout
    assert github.check_runs[0]["output"] == sent["check_run"]["output"]
    assert github.comments[0]["body"] == sent["ledger_comment"]
    nowhere = cli("report", "s.verdict.json", "--post", "github", GITHUB_ACTIONS="")
    assert nowhere.returncode == 0
    assert nowhere.stdout.startswith("CHECK-SKIPPED: reason=outside CI")
    for text in (
        shown.stdout,
        done.stdout,
        *(path.read_text() for path in tmp_path.iterdir() if path.is_file()),
    ):
        assert TOKEN not in text


def test_annotations_are_workflow_commands_whatever_a_reason_holds(small_run: perfgate.Result) -> None:
    rules = [
        {"name": "regression", "verdict": "fail", "reason": "50 % slower\n::set-env name=A::b"},
        {"name": "memory", "verdict": "neutral", "reason": "unknown"},
        {"name": "agreement", "verdict": "pass", "reason": "fine"},
    ]
    verdict = perfgate.Verdict({**small_run.verdict.data, "rules": rules})
    result = perfgate.Result(small_run.recording, verdict, small_run.table)
    assert pull_request.workflow_commands(result) == [
        "::error title=review%3Agate%3Aperf regression::50 %25 slower ::set-env name=A::b",
        "::warning title=review%3Agate%3Aperf memory::unknown",
    ]


def test_the_ledger_text_is_idempotent_and_keeps_the_newest_hops() -> None:
    def entry(sha: str, status: str = "pass") -> ledger.Entry:
        evidence = "a | b <!-- gates:end --> `x`"
        return ledger.Entry("review:gate:perf", status, evidence, sha * 40, "why\n@all", "next: x")

    once = ledger.merged(None, entry("a"))
    assert ledger.merged(once, entry("a")) == once
    assert ledger.has(once, entry("a"))
    assert not ledger.has(once, entry("a", "fail"))
    assert once.count("<!-- gates:end -->") == 1
    assert ledger.merged(once, entry("a", "fail")).count("- `aaaaaaaaaaaa`") == 1
    text = once
    for number in range(30):
        text = ledger.merged(
            text, ledger.Entry("review:gate:perf", "pass", "e", f"{number:02x}" * 20, "w", "n")
        )
    assert len([line for line in text.splitlines() if line.startswith("- `")]) == ledger.MOST_HOPS
    assert text.count("| review:gate:perf |") == 1
