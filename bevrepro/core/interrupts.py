"""Ctrl-C that Python itself would lose.

A KeyboardInterrupt that falls into a callback (of a weak reference, as every import has one, or `__del__`) is
printed and dropped, and the command simply goes on. Here it comes again a moment later.
"""

import signal
import sys
import threading
from typing import Any

AGAIN_AFTER_S = 0.02


def keep() -> None:
    """From now on; for the start of a program."""
    before = sys.unraisablehook

    def hook(lost: Any) -> None:
        if not (isinstance(lost.exc_type, type) and issubclass(lost.exc_type, KeyboardInterrupt)):
            before(lost)
            return
        again = threading.Timer(AGAIN_AFTER_S, _interrupt)
        again.daemon = True
        again.start()

    sys.unraisablehook = hook


def _interrupt() -> None:
    """To the main thread by name: it may be waiting in a system call."""
    ident = threading.main_thread().ident
    if ident is not None:
        signal.pthread_kill(ident, signal.SIGINT)
