"""How the model plane speaks: JSON lines to the command line, plain sentences to a person.

The control plane sets `BEVREPRO_EVENTS=1` and reads one JSON object per line of stdout:

    {"event": "progress", "task": "train", "done": 3, "total": 1900, "text": "loss 12.3"}
    {"event": "note",     "text": "..."}
    {"event": "result",   ...}          exactly one, last, when the verb succeeded
    {"event": "error",    "exit_code": 4, "seen": "...", "why": "...", "do": "..."}

Without that variable notes go to stderr, progress to stderr about once a second, and the result to
stdout as indented JSON.
"""

import json
import os
import sys
import time
from typing import Any

from .errors import UserError


class Talk:
    """Writes events; one instance is made in `__main__` and handed down."""

    def __init__(self, events: bool) -> None:
        self.events = events
        self._last_s = 0.0

    @classmethod
    def from_environment(cls) -> "Talk":
        return cls(os.environ.get("BEVREPRO_EVENTS") == "1")

    def only_errors(self) -> "Talk":
        """For the processes of a run beside the first: errors are said by whoever has them."""
        return _OnlyErrors(self.events)

    def _emit(self, **event: Any) -> None:
        sys.stdout.write(json.dumps(event) + "\n")
        sys.stdout.flush()

    def progress(self, task: str, done: int, total: int, text: str = "") -> None:
        now_s = time.monotonic()
        if done not in (0, total) and now_s - self._last_s < (0.2 if self.events else 1.0):
            return
        self._last_s = now_s
        if self.events:
            self._emit(event="progress", task=task, done=done, total=total, text=text)
        else:
            sys.stderr.write("%s %d/%d %s\n" % (task, done, total, text))

    def note(self, text: str) -> None:
        if self.events:
            self._emit(event="note", text=text)
        else:
            sys.stderr.write(text + "\n")

    def result(self, **fields: Any) -> None:
        if self.events:
            self._emit(event="result", **fields)
        else:
            sys.stdout.write(json.dumps(fields, indent=2) + "\n")

    def error(self, error: UserError) -> None:
        if self.events:
            self._emit(event="error", exit_code=error.exit_code, seen=error.seen, why=error.why, do=error.do)
        else:
            sys.stderr.write(str(error) + "\n")


class _OnlyErrors(Talk):
    def progress(self, task: str, done: int, total: int, text: str = "") -> None: ...

    def note(self, text: str) -> None: ...

    def result(self, **fields: Any) -> None: ...
