"""The self-test's rows for a person."""

import sys
import textwrap
from typing import Any, Dict, List, Sequence

WIDTH = 100


def show(row: Dict[str, Any]) -> None:
    """A line for the check, what it said, and its table."""
    print("%-18s %-7s %5.1f s" % (row["name"], _state(row), row["seconds"]))
    for line in textwrap.wrap(row["said"], WIDTH, break_long_words=False, break_on_hyphens=False):
        print("    " + line)
    for line in _table(row.get("rows", ())):
        print("      " + line)
    sys.stdout.flush()


def headline(asked: Any) -> str:
    """Where this runs, and what for."""
    target = "no target of bevrepro" if asked.target is None else "target %s" % asked.target
    return "Self-test of %s (%s)" % (sys.prefix, target)


def summary(rows: Sequence[Dict[str, Any]]) -> str:
    """How many passed, and the names of the others."""
    failed = [row["name"] for row in rows if not row["ok"]]
    absent = [row["name"] for row in rows if row["ok"] and row.get("absent")]
    said = "%d of %d checks passed" % (len(rows) - len(failed) - len(absent), len(rows))
    said += "; not here: " + ", ".join(absent) if absent else ""
    return said + ("; failed: " + ", ".join(failed) if failed else "") + "."


def _state(row: Dict[str, Any]) -> str:
    if not row["ok"]:
        return "FAILED"
    return "absent" if row.get("absent") else "ok"


def _table(rows: Sequence[Dict[str, Any]]) -> List[str]:
    """Columns as wide as their cells, under their names."""
    cells = [list(row) for row in rows[:1]] + [[_cell(value) for value in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in cells]


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "%.4f" % value if 1e-3 <= abs(value) < 1e4 or value == 0 else "%.1e" % value
    return "-" if value is None else str(value)
