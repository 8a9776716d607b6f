"""The command line. Parses, calls the public functions, shows, saves and exits; decides nothing.

Exit codes: 0 pass, 1 fail, 2 usage or unreadable input, 3 neutral, 130 interrupted.
"""

from __future__ import annotations

import io
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Annotated, Any, Literal, NoReturn, TypeVar

import typer
from rich.console import Console
from typer.core import TyperGroup

import bitnet_perfgate as gate
from bitnet_perfgate import display, environment
from bitnet_perfgate.documents import RECORDING_SUFFIX, check_writable, verdict_path
from bitnet_perfgate.interruption import EXIT_INTERRUPTED, interruption_announced
from bitnet_perfgate.progress import ProgressDisplay
from bitnet_perfgate.runs import DEFAULT_SEED

EXIT_UNUSABLE = 2
MOST_DIGITS = 20
RESULTS_FOLDER = Path("benchmark-results")
Shown = TypeVar("Shown", bound=gate.Document)


class Commands(TyperGroup):
    """A group of commands that says which exist when asked for another."""

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
    "context_settings": {"help_option_names": ["-h", "--help"]},
}
app = typer.Typer(help="Cross-validation and performance gate for 1.58-bit (BitNet) kernels.", **SETTINGS)
model_app = typer.Typer(help="Synthetic model files.", **SETTINGS)
app.add_typer(model_app, name="model")

Model = Annotated[
    Path | None,
    typer.Option(
        "--model", envvar=environment.MODEL, metavar="FILE.gguf", help="Run over this file's ternary tensors."
    ),
]
Category = Annotated[
    list[str] | None, typer.Option("--category", metavar="NAME", help="quantization or kernels; repeatable.")
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
Iterations = Annotated[
    int, typer.Option("--iterations", min=1, max=1000, help="Multiplies the timed blocks.")
]
Warmup = Annotated[
    int, typer.Option("--warmup", min=1, max=1000, help="Untimed calls before each turn of a side.")
]
Seed = Annotated[
    int, typer.Option("--seed", min=0, max=2**64 - 1, envvar=environment.SEED, help="Of all inputs.")
]
SkipCpp = Annotated[bool, typer.Option("--skip-cpp", help="Leave the C++ reference out; then never a pass.")]
Format = Annotated[
    Literal["human", "json"], typer.Option("--format", help="What stdout gets: text, or one JSON document.")
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
    model: Model = None,
    category: Category = None,
    workload: WorkloadIds = None,
    backend: Backend = None,
    plugin: Plugin = None,
    profile: Profile = "quick",
    iterations: Iterations = 1,
    warmup: Warmup = 1,
    seed: Seed = DEFAULT_SEED,
    skip_cpp: SkipCpp = False,
    format: Format = "human",
    output: Output = None,
    neutral_exit: NeutralExit = 3,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> int:
    """Compare every backend with the oracle, time those that agree against C++, and judge.

    Exit codes: 0 pass, 1 fail, 2 usage or unreadable input, 3 neutral, 130 interrupted.
    """
    options = _selection(model, category, workload, backend, plugin, seed, skip_cpp)
    timing: dict[str, Any] = {"profile": profile, "iterations": iterations, "warmup": warmup}
    if dry_run:
        return _show_plan(gate.plan(**options, **timing), format)
    inputs = [path for path in (model, *(plugin or ())) if path]
    job = _Job(format, output, inputs, neutral_exit, verbose - 2 * quiet)
    return job.perform(lambda progress: gate.run(**options, **timing, progress=progress))


@app.command()
def crossval(
    full: Annotated[bool, typer.Option("--full", help="Every shape, format and batch.")] = False,
    model: Model = None,
    category: Category = None,
    workload: WorkloadIds = None,
    backend: Backend = None,
    plugin: Plugin = None,
    seed: Seed = DEFAULT_SEED,
    skip_cpp: SkipCpp = False,
    format: Format = "human",
    output: Output = None,
    neutral_exit: NeutralExit = 3,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> int:
    """Compare every backend with the oracle, and with float64; time nothing.

    Exit codes: 0 pass, 1 fail, 2 usage or unreadable input, 3 neutral, 130 interrupted.
    """
    options = _selection(model, category, workload, backend, plugin, seed, skip_cpp)
    if dry_run:
        return _show_plan(gate.plan(**options, profile="full" if full else "quick", timing=False), format)
    inputs = [path for path in (model, *(plugin or ())) if path]
    job = _Job(format, output, inputs, neutral_exit, verbose - 2 * quiet)
    return job.perform(lambda progress: gate.crossval(**options, full=full, progress=progress))


@app.command(name="list")
def list_workloads(profile: Profile = "quick", format: Format = "human") -> int:
    """List the workloads of a profile, what no format can hold, and the backends."""
    _present(gate.workloads(profile), format, display.show_workloads)
    return 0


@app.command()
def doctor(plugin: Plugin = None, format: Format = "human", verbose: Verbose = False) -> int:
    """Say what is available here, and why not."""
    _present(
        gate.doctor(plugin or ()), format, lambda console, found: display.show_doctor(console, found, verbose)
    )
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
    format: Format = "human",
    verbose: Verbose = False,
) -> int:
    """Say which ternary layout the weights of a file are consistent with."""
    found = gate.identify(file, tensor=tensor, shape=_shape(shape) if shape else None)
    _present(found, format, lambda console, found: display.show_identification(console, found, verbose))
    return 0


@model_app.command()
def make(
    file: Annotated[Path, typer.Argument(metavar="FILE.gguf", help="The file to write.")],
    preset: Annotated[str, typer.Option("--preset", help="The shape: a public model's, or tiny.")] = "tiny",
    format: Annotated[
        str, typer.Option("--format", help="How linear layers are stored: i2_s, tl1, tl2, ...")
    ] = "i2_s",
    seed: Seed = DEFAULT_SEED,
    quiet: Quiet = False,
) -> int:
    """Write a synthetic GGUF model with random ternary weights."""
    try:
        with ProgressDisplay(display.console_on(sys.stderr), -int(quiet)) as progress:
            made = gate.make_model(file, preset, format, seed, progress=progress.bytes_written)
    except KeyboardInterrupt:
        complain(f"interrupted: {file} was not written")
        return EXIT_INTERRUPTED
    _present(made, "human", display.show_model)
    return 0


class _Job:
    """What `run` and `crossval` share around the measuring: where results go, and how it ends."""

    def __init__(
        self, format: str, output: Path | None, inputs: Sequence[Path], neutral_exit: int, verbosity: int
    ) -> None:
        """Finds out now whether the results can be written, and would replace none of the ``inputs``."""
        self.format = format
        self.neutral_exit = neutral_exit
        self.verbosity = verbosity
        self.target = output or _default_output()
        for document in (self.target, verdict_path(self.target)):
            check_writable(document)
            _check_spares(document, inputs)
        if os.environ.get(environment.CPP_DIR) and verbosity >= 0:
            complain(f"note: {environment.CPP_DIR} is {environment.MEANINGS[environment.CPP_DIR]}")

    def perform(self, measure: Callable[[ProgressDisplay], gate.Result]) -> int:
        """Measures, saves, shows, and returns the exit code."""
        with (
            interruption_announced(complain),
            ProgressDisplay(display.console_on(sys.stderr), self.verbosity) as progress,
        ):
            result = measure(progress)
        unsaved = None
        saved: list[str] = []
        try:
            result = result.save(
                self.target, [shlex.join(["python", "-m", "bitnet_perfgate", *sys.argv[1:]])]
            )
            saved = [str(self.target), verdict_path(self.target).name]
        except gate.FileError as error:
            # What was measured is still shown.
            unsaved = error
        if self.format == "json":
            write(result.verdict.to_json() + "\n")
        else:
            write(rendered(lambda console: display.show_result(console, result, saved, self.verbosity)))
        if unsaved:
            raise unsaved
        if result.recording.incomplete == "interrupted":
            complain(f"interrupted: what was measured until then is in {self.target}")
            return EXIT_INTERRUPTED
        return self.neutral_exit if result.verdict.verdict == "neutral" else result.verdict.exit_code


def _check_spares(document: Path, inputs: Sequence[Path]) -> None:
    """Raises `FileError` if ``document`` is one of the ``inputs``, under whatever name."""
    for path in inputs:
        if document.exists() and path.exists() and document.samefile(path):
            raise gate.FileError(
                f"{document}: will not write it: it is the input {path}; name another --output"
            )


def _selection(
    model: Path | None,
    category: list[str] | None,
    workload: list[str] | None,
    backend: list[str] | None,
    plugin: list[Path] | None,
    seed: int,
    skip_cpp: bool,
) -> dict[str, Any]:
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


def _default_output() -> Path:
    """A new name in `RESULTS_FOLDER`, which is made."""
    try:
        RESULTS_FOLDER.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise gate.FileError(
            f"{RESULTS_FOLDER}: cannot make this folder: {error.strerror}; or name --output"
        ) from error
    stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    names = (
        RESULTS_FOLDER / f"{stamp}{suffix}{RECORDING_SUFFIX}"
        for suffix in ("", *(f"-{n}" for n in range(2, 1000)))
    )
    return next(path for path in names if not path.exists())


def _shape(text: str) -> tuple[int, int]:
    rows, cross, cols = text.partition("x")
    # Longer numbers than a side can have are not even read.
    if not (cross and all(side.isdecimal() and len(side) <= MOST_DIGITS for side in (rows, cols))):
        raise gate.InputError(f"--shape {text!r}: expected outputs x inputs, such as 2560x6912")
    return int(rows), int(cols)


def _show_plan(recording: gate.Recording, format: str) -> int:
    _present(recording, format, display.show_plan)
    return 0


def _present(document: Shown, format: str, show: Callable[[Console, Shown], None]) -> None:
    write(
        document.to_json() + "\n" if format == "json" else rendered(lambda console: show(console, document))
    )


def rendered(show: Callable[[Console], None]) -> str:
    """What ``show`` prints, made for stdout."""
    console = display.console_on(sys.stdout)
    with console.capture() as captured:
        show(console)
    # Tables are padded to their width, which only makes copied text longer.
    return "".join(f"{line.rstrip()}\n" for line in captured.get().splitlines())


def write(text: str) -> None:
    """Writes to stdout. A reader that has seen enough and left is no error, any other failure is."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _discard(sys.stdout)
    except OSError as error:
        raise gate.FileError(f"stdout: cannot write: {error.strerror}") from error


def complain(line: str) -> None:
    """One line on stderr. Nobody is left to tell if this fails."""
    try:
        sys.stderr.write(display.printable(" ".join(line.split())) + "\n")
        sys.stderr.flush()
    except OSError:
        _discard(sys.stderr)


def _discard(stream: IO[str]) -> None:
    """Sends a stream nowhere: whatever is still buffered must not fail again when the interpreter ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


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
            _discard(stream)
    sys.exit(code)
