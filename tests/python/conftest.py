"""What the tests share: the command line as a process, and two small runs seen from many sides."""

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bitnet_perfgate as gate
from bitnet_perfgate import _core

REPOSITORY = Path(__file__).resolve().parents[2]
TINY_MODEL = REPOSITORY / "tests" / "golden" / "tiny-i2s.gguf"
PRODUCT = "matmul/i2_s/640x2560/b1/t1/hot"
DEQUANTIZE = "dequantize/i2_s/640x2560"
DECODE = "decode/tiny/i2_s/tg16/t1"

Cli = Callable[..., subprocess.CompletedProcess[str]]


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "bitnet_perfgate", *map(str, arguments)]


def environment(**changes: str) -> dict[str, str]:
    """This process's environment without what would change the output, plus ``changes``."""
    unwanted = {"COLUMNS", "NO_COLOR", "FORCE_COLOR", "TERM", "LANG", "LC_ALL", "PYTHONIOENCODING"}
    kept = {k: v for k, v in os.environ.items() if k not in unwanted and not k.startswith("BITNET_")}
    return {**kept, "TERM": "xterm", "LANG": "C.UTF-8", **changes}


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Runs a command in an empty folder; ``env`` adds variables."""

    def run(*arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*arguments),
            cwd=tmp_path,
            env=environment(**env),
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=120,
            check=False,
        )

    return run


def assert_refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit code 2, nothing on stdout, and one line on stderr that holds the words."""
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("error: ")
    for word in words:
        assert word in done.stderr


@pytest.fixture(scope="session")
def small_run() -> gate.Result:
    """One workload of each required category, timed."""
    return gate.run(workloads=[DEQUANTIZE, PRODUCT, DECODE])


@pytest.fixture(scope="session")
def small_crossval() -> gate.Result:
    """The same, compared only."""
    return gate.crossval(workloads=[DEQUANTIZE, PRODUCT, DECODE])


def rejudged(result: gate.Result, **of_recording: Any) -> gate.Result:
    """The same run with other fields in its recording, judged again."""
    data = {**copy.deepcopy(dict(result.recording.data)), **of_recording}
    verdict = gate.Verdict(json.loads(_core.judge(json.dumps(data))))
    return gate.Result.of(gate.Recording(data), verdict)


def under_ceilings(result: gate.Result) -> gate.Result:
    """The same run under made-up ceilings, on a machine whose first cache holds everything."""
    subject = next(row.subject for row in result.table if row.required)
    ceilings = {
        "l1_read_t1_gb_per_s": 200.0,
        "dram_read_t1_gb_per_s": 20.0,
        "dram_read_t2_gb_per_s": 30.0,
        "int8_dot_portable_t1_gop_per_s": 9.0,
        f"int8_dot_{subject.partition('-')[2]}_t1_gop_per_s": 400.0,
    }
    setting = {"repetitions": 12, "caches": [{"level": 1, "size_bytes": 1 << 30}]}
    return rejudged(result, ceilings=ceilings, ceiling_setting=setting)
