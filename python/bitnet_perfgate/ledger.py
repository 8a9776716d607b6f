"""The one ledger comment of a pull request, as text. Several gates share it; each edits its own row alone.

::

    <!-- gates:start -->            table `Gate | Status | Evidence`, a row for each gate
    <!-- gates:end -->
    <!-- hoplog:start -->           what happened, a line for each commit and gate, the newest last
    <!-- hoplog:end -->
    <!-- decision:start -->         State, Why, Next
    <!-- decision:end -->

What stands outside these anchors, and other gates' rows and lines, stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

from bitnet_perfgate.display import printable

GATES, HOPLOG, DECISION = "gates", "hoplog", "decision"
TABLE_HEAD = ("| Gate | Status | Evidence |", "|------|--------|----------|")
MOST_HOPS = 20
LONGEST_EVIDENCE = 2000


@dataclass(frozen=True)
class Entry:
    """What one gate has to say of one commit."""

    gate: str
    """Name of the check run."""
    status: str
    """``pass``, ``fail`` or ``neutral``."""
    evidence: str
    """One line."""
    head_sha: str
    """The commit."""
    why: str
    """One sentence."""
    next: str
    """Who should look next, and why."""


def is_ledger(body: str) -> bool:
    """Whether a comment is a ledger: it has both anchors of the table, in order."""
    start, end = (body.find(mark) for mark in _marks(GATES))
    return 0 <= start < end


def merged(existing: str | None, entry: Entry) -> str:
    """The ledger with this entry in its place; the same entry twice changes nothing."""
    body = existing if existing and is_ledger(existing) else "\n".join(_marks(GATES)) + "\n"
    body = _replaced(body, GATES, _table(_inside(body, GATES), entry))
    body = _replaced(body, HOPLOG, _hops(_inside(body, HOPLOG), entry))
    decision = [
        f"**State**: {entry.status}",
        f"**Why**: {_code(entry.why)}",
        f"**Next**: {_code(entry.next)}",
    ]
    return _replaced(body, DECISION, "\n\n".join(decision))


def has(body: str, entry: Entry) -> bool:
    """Whether a ledger says what the entry says."""
    return is_ledger(body) and merged(body, entry) == body


def _marks(section: str) -> tuple[str, str]:
    return f"<!-- {section}:start -->", f"<!-- {section}:end -->"


def _inside(body: str, section: str) -> str:
    start, end = _marks(section)
    first, last = body.find(start), body.find(end)
    return body[first + len(start) : last] if 0 <= first < last else ""


def _replaced(body: str, section: str, content: str) -> str:
    start, end = _marks(section)
    first, last = body.find(start), body.find(end)
    block = f"{start}\n{content}\n{end}"
    if 0 <= first < last:
        return body[:first] + block + body[last + len(end) :]
    return f"{body.rstrip()}\n\n{block}\n"


def _table(rows: str, entry: Entry) -> str:
    evidence = (
        entry.evidence
        if len(entry.evidence) <= LONGEST_EVIDENCE
        else entry.evidence[:LONGEST_EVIDENCE] + "..."
    )
    own = f"| {entry.gate} | {entry.status} | {_code(evidence)} |"
    kept = [line for line in rows.splitlines() if line.startswith("|") and line not in TABLE_HEAD]
    names = [line.split("|")[1].strip() for line in kept]
    if entry.gate in names:
        kept[names.index(entry.gate)] = own
    else:
        kept.append(own)
    return "\n".join([*TABLE_HEAD, *kept])


def _hops(lines: str, entry: Entry) -> str:
    """Own lines are known by commit and gate: a run of the same commit replaces its line, in its place."""
    key = f"- `{entry.head_sha[:12]}` {entry.gate}: "
    own = f"{key}{entry.status}, next {_code(entry.next)}"
    kept = [line for line in lines.splitlines() if line.startswith("- ")]
    places = [place for place, line in enumerate(kept) if line.startswith(key)]
    if places:
        kept[places[0]] = own
    else:
        kept.append(own)
    return "\n".join(kept[-MOST_HOPS:])


def _code(text: str) -> str:
    """A code span on one line: no markup, no table cell's end, no anchor, nobody called by `@name`."""
    safe = printable(text).replace("`", "'").replace("|", "\\|").replace("<!--", "<! --")
    return f"`{safe}`"
