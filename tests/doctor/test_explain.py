"""The catalogue of checks: complete, explained, and the page made from it fresh."""

from pathlib import Path

import pytest

from bevrepro.core.errors import ConfigError
from bevrepro.doctor import explain as explaining
from bevrepro.doctor import target
from bevrepro.doctor.check import Check
from bevrepro.doctor.registry import ALL_CHECKS

PAGE = Path(__file__).parents[2] / "docs/checks.md"
ENTRIES = explaining.catalogue()


def test_the_catalogue_has_every_check_once():
    ids = [entry.id for entry in ENTRIES]
    assert sorted(ids) == sorted({check.id for check in (*ALL_CHECKS, *target.CHECKS)})


def test_the_page_is_fresh():
    assert PAGE.read_text() == explaining.as_markdown(ENTRIES), "run `make docs`"


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.id)
def test_every_check_explains_itself(entry):
    told = explaining.explain(entry.id)
    assert told.entry == entry and entry.id in told.command
    assert entry.why.endswith((".", "'")) and entry.looks_at


@pytest.mark.parametrize(
    "id, fact", [("wsl-memory", "needs/wsl-memory: "), ("cpu-no-avx", "(checked 2026-11-21, unverified)")]
)
def test_an_explanation_names_the_facts_it_rests_on(id, fact):
    assert any(fact in line for line in explaining.explain(id).facts)


def test_the_command_runs_that_check_alone():
    assert explaining.explain("target-driver").command == "bevrepro doctor --target NAME --only target-driver"
    assert explaining.explain("data-unreadable").command == "bevrepro doctor data PATH --only data-unreadable"


def test_an_unknown_id_is_refused_with_the_near_ones():
    with pytest.raises(ConfigError) as caught:
        explaining.explain("wsl-memry")
    assert "wsl-memory" in caught.value.why


def test_a_table_survives_any_wording():
    check = Check(
        "odd", "host", "a | b", "It is `c | d`.", lambda machine: iter(()), ("https://example.org",)
    )
    row = explaining.as_markdown(explaining.catalogue([check])).splitlines()[-1]
    assert row == "| `odd` | a \\| b | It is `c \\| d`. [[1]](https://example.org) |"
