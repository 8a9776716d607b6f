"""A small GitHub on the loopback: the requests of a verdict, validated, with faults on demand."""

import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

REPOSITORY = "/repos/acme/kernels"
SHA = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "ghs_SecretOfThisTest"


@dataclass
class Fault:
    """What one request gets instead of its answer."""

    method: str
    path: str
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    drop: bool = False
    after: bool = False
    """The request is carried out, and its answer is lost."""
    message: str = ""


class FakeGitHub:
    """State, faults and a log; `url` while it runs as a context manager."""

    def __init__(self) -> None:
        """Empty."""
        self.check_runs: list[dict[str, Any]] = []
        self.comments: list[dict[str, Any]] = []
        self.faults: list[Fault] = []
        self.log: list[str] = []
        self.problems: list[str] = []
        self.lock = threading.Lock()
        self.next_id = 100
        self.before: Callable[[str, str], object] = lambda *_: None
        handler = type("Handler", (_Handler,), {"github": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> "FakeGitHub":
        """Serves."""
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stops, and says what was wrong with the requests."""
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
        assert self.problems == []

    def add_run(self, conclusion: str, **fields: Any) -> dict[str, Any]:
        """A check run that is there."""
        self.next_id += 1
        run = {
            "id": self.next_id,
            "name": "review:gate:perf",
            "head_sha": SHA,
            "status": "completed",
            "conclusion": conclusion,
            "output": {"title": "t", "summary": "s"},
            "url": f"{self.url}{REPOSITORY}/check-runs/{self.next_id}",
            "app": {"id": 1},
            **fields,
        }
        self.check_runs.append(run)
        return run

    def add_comment(self, body: str, kind: str = "Bot", association: str = "NONE") -> dict[str, Any]:
        """A comment that is there."""
        self.next_id += 1
        comment = {
            "id": self.next_id,
            "body": body,
            "user": {"login": "someone", "type": kind, "id": 1},
            "author_association": association,
            "url": f"{self.url}{REPOSITORY}/issues/comments/{self.next_id}",
        }
        self.comments.append(comment)
        return comment

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        """The answer of a healthy server, with everything about the request checked."""
        path, _, query = path.partition("?")
        match method, path.removeprefix(REPOSITORY).split("/")[1:]:
            case "GET", ["commits", sha]:
                return (
                    (200, {"sha": sha, "url": f"{self.url}{REPOSITORY}/commits/{sha}"})
                    if sha == SHA
                    else (404, {})
                )
            case "GET", ["commits", _, "check-runs"]:
                if "check_name=review%3Agate%3Aperf" not in query:
                    self.problems.append(f"check runs of every name were asked for: {query}")
                return 200, {"total_count": len(self.check_runs), "check_runs": self.check_runs}
            case "POST", ["check-runs"]:
                self.check(body, {"name", "head_sha", "status", "conclusion", "output"}, {"details_url"})
                return 201, self.add_run(**{key: body[key] for key in ("conclusion", "output")})
            case "PATCH", ["check-runs", number]:
                run = next((run for run in self.check_runs if run["id"] == int(number)), None)
                self.check(body, {"status", "conclusion", "output"}, {"details_url"})
                if run is None:
                    return 404, {"message": "Not Found"}
                if run["app"]["id"] != 1:
                    return 403, {
                        "message": "Invalid app_id `15368` - check run can only be modified by its app"
                    }
                run.update({key: body[key] for key in ("conclusion", "output")})
                return 200, run
            case "GET", ["issues", number] if number.isdecimal():
                return 200, {"number": int(number), "url": f"{self.url}{REPOSITORY}/issues/{number}"}
            case "GET", ["issues", _, "comments"]:
                return 200, self.comments
            case "POST", ["issues", _, "comments"]:
                self.check(body, {"body"}, set())
                return 201, self.add_comment(body["body"])
            case "PATCH", ["issues", "comments", number]:
                self.check(body, {"body"}, set())
                comment = next(comment for comment in self.comments if comment["id"] == int(number))
                comment["body"] = body["body"]
                return 200, comment
            case "DELETE", ["issues", "comments", number]:
                self.comments[:] = [comment for comment in self.comments if comment["id"] != int(number)]
                return 204, None
        self.problems.append(f"unknown request {method} {path}")
        return 404, {"message": "Not Found"}

    def check(self, body: Any, required: set[str], optional: set[str]) -> None:
        """Fields and limits as GitHub's documentation states them."""
        if not required <= set(body) <= required | optional:
            self.problems.append(f"fields {sorted(body)}")
        if "conclusion" in body and (
            body["conclusion"] not in ("success", "failure", "neutral")
            or body["status"] != "completed"
            or not isinstance(body["output"]["title"], str)
            or not 0 < len(body["output"]["summary"]) <= 65535
        ):
            self.problems.append(f"check run {body['conclusion']!r} {body['status']!r}")
        if "head_sha" in body and not re.fullmatch("[0-9a-f]{40}", body["head_sha"]):
            self.problems.append(f"head_sha {body['head_sha']!r}")
        if "body" in body and not 0 < len(body["body"]) <= 65536:
            self.problems.append("comment too long")


class _Handler(BaseHTTPRequestHandler):
    github: FakeGitHub
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        github = self.github
        length = int(self.headers.get("Content-Length") or 0)
        content = self.rfile.read(length)
        method, path = self.command, self.path
        github.log.append(f"{method} {path.partition('?')[0].removeprefix(REPOSITORY)}")
        github.before(method, path)
        with github.lock:
            if self.headers.get("Authorization") not in (f"token {TOKEN}", f"Bearer {TOKEN}"):
                self._send(401, {"message": "Bad credentials"}, {})
                return
            matching = (
                fault for fault in github.faults if fault.method == method and re.search(fault.path, path)
            )
            fault = next(matching, None)
            if fault:
                github.faults.remove(fault)
            if fault is None or fault.after:
                status, answer = github.answer(method, path, json.loads(content) if content else None)
        if fault is None:
            self._send(status, answer, {})
        elif fault.drop:
            self.close_connection = True
            self.connection.close()
        else:
            self._send(
                fault.status, {"message": fault.message or f"made to fail with {fault.status}"}, fault.headers
            )

    do_GET = do_POST = do_PATCH = do_DELETE = _serve  # noqa: N815

    def _send(self, status: int, answer: Any, headers: dict[str, str]) -> None:
        content = b"" if answer is None else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(content)),
            **headers,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on stderr."""
