"""The fact tables against the code that reads them."""

import ast
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from bevrepro import facts
from bevrepro.doctor import audit
from bevrepro.doctor.metrics import CHECKS as METRICS
from bevrepro.probe.metrics import Metrics
from bevrepro.probe.paths import Place

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


def _judges():
    """(file, function, its calls) of every function in the checks' sources."""
    for path in sorted((audit.SOURCES / "doctor").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                yield path.name, node.name, node


def test_what_rests_on_an_unverified_row_never_fails():
    """A judge that names such a row does not call fail, or asks for the row's status."""
    found = []
    for file, name, node in _judges():
        rows = [pair for pair in audit._calls(node) if pair[1] is not None]
        unsure = [pair for pair in rows if facts.row(*pair).get("status") == "unverified"]
        words = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
        attributes = {each.value for each in ast.walk(node) if isinstance(each, ast.Constant)}
        # _avx fails by another row (needs-avx); test_checks.py holds what it says by this one.
        if (file, name) == ("cpu.py", "_avx"):
            continue
        if unsure and "fail" in words and "status" not in attributes:
            found.append((file, name, unsure))
    assert found == []
    unsure_rows = [
        row for table in facts.TABLES for row in facts.table(table) if row.get("status") == "unverified"
    ]
    assert len(unsure_rows) > 5


@pytest.mark.parametrize("id", ["metrics-temporal", "metrics-ema"])
def test_guessed_bounds_of_metrics_never_fail(id):
    (check,) = (each for each in METRICS if each.id == id)
    severities = {
        verdict.severity.value
        for map_ in (0.0, 0.05, 0.252, 0.37, 0.416, 0.7)
        for nds in (0.0, 0.3, 0.33, 0.459, 0.49, 0.5, 0.9)
        for mave in (None, 0.0, 0.8, 1.2, 99.0)
        for verdict in check.judge(
            Metrics(Place("/x", "file"), None, map_, nds, {} if mave is None else {"mAVE": mave})
        )
    }
    assert severities == {"warn"}
