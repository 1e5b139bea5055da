"""SIGINT and SIGTERM while training: stop after a whole step, with everything saved."""

import signal
import threading
import time
from typing import Any, Dict, Optional

from .errors import UserError


class Interrupted(UserError):
    """SIGINT, SIGTERM or SIGHUP: stopped after a whole step, with everything saved."""

    def __init__(self, number: int, seen: str, why: str = "", do: str = "") -> None:
        super().__init__(seen, why, do)
        self.exit_code = 128 + number


class StopSignal:
    """While in the block, SIGINT, SIGTERM and SIGHUP (a terminal that is gone) only ask for a stop; a second
    SIGINT later stops at once.  SIGHUP under nohup and SIGINT in a script's background stay ignored.

    A second SIGTERM does not: a cluster sends it to every process, and torchrun passes it on once more.
    """

    SECOND_S = 1.5  # a terminal and the parent may both deliver the same Ctrl-C

    def __init__(self) -> None:
        self.number: Optional[int] = None
        self._at_s = 0.0
        self._previous: Dict[int, Any] = {}

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if number == signal.SIGTERM or signal.getsignal(number) != signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *exc: Any) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: Any) -> None:
        again = self.number is not None and time.monotonic() - self._at_s > self.SECOND_S
        if again and number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.number is None:
            self.number, self._at_s = int(number), time.monotonic()
