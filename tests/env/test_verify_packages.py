"""Installed versions against lock and receipt."""

import pytest

from bevrepro.env.lockfile import Pin
from bevrepro.env.tree import Entry
from bevrepro.env.verify_packages import Dist, Locked, installed, judge_packages

LOCKED = Locked(
    "cpu",
    {"torch": Pin("torch", "2.13.0+cpu", None, ()), "a-b": Pin("a-b", "1.0", None, ())},
    {"ninja": Pin("ninja", "1.1", None, ())},
)
TORCH, A_B = Dist("torch", "2.13.0+cpu", "torch", True), Dist("a-b", "1.0.0", "a_b", True)


@pytest.mark.parametrize(
    ("dists", "ids"),
    [
        ([TORCH, A_B], []),
        ([TORCH, A_B, Dist("ninja", "1.1", "", True)], []),
        ([TORCH, A_B, Dist("ninja", "1.2", "", True)], ["verify-beside"]),
        ([Dist("torch", "2.13.0", "", True), A_B], ["verify-version"]),
        ([TORCH], ["verify-missing"]),
        ([TORCH, A_B, Dist("c", "1", "", True)], ["verify-beside"]),
        ([TORCH, A_B, A_B], ["verify-twice"]),
        ([TORCH, Dist("a-b", "1.0", "x/a_b-1.0.egg-info", False)], ["verify-no-record"]),
    ],
)
def test_the_lock_decides_what_may_be_there(dists, ids):
    assert [each.id for each in judge_packages(tuple(dists), LOCKED, None)] == ids


def test_the_receipt_must_name_what_is_there():
    (finding,) = judge_packages((TORCH,), None, {"torch": "2.13.0+cpu", "A.B": "1.0"})
    assert finding.id == "verify-receipt-packages" and "a-b is not there" in finding.seen


def test_only_metadata_directly_in_site_packages_counts():
    paths = ("s/a_b-1.0.dist-info/RECORD", "s/x/_vendor/c-1.dist-info/RECORD", "s/d-2-py3.8.egg-info")
    entries = {path: Entry(path, 0o100644, 1, 0) for path in paths}
    assert [(d.name, d.version, d.recorded) for d in installed(entries, ("s",))] == [
        ("a-b", "1.0", True),
        ("d", "2", False),
    ]
