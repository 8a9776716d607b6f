"""Does the gate keep its promises on this machine: planted slow-downs, judged and counted by Rust."""

from __future__ import annotations

import json
from collections.abc import Iterable

from bitnet_perfgate import _core, worker
from bitnet_perfgate.documents import Document
from bitnet_perfgate.runs import DEFAULT_SEED, Progress, options_json

WORKLOADS = ("matmul/i2_s/640x2560/b1/t1/hot", "quantize/i2_s/640x2560")
QUICK_S = 90.0
WHOLE_S = 600.0


def selftest(
    *,
    quick: bool = False,
    budget_s: float | None = None,
    workloads: Iterable[str] = WORKLOADS,
    seed: int = DEFAULT_SEED,
    progress: Progress | None = None,
) -> Document:
    """Plants slow-downs of 0, 3, 5, 10 and 15 % into the C++ reference's kernels and judges each at 5 %.

    Every round is five fresh processes; rounds follow until ``budget_s`` is spent (90 s if ``quick``, else
    600 s). The document counts, for each planted slow-down, how many comparisons were red, undecided and
    passed, how much slower they were measured, and the upper 95 % bound of the rate of wrong answers.
    Errors are those of `run`.
    """
    options = options_json(workloads=workloads, seed=seed, worker=worker.command())
    budget = budget_s if budget_s is not None else QUICK_S if quick else WHOLE_S
    return Document({"budget_s": budget, **json.loads(_core.selftest(options, budget, progress))})
