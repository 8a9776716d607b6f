"""Documents as pandas frames; pandas is an extra and loaded only here. Values are those of the documents."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitnet_perfgate.documents import Recording, Verdict

if TYPE_CHECKING:
    import pandas

COLUMNS = ("launch", "block", "order", "iterations", "value_ns")
MISSING = "pandas is not installed: pip install bitnet-perfgate[pandas]"
NAMES = ("workload", "backend", "reference", "meter")


def samples(recording: Recording) -> pandas.DataFrame:
    """A row for each sample; ``value_ns`` is that of all its ``iterations`` together."""
    try:
        import pandas
    except ImportError as error:
        raise ImportError(MISSING) from error
    parts = [
        pandas.DataFrame(
            {**{name: series[name] for name in NAMES}, **{name: series[name] for name in COLUMNS}}
        )
        for series in recording["series"]
    ]
    parts = [part for part in parts if len(part)]
    return pandas.concat(parts, ignore_index=True) if parts else pandas.DataFrame(columns=[*NAMES, *COLUMNS])


def comparisons(verdict: Verdict) -> pandas.DataFrame:
    """A row for each comparison; the bounds of the ratio are ``lower`` and ``upper``."""
    try:
        import pandas
    except ImportError as error:
        raise ImportError(MISSING) from error
    rows = []
    for row in verdict["comparisons"]:
        lower, upper = row["interval"] or (None, None)
        kept = {name: value for name, value in row.items() if not isinstance(value, list | dict)}
        rows.append({**kept, "lower": lower, "upper": upper})
    return pandas.DataFrame(rows)
