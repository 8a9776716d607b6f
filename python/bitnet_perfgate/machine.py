"""What is here: backends and the machine (`doctor`), and what can be measured (`workloads`)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable

from bitnet_perfgate import _core
from bitnet_perfgate.documents import Document
from bitnet_perfgate.environment import environment
from bitnet_perfgate.runs import distinct_files


def doctor(plugins: Iterable[str | os.PathLike[str]] = (), ceilings: bool = False) -> Document:
    """What is available here and why not.

    ``backends`` holds a row for each backend, those of ``plugins`` included: ``name``, ``isa``,
    ``available``, ``why_not``, compiler and flags. ``fingerprint`` describes the machine; ``environment``
    says what the variables ``BITNET_*`` mean here; ``not_in_this_version`` lists what arrives later.
    ``ceilings`` is ``None`` unless asked for; then they are measured, in about a second: ``values`` by name
    in GB/s and GOP/s, ``repetitions`` of which the fastest counts, ``caches``, and ``absent`` with reasons.
    Raises `InputError` for a file that is no plugin.

    Example:
        >>> [backend["name"] for backend in doctor()["backends"] if backend["available"]]  # doctest: +SKIP
    """
    found = json.loads(_core.doctor(distinct_files(plugins), ceilings))
    return Document({**found, "environment": environment()})


def backends() -> list[str]:
    """Names of the built-in backends that can run here: the oracle first, Rust before C++, the faster later.

    `doctor` says of the others why not.

    Example:
        >>> backends()[0]
        'rust-scalar'
    """
    return [backend["name"] for backend in doctor()["backends"] if backend["available"]]


def workloads(profile: str = "quick") -> Document:
    """The workloads of a profile, ``quick`` or ``full``. The command is called ``list``.

    ``workloads`` holds rows of ``id``, ``category``, ``class`` and the work of one call (``weights``,
    ``bytes``, ``ops``); ``unsupported`` lists the ids that a format cannot hold, with the reason;
    ``backends`` holds rows of ``name``, ``available`` and ``why_not``. Raises `InputError` for an unknown
    profile.

    Example:
        >>> [workload["id"] for workload in workloads("full")["workloads"]]  # doctest: +SKIP
    """
    return Document(json.loads(_core.workloads(profile)))
