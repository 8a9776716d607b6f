"""The command `report`: a saved verdict, rendered. It parses, calls the public function, writes and exits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bitnet_perfgate import display, environment, options, regression, reports
from bitnet_perfgate.documents import write_whole
from bitnet_perfgate.job import refuse_to_replace, rendered, write


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
    verbose: options.Verbose = False,
) -> int:
    """Render a verdict and its recording. Judges nothing: the exit code says whether it could be rendered.

    Exit codes: 0 rendered, 2 usage or unreadable input.
    """
    result = reports.load_verdict(verdict, recording)
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


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(report)
