"""``%load_ext bitnet_perfgate``: ``%perfgate`` runs and shows, ``%%perfgate`` compares two variants.

::

    %perfgate run --workload matmul/i2_s/640x2560/b1/t1/hot

    %%perfgate --margin 5%
    sum(x * x for x in data)
    ---
    sum([x * x for x in data])

Above the line of dashes stands the baseline, below it the candidate. Variables are those of the notebook;
what a variant assigns stays its own.
"""

from __future__ import annotations

import argparse
import ast
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from bitnet_perfgate import _core
from bitnet_perfgate.documents import Result
from bitnet_perfgate.side_by_side import DEFAULT_PAIRS, Variant, compare_callables
from bitnet_perfgate.trials import TrialVerdict

SEPARATOR = "---"


def load_ipython_extension(shell: Any) -> None:
    """Called by ``%load_ext bitnet_perfgate``."""
    shell.register_magic_function(_line, "line", "perfgate")
    shell.register_magic_function(lambda line, cell: _cell(shell, line, cell), "cell", "perfgate")


class _Parser(argparse.ArgumentParser):
    """Errors become exceptions: nothing may end a notebook."""

    def error(self, message: str) -> NoReturn:
        raise _core.InputError(f"{self.prog}: {message}")


def _line(line: str) -> Result:
    """``%perfgate run|crossval|gate [options]``, options as those of the commands."""
    from bitnet_perfgate import regression, runs

    commands: dict[str, Callable[..., Result]] = {
        "run": runs.run,
        "crossval": runs.crossval,
        "gate": regression.gate,
    }
    parser = _Parser(prog="%perfgate", add_help=False, allow_abbrev=False)
    parser.add_argument("command", choices=sorted(commands))
    for name, plural in (("workload", "workloads"), ("backend", "backends"), ("plugin", "plugins")):
        parser.add_argument(f"--{name}", dest=plural, action="append")
    parser.add_argument("--category", dest="categories", action="append")
    parser.add_argument("--profile", choices=["quick", "full"])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--baseline", type=Path)
    parser.add_argument("--iterations", type=int)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--full", action="store_true", default=None)
    parser.add_argument("--skip-cpp", action="store_true", default=None)
    given = {
        name: value for name, value in vars(parser.parse_args(shlex.split(line))).items() if value is not None
    }
    command = given.pop("command")
    try:
        return commands[command](**given)
    except TypeError as error:
        raise _core.InputError(f"%perfgate {command}: {error}") from error


def _cell(shell: Any, line: str, cell: str) -> TrialVerdict:
    """``%%perfgate [--margin 5%] [--pairs N] [--cpu] [--strict] [--calibration FILE]``."""
    parser = _Parser(prog="%%perfgate", add_help=False, allow_abbrev=False)
    parser.add_argument("--margin", default="5%")
    parser.add_argument("--pairs", type=int, default=DEFAULT_PAIRS)
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--strict", action="store_true")
    parser.add_argument("--calibration", type=Path)
    options = parser.parse_args(shlex.split(line))
    parts = [part.strip("\n") for part in f"\n{cell}".split(f"\n{SEPARATOR}\n")]
    if len(parts) != 2 or not all(part.strip() for part in parts):
        raise _core.InputError(f"%%perfgate: expected two variants with a line {SEPARATOR!r} between them")
    baseline, candidate = (
        _variant(part, name, shell.user_ns)
        for part, name in zip(parts, ("baseline", "candidate"), strict=True)
    )
    return compare_callables(
        baseline,
        candidate,
        pairs=options.pairs,
        margin=_share(options.margin),
        calibration=options.calibration,
        strict=options.strict,
        cpu_time=options.cpu,
    )


def _variant(source: str, name: str, namespace: dict[str, Any]) -> Variant:
    """The statements as the body of a function whose globals are the notebook's."""
    try:
        body = ast.parse(source, f"<perfgate {name}>").body
    except SyntaxError as error:
        raise _core.InputError(f"%%perfgate: the {name} is no Python: {error}") from error
    if not body:
        raise _core.InputError(f"%%perfgate: the {name} has no statement")
    module = ast.parse("def variant(): pass", f"<perfgate {name}>")
    function = module.body[0]
    assert isinstance(function, ast.FunctionDef)
    function.body = body
    found: dict[str, Any] = {}
    exec(compile(module, f"<perfgate {name}>", "exec"), namespace, found)
    variant: Variant = found["variant"]
    return variant


def _share(text: str) -> float:
    try:
        return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise _core.InputError(f"--margin {text!r}: expected a share such as 5% or 0.05") from None
