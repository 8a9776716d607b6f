"""The main jobs: measure and judge (`run`), agreement alone (`crossval`), what would be done (`plan`)."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, Protocol

from bitnet_perfgate import _core, worker
from bitnet_perfgate.callables import CallableBackend, address, checked
from bitnet_perfgate.documents import Recording, Result, Verdict

DEFAULT_SEED = 42

StrPath = str | os.PathLike[str]


class Progress(Protocol):
    """Told between steps, never inside a timed block. ``KeyboardInterrupt`` raised in it stops the run."""

    def __call__(self, done: int, total: int, fraction: float, what: str, phase: str, /) -> object:
        """``done`` of ``total`` workloads and ``fraction`` (0 to 1) of the one called ``what`` are finished.

        ``phase`` is ``agreement``, ``timing`` or ``accuracy``; before anything is done, once, ``plan``: then
        ``what`` says how small a slow-down can be confirmed.
        """


def run(
    *,
    model: StrPath | None = None,
    categories: Iterable[str] = (),
    workloads: Iterable[str] = (),
    backends: Iterable[str] = (),
    plugins: Iterable[StrPath] = (),
    callables: Iterable[CallableBackend | type] = (),
    profile: str = "quick",
    iterations: int = 1,
    warmup: int = 1,
    counts: str = "wall",
    seed: int = DEFAULT_SEED,
    skip_cpp: bool = False,
    thresholds: StrPath | None = None,
    strict: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Compares every backend with the oracle, times those that agree against the C++ reference, and judges.

    Five fresh processes measure; what is clear after three is left alone, what is undecided is measured
    once more, and what looks too slow is measured afresh: red needs both. No baseline is read, so no
    regression is judged. What disagrees is not timed.

    Args:
        model: a GGUF file whose ternary tensors are the weights, instead of weights drawn from ``seed``.
        categories: ``quantization``, ``kernels``, ``mixed_precision``; empty means all.
        workloads: ids as `bitnet_perfgate.workloads` lists them; empty means all of the profile.
        backends: names as `bitnet_perfgate.doctor` lists them; empty means all. The oracle always takes part.
        plugins: shared libraries that export ``bitnet_backend_v1``; loading one runs its code.
        callables: Python functions and classes that `backend` made backends of. The fresh processes must find
            them: by module and name, or else by cloudpickle.
        profile: ``quick`` (about a minute) or ``full`` (every shape, format and batch).
        iterations: multiplies the launches, 5 fresh processes of 12 blocks for each workload.
        warmup: untimed calls before each turn of a side, at least 1.
        counts: what is judged: ``wall`` time, ``cpu`` time of the measuring thread, or ``instructions``,
            which are counted by the CPU's counters where they can be read, else by callgrind; then nothing
            is timed, and backends that the counter does not understand are skipped by name.
        seed: of weights, activations and the order of sides.
        skip_cpp: leaves the C++ reference out; the verdict is then neutral at best.
        thresholds: a policy file (`perfgate.toml`); without one the defaults hold.
        strict: slow-downs that are only likely are neutral instead of red.
        progress: called between steps.

    Returns:
        The recording, the verdict and the speed table. An interrupted run returns what it has, and
        ``result.recording.incomplete`` says so.

    Raises:
        InputError: an unknown name, an unusable option, a model or plugin that cannot be used, a path that
            is not UTF-8, a callable that no fresh process would find.
        FileError: a file cannot be opened or read.

    Example:
        >>> result = run(workloads=["matmul/i2_s/640x2560/b1/t1/hot"])  # doctest: +SKIP
        >>> [(row.workload, row.ratio) for row in result.table if row.required]  # doctest: +SKIP
    """
    brought = checked(callables)
    return _measure(
        _options(
            model=model,
            categories=categories,
            workloads=workloads,
            backends=backends,
            plugins=plugins,
            profile=profile,
            iterations=iterations,
            warmup=warmup,
            counts=counts,
            seed=seed,
            skip_cpp=skip_cpp,
            worker=worker.command(),
            judgement=judgement(thresholds=thresholds, strict=strict),
            brought=[{"name": each.name, "address": address(each)} for each in brought],
        ),
        progress,
        brought,
    )


def judgement(thresholds: StrPath | None = None, strict: bool = False, **against: Any) -> dict[str, Any]:
    """By what a recording is judged, as Rust expects it."""
    policy = None if thresholds is None else _unicode("thresholds", os.fsdecode(thresholds))
    return {"thresholds": policy, "strict": strict, **against}


def crossval(
    *,
    full: bool = False,
    model: StrPath | None = None,
    categories: Iterable[str] = (),
    workloads: Iterable[str] = (),
    backends: Iterable[str] = (),
    plugins: Iterable[StrPath] = (),
    callables: Iterable[CallableBackend | type] = (),
    seed: int = DEFAULT_SEED,
    skip_cpp: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Compares every backend with the oracle, and with float64 for the accuracy; times nothing.

    ``full`` takes every shape, format and batch. Everything else is as in `run`, but that all of it happens
    in this process: a callable may be any function, one of a notebook too. What it prints goes to stderr.

    Example:
        >>> result = crossval(workloads=["quantize/tl2/640x2560"])  # doctest: +SKIP
        >>> result.verdict["agreement"]["exact"], result.verdict["agreement"]["n"]  # doctest: +SKIP
    """
    brought = checked(callables)
    return _measure(
        _options(
            model=model,
            categories=categories,
            workloads=workloads,
            backends=backends,
            plugins=plugins,
            profile="full" if full else "quick",
            seed=seed,
            skip_cpp=skip_cpp,
            timing=False,
            brought=_by_name(brought),
        ),
        progress,
        brought,
    )


def plan(
    *,
    model: StrPath | None = None,
    categories: Iterable[str] = (),
    workloads: Iterable[str] = (),
    backends: Iterable[str] = (),
    plugins: Iterable[StrPath] = (),
    callables: Iterable[CallableBackend | type] = (),
    profile: str = "quick",
    iterations: int = 1,
    warmup: int = 1,
    counts: str = "wall",
    seed: int = DEFAULT_SEED,
    skip_cpp: bool = False,
    timing: bool = True,
) -> Recording:
    """What `run` (without ``timing``: `crossval`) would do: a recording with the plan and nothing measured.

    Arguments and errors are those of `run`.

    Example:
        >>> plan(categories=["quantization"]).workload_ids  # doctest: +SKIP
    """
    brought = checked(callables)
    options = _options(
        model=model,
        categories=categories,
        workloads=workloads,
        backends=backends,
        plugins=plugins,
        profile=profile,
        iterations=iterations,
        warmup=warmup,
        counts=counts,
        seed=seed,
        skip_cpp=skip_cpp,
        timing=timing,
        brought=_by_name(brought),
    )
    return Recording(json.loads(_core.plan(options, brought)))


def measure_against(
    options: dict[str, Any], against: dict[str, Any], progress: Progress | None, **timing: Any
) -> Result:
    """Measures in fresh processes and judges; for functions that know what to judge against."""
    whole = {**timing, **options, "worker": worker.command(), "judgement": against}
    return _measure(_options(**whole), progress)


def load_recording(path: StrPath) -> Result:
    """Reads a recording, checks it, and judges it again.

    Raises `FileError` if it cannot be read, `InputError` if it is no recording of this schema.

    Example:
        >>> load_recording("benchmark-results/x.recording.json").verdict.verdict  # doctest: +SKIP
    """
    recording = _core.load_recording(os.fspath(path))
    return Result.of(Recording(json.loads(recording)), Verdict(json.loads(_core.judge(recording))))


def options_json(**options: Any) -> str:
    """Options of a run that leave the rest at its defaults, as Rust expects them."""
    lists: dict[str, Any] = {"categories": (), "workloads": (), "backends": (), "plugins": ()}
    return _options(**{"model": None, **lists, **options})


def _by_name(brought: list[CallableBackend]) -> list[dict[str, str]]:
    """What stays in this process needs no address."""
    return [{"name": each.name, "address": ""} for each in brought]


def _measure(options: str, progress: Progress | None, brought: list[CallableBackend] | None = None) -> Result:
    if brought:
        with _prints_on_stderr(progress) as told:
            recording, verdict = _core.run(options, told, brought)
    else:
        recording, verdict = _core.run(options, progress, [])
    return Result.of(Recording(json.loads(recording)), Verdict(json.loads(verdict)))


@contextmanager
def _prints_on_stderr(progress: Progress | None) -> Iterator[Progress | None]:
    """Within it, what is printed goes to stderr: stdout may be a document. ``progress`` prints as before."""
    own = sys.stdout

    def told(done: int, total: int, fraction: float, what: str, phase: str, /) -> object:
        assert progress is not None
        with redirect_stdout(own):
            return progress(done, total, fraction, what, phase)

    with redirect_stdout(sys.stderr):
        yield told if progress else None


def _options(**options: Any) -> str:
    """The options as the JSON object that Rust expects."""
    for name in ("categories", "workloads", "backends", "plugins"):
        values = options[name]
        if isinstance(values, str | bytes | os.PathLike):
            raise _core.InputError(f"{name}: expected a list, got the single value {values!r}")
        # What is named twice is meant once.
        texts = distinct_files(values) if name == "plugins" else dict.fromkeys(map(os.fsdecode, values))
        options[name] = [_unicode(name, text) for text in texts]
    if options["model"] is not None:
        options["model"] = _unicode("model", os.fsdecode(options["model"]))
    return json.dumps(options)


def distinct_files(paths: Iterable[StrPath]) -> list[str]:
    """Each file once, as it was named first."""
    named: dict[str, str] = {}
    for path in map(os.fsdecode, paths):
        named.setdefault(os.path.realpath(path), path)
    return list(named.values())


def _unicode(name: str, text: str) -> str:
    """The text, if JSON can hold it: options cross to Rust as JSON, recordings name the files in it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _core.InputError(
            f"{name}: {text!r} is not valid UTF-8; rename the file, or name a link to it"
        ) from error
    return text
