"""Start a verb of the model plane in the target interpreter and turn its JSON lines into Python values.

The lines are those of `model/bevformer/talk.py`. A child that explains itself becomes the same kind of
error here; one that dies without a word becomes a ChildError that says how it died.
"""

import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from bevrepro.core import errors, paths, proc
from bevrepro.core.errors import ChildError, MachineError, UserError
from bevrepro.drive.processes import ALONE, Processes, killed_in, launcher

if TYPE_CHECKING:
    from bevrepro.drive.inside import Inside

Event = dict[str, Any]
OnEvent = Callable[[Event], None]

ERRORS: dict[int, type[UserError]] = {
    kind.exit_code: kind
    for kind in (
        errors.MachineError,
        errors.DataError,
        errors.MountError,
        errors.ConfigError,
        errors.CheckpointError,
        errors.DiskError,
        errors.ChildError,
    )
}

SIGNAL_HINTS = {
    "SIGILL": "The CPU lacks an instruction (often AVX) that a library was built for: run `bevrepro doctor`.",
    "SIGKILL": "Most often the system ran out of memory and ended it: look at `dmesg | tail`, close "
    "programs, let `train` begin with --memory encoder-layers,backbone-blocks, or give a smaller "
    "configuration.",
    "SIGSEGV": "A native library crashed: run `bevrepro doctor`, and the same command with --debug.",
    "SIGBUS": "A mapped file became shorter or /dev/shm is full: check the disk and `df -h /dev/shm`.",
    "SIGABRT": "A native library gave up: the same command with --debug shows what it said.",
    "SIGFPE": "A native library divided by zero: run `bevrepro doctor`.",
}


RESUME = "Mend that, then run the same command again, with --resume auto where it was a training."
# How a child that was still importing ends on Ctrl-C, with exit code 1; modules in C (numpy) alter it.
STARTING = re.compile(r"^(KeyboardInterrupt|ImportError|ModuleNotFoundError|SystemError)\b", re.MULTILINE)
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # how OpenMP's threads wait for work


class Interrupted(UserError):
    """The child was asked to stop and did so in good order; `exit_code` is 128 + the signal."""

    def __init__(self, seen: str, why: str = "", do: str = "", exit_code: int = 130) -> None:
        super().__init__(seen, why, do)
        self.exit_code = exit_code


def target_python() -> str:
    """The interpreter that runs the model plane: $BEVREPRO_PYTHON, else the one running this."""
    return os.environ.get("BEVREPRO_PYTHON") or sys.executable


def model_env(base: Mapping[str, str] | None = None) -> dict[str, str]:
    """The child's environment: the shipped model plane first on PYTHONPATH, events on.

    The number of threads is the user's. How long they spin while they wait is set, unless the user has:
    libgomp's default makes two trainings on two cores take 1.9 s per step; a short spin 0.27 s, and 0.13
    instead of 0.115 s when alone.
    """
    env = dict(os.environ if base is None else base)
    others = [part for part in env.get("PYTHONPATH", "").split(os.pathsep) if part]
    env["PYTHONPATH"] = os.pathsep.join([str(paths.model_dir()), *others])
    env["BEVREPRO_EVENTS"] = "1"
    env["PYTHONSAFEPATH"] = "1"  # a stray torch.py in the current folder is not torch (Python >= 3.11)
    if not any(env.get(name) for name in WAITING):
        env["GOMP_SPINCOUNT"] = "1000"
    return env


def model_argv(
    verb: str, argv: Sequence[str | Path], python: str | None = None, processes: Processes = ALONE
) -> list[str]:
    """The command line that `run_model` starts."""
    words = [*launcher(processes), "-m", "bevformer", verb]
    return [python or target_python(), *words, *(str(part) for part in argv)]


def run_model(
    verb: str,
    argv: Sequence[str | Path],
    *,
    python: str | None = None,
    on_event: OnEvent | None = None,
    processes: Processes = ALONE,
    inside: "Inside | None" = None,
) -> Event:
    """Run `python -m bevformer VERB ARGV...` to its end and return its result event; in the environment
    `inside` where one is given.

    Of several machines only the one with rank 0 has it; on the others it says `elsewhere` and no more.

    Progress, notes and stray lines ({"event": "text"}) go to `on_event`. Raises the UserError the child
    reported, ChildError when it died without one, Interrupted or KeyboardInterrupt after Ctrl-C: the
    first Ctrl-C is passed on so that the child can save, a second ends it at once. So is the end of the
    terminal, after which nothing is told any more.
    """
    command = model_argv(verb, argv, inside.python if inside else python, processes)
    tell = on_event or (lambda event: None)
    last: dict[str, Event] = {}
    with _opened(command, processes, model_env(inside.variables if inside else None)) as child:
        with _forwarded_signals(child.pid, tell) as received:
            for line in child:
                event = parse_event(line)
                if event["event"] == "error":
                    last.setdefault("error", event)  # of several processes, the first says the cause
                elif event["event"] == "result":
                    last["result"] = event
                elif signal.SIGHUP not in received:
                    tell(event)
    if child.rc == 0 and not last and processes.nodes > 1:
        return {"event": "result", "elsewhere": True}  # rank 0 is on another machine and has said it there
    return _judge(verb, command, child.rc, child.stderr_tail, last, received, inside)


def _opened(command: list[str], processes: Processes, env: Mapping[str, str]) -> proc.Stream:
    """With --debug on a terminal the child shares it: `breakpoint()` works in there."""
    if processes.count == 1 and debugging() and sys.stdin is not None and sys.stdin.isatty():
        return proc.attached(command, env=env, lines_to="BEVREPRO_EVENTS_TO")
    return proc.stream(command, env=env, on_stderr=_stderr_sink())


def debugging() -> bool:
    """Whether --debug was said."""
    return os.environ.get("BEVREPRO_DEBUG") == "1"


def parse_event(line: str) -> Event:
    """One line of the child's stdout; what is not an event becomes {"event": "text", "text": line}."""
    if line.startswith("{"):
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if isinstance(event, dict) and isinstance(event.get("event"), str):
            return event
    return {"event": "text", "text": line}


def _judge(
    verb: str,
    command: list[str],
    rc: int | None,
    tail: str,
    last: Mapping[str, Event],
    received: list[int],
    inside: "Inside | None" = None,
) -> Event:
    """The result event, or the error that fits how the child ended."""
    if rc == 0 and "result" in last:
        return last["result"]
    if "error" in last:
        raise _with_cause(error_from_event(last["error"]), tail)
    if received and (rc in (128 + received[0], -received[0], 130, 143) or STARTING.search(tail)):
        if received[0] == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + received[0])
    if killed_in(tail) is not None:  # torchrun may end the others before they have said anything
        nothing = ChildError(f"`bevformer {verb}` lost one of its processes", "", RESUME)
        raise _with_cause(nothing, tail)
    raise _unexplained(verb, command, rc, tail, inside)


def error_from_event(event: Event) -> UserError:
    """The class that carries the child's exit code, with the child's own sentences."""
    seen, why, do = (str(event.get(key) or "") for key in ("seen", "why", "do"))
    code = int(event.get("exit_code") or ChildError.exit_code)
    if code in (129, 130, 143):
        return Interrupted(seen, why, do, code)
    error = ERRORS.get(code, UserError)(seen, why, do)
    error.exit_code = code
    return error


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def _with_cause(error: UserError, tail: str) -> UserError:
    """Of several processes, the one that was killed says nothing; torchrun knows which and how."""
    killed = killed_in(tail) if isinstance(error, ChildError) else None
    if killed is None:
        return error
    name = proc.signal_name(-killed[1]) or ""
    why = f"Process {killed[0]} was ended by {name}. {SIGNAL_HINTS.get(name, '')}".rstrip()
    return ChildError(error.seen, why, error.do)


def _unexplained(
    verb: str, command: list[str], rc: int | None, tail: str, inside: "Inside | None"
) -> UserError:
    final = _last_line(tail)
    name = proc.signal_name(rc if rc is not None else 0)
    if name is not None:
        why = SIGNAL_HINTS.get(name, "Something outside ended it.")
        return ChildError(f"`bevformer {verb}` was ended by {name}", why, f"It ran: {' '.join(command)}")
    if rc == 2 and final:  # argparse
        error = UserError(final, "", f"See `{command[0]} -m bevformer {verb} --help`.")
        error.exit_code = 2
        return error
    if final.startswith(("ModuleNotFoundError", "ImportError")) and "bevformer" not in final:
        return MachineError(
            f"{command[0]}: {final.partition(': ')[2]}",
            "The model plane runs in this interpreter and needs that package there.",
            f"`bevrepro env verify --target {inside.target}` says what it lacks."
            if inside
            else "Install it there, or name another interpreter in BEVREPRO_PYTHON; "
            "`bevrepro doctor` shows more.",
        )
    seen = f"`bevformer {verb}` stopped with exit code {rc}" + (f": {final}" if final else "")
    if rc == 0:
        seen = f"`bevformer {verb}` ended without a result"
    return ChildError(
        seen,
        "This is a mistake in bevrepro or in one of its libraries, not in your input.",
        "Run the same command with --debug to see the traceback.",
    )


def _stderr_sink() -> Callable[[str], None] | None:
    """With --debug the child's stderr is shown; else only its last lines are kept, for the error."""
    if not debugging():
        return None
    return lambda line: print(line, file=sys.stderr)


@contextmanager
def _forwarded_signals(pid: int, tell: OnEvent) -> Iterator[list[int]]:
    """Pass the first SIGINT/SIGTERM on to the child and keep listening; Ctrl-C after it unwinds as usual.

    SIGHUP reaches the child as SIGTERM, which torchrun of any age passes on. What is ignored from the start
    stays so: SIGHUP under nohup, SIGINT in a script's background. torchrun listens to SIGHUP even then, but
    the end of a terminal does not reach it: it has a session of its own.
    Yields the list of signals received. Outside the main thread Python allows no handlers: then nothing
    is forwarded and closing the stream ends the child.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def forward(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if len(received) > 1:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return  # clusters and systemd send theirs more than once
        try:
            os.kill(pid, signal.SIGTERM if number == signal.SIGHUP else number)
        except ProcessLookupError:
            return  # it has just ended
        if number == signal.SIGHUP:
            return  # nobody is there to be told
        tell({"event": "note", "text": "Stopping in good order; once more Ctrl-C stops at once."})

    asking = (signal.SIGINT, signal.SIGHUP)
    numbers = [signal.SIGTERM, *(each for each in asking if signal.getsignal(each) is not signal.SIG_IGN)]
    previous = {number: signal.signal(number, forward) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
