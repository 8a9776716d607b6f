"""The command line. Parses, calls the public functions, shows, saves and exits; decides nothing.

Exit codes: 0 pass, 1 fail, 2 usage or unreadable input, 3 neutral, 130 interrupted.
"""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

import bitnet_perfgate as gate
from bitnet_perfgate import (
    display,
    import_command,
    model_commands,
    options,
    regression_commands,
    report_commands,
)
from bitnet_perfgate.interruption import EXIT_INTERRUPTED
from bitnet_perfgate.job import Job, complain, discard, present, write
from bitnet_perfgate.runs import DEFAULT_SEED

EXIT_UNUSABLE = 2
MOST_DIGITS = 20
MAIN_COMMANDS = ("run", "crossval", "gate", "compare", "baseline", "report", "import")


class Commands(TyperGroup):
    """A group of commands that says which exist when asked for another, and lists the main ones first."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Those of `MAIN_COMMANDS` in their order, then the others in theirs."""
        names = super().list_commands(ctx)
        first = [name for name in MAIN_COMMANDS if name in names]
        return first + [name for name in names if name not in first]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As usual, if there are any."""
        if not args:
            known = ", ".join(self.list_commands(ctx))
            raise typer.TyperException(f"no command given; commands: {known}; --help says more")
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As usual, for a command that exists."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            known = ", ".join(self.list_commands(ctx))
            raise typer.TyperException(f"no command is called {args[0]!r}; commands: {known}")
        return super().resolve_command(ctx, args)


SETTINGS: dict[str, Any] = {
    "cls": Commands,
    "add_completion": False,
    "pretty_exceptions_enable": False,
    # Plain text: it loses nothing at 40 columns, and a reader who leaves a pipe is no failure.
    "rich_markup_mode": None,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}
app = typer.Typer(help="Cross-validation and performance gate for 1.58-bit (BitNet) kernels.", **SETTINGS)
model_app = typer.Typer(help="Model files: what one holds, and synthetic ones.", **SETTINGS)
app.add_typer(model_app, name="model")
regression_commands.register(app, SETTINGS)
model_commands.register(app, model_app)
import_command.register(app)
report_commands.register(app)


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    """Proves that 1.58-bit (BitNet) kernels agree, measures them, and judges with the evidence."""
    if version:
        write(f"bitnet_perfgate {gate.__version__}\n")
        raise typer.Exit


@app.command()
def run(
    model: options.Model = None,
    category: options.Category = None,
    workload: options.WorkloadIds = None,
    backend: options.Backend = None,
    plugin: options.Plugin = None,
    profile: options.Profile = "quick",
    iterations: options.Iterations = 1,
    warmup: options.Warmup = 1,
    counts: options.Counts = "wall",
    seed: options.Seed = DEFAULT_SEED,
    skip_cpp: options.SkipCpp = False,
    thresholds: regression_commands.Thresholds = None,
    strict: regression_commands.Strict = False,
    format: options.ReportFormat = "human",
    output: options.Output = None,
    neutral_exit: options.NeutralExit = 3,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> int:
    """Compare with the oracle, time against C++, and judge.

    What disagrees is not timed.

    Exit codes: 0 pass, 1 fail, 2 usage or unreadable input, 3 neutral, 130 interrupted.
    """
    chosen = options.selection(model, category, workload, backend, plugin, seed, skip_cpp)
    timing: dict[str, Any] = {
        "profile": profile,
        "iterations": iterations,
        "warmup": warmup,
        "counts": counts,
    }
    judged: dict[str, Any] = {"thresholds": regression_commands.policy_file(thresholds), "strict": strict}
    if dry_run:
        return _show_plan(gate.plan(**chosen, **timing), format)
    inputs = [path for path in (model, *(plugin or ())) if path]
    job = Job(format, output, inputs, neutral_exit, verbose - 2 * quiet)
    return job.perform(lambda progress: gate.run(**chosen, **timing, **judged, progress=progress))


@app.command()
def crossval(
    full: Annotated[bool, typer.Option("--full", help="Every shape, format and batch.")] = False,
    model: options.Model = None,
    category: options.Category = None,
    workload: options.WorkloadIds = None,
    backend: options.Backend = None,
    plugin: options.Plugin = None,
    seed: options.Seed = DEFAULT_SEED,
    skip_cpp: options.SkipCpp = False,
    format: options.ReportFormat = "human",
    output: options.Output = None,
    neutral_exit: options.NeutralExit = 3,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> int:
    """Compare every backend with the oracle; time nothing.

    Accuracy is that of a comparison with float64.

    Exit codes: 0 pass, 1 fail, 2 usage or unreadable input, 3 neutral, 130 interrupted.
    """
    chosen = options.selection(model, category, workload, backend, plugin, seed, skip_cpp)
    if dry_run:
        return _show_plan(gate.plan(**chosen, profile="full" if full else "quick", timing=False), format)
    inputs = [path for path in (model, *(plugin or ())) if path]
    job = Job(format, output, inputs, neutral_exit, verbose - 2 * quiet)
    return job.perform(lambda progress: gate.crossval(**chosen, full=full, progress=progress))


@app.command(name="list")
def list_workloads(profile: options.Profile = "quick", format: options.Format = "human") -> int:
    """List workloads, what no format can hold, and backends."""
    present(gate.workloads(profile), format, display.show_workloads)
    return 0


@app.command()
def doctor(
    plugin: options.Plugin = None,
    ceilings: Annotated[
        bool, typer.Option("--ceilings", help="Measure this machine's ceilings, too: GB/s and GOP/s.")
    ] = False,
    format: options.Format = "human",
    verbose: options.Verbose = False,
) -> int:
    """Say what is available here, and why not."""
    found = gate.doctor(plugin or (), ceilings)
    present(found, format, lambda console, found: display.show_doctor(console, found, verbose))
    return 0


@app.command()
def identify(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A GGUF file, or raw weight bytes with --shape.")
    ],
    tensor: Annotated[str | None, typer.Option("--tensor", metavar="NAME", help="Only this tensor.")] = None,
    shape: Annotated[
        str | None, typer.Option("--shape", metavar="MxK", help="Outputs x inputs of raw weight bytes.")
    ] = None,
    format: options.Format = "human",
    verbose: options.Verbose = False,
) -> int:
    """Say which layouts ternary weights are consistent with."""
    found = gate.identify(file, tensor=tensor, shape=_shape(shape) if shape else None)
    present(found, format, lambda console, found: display.show_identification(console, found, verbose))
    return 0


def _shape(text: str) -> tuple[int, int]:
    rows, cross, cols = text.partition("x")
    # Longer numbers than a side can have are not even read.
    if not (cross and all(side.isdecimal() and len(side) <= MOST_DIGITS for side in (rows, cols))):
        raise gate.InputError(f"--shape {text!r}: expected outputs x inputs, such as 2560x6912")
    return int(rows), int(cols)


def _show_plan(recording: gate.Recording, format: str) -> int:
    present(recording, format, display.show_plan)
    return 0


def main() -> NoReturn:
    """Runs the command line and exits with its code. A failure is one line and never looks like a verdict."""
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    if sys.stdout is None:
        complain("error: stdout is closed: nothing could be shown")
        sys.exit(EXIT_UNUSABLE)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = app(prog_name="python -m bitnet_perfgate", standalone_mode=False)
    except KeyboardInterrupt:
        complain("interrupted")
        code = EXIT_INTERRUPTED
    except typer.TyperException as error:
        complain(f"error: {error.format_message()}")
        code = EXIT_UNUSABLE
    except (OSError, OverflowError, ValueError, RuntimeError) as error:
        complain(f"error: {error}")
        code = EXIT_UNUSABLE
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            # Already told where it was first found.
            discard(stream)
    sys.exit(code)
