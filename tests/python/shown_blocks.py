"""Code blocks of the documents: found, and run as a reader would run them.

Every fenced block says by its language, or by a comment above it, what becomes of it:

    bash      each line is a command; it is run
    console   ``$ command`` with the output below it, compared; ``...`` stands for any text
    python    run as a script
    ipython   run as a notebook's cell
    <!-- file: NAME -->       the block is written to NAME, for the blocks after it
    <!-- not run: REASON -->  the block is shown only

Blocks of one document run in order, in one folder that looks like a checkout. A command ends with 0; where it
judges speed measured here, with any verdict's code; or with the code that ``# exit code N`` behind it names.
"""

import doctest
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conftest import REPOSITORY, environment

RUN = ("bash", "console", "python", "ipython")
OF_A_CHECKOUT = ("cpp", "tests")
PREFIX = ["python", "-m", "bitnet_perfgate"]
FENCE = re.compile(r"^```(?P<language>[\w+-]*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
MARK = re.compile(r"<!-- (?P<kind>not run|file): (?P<text>.+) -->\n+\Z")
EXIT_CODE = re.compile(r"\s+# exit code (\d+)$")
OUTPUT_FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True)
class Block:
    """One fenced block; ``mark`` is ``not run`` or ``file``, ``detail`` the reason or the file's name."""

    place: str
    language: str
    text: str
    mark: str
    detail: str

    @property
    def accounted_for(self) -> bool:
        """Whether it is run, written to a file, or excused."""
        return bool(self.mark) or self.language in RUN


@dataclass(frozen=True)
class Command:
    """One command line, with the output that is shown below it, if any is."""

    line: str
    output: str | None


def documents() -> list[Path]:
    """Every page that shows commands to a reader."""
    return sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")])


def blocks(text: str, name: str) -> list[Block]:
    """The fenced blocks of a page in order."""
    found = []
    for fence in FENCE.finditer(text):
        before = text[: fence.start()]
        mark = MARK.search(before)
        place = f"{name}:{before.count(chr(10)) + 1}"
        kind, detail = (mark["kind"], mark["text"]) if mark else ("", "")
        found.append(Block(place, fence["language"], fence["text"], kind, detail))
    return found


def commands(block: Block) -> Iterator[Command]:
    """The commands of a ``bash`` or ``console`` block."""
    text = block.text.replace("\\\n", "")
    if block.language == "bash":
        yield from (Command(line, None) for line in text.splitlines() if line and not line.startswith("#"))
        return
    head, *rest = re.split(r"^\$ ", text, flags=re.MULTILINE)
    assert not head, f"{block.place}: output without a command"
    for part in rest:
        line, _, output = part.partition("\n")
        yield Command(line, output)


def shown_commands(block: Block) -> list[str]:
    """The gate's commands in a block, run or not, without prompt, brackets and explanation."""
    lines = block.text.replace("\\\n", "").splitlines()
    found = (re.match(r"(?:\$ )?(python -m bitnet_perfgate\b.*)", line) for line in lines)
    return [re.split(" {2,}", match[1])[0].translate({91: " ", 93: " "}) for match in found if match]


def expected_codes(line: str) -> tuple[int, ...]:
    """What a command may end with: speed decides nothing."""
    named = EXIT_CODE.search(line)
    if named:
        return (int(named[1]),)
    words = shlex.split(line, comments=True)
    timed = words[:3] == PREFIX and (
        words[3] in ("run", "gate")
        or (words[3] == "compare" and {"--library", "--rev", "--trial"} & set(words))
    )
    return (0, 1, 3) if timed else (0,)


def run_page(page: Path, folder: Path, shell: Any) -> int:
    """Runs every block of a page in ``folder``; how many. ``shell`` is IPython's, standing in the folder."""
    for name in OF_A_CHECKOUT:
        (folder / name).symlink_to(REPOSITORY / name)
    n_run = 0
    for block in blocks(page.read_text(), page.name):
        if block.mark == "file":
            (folder / block.detail).write_text(block.text)
        elif not block.mark:
            n_run += 1
            _run(block, folder, shell)
    return n_run


def _run(block: Block, folder: Path, shell: Any) -> None:
    if block.language == "ipython":
        shell.run_cell(block.text, silent=True).raise_error()
    elif block.language == "python":
        _run_script(["python", "-c", block.text], folder, block.place, (0,))
    else:
        for command in commands(block):
            codes = expected_codes(command.line)
            words = ["bash", "-euo", "pipefail", "-c", command.line]
            stdout = _run_script(words, folder, f"{block.place}: {command.line}", codes)
            if command.output is not None:
                same = doctest.OutputChecker().check_output(command.output, stdout, OUTPUT_FLAGS)
                assert same, f"{block.place}: {command.line}\nshown:\n{command.output}\nfound:\n{stdout}"


def _run_script(words: list[str], folder: Path, what: str, codes: tuple[int, ...]) -> str:
    """Its stdout. The ``python`` of a page is the one that runs this."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    done = subprocess.run(
        words,
        cwd=folder,
        env=environment(PATH=path, COLUMNS="80", GITHUB_ACTIONS="", GITHUB_TOKEN="", GH_TOKEN=""),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode in codes, f"{what}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
    assert "Traceback" not in done.stderr, f"{what}\n{done.stderr}"
    return done.stdout
