"""How the model plane speaks: JSON lines to the command line, plain sentences to a person.

The control plane sets `BEVREPRO_EVENTS=1` and reads one JSON object per line of stdout:

    {"event": "progress", "task": "train", "done": 3, "total": 1900, "text": "loss 12.3"}
    {"event": "note",     "text": "..."}
    {"event": "result",   ...}          exactly one, last, when the verb succeeded
    {"event": "error",    "exit_code": 4, "seen": "...", "why": "...", "do": "..."}

With `BEVREPRO_EVENTS_TO=N` they go to the file descriptor N, so that stdout stays a debugger's.
Without that variable notes go to stderr, progress to stderr about once a second, and the result to
stdout as indented JSON.
"""

import json
import os
import sys
import time
from typing import IO, Any, Optional

from .errors import UserError


class Talk:
    """Writes events; one instance is made in `__main__` and handed down."""

    def __init__(self, events: bool, out: Optional[IO[str]] = None) -> None:
        self.events = events
        self._out = out
        self._last_s = 0.0

    @classmethod
    def from_environment(cls) -> "Talk":
        pipe = os.environ.pop("BEVREPRO_EVENTS_TO", None)  # our own children do not have it
        return cls(os.environ.get("BEVREPRO_EVENTS") == "1", os.fdopen(int(pipe), "w") if pipe else None)

    def only_errors(self) -> "Talk":
        """For the processes of a run beside the first: errors are said by whoever has them."""
        return _OnlyErrors(self.events, self._out)

    def _emit(self, **event: Any) -> None:
        out = self._out or sys.stdout
        out.write(json.dumps(event) + "\n")
        out.flush()

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
