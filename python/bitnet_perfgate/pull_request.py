"""A verdict on GitHub: the check run `review:gate:perf`, the ledger comment, job summary and annotations.

Idempotent by name and head commit: whatever is asked twice, or by two runs at once, ends as one conclusion
and one comment. Of two runs that raced, the worse conclusion stands on both: a pass never hides a failure.
Where nothing can be posted that is said as ``CHECK-SKIPPED: reason=...`` and changes no exit code. The token
goes into one header of requests to the API's own address, nowhere else.

Posting uses PyGithub, an extra: ``pip install bitnet-perfgate[github]``. Each step (look, then create or
edit) is idempotent and is repeated as a whole; a POST that is merely sent again could create twice.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from bitnet_perfgate import ledger
from bitnet_perfgate.display import printable
from bitnet_perfgate.documents import Result
from bitnet_perfgate.reports import report

if TYPE_CHECKING:
    from github.CheckRun import CheckRun
    from github.Repository import Repository

CHECK_NAME = "review:gate:perf"
CONCLUSIONS = {"pass": "success", "neutral": "neutral", "fail": "failure"}
WORSE = ("success", "neutral", "failure")
LONGEST_SUMMARY = 65_000
LARGEST_EVENT = 32 << 20
CUT = "\n\n(cut: the whole report is in the job's files)\n"
ATTEMPTS = 4
LONGEST_WAIT_S = 60.0
TIMEOUT_S = 30
TRUSTED = {"OWNER", "MEMBER", "COLLABORATOR"}
Settled = TypeVar("Settled")
sleep = time.sleep


class SkippedError(Exception):
    """Nothing was posted; the text is the reason."""


@dataclass(frozen=True)
class Target:
    """Where a verdict is posted."""

    repository: str
    """``owner/name``."""
    head_sha: str
    """The commit that was judged, not the merge commit that CI made of it."""
    pull_request: int | None
    """Its number, if there is one."""
    details_url: str | None
    """The page of the job."""


def target_of(environment: Mapping[str, str]) -> Target:
    """Where to post, from the variables of GitHub Actions. Raises `SkippedError`."""
    if environment.get("GITHUB_ACTIONS") != "true":
        raise SkippedError("outside CI (GITHUB_ACTIONS is not true)")
    repository = environment.get("GITHUB_REPOSITORY", "")
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", repository, re.ASCII):
        raise SkippedError(f"GITHUB_REPOSITORY is {repository!r}, expected owner/name")
    event = _event(environment.get("GITHUB_EVENT_PATH"))
    pull_request = event.get("pull_request")
    head_sha, number = environment.get("GITHUB_SHA", ""), None
    if isinstance(pull_request, dict):
        head = pull_request.get("head")
        head_sha = head.get("sha", "") if isinstance(head, dict) else ""
        found = pull_request.get("number")
        number = found if isinstance(found, int) else None
    if not re.fullmatch(r"[0-9a-f]{40}", str(head_sha)):
        raise SkippedError("the head commit is not known (neither GITHUB_EVENT_PATH nor GITHUB_SHA names it)")
    server, job = environment.get("GITHUB_SERVER_URL"), environment.get("GITHUB_RUN_ID")
    details = f"{server}/{repository}/actions/runs/{job}" if server and job else None
    return Target(repository, head_sha, number, details)


def payload(result: Result, target: Target | None) -> dict[str, Any]:
    """Everything that would be sent; without a target, with its places left open."""
    verdict = result.verdict
    entry = _entry(result, target.head_sha if target else "0" * 40)
    check: dict[str, Any] = {
        "name": CHECK_NAME,
        "head_sha": target.head_sha if target else None,
        "status": "completed",
        "conclusion": CONCLUSIONS[verdict.verdict],
        "output": {
            "title": f"{verdict.verdict.upper()}: {_line(verdict.summary)}"[:250],
            "summary": _markdown(result),
        },
    }
    if target and target.details_url:
        check["details_url"] = target.details_url
    return {
        "repository": target.repository if target else None,
        "pull_request": target.pull_request if target else None,
        "check_run": check,
        "ledger_comment": ledger.merged(None, entry),
        "annotations": workflow_commands(result),
    }


def workflow_commands(result: Result) -> list[str]:
    """Annotations: an error for each rule that is broken, a warning for each that is undecided."""
    kinds = {"fail": "error", "neutral": "warning"}
    lines = []
    for rule in result.verdict["rules"]:
        if kind := kinds.get(rule["verdict"]):
            title = _property(f"{CHECK_NAME} {rule['name']}")
            lines.append(f"::{kind} title={title}::{_data(rule['reason'])}")
    return lines


def post(result: Result, environment: Mapping[str, str]) -> list[str]:
    """Posts; returns a line for each thing done or skipped. Raises for nothing that GitHub answers."""
    lines = workflow_commands(result) if environment.get("GITHUB_ACTIONS") == "true" else []
    lines += _job_summary(result, environment)
    token = environment.get("GITHUB_TOKEN") or environment.get("GH_TOKEN") or ""
    try:
        target = target_of(environment)
        repository = _repository(environment, token, target)
        lines.append(_attempted(lambda: _check_run(repository, payload(result, target)["check_run"])))
        if target.pull_request is None:
            raise SkippedError("no ledger comment: this is no pull request")
        number, entry = target.pull_request, _entry(result, target.head_sha)
        lines.append(_attempted(lambda: _comment(repository, number, entry)))
    except SkippedError as why:
        reason = printable(" ".join(str(why).split()))
        lines.append(f"CHECK-SKIPPED: reason={reason.replace(token, '***') if token else reason}")
    return lines


def _event(path: str | None) -> Mapping[str, Any]:
    if not path:
        return {}
    try:
        with Path(path).open("rb") as file:
            content = file.read(LARGEST_EVENT + 1)
        event = json.loads(content) if len(content) <= LARGEST_EVENT else None
    except (OSError, ValueError, RecursionError) as error:
        raise SkippedError(f"GITHUB_EVENT_PATH cannot be read: {type(error).__name__}") from error
    if not isinstance(event, dict):
        raise SkippedError("GITHUB_EVENT_PATH holds no event")
    return event


def _entry(result: Result, head_sha: str) -> ledger.Entry:
    verdict = result.verdict
    route = verdict["route"]
    return ledger.Entry(
        gate=CHECK_NAME,
        status=verdict.verdict,
        evidence=verdict.evidence,
        head_sha=head_sha,
        why=verdict.summary,
        next=f"{route['next']}: {route['reason']}",
    )


def _markdown(result: Result) -> str:
    text = report(result, format="markdown")
    return text if len(text) <= LONGEST_SUMMARY else text[: LONGEST_SUMMARY - len(CUT)] + CUT


def _job_summary(result: Result, environment: Mapping[str, str]) -> list[str]:
    path = environment.get("GITHUB_STEP_SUMMARY")
    if not path:
        return []
    try:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(_markdown(result) + "\n")
    except OSError as error:
        return [f"CHECK-SKIPPED: reason=the job summary cannot be written: {error.strerror}"]
    return []


def _repository(environment: Mapping[str, str], token: str, target: Target) -> Repository:
    if not token:
        raise SkippedError("no token (GITHUB_TOKEN is not set)")
    address = urlsplit(environment.get("GITHUB_API_URL") or "https://api.github.com")
    if address.scheme != "https" and address.hostname not in ("127.0.0.1", "localhost", "::1"):
        raise SkippedError("GITHUB_API_URL is not https: the token is not sent there")
    try:
        from github import Auth, Github
    except ImportError:
        raise SkippedError("PyGithub is not installed: pip install bitnet-perfgate[github]") from None
    client = Github(
        auth=Auth.Token(token),
        base_url=address.geturl(),
        timeout=TIMEOUT_S,
        retry=None,
        per_page=100,
        seconds_between_requests=None,
        seconds_between_writes=None,
        # Nothing is asked about the repository, the commit or the pull request themselves.
        lazy=True,
    )
    return client.get_repo(target.repository)


def _attempted(step: Callable[[], Settled]) -> Settled:
    """Repeats an idempotent step while GitHub is busy or away; then raises `SkippedError` with the reason."""
    from github import GithubException
    from requests import RequestException

    for attempt in range(ATTEMPTS):
        wait = 2.0**attempt
        try:
            return step()
        except GithubException as error:
            reason = f"GitHub answered {error.status}: {_message(error)}"
            asked = _wait_asked(error.status, {k.lower(): v for k, v in (error.headers or {}).items()})
            if asked is None:
                raise SkippedError(reason) from None
            wait = asked or wait
        except RequestException as error:
            reason = f"GitHub cannot be reached: {type(error).__name__}"
        if wait > LONGEST_WAIT_S:
            raise SkippedError(f"{reason} (asks to wait {wait:.0f} s)")
        if attempt + 1 < ATTEMPTS:
            sleep(wait)
    raise SkippedError(f"{reason} ({ATTEMPTS} attempts)")


def _wait_asked(status: int, headers: Mapping[str, Any]) -> float | None:
    """Seconds to wait before another attempt, 0: ours to choose, ``None``: another attempt is vain."""
    limited = status == 429 or (
        status == 403 and ("retry-after" in headers or headers.get("x-ratelimit-remaining") == "0")
    )
    if limited:
        try:
            if "retry-after" in headers:
                return max(float(headers["retry-after"]), 0.0)
            return max(float(headers["x-ratelimit-reset"]) - time.time(), 0.0)
        except (KeyError, ValueError):
            return 0.0
    return 0.0 if status >= 500 else None


def _message(error: Any) -> str:
    data = error.data
    return str(data.get("message", "")) if isinstance(data, dict) else "an answer that is no JSON"


def _check_run(repository: Repository, check: Mapping[str, Any]) -> str:
    """Edits the check run of this name and commit, or creates it and settles a race."""
    fields = {name: check[name] for name in ("status", "conclusion", "output")}
    if "details_url" in check:
        fields["details_url"] = check["details_url"]
    for run in _runs(repository, check["head_sha"]):
        if _edited(run, fields):
            return f"check run {CHECK_NAME}: updated ({check['conclusion']})"
    own = repository.create_check_run(name=CHECK_NAME, head_sha=check["head_sha"], **fields)
    runs = [run for run in _runs(repository, check["head_sha"]) if run.app.id == own.app.id]
    worst = max([own, *runs], key=lambda run: WORSE.index(run.conclusion) if run.conclusion in WORSE else 0)
    for run in runs:
        if run.conclusion != worst.conclusion:
            text = f"Two runs judged this commit at once; the worse conclusion stands: {worst.conclusion}."
            output = {"title": text, "summary": f"{text}\n\n{worst.output.summary or ''}"[:LONGEST_SUMMARY]}
            _edited(run, {"status": "completed", "conclusion": worst.conclusion, "output": output})
    return f"check run {CHECK_NAME}: created ({worst.conclusion})"


def _runs(repository: Repository, head_sha: str) -> list[CheckRun]:
    """Check runs of this name on the commit, the first created first."""
    runs = repository.get_commit(head_sha).get_check_runs(check_name=CHECK_NAME, filter="all")
    return sorted(runs, key=lambda run: run.id)


def _edited(run: CheckRun, fields: Mapping[str, Any]) -> bool:
    """Whether it could be edited: another app's check run of the same name is not ours."""
    from github import GithubException

    try:
        run.edit(**fields)
    except GithubException as error:
        if (
            error.status == 403
            and _wait_asked(403, {k.lower(): v for k, v in (error.headers or {}).items()}) is None
        ):
            return False
        raise
    return True


def _comment(repository: Repository, number: int, entry: ledger.Entry) -> str:
    """Edits the ledger, or creates it; of two that raced the older one stays."""
    issue = repository.get_issue(number)

    def ledgers() -> list[Any]:
        # A stranger may write the anchors too; only bots and people of the project keep a ledger.
        found = [
            comment
            for comment in issue.get_comments()
            if ledger.is_ledger(comment.body or "")
            and (comment.user.type == "Bot" or comment.author_association in TRUSTED)
        ]
        return sorted(found, key=lambda comment: comment.id)

    known = ledgers()
    if not known:
        own = issue.create_comment(ledger.merged(None, entry))
        known = ledgers() or [own]
        if known[0].id == own.id:
            return "ledger comment: created"
        own.delete()
    first = known[0]
    if ledger.has(first.body, entry):
        return "ledger comment: unchanged"
    first.edit(ledger.merged(first.body, entry))
    return "ledger comment: updated"


def _line(text: str) -> str:
    return printable(" ".join(text.split()))


def _data(text: str) -> str:
    """A workflow command's message: line ends and percent signs are written out."""
    return _line(text).replace("%", "%25")


def _property(text: str) -> str:
    """A workflow command's property, in which colons and commas are separators too."""
    return _data(text).replace(":", "%3A").replace(",", "%2C")
