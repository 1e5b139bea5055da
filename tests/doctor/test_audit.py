"""The fact tables against the code that reads them."""

import ast
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from bevrepro import facts
from bevrepro.doctor import audit

GOOD = {"id": "x", "source": "somewhere", "checked": "2026-11-21"}


def test_the_tables_are_sound_and_every_check_has_its_facts():
    assert audit.problems() == ()


@pytest.mark.parametrize(
    "change, words",
    [
        ({"source": " "}, "source is missing"),
        ({"checked": None}, "checked is missing"),
        ({"checked": "2026-13-01"}, "is no date"),
        ({"checked": "2999-01-01"}, "lies in the future"),
        ({"status": "guessed"}, "status 'guessed'"),
        ({"id": "a\nb"}, "no command line likes"),
    ],
)
def test_a_row_without_its_shape_is_named(change, words):
    assert any(words in each for each in audit._row_problems({**GOOD, **change}, date(2026, 11, 21)))
    assert not list(audit._row_problems(GOOD, date(2026, 11, 21)))


def test_calls_are_read_from_the_source():
    calls = (
        'facts.row("needs", "x")',
        "facts.row(T, name)",
        'facts.table("b")',
        'o.row("c", "d")',
        "facts.row(n)",
    )
    code = "\n".join(('T = "a"', *calls))
    assert set(audit._calls(ast.parse(code))) == {("needs", "x"), ("a", None), ("b", None)}


def test_a_missing_row_a_missing_table_and_an_unused_row_are_named(monkeypatch):
    monkeypatch.setattr(facts, "TABLES", ("needs",))
    told = " ".join(audit._use_problems({"needs": {"patience"}, "moon": {None}}))
    assert "needs/patience" in told and "facts/moon.toml" in told and "'shm': no check asks for it" in told


def test_it_is_a_program():
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "bevrepro.doctor.audit"], cwd=root, capture_output=True, text=True
    )
    assert "rows, nothing wrong." in done.stdout and done.returncode == 0
