"""Commands of this program that one of its commands runs one after another: the demo's, a reproduction's."""

import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from bevrepro.core.errors import UserError

Invoke = Callable[[list[str]], int]  # the words after `bevrepro` -> exit code


@dataclass(frozen=True)
class Step:
    """One command. `may_find`: exit code 1 (findings) is no reason to stop."""

    title: str
    argv: tuple[str, ...]
    may_find: bool = False

    @property
    def text(self) -> str:
        """As it can be pasted."""
        return shlex.join(["bevrepro", *self.argv])


class Voice(Protocol):
    """Who is told what happens: `cli/demo_view.py`, or a test."""

    def step(self, number: int, total: int, step: Step) -> None: ...

    def say(self, text: str) -> None: ...


def run_step(step: Step, invoke: Invoke) -> dict[str, Any]:
    """What ran, how long and its exit code. UserError with that code where it is a reason to stop."""
    started_s = time.monotonic()
    code = invoke(list(step.argv))
    if code and not (step.may_find and code == 1):
        failure = UserError(
            f"`{step.text}` ended with exit code {code}", do="Run it alone; what it printed is above."
        )
        failure.exit_code = code
        raise failure
    return {"text": step.text, "seconds": round(time.monotonic() - started_s, 2), "exit_code": code}
