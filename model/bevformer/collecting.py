"""Python's search for garbage, held off where all that is made is kept."""

import gc
from contextlib import contextmanager
from typing import Iterator


@contextmanager
def without_gc() -> Iterator[None]:
    """Millions of new objects that live on: looking through them again and again finds nothing."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
