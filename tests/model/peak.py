"""How far this process's memory rises while something is done."""

import contextlib
from pathlib import Path

import pytest

MARK, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def _kib(field):
    lines = STATUS.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))


@contextlib.contextmanager
def rise_kib():
    """Yields a list that holds the rise afterwards. getrusage's peak is that of the tests before, too."""
    try:
        MARK.write_text("5")  # the high-water mark starts again from here (man 5 proc)
    except OSError as error:
        pytest.skip(f"the high-water mark cannot be set back here: {error}")
    before, found = _kib("VmRSS"), []
    yield found
    found.append(_kib("VmHWM") - before)
