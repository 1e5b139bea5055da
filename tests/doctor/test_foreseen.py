"""Checks and logs: what a check foresees has a log that shows it."""

import sys
from pathlib import Path

import pytest

from bevrepro import facts
from bevrepro.doctor import explain as explaining
from bevrepro.doctor.registry import PATH_CHECKS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# What cannot be read or means nothing, and what is only told: no failure of the catalogue comes from it.
UNLINKED = {
    *("ckpt-digest", "ckpt-fits", "ckpt-refused", "ckpt-unreadable", "config-broken", "config-unreadable"),
    *("env-edited", "env-missing", "env-more", "env-no-lock", "env-nothing", "env-unreadable"),
    *("infos-refused", "metrics-broken", "metrics-published", "metrics-unreadable"),
}
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


@pytest.mark.parametrize("family", PATH_CHECKS)
def test_every_check_of_a_path_is_named_by_a_failure_that_it_foresees(family):
    linked = {id for row in facts.table("failures") for id in row.get("preface", ())}
    assert {check.id for check in PATH_CHECKS[family]} - linked == {
        check.id for check in PATH_CHECKS[family] if check.id in UNLINKED
    }


def test_checks_are_told_with_the_commands_that_run_them():
    told = explaining.failure("SILENT-CANZERO")
    assert told.foresight == ("bevrepro doctor data PATH --only can-bus-missing --only infos-zero-can",)
    assert explaining.by_command(["target-driver", "driver-old", "metrics-ema"]) == {
        "bevrepro doctor": ("driver-old",),
        "bevrepro doctor --target NAME": ("target-driver",),
        "bevrepro doctor metrics PATH": ("metrics-ema",),
    }


@pytest.mark.parametrize("row", facts.table("failures"), ids=lambda row: row["id"])
def test_every_failure_but_evidence_can_be_explained(row):
    told = explaining.failure(row["id"])
    assert (told is None) is (row["tier"] == "evidence")
    assert told is None or (told.title and told.cause and told.foreseen_by == tuple(row.get("preface", ())))
