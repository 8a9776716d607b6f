"""Environment variables of the BitNet ecosystem, and what they mean here. An empty value is an unset one."""

from __future__ import annotations

import os

SEED = "BITNET_SEED"
MODEL = "BITNET_GGUF"
DETERMINISTIC = "BITNET_DETERMINISTIC"
CPP_DIR = "BITNET_CPP_DIR"
BASELINES = "BASELINES_DIR"

MEANINGS = {
    SEED: "default of --seed",
    MODEL: "default of --model",
    BASELINES: "default of --baseline",
    DETERMINISTIC: "accepted; every run already has a fixed seed, one thread and a fixed order of work",
    CPP_DIR: "not used: comparing with a bitnet.cpp build of yours arrives in a later version",
}


def environment() -> list[dict[str, str]]:
    """Rows of ``name``, ``value`` (empty if unset) and ``meaning``, for each variable that is known here."""
    return [
        {"name": name, "value": os.environ.get(name, ""), "meaning": meaning}
        for name, meaning in MEANINGS.items()
    ]
