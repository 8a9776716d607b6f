"""What the tests share: the command line as a process, and two small runs seen from many sides."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import bitnet_perfgate as gate

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
