"""Ctrl-C that Python itself would lose, or answer with a traceback.

A KeyboardInterrupt that falls into a callback (of a weak reference, as every import has one, or `__del__`) is
printed and dropped, and the command simply goes on. Here it comes again a moment later.
"""

import signal
import sys
import threading
import time
from types import CodeType, FrameType
from typing import Any

AGAIN_AFTER_S = 0.02
INTERRUPTED = 130  # 128 + SIGINT, as shells say it


def keep() -> None:
    """From now on; for the start of a program."""
    before = sys.unraisablehook

    def hook(lost: Any) -> None:
        if not (isinstance(lost.exc_type, type) and issubclass(lost.exc_type, KeyboardInterrupt)):
            before(lost)
            return
        threading.Thread(target=_interrupt, args=(hook.__code__,), daemon=True).start()

    sys.unraisablehook = hook


def say() -> int:
    """The sentence of a command that was interrupted, and its exit code."""
    print("\nInterrupted. What was finished before is whole.", file=sys.stderr)
    return INTERRUPTED


def settle() -> None:
    """The exit code is known: nothing changes it any more. For the end of a program.

    While Python ends, SIGINT has its default action again and would kill it without a word. And CPython ends
    itself by SIGINT where a KeyboardInterrupt has passed an `exec` of a string (a dataclass is made by one),
    though it was caught; the next `exec` takes that mark away (Python/pythonrun.c, run_eval_code_obj).
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    exec("0")


def _interrupt(hook: CodeType) -> None:
    """To the main thread by name, which may be waiting in a system call; not while it is in the hook, where
    it would be lost for good (on a busy machine it stays there for longer than a moment)."""
    ident = threading.main_thread().ident
    if ident is None:
        return
    time.sleep(AGAIN_AFTER_S)
    while _is_in(hook, sys._current_frames().get(ident)):
        time.sleep(AGAIN_AFTER_S)
    signal.pthread_kill(ident, signal.SIGINT)


def _is_in(code: CodeType, frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code is code:
            return True
        frame = frame.f_back
    return False
