"""What is missing for a mount is said exactly."""

import pytest

from bevrepro.core.machine import Fuse
from bevrepro.data.fuse import judge

GOOD = Fuse(device="ok", libraries=("libfuse3.so.3",), helpers=("fusermount3",))


def test_nothing_is_missing_on_a_good_machine_or_an_unknown_one():
    assert judge(GOOD, True, False, True) == ()
    assert judge(Fuse(), None, False, True) == ()


@pytest.mark.parametrize(
    "fuse, may_mount, root, program, words",
    [
        (Fuse("absent", ("libfuse.so.2",), ("fusermount",)), True, True, True, "no /dev/fuse"),
        (Fuse("forbidden", ("libfuse.so.2",), ("fusermount",)), True, True, True, "may not be opened"),
        (Fuse("ok", (), ("fusermount",)), True, True, True, "no FUSE library"),
        (GOOD, False, True, True, "CAP_SYS_ADMIN"),
        (Fuse("ok", ("libfuse3.so.3",), ()), True, False, True, "fusermount3"),
        (GOOD, True, True, False, "ratarmount"),
    ],
)
def test_one_missing_thing_gives_one_sentence(fuse, may_mount, root, program, words):
    (sentence,) = judge(fuse, may_mount, root, program)
    assert words in sentence


def test_root_needs_no_helper():
    assert judge(Fuse("ok", ("libfuse3.so.3",), ()), True, True, True) == ()
