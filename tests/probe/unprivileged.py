"""Tests of forbidden files that mean something for root too: the probe runs in a fork without rights."""

import os
import pickle
import traceback
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
NOBODY = 65534


def as_nobody(work: Callable[[], T]) -> T:
    """What `work` returns as an ordinary user; its exception as an AssertionError."""
    if os.geteuid() != 0:
        return work()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            answer = (work(), "")
        except BaseException:
            answer = (None, traceback.format_exc())
        with os.fdopen(writing, "wb") as stream:
            pickle.dump(answer, stream)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        result, trouble = pickle.load(stream)
    os.waitpid(child, 0)
    assert not trouble, trouble
    return result
