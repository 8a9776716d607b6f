"""The command `import`, and the options of `compare` for what it reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import bitnet_perfgate as perfgate
from bitnet_perfgate import display, imports, options
from bitnet_perfgate.documents import check_writable
from bitnet_perfgate.job import refuse_to_replace, rendered, write

Map = Annotated[
    list[str] | None,
    typer.Option(
        "--map", metavar="THEN=NOW", help="Imported benchmarks that measure the same thing; repeatable."
    ),
]
SameMachine = Annotated[
    bool,
    typer.Option("--same-machine", help="Imported files are of one machine, where they do not say so."),
]


def import_(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE", help="Results of one tool, each a launch; for criterion target/criterion."
        ),
    ],
    tool: Annotated[
        str | None,
        typer.Option("--from", metavar="TOOL", help="Whose files, instead of what their content says."),
    ] = None,
    saved: Annotated[
        str, typer.Option("--saved", metavar="NAME", help="criterion: new, base or a saved baseline.")
    ] = "new",
    format: options.Format = "human",
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="FILE", help="The recording. Default: <name>.recording.json here."),
    ] = None,
) -> int:
    """Read another tool's results into a recording, for `compare`.

    Exit codes: 0 read, 2 usage or unreadable input.
    """
    target = output or imports.default_target(files[0])
    check_writable(target)
    refuse_to_replace(target, files)
    recording = imports.import_results(files, tool=tool, saved=saved)
    recording.save(target)
    if format == "json":
        write(recording.to_json() + "\n")
    else:
        write(rendered(lambda console: display.show_import(console, recording, str(target))))
    return 0


def names_of(pairs: list[str] | None) -> dict[str, str]:
    """``THEN=NOW`` pairs. A name may hold ``=`` itself: the middle one divides.

    >>> names_of(["a=b", "x=1=x=2"])
    {'a': 'b', 'x=1': 'x=2'}
    """
    names = {}
    for pair in pairs or ():
        parts = pair.split("=")
        if len(parts) % 2 or not all((parts[0], parts[-1])):
            raise perfgate.InputError(f"--map {pair!r}: expected THEN=NOW")
        middle = len(parts) // 2
        names["=".join(parts[:middle])] = "=".join(parts[middle:])
    return names


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(name="import")(import_)
