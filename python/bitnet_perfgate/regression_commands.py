"""The commands about regressions. They parse, call the public functions, show and exit."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

import bitnet_perfgate as perfgate
from bitnet_perfgate import (
    build_times,
    display,
    environment,
    import_command,
    options,
    regression,
    revisions,
    trials,
)
from bitnet_perfgate.interruption import EXIT_INTERRUPTED, interruption_announced
from bitnet_perfgate.job import Job, complain, present, rendered, shown, write
from bitnet_perfgate.progress import ProgressDisplay
from bitnet_perfgate.runs import DEFAULT_SEED

POLICY_FILE = Path("perfgate.toml")

Baseline = Annotated[
    Path,
    typer.Option(
        "--baseline",
        envvar=environment.BASELINES,
        metavar="DIR",
        help="Where accepted recordings stand, or one of them.",
    ),
]
Thresholds = Annotated[
    Path | None,
    typer.Option("--thresholds", metavar="FILE", help="The policy. Default: ./perfgate.toml if it is there."),
]
Strict = Annotated[
    bool, typer.Option("--strict", help="Slow-downs that are only likely are neutral, not red.")
]


def policy_file(thresholds: Path | None) -> Path | None:
    """The policy that was named, or the one of this folder."""
    return thresholds or (POLICY_FILE if POLICY_FILE.is_file() else None)


def gate(
    baseline: Baseline = regression.BASELINES_FOLDER,
    library: Annotated[
        Path | None,
        typer.Option("--library", metavar="FILE.so", help="Judge against this older build instead."),
    ] = None,
    rev: Annotated[
        str | None, typer.Option("--rev", metavar="REF", help="Build this git revision and judge against it.")
    ] = None,
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
    thresholds: Thresholds = None,
    strict: Strict = False,
    format: options.ReportFormat = "human",
    output: options.Output = None,
    neutral_exit: options.NeutralExit = 3,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> int:
    """Run, then judge against accepted recordings or another build.

    Writes no baseline.

    Exit codes: 0 pass, 1 fail, 2 usage or unreadable input, 3 neutral, 130 interrupted.
    """
    timing: dict[str, Any] = {
        "profile": profile,
        "iterations": iterations,
        "warmup": warmup,
        "counts": counts,
        "seed": seed,
    }
    judged: dict[str, Any] = {"thresholds": policy_file(thresholds), "strict": strict}
    if library or rev:
        return _builds(
            library,
            rev,
            None,
            {**timing, **judged, "categories": category or (), "workloads": workload or ()},
            backend,
            Job(format, output, [library] if library else [], neutral_exit, verbose - 2 * quiet),
        )
    chosen = options.selection(model, category, workload, backend, plugin, seed, skip_cpp)
    inputs = [path for path in (model, *(plugin or ()), thresholds) if path]
    job = Job(format, output, inputs, neutral_exit, verbose - 2 * quiet)
    return job.perform(
        lambda progress: regression.gate(
            **{**timing, **chosen}, **judged, baseline=baseline, progress=progress
        )
    )


def _builds(
    library: Path | None,
    rev: str | None,
    new: Path | None,
    arguments: dict[str, Any],
    backend: Iterable[str] | None,
    job: Job,
) -> int:
    if library and rev:
        raise perfgate.InputError("--library and --rev: name one other build, not two")
    if rev:
        return job.perform(
            lambda progress: revisions.compare_revision(
                rev, backends=backend or (), progress=progress, **arguments
            )
        )
    if library is None:
        raise perfgate.InputError("no other build is named")
    return job.perform(
        lambda progress: regression.compare_libraries(
            library, new, name=library.name, backends=backend or (), progress=progress, **arguments
        )
    )


def compare(
    recordings: Annotated[
        list[Path] | None,
        typer.Argument(metavar="RECORDING", help="Recordings, the one to be judged last."),
    ] = None,
    library: Annotated[
        Path | None,
        typer.Option("--library", metavar="FILE.so", help="An older build, timed beside this one."),
    ] = None,
    new: Annotated[
        Path | None, typer.Option("--new", metavar="FILE.so", help="With --library: the newer build.")
    ] = None,
    rev: Annotated[
        str | None,
        typer.Option("--rev", metavar="REF", help="A git revision, built and timed beside this one."),
    ] = None,
    trial: Annotated[
        Path | None, typer.Option("--trial", metavar="FILE.json", help="Samples measured elsewhere.")
    ] = None,
    many: Annotated[
        Path | None, typer.Option("--trials", metavar="FILE.jsonl", help="The same, one trial on each line.")
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option("--calibration", metavar="FILE.json", help="Earlier trials of two equal sides."),
    ] = None,
    margin: Annotated[
        str,
        typer.Option("--margin", metavar="SHARE", help="Largest allowed slow-down of a trial: 5% or 0.05."),
    ] = "5%",
    pair: import_command.Map = None,
    same_machine: import_command.SameMachine = False,
    category: options.Category = None,
    workload: options.WorkloadIds = None,
    backend: options.Backend = None,
    profile: options.Profile = "quick",
    iterations: options.Iterations = 1,
    warmup: options.Warmup = 1,
    counts: options.Counts = "wall",
    seed: options.Seed = DEFAULT_SEED,
    thresholds: Thresholds = None,
    strict: Strict = False,
    format: options.ReportFormat = "human",
    output: options.Output = None,
    neutral_exit: options.NeutralExit = 3,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> int:
    """Judge two recordings, two builds, or samples from elsewhere.

    Exit codes: 0 pass, 1 fail, 2 usage or unreadable input, 3 neutral. With --trials the worst decides.
    """
    ways = [
        name
        for name, given in (
            ("recordings", recordings),
            ("--library", library),
            ("--rev", rev),
            ("--trial", trial),
            ("--trials", many),
        )
        if given
    ]
    if len(ways) != 1:
        found = " and ".join(ways) or "nothing"
        raise perfgate.InputError(
            f"compare: {found} given, expected one of: recordings, --library, --rev, --trial, --trials"
        )
    if (trial or many) and format not in ("human", "json"):
        raise perfgate.InputError(f"--format {format}: samples measured elsewhere have human and json only")
    if output and (trial or many or recordings):
        raise perfgate.InputError(
            f"--output {output}: nothing is measured here; redirect --format json instead"
        )
    if (pair or same_machine) and not recordings:
        raise perfgate.InputError("--map and --same-machine: expected imported recordings")
    if trial:
        answer = trials.judge_trial(trial, calibration, margin=_share(margin), strict=strict)
        write(_trial_text(answer, format) + "\n")
        return _exit_code([answer.verdict], neutral_exit)
    if many:
        verdicts = []
        for answer in trials.judge_trials(many, calibration, margin=_share(margin), strict=strict):
            verdicts.append(answer.verdict)
            write(_trial_text(answer, format) + "\n")
        return _exit_code(verdicts, neutral_exit)
    judged: dict[str, Any] = {"thresholds": policy_file(thresholds), "strict": strict}
    if recordings:
        judged.update(names=import_command.names_of(pair), same_machine=same_machine)
        return _recordings(recordings, judged, format, neutral_exit, verbose - 2 * quiet)
    chosen = {"categories": category or (), "workloads": workload or ()}
    timing = {"profile": profile, "iterations": iterations, "warmup": warmup, "counts": counts, "seed": seed}
    inputs = [path for path in (library, new, thresholds) if path]
    job = Job(format, output, inputs, neutral_exit, verbose - 2 * quiet)
    return _builds(library, rev, new, {**timing, **chosen, **judged}, backend, job)


def _recordings(
    recordings: list[Path], judged: dict[str, Any], format: str, neutral_exit: int, verbosity: int
) -> int:
    if len(recordings) < 2:
        raise perfgate.InputError("compare: one recording given, expected EARLIER... LATER")
    result = regression.compare(list(recordings[:-1]), recordings[-1], **judged)
    if format == "human" and "origin" in result.recording.data:
        write(rendered(lambda console: display.show_imported(console, result, verbosity)))
    else:
        write(shown(result, format, [], verbosity))
    return _exit_code([result.verdict.verdict], neutral_exit)


def _share(text: str) -> float:
    """A share as ``5%`` or ``0.05``."""
    try:
        return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise perfgate.InputError(f"--margin {text!r}: expected a share such as 5% or 0.05") from None


def _trial_text(answer: trials.TrialVerdict, format: str) -> str:
    if format == "json":
        return answer.to_json()
    name = f"{answer['id']}: " if "id" in answer.data else ""
    certainty = "" if answer.verdict == "neutral" else f" ({answer['certainty']})"
    return display.printable(f"{name}{answer.verdict.upper()}{certainty}: {answer['reason']}")


def _exit_code(verdicts: list[str], neutral_exit: int) -> int:
    """Of the worst answer; of none, that of neutral: nothing judged is no pass."""
    if "fail" in verdicts:
        return 1
    return neutral_exit if "neutral" in verdicts or not verdicts else 0


Who = Annotated[str | None, typer.Option("--who", help="Who accepts it. Default: the current user.")]
Why = Annotated[str, typer.Option("--why", help="Why it is accepted; kept with it.")]
Platform = Annotated[
    str | None, typer.Option("--platform", metavar="OS-ARCH", help="Refuse recordings of another platform.")
]


def accept(
    recording: Annotated[Path, typer.Argument(metavar="RECORDING", help="A recording of `run` or `gate`.")],
    why: Why,
    who: Who = None,
    baseline: Baseline = regression.BASELINES_FOLDER,
    platform: Platform = None,
) -> int:
    """Add a recording to the baselines of its machine and builds."""
    path = regression.accept_baseline(recording, why=why, who=who, baseline=baseline, platform=platform)
    write(f"accepted: {path}\n")
    return 0


def record(
    why: Why = "recorded by `baseline record`",
    who: Who = None,
    baseline: Baseline = regression.BASELINES_FOLDER,
    platform: Platform = None,
    profile: options.Profile = "quick",
    iterations: options.Iterations = 1,
    counts: options.Counts = "wall",
    seed: options.Seed = DEFAULT_SEED,
    output: options.Output = None,
    quiet: options.Quiet = False,
) -> int:
    """Run, and accept the recording.

    Refused if it is incomplete or disagrees with the oracle.

    Exit codes: 0 recorded, 2 refused, 130 interrupted. Speed against C++ is shown and decides nothing here.
    """
    job = Job("human", output, [], 3, -2 * quiet)
    code = job.perform(
        lambda progress: perfgate.run(
            profile=profile, iterations=iterations, counts=counts, seed=seed, progress=progress
        )
    )
    if code not in (0, 1, 3):
        return code
    path = regression.accept_baseline(job.target, why=why, who=who, baseline=baseline, platform=platform)
    write(f"accepted: {path}\n")
    return 0


def list_(baseline: Baseline = regression.BASELINES_FOLDER, format: options.Format = "human") -> int:
    """List every baseline: machine, time, who and why."""
    entries = regression.list_baselines(baseline)
    if format == "json":
        write(json.dumps([entry.data for entry in entries]) + "\n")
        return 0
    lines = [
        f"{entry['platform']}/{entry['fingerprint']}  {entry['when']}  {entry['workloads']} workloads  "
        f"{entry['who']}: {entry['why']}"
        for entry in entries
    ]
    write("".join(display.printable(line) + "\n" for line in lines) or f"no baseline in {baseline}\n")
    return 0


def show(
    recording: Annotated[Path, typer.Argument(metavar="RECORDING")],
    format: options.Format = "human",
    verbose: options.Verbose = False,
) -> int:
    """Show a baseline, judged by itself."""
    result = perfgate.load_recording(recording)
    if format == "json":
        write(result.recording.to_json() + "\n")
    else:
        write(rendered(lambda console: display.show_result(console, result, [], verbose)))
    return 0


def diff(
    earlier: Annotated[Path, typer.Argument(metavar="EARLIER")],
    later: Annotated[Path, typer.Argument(metavar="LATER")],
    format: options.Format = "human",
) -> int:
    """Say what keeps two recordings from being compared.

    And which workloads appeared and vanished.
    """
    present(regression.diff_baselines(earlier, later), format, display.show_difference)
    return 0


def build_time(
    project: Annotated[
        Path, typer.Argument(metavar="[PROJECT]", help="The folder of a Cargo.toml.")
    ] = Path(),
    repeats: Annotated[
        int, typer.Option("--repeats", min=1, max=1000, help="Clean and incremental builds, each.")
    ] = build_times.REPEATS,
    release: Annotated[bool, typer.Option("--release", help="With optimisation.")] = False,
    baseline: Baseline = regression.BASELINES_FOLDER,
    thresholds: Thresholds = None,
    strict: Strict = False,
    format: options.Format = "human",
    output: options.Output = None,
    neutral_exit: options.NeutralExit = 3,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> int:
    """Time clean and incremental builds, and judge them.

    More than 20 % longer than accepted ones fails.

    Exit codes: 0 pass, 1 fail, 2 usage, or it does not build, 3 neutral, 130 interrupted.
    """
    job = Job(format, output, [], neutral_exit, verbose - 2 * quiet)
    return job.perform(
        lambda progress: perfgate.build_time(
            project,
            repeats=repeats,
            release=release,
            baseline=baseline,
            thresholds=policy_file(thresholds),
            strict=strict,
            progress=progress,
        )
    )


def selftest(
    quick: Annotated[bool, typer.Option("--quick", help="Under two minutes.")] = False,
    format: options.Format = "human",
    quiet: options.Quiet = False,
) -> int:
    """Plant slow-downs into a real kernel, and count what is found.

    The counts are the result.

    Exit codes: 0 done, 2 unusable, 3 no round was finished, 130 interrupted.
    """
    with (
        interruption_announced(complain),
        ProgressDisplay(display.console_on(sys.stderr), -int(quiet)) as progress,
    ):
        found = perfgate.selftest(quick=quick, progress=progress)
    present(found, format, display.show_selftest)
    if found["incomplete"] == "interrupted":
        return EXIT_INTERRUPTED
    return 0 if found["rounds"] else 3


def register(app: typer.Typer, settings: dict[str, Any]) -> None:
    """Adds these commands."""
    app.command()(gate)
    app.command()(compare)
    app.command()(selftest)
    app.command(name="build-time")(build_time)
    baselines = typer.Typer(help="Accepted recordings: nothing else writes them.", **settings)
    for function in (record, accept, show, diff):
        baselines.command()(function)
    baselines.command(name="list")(list_)
    app.add_typer(baselines, name="baseline")
