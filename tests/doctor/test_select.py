"""Choosing checks by id and by family; a wrong name is refused with the near ones."""

import pytest

from bevrepro.core.errors import ConfigError
from bevrepro.core.finding import Finding, Severity
from bevrepro.doctor.check import Check
from bevrepro.doctor.select import CRASHED, keep, select

CHECKS = tuple(
    Check(id, family, "something", "It matters.", lambda machine: iter(()))
    for id, family in (("memory-low", "host"), ("disk-low", "host"), ("cpu-cores", "cpu"))
)


@pytest.mark.parametrize(
    "only, skip, left",
    [
        ((), (), "memory-low disk-low cpu-cores"),
        (("host",), (), "memory-low disk-low"),
        (("cpu-cores", "disk-low"), (), "disk-low cpu-cores"),
        (("host",), ("disk-low",), "memory-low"),
        ((), ("host",), "cpu-cores"),
        (("cpu",), ("cpu-cores",), ""),
    ],
)
def test_ids_and_families_choose_and_leave_out(only, skip, left):
    assert [each.id for each in select(CHECKS, only, skip)] == left.split()


@pytest.mark.parametrize(
    "name, near",
    [("memory-lo", "memory-low"), ("DISK-LOW", "disk-low"), ("hots", "host"), ("low", "memory-low")],
)
def test_a_wrong_name_is_refused_with_the_near_ones(name, near):
    for arguments in ((name,), ()), ((), (name,)):
        with pytest.raises(ConfigError) as caught:
            select(CHECKS, *arguments)
        assert near in caught.value.why and "--list" in caught.value.do


@pytest.mark.parametrize("name", ["", "zzzzzz", "\x00"])
def test_a_name_near_nothing_is_refused_all_the_same(name):
    with pytest.raises(ConfigError, match="no check or family"):
        select(CHECKS, [name])


def test_findings_are_kept_likewise_and_a_crash_is_always_told():
    def finding(id, family):
        return Finding(id, family, Severity.WARN, "seen", "why", "remedy")

    found = (finding("disk-low", "host"), finding("cpu-cores", "cpu"), finding(CRASHED, "host"))
    assert [each.id for each in keep(found, CHECKS, only=["cpu"])] == ["cpu-cores", CRASHED]
