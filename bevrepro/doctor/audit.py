"""`python -m bevrepro.doctor.audit`: whether the fact tables have their shape and every check its facts.

The checks' sources are read, not run: a row that a check names and that is not there is found before a user
meets it, and a row that nobody names is found as well.
"""

import ast
import re
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

from bevrepro import facts

SOURCES = Path(__file__).parents[1]
STATUSES = ("read", "measured", "unverified")
ID = re.compile(r"[A-Za-z0-9][\w.,+ -]*")


def problems(today: date | None = None) -> tuple[str, ...]:
    """One sentence each; () when all is well."""
    return (*_shape_problems(today or date.today()), *_use_problems(named_rows()))


def named_rows() -> dict[str, set[str | None]]:
    """table -> the rows that our code names; None where it reads the whole table."""
    named: dict[str, set[str | None]] = {}
    for path in sorted(SOURCES.rglob("*.py")):
        for table, row in _calls(ast.parse(path.read_text(encoding="utf-8"))):
            named.setdefault(table, set()).add(row)
    return named


def _calls(tree: ast.Module) -> Iterator[tuple[str, str | None]]:
    """facts.row("t", "r") gives ("t", "r"), facts.row("t", name) and facts.table("t") give ("t", None)."""
    constants = {
        node.targets[0].id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not node.args or _callee(node) not in ("row", "table"):
            continue
        words = [_text(each, constants) for each in node.args]
        if words[0] is not None:
            yield words[0], words[1] if len(words) > 1 else None


def _callee(node: ast.Call) -> str:
    """`row` of facts.row(...), "" of anything that is not an attribute of facts."""
    function = node.func
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
        return function.attr if function.value.id == "facts" else ""
    return ""


def _text(node: ast.expr, constants: dict[str, Any]) -> str | None:
    value = node.value if isinstance(node, ast.Constant) else None
    if isinstance(node, ast.Name):
        value = constants.get(node.id)
    return value if isinstance(value, str) else None


def _shape_problems(today: date) -> Iterator[str]:
    for name in facts.TABLES:
        seen: set[str] = set()
        kinds: dict[str, type] = {}
        for row in facts.table(name):
            where = f"facts/{name}.toml, row {row.get('id')!r}"
            yield from (f"{where}: {words}" for words in _row_problems(row, today))
            if row.get("id") in seen:
                yield f"{where}: this id is there twice"
            seen.add(str(row.get("id")))
            for key, value in row.items():
                if kinds.setdefault(key, type(value)) is not type(value):
                    yield f"{where}: {key} is {type(value).__name__}, elsewhere {kinds[key].__name__}"


def _row_problems(row: facts.Row, today: date) -> Iterator[str]:
    for key in facts.REQUIRED:
        if not isinstance(row.get(key), str) or not row[key].strip():
            yield f"{key} is missing"
    if isinstance(row.get("id"), str) and not ID.fullmatch(row["id"]):
        yield "its id holds characters that no command line likes"
    if row.get("status", "read") not in STATUSES:
        yield f"status {row['status']!r} is none of {', '.join(STATUSES)}"
    try:
        if date.fromisoformat(str(row.get("checked"))) > today:
            yield f"checked {row['checked']} lies in the future"
    except ValueError:
        yield f"checked {row.get('checked')!r} is no date"


def _use_problems(named: dict[str, set[str | None]]) -> Iterator[str]:
    for table in sorted(named):
        if table not in facts.TABLES:
            yield f"a check asks for facts/{table}.toml, which does not exist"
            continue
        known = {row["id"] for row in facts.table(table)}
        yield from (f"a check asks for {table}/{row}, which does not exist"
                    for row in sorted(filter(None, named[table])) if row not in known)  # fmt: skip
    for table in facts.TABLES:
        used = named.get(table, set())
        if None not in used:
            yield from (f"facts/{table}.toml, row {row['id']!r}: no check asks for it"
                        for row in facts.table(table) if row["id"] not in used)  # fmt: skip


def main() -> int:
    """Print the problems; 1 where there are any."""
    found = problems()
    print("\n".join(found) or f"{sum(len(facts.table(name)) for name in facts.TABLES)} rows, nothing wrong.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
