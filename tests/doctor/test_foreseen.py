"""Checks and logs: what a check foresees has a log that shows it."""

import sys
from pathlib import Path

import pytest

from bevrepro import facts
from bevrepro.doctor import explain as explaining

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LABELS = tomllib.loads((Path(__file__).parents[1] / "logs/labels.toml").read_text(encoding="utf-8"))
SHOWN = {id for label in LABELS.values() for id in (label["root"], *label["also"])}
FORESEEING = [entry for entry in explaining.catalogue() if entry.failures]


@pytest.mark.parametrize("entry", FORESEEING, ids=lambda entry: entry.id)
def test_a_check_that_foresees_a_failure_has_a_log_of_it(entry):
    assert set(entry.failures) & SHOWN


def test_many_checks_foresee_something():
    assert len(FORESEEING) > 40


def test_what_a_failure_is_foreseen_by_exists():
    known = {entry.id for entry in explaining.catalogue()}
    pairs = [(row["id"], id) for row in facts.table("failures") for id in row.get("preface", ())]
    assert pairs and [pair for pair in pairs if pair[1] not in known] == []


@pytest.mark.parametrize("row", facts.table("failures"), ids=lambda row: row["id"])
def test_every_failure_but_evidence_can_be_explained(row):
    told = explaining.failure(row["id"])
    assert (told is None) is (row["tier"] == "evidence")
    assert told is None or (told.title and told.cause and told.foreseen_by == tuple(row.get("preface", ())))
