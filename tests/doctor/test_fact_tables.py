"""The shape of the facts: every row says where it is from and when it was looked at.

That every row is used, and every row asked for is there: test_audit.py.
"""

from datetime import date

import pytest

from bevrepro import facts

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


def test_a_row_that_does_not_exist_is_an_error_in_the_code():
    with pytest.raises(KeyError, match="no row"):
        facts.row("needs", "patience")
