"""The command `report`: a saved verdict, rendered. It parses, calls the public function, writes and exits."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from bitnet_perfgate import InputError, display, environment, options, pull_request, regression, reports
from bitnet_perfgate.documents import Result, write_whole
from bitnet_perfgate.job import complain, refuse_to_replace, rendered, write


def report(
    verdict: Annotated[Path, typer.Argument(metavar="VERDICT", help="A *.verdict.json of `run` or `gate`.")],
    recording: Annotated[
        Path | None,
        typer.Option("--recording", metavar="FILE", help="Its recording. Default: the one it names."),
    ] = None,
    format: options.ReportFormat = "human",
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Where the report goes. Default: stdout.")
    ] = None,
    baseline: Annotated[
        Path,
        typer.Option(
            "--baseline",
            envvar=environment.BASELINES,
            metavar="DIR",
            help="Accepted recordings, for the history that the HTML page draws.",
        ),
    ] = regression.BASELINES_FOLDER,
    post: Annotated[
        Literal["github"] | None,
        typer.Option("--post", help="Send the check run and the ledger comment instead of rendering."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --post: print what would be sent, and send nothing.")
    ] = False,
    verbose: options.Verbose = False,
) -> int:
    """Render a verdict and its recording. Judges nothing: the exit code says whether it could be rendered.

    Exit codes: 0 rendered or posted, also where nothing could be posted (CHECK-SKIPPED); 2 usage or
    unreadable input.
    """
    result = reports.load_verdict(verdict, recording)
    if post:
        write(_posted(result, dry_run))
        return 0
    if dry_run:
        raise InputError("--dry-run: only what --post would send can be shown first")
    if format == "human" and output is None:
        text = rendered(lambda console: display.show_result(console, result, [], verbose))
    else:
        text = reports.report(result, format=format, baseline=baseline)
    if output is None:
        write(text)
        return 0
    refuse_to_replace(output, [verdict, *([recording] if recording else [])])
    write_whole(output, text)
    return 0


def _posted(result: Result, dry_run: bool) -> str:
    if not dry_run:
        return "".join(f"{line}\n" for line in pull_request.post(result, os.environ))
    try:
        target = pull_request.target_of(os.environ)
    except pull_request.SkippedError as why:
        complain(f"CHECK-SKIPPED: reason={why}")
        target = None
    return json.dumps(pull_request.payload(result, target), indent=1) + "\n"


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(report)
