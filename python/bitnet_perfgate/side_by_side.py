"""Two functions of one process, timed in pairs; Rust judges them as it does trials measured elsewhere."""

from __future__ import annotations

import gc
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from bitnet_perfgate import _core
from bitnet_perfgate.trials import DEFAULT_MARGIN, StrPath, TrialVerdict, judge_trial

DEFAULT_PAIRS = 90
LEAST_PAIRS = 2
MOST_PAIRS = 100_000
SAMPLE_NS = 1_000_000
MOST_CALLS = 10_000_000
SEED = 42

Variant = Callable[[], object]


def compare_callables(
    baseline: Variant,
    candidate: Variant,
    *,
    pairs: int = DEFAULT_PAIRS,
    margin: float = DEFAULT_MARGIN,
    calibration: StrPath | None = None,
    strict: bool = False,
    cpu_time: bool = False,
) -> TrialVerdict:
    """Times ``candidate`` against ``baseline`` in ``pairs`` adjacent samples, in random order, and judges.

    Both run in this thread, on one CPU where the system allows to say which, the garbage collector off. Wall
    time decides, because code may wait; ``cpu_time`` adds this thread's CPU time, which then decides and is
    quieter, but sees neither waiting nor other threads. Errors are those of `judge_trial`.

    Example:
        >>> compare_callables(lambda: sum(range(900)), lambda: sum(range(1200))).verdict  # doctest: +SKIP
        'fail'
    """
    trial = time_pairs(baseline, candidate, pairs, cpu_time)
    return judge_trial(trial, calibration, margin=margin, strict=strict)


def time_pairs(baseline: Variant, candidate: Variant, pairs: int, cpu_time: bool = False) -> dict[str, Any]:
    """The samples of both sides as a trial; times are ns per call."""
    if not LEAST_PAIRS <= pairs <= MOST_PAIRS:
        raise _core.InputError(f"pairs is {pairs}, expected {LEAST_PAIRS} to {MOST_PAIRS}")
    sides = {"baseline": baseline, "candidate": candidate}
    order = random.Random(SEED)
    wall: dict[str, list[float]] = {name: [] for name in sides}
    cpu: dict[str, list[float]] = {name: [] for name in sides}
    with _undisturbed() as pinned:
        calls = {name: _calls_per_sample(variant) for name, variant in sides.items()}
        for _ in range(pairs):
            for name in order.sample(list(sides), 2):
                wall_ns, cpu_ns = _sample(sides[name], calls[name])
                # A clock that did not advance has measured less than its own step.
                wall[name].append(max(wall_ns, 1) / calls[name])
                cpu[name].append(max(cpu_ns, 1) / calls[name])
    trial: dict[str, Any] = {**wall, "mode": "intpin" if pinned else "int"}
    if cpu_time:
        trial.update({f"{name}_cpu": times for name, times in cpu.items()})
    return trial


def _calls_per_sample(variant: Variant) -> int:
    """Calls that last long enough for the clock; the first ones warm up."""
    calls = 1
    while calls < MOST_CALLS and _sample(variant, calls)[0] < SAMPLE_NS:
        calls *= 2
    return calls


def _sample(variant: Variant, calls: int) -> tuple[int, int]:
    """Wall and CPU time of so many calls, in ns."""
    repeat = range(calls)
    cpu = time.thread_time_ns()
    start = time.perf_counter_ns()
    for _ in repeat:
        variant()
    wall_ns = time.perf_counter_ns() - start
    return wall_ns, time.thread_time_ns() - cpu


@contextmanager
def _undisturbed() -> Iterator[bool]:
    """Within it this thread stays on one CPU, if it says whether; and no garbage is collected."""
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        pinned = bool(before)
        try:
            if before:
                os.sched_setaffinity(0, {max(before)})
        except OSError:
            pinned = False
        yield pinned
    finally:
        if before:
            os.sched_setaffinity(0, before)
        if collecting:
            gc.enable()
