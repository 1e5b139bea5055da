"""What uv 0.13 really wrote, and the sentence it becomes."""

import re

import pytest

from bevrepro.core.errors import DiskError, MachineError
from bevrepro.env.index import Index
from bevrepro.env.uv_trouble import ABSENT, CAUSES, explain

HASH = """Resolved 1 package in 41ms
error: Failed to download `six==1.16.0`
  cause: Hash mismatch for `six==1.16.0`

         Expected:
           sha256:0000000000000000000000000000000000000000000000000000000000000001
"""
ABSENT_VERSION = """error: No solution found when resolving dependencies
  cause: Because there is no version of six==99.16.0 and you require six==99.16.0, we can conclude that your
requirements are unsatisfiable."""
ABSENT_NAME = """error: No solution found when resolving dependencies
  cause: Because nonesuch was not found in the package registry and you require nonesuch==1, we can"""
ABSENT_LINK = (
    "  cause: Because six was not found in the provided package locations and you require six==1.16.0"
)
REFUSED = """error: Failed to fetch: http://127.0.0.1:9/simple/six/
  cause: error sending request for url (http://127.0.0.1:9/simple/six/)
  cause: Connection refused (os error 111)"""
DNS = """error: Failed to fetch: http://index.invalid/simple/six/
  cause: dns error"""
FULL = """error: Failed to install: numpy-1.26.4-cp311-cp311-manylinux_2_17_x86_64.whl (numpy==1.26.4)
  cause: Failed to copy to `tiny/t/numpy.libs/libopenblas64.so`
  cause: failed to copy file from /c/libopenblas64.so to /t/.tmpSR: No space left on device (os error 28)"""
FULL_CACHE = """error: Failed to write to the client cache
  cause: failed to write to file `/c/.tmpcKx7NS`: No space left on device (os error 28)"""
NO_WHEEL = (
    """  cause: Because fire==0.5.0 has no usable wheels and you require fire==0.5.0, we can conclude that"""
)
OFFLINE = """  cause: Because six was not found in the cache and you require six==1.16.0, we can conclude

hint: Packages were unavailable because the network was disabled."""


@pytest.mark.parametrize(
    "text, seen, kind",
    [
        (HASH, "six==1.16.0 is not the file that was locked", MachineError),
        (ABSENT_VERSION, "six==99.16.0 is not to be had", MachineError),
        (ABSENT_NAME, "nonesuch is not to be had", MachineError),
        (ABSENT_LINK, "six is not to be had", MachineError),
        (REFUSED, "cannot be reached (six)", MachineError),
        (DNS, "cannot be reached (six)", MachineError),
        (FULL, "the disk became full (numpy)", DiskError),
        (FULL_CACHE, "the disk became full", DiskError),
        (NO_WHEEL, "fire==0.5.0 has no wheel for this Python", MachineError),
        (OFFLINE, "six is not in the cache", MachineError),
        ("thread panicked\n", "uv failed: thread panicked", MachineError),
        ("", "uv failed: it said nothing", MachineError),
    ],
)
def test_a_failure_of_uv_becomes_a_sentence(text, seen, kind):
    error = explain(text, Index(index_url="https://user:secret@mirror/simple"), "/x/the.log")
    assert seen in error.seen and type(error) is kind and "/x/the.log" in error.do
    assert "secret" not in error.seen + error.why + error.do


@pytest.mark.parametrize("text", [HASH, ABSENT_VERSION, REFUSED, NO_WHEEL])
def test_the_mirror_option_is_named(text):
    assert "--index-url" in explain(text, Index(), "log").do


def test_another_index_is_asked_only_where_something_is_absent():
    assert all(re.search(ABSENT, text) for text in (ABSENT_VERSION, ABSENT_NAME, ABSENT_LINK, NO_WHEEL))
    assert not any(re.search(ABSENT, text) for text in (HASH, REFUSED, FULL))


def test_every_pattern_compiles():
    assert all(re.compile(cause.pattern) for cause in CAUSES)
