"""Some backends alone, without those that rules require: do they agree, and how fast are they."""

from __future__ import annotations

from collections.abc import Iterable

from bitnet_perfgate import _core
from bitnet_perfgate.callables import CallableBackend
from bitnet_perfgate.documents import Result
from bitnet_perfgate.machine import backends
from bitnet_perfgate.runs import DEFAULT_SEED, Progress, crossval, run

ORACLE = "rust-scalar"


def parity(
    *sides: str | CallableBackend | type,
    workloads: Iterable[str] = (),
    seed: int = DEFAULT_SEED,
    progress: Progress | None = None,
) -> Result:
    """`crossval` of these backends alone.

    Args:
        sides: names of `backends`, and what `backend` makes; at least one.
        workloads: ids as `bitnet_perfgate.workloads` lists them; empty means all of the quick profile.
        seed: of weights and activations.
        progress: called between steps.

    Returns:
        The result; ``result.recording.agreements`` has a row for each side and workload. Its verdict is
        neutral at best, because the backends that rules require were left out.

    Raises:
        InputError: no sides, or an unknown name.

    Example:
        >>> result = parity("rust-avx2", workloads=["matmul/i2_s/640x2560/b1/t1/hot"])  # doctest: +SKIP
        >>> [row["exact"] for row in result.recording.agreements]  # doctest: +SKIP
    """
    names, callables = _apart(sides)
    # The oracle takes part anyway; without a name all would.
    named = names or [ORACLE]
    return crossval(workloads=workloads, backends=named, callables=callables, seed=seed, progress=progress)


def measure(
    *sides: str | CallableBackend | type,
    workloads: Iterable[str],
    seed: int = DEFAULT_SEED,
    progress: Progress | None = None,
) -> Result:
    """`run` of these backends against the fastest C++ one alone.

    Args:
        sides: names of `backends`, and what `backend` makes; at least one.
        workloads: ids as `bitnet_perfgate.workloads` lists them.
        seed: of weights, activations and the order of sides.
        progress: called between steps.

    Returns:
        The result; ``result.table`` has the times and paired ratios. Its verdict is neutral at best, as that
        of `parity`.

    Raises:
        InputError: no sides, an unknown name, a callable that no fresh process would find.

    Example:
        >>> result = measure("rust-avx2", workloads=["matmul/i2_s/640x2560/b1/t1/hot"])  # doctest: +SKIP
        >>> [(row.subject, row.ratio) for row in result.table]  # doctest: +SKIP
    """
    names, callables = _apart(sides)
    reference = [name for name in backends() if name.startswith("cpp-")][-1:]
    named = list(dict.fromkeys([*names, *reference])) or [ORACLE]
    return run(workloads=workloads, backends=named, callables=callables, seed=seed, progress=progress)


def _apart(
    sides: Iterable[str | CallableBackend | type],
) -> tuple[list[str], list[CallableBackend | type]]:
    """Names, and the rest."""
    sides = list(sides)
    if not sides:
        raise _core.InputError("no backend was given, expected one or more: names, or what @backend makes")
    names = [side for side in sides if isinstance(side, str)]
    return names, [side for side in sides if not isinstance(side, str)]
