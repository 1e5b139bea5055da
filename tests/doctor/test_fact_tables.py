"""The shape of the facts: every row says where it is from and when it was looked at."""

import re
from datetime import date
from pathlib import Path

import pytest

from bevrepro import facts

READ_WHOLE = {"archives", "budget", "cann", "capability", "cuda", "gcc", "mmdet3d", "pairs", "targets"}
ROWS = [(name, row) for name in facts.TABLES for row in facts.table(name)]


@pytest.mark.parametrize("name, row", ROWS, ids=[f"{name}-{row['id']}" for name, row in ROWS])
def test_a_row_has_its_source_and_date(name, row):
    assert all(isinstance(row[key], str) and row[key] for key in facts.REQUIRED)
    date.fromisoformat(row["checked"])
    assert row.get("status", "read") in ("read", "measured", "unverified")


@pytest.mark.parametrize("name", facts.TABLES)
def test_ids_are_unique_in_a_table(name):
    ids = [row["id"] for row in facts.table(name)]
    assert len(ids) == len(set(ids))


def test_every_row_is_used():
    """Tables that are read as a whole have no row named in the code, but their own name."""
    code = "".join(path.read_text() for path in (Path(facts.__file__).parent.parent / "doctor").glob("*.py"))
    named = set(re.findall(r'"([a-z0-9.-]+)"', code))
    assert READ_WHOLE <= set(facts.TABLES) & named
    assert {row["id"] for name, row in ROWS if name not in READ_WHOLE} <= named


def test_a_row_that_does_not_exist_is_an_error_in_the_code():
    with pytest.raises(KeyError, match="no row"):
        facts.row("needs", "patience")
