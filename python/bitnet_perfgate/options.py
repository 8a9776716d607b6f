"""Options that several commands share, with their help."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

import bitnet_perfgate as gate
from bitnet_perfgate import environment, reports

Model = Annotated[
    Path | None,
    typer.Option(
        "--model", envvar=environment.MODEL, metavar="FILE.gguf", help="Run over this file's ternary tensors."
    ),
]
Category = Annotated[
    list[str] | None,
    typer.Option("--category", metavar="NAME", help="quantization, kernels or mixed_precision; repeatable."),
]
WorkloadIds = Annotated[
    list[str] | None, typer.Option("--workload", metavar="ID", help="As `list` names them; repeatable.")
]
Backend = Annotated[
    list[str] | None, typer.Option("--backend", metavar="NAME", help="As `doctor` names them; repeatable.")
]
Plugin = Annotated[
    list[Path] | None,
    typer.Option("--plugin", metavar="FILE.so", help="A kernel of yours; its code is run. Repeatable."),
]
Profile = Annotated[
    Literal["quick", "full"], typer.Option("--profile", help="About a minute, or everything.")
]
Iterations = Annotated[int, typer.Option("--iterations", min=1, max=1000, help="Multiplies the launches.")]
Warmup = Annotated[
    int, typer.Option("--warmup", min=1, max=1000, help="Untimed calls before each turn of a side.")
]
Counts = Annotated[
    Literal["wall", "cpu", "instructions"],
    typer.Option("--counts", help="What is judged: wall time, CPU time of the thread, instructions."),
]
Seed = Annotated[
    int, typer.Option("--seed", min=0, max=2**64 - 1, envvar=environment.SEED, help="Of all inputs.")
]
SkipCpp = Annotated[bool, typer.Option("--skip-cpp", help="Leave the C++ reference out; then never a pass.")]
Format = Annotated[
    Literal["human", "json"], typer.Option("--format", help="What stdout gets: text, or one JSON document.")
]
ReportFormat = Annotated[
    reports.ReportFormat,
    typer.Option("--format", help="What stdout gets: text, or the report in another form."),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        metavar="FILE",
        help="The recording; the verdict goes beside it. Default: benchmark-results/<time>.recording.json",
    ),
]
NeutralExit = Annotated[
    int,
    typer.Option("--neutral-exit", metavar="CODE", min=0, max=255, help="Exit code of a neutral verdict."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be measured, and stop.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="No progress, only the verdict line.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Show everything.")]


def selection(
    model: Path | None,
    category: list[str] | None,
    workload: list[str] | None,
    backend: list[str] | None,
    plugin: list[Path] | None,
    seed: int,
    skip_cpp: bool,
) -> dict[str, Any]:
    """What to measure, as the public functions take it."""
    if model and workload:
        source = environment.MODEL if os.environ.get(environment.MODEL) == str(model) else "--model"
        raise gate.InputError(
            f"{source} names {model}, and a model file brings its own workloads: "
            f"leave out either {source} or --workload"
        )
    return {
        "model": model,
        "categories": category or (),
        "workloads": workload or (),
        "backends": backend or (),
        "plugins": plugin or (),
        "seed": seed,
        "skip_cpp": skip_cpp,
    }
