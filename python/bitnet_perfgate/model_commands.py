"""The commands about whole models. They parse, call the public functions, show and exit."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

import bitnet_perfgate as perfgate
from bitnet_perfgate import display, model_display, model_plots, options, plots
from bitnet_perfgate.documents import check_writable, write_whole
from bitnet_perfgate.interruption import EXIT_INTERRUPTED
from bitnet_perfgate.job import complain, present, refuse_to_replace
from bitnet_perfgate.progress import ProgressDisplay
from bitnet_perfgate.runs import DEFAULT_SEED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXIT_PARTED = 1
LONGEST_LIST = 100_000

File = Annotated[Path, typer.Argument(metavar="FILE.gguf", help="A model file.")]
ModelOption = Annotated[Path, typer.Option("--model", metavar="FILE.gguf", help="A model file.")]
Tokens = Annotated[str, typer.Option("--tokens", metavar="ID,ID,...", help="Token ids.")]
Threads = Annotated[int, typer.Option("--threads", min=1, max=1024, help="Of each engine.")]
Numerics = Annotated[
    Literal["ggml", "pure-f32"],
    typer.Option("--numerics", help="Round where bitnet.cpp does, or nowhere but in the cache."),
]
Cache = Annotated[Literal["f16", "f32"], typer.Option("--cache", help="How keys and values are kept.")]
Plot = Annotated[Path | None, typer.Option("--plot", metavar="FILE.png", help="Also draw it.")]


def make(
    file: Annotated[Path, typer.Argument(metavar="FILE.gguf", help="The file to write.")],
    preset: Annotated[str, typer.Option("--preset", help="The shape: a public model's, or tiny.")] = "tiny",
    format: Annotated[
        str, typer.Option("--format", help="How linear layers are stored: i2_s, tl1, tl2 or f16.")
    ] = "i2_s",
    seed: options.Seed = DEFAULT_SEED,
    quiet: options.Quiet = False,
) -> int:
    """Write a synthetic GGUF model with random ternary weights."""
    try:
        with ProgressDisplay(display.console_on(sys.stderr), -int(quiet)) as progress:
            made = perfgate.make_model(file, preset, format, seed, progress=progress.bytes_written)
    except KeyboardInterrupt:
        complain(f"interrupted: {file} was not written")
        return EXIT_INTERRUPTED
    present(made, "human", display.show_model)
    return 0


def info(file: File, format: options.Format = "human", verbose: options.Verbose = False) -> int:
    """Say what a model file holds, and whether the engines here run it."""
    present(
        perfgate.model_info(file),
        format,
        lambda console, found: model_display.show_info(console, found, verbose),
    )
    return 0


def generate(
    model: ModelOption,
    tokens: Tokens,
    n: Annotated[int, typer.Option("-n", min=1, max=LONGEST_LIST, help="How many tokens to choose.")] = 16,
    backend: Annotated[str | None, typer.Option("--backend", metavar="NAME", help="Whose engine.")] = None,
    plugin: options.Plugin = None,
    threads: Threads = 1,
    numerics: Numerics = "ggml",
    cache: Cache = "f16",
    format: options.Format = "human",
) -> int:
    """Run a prompt of token ids, then the likeliest token, n times."""
    found = perfgate.generate(
        model,
        token_ids(tokens),
        n,
        backend=backend,
        threads=threads,
        numerics=numerics,
        cache=cache,
        plugins=plugin or (),
    )
    present(found, format, model_display.show_generated)
    return 0


def trace(
    model: ModelOption,
    tokens: Tokens,
    subject: Annotated[
        str | None, typer.Option("--subject", metavar="NAME", help="Default: the fastest Rust engine.")
    ] = None,
    reference: Annotated[
        str | None, typer.Option("--reference", metavar="NAME", help="Default: the fastest C++ engine.")
    ] = None,
    subject_model: Annotated[
        Path | None,
        typer.Option("--subject-model", metavar="FILE.gguf", help="Another file for the subject."),
    ] = None,
    step: Annotated[
        bool, typer.Option("--step", help="One token at a time, instead of all at once.")
    ] = False,
    bound: Annotated[
        float,
        typer.Option(
            "--bound", min=0.0, help="Differences count from this share of the root mean square on."
        ),
    ] = 0.0,
    plugin: options.Plugin = None,
    threads: Threads = 1,
    numerics: Numerics = "ggml",
    cache: Cache = "f16",
    plot: Plot = None,
    format: options.Format = "human",
    verbose: options.Verbose = False,
) -> int:
    """Find the first operation at which two engines part.

    Both run the same tokens.

    Exit codes: 0 they do not part, 1 they do, 2 usage or unreadable input.
    """
    refuse_plot(plot, [model, *([subject_model] if subject_model else [])])
    named: dict[str, Any] = {"subject": subject, "reference": reference, "subject_model": subject_model}
    run: dict[str, Any] = {"threads": threads, "numerics": numerics, "cache": cache}
    found = perfgate.trace(
        model, token_ids(tokens), **named, **run, step=step, bound=bound, plugins=plugin or ()
    )
    save_plot(plot, lambda: model_plots.divergence(found))
    present(found, format, lambda console, document: model_display.show_trace(console, document, verbose))
    return EXIT_PARTED if found["parted"] else 0


def breakdown(
    file: File,
    prefill: Annotated[int, typer.Option("--prefill", min=1, max=LONGEST_LIST, help="Tokens at once.")] = 128,
    decode: Annotated[
        int, typer.Option("--decode", min=0, max=LONGEST_LIST, help="Tokens one at a time.")
    ] = 32,
    seed: options.Seed = DEFAULT_SEED,
    backend: Annotated[str | None, typer.Option("--backend", metavar="NAME", help="Whose products.")] = None,
    plugin: options.Plugin = None,
    threads: Threads = 1,
    numerics: Numerics = "ggml",
    cache: Cache = "f16",
    plot: Plot = None,
    format: options.Format = "human",
) -> int:
    """Say where the time of a model goes, by operation.

    One run of our engine over a backend's products; no measurement of speed.
    """
    refuse_plot(plot, (file,))
    found = perfgate.time_breakdown(
        file,
        prefill=prefill,
        decode=decode,
        seed=seed,
        backend=backend,
        threads=threads,
        numerics=numerics,
        cache=cache,
        plugins=plugin or (),
    )
    save_plot(plot, lambda: model_plots.time_breakdown(found))
    present(found, format, model_display.show_breakdown)
    return 0


def refuse_plot(plot: Path | None, inputs: Sequence[Path]) -> None:
    """Finds out before the work whether the picture can be written, and replaces none of the inputs."""
    if plot is not None:
        if plot.suffix != ".png":
            raise perfgate.InputError(f"--plot {plot}: a PNG is written, expected a name that ends with .png")
        check_writable(plot)
        refuse_to_replace(plot, inputs, "--plot")


def save_plot(plot: Path | None, drawn: Callable[[], Figure]) -> None:
    """Writes the picture as a PNG file, where one was asked for."""
    if plot is None:
        return
    try:
        write_whole(plot, plots.png(drawn()))
    except plots.NotMeasuredError as reason:
        raise perfgate.InputError(f"--plot: {reason}") from reason


def token_ids(text: str) -> list[int]:
    """Ids between commas or blanks."""
    words = text.replace(",", " ").split()
    if not words or not all(word.isascii() and word.isdigit() and len(word) <= 10 for word in words):
        raise perfgate.InputError(f"--tokens {text!r}: expected token ids, such as 1,15,23")
    return [int(word) for word in words]


def register(app: typer.Typer, model_app: typer.Typer) -> None:
    """Adds the commands."""
    model_app.command()(make)
    model_app.command()(info)
    model_app.command()(breakdown)
    app.command()(generate)
    app.command()(trace)
