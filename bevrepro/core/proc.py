"""The only place where bevrepro starts another program; tests put their own in its place.

`run` waits and captures; `stream` hands over stdout line by line while the program runs. Both give the
child its own process group and never leave one behind: a timeout, Ctrl-C or a closed iterator ends the
whole group, politely first. A child that prints for ever does not fill memory (core/capture.py).
"""

import os
import shutil
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from bevrepro.core import capture
from bevrepro.core.errors import ChildError, MachineError
from bevrepro.core.units import size

TAIL_LINES = 200
TAIL_LINE_CHARS = 1 << 16
GRACE_S = 10.0  # what a child gets to finish writing a checkpoint after Ctrl-C


@dataclass(frozen=True)
class Done:
    """A finished program. `rc` is negative for a signal (-4 is SIGILL, -9 SIGKILL), as in subprocess.

    `left_out_b`: bytes from the middle of stdout that were not kept; a line there says so.
    """

    rc: int
    stdout: str
    stderr: str
    timed_out: bool = False
    left_out_b: int = 0

    @property
    def ok(self) -> bool:
        return self.rc == 0 and not self.timed_out


def which(program: str) -> Path | None:
    """The program's path on PATH, or None."""
    found = shutil.which(program)
    return Path(found) if found else None


def signal_name(rc: int) -> str | None:
    """`SIGILL` for -4; None where `rc` is no signal."""
    if rc >= 0:
        return None
    try:
        return signal.Signals(-rc).name
    except ValueError:
        return f"signal {-rc}"


def run(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
    input_text: str | None = None,
    cwd: Path | None = None,
    whole_b: int | None = None,
) -> Done:
    """Run to the end and capture both streams (decoded leniently: garbage never raises).

    `env` is the whole environment, not additions. A program that does not start is a MachineError; one
    that outlives `timeout_s` is killed with its group and reported as `timed_out`. Of each stream the first
    and last capture.END_B bytes are kept; with `whole_b` stdout is whole, and a program that prints more
    than that is ended and a ChildError.
    """
    child = _start(argv, env, cwd, stdin=subprocess.DEVNULL if input_text is None else subprocess.PIPE)
    said = capture.Exchange((child.stdin, child.stdout, child.stderr), input_text, whole_b)
    timed_out = False
    try:
        _ended(child, said, timeout_s)
    except capture.Late:
        timed_out = True
        _reap(child, said)
    except capture.TooMuch:
        end_group(child, grace_s=0.0)
        raise ChildError(
            f"{argv[0]} printed more than {size(whole_b or 0)}",
            "It was ended: an answer of this size is none that it gives in good health.",
            f"Run it by hand to see what it says: {' '.join(str(word) for word in argv)[:300]}",
        ) from None
    except BaseException:
        end_group(child, grace_s=1.0)
        raise
    finally:
        said.close()
    rc = -signal.SIGKILL if child.returncode is None else child.returncode
    return Done(rc, said.stdout.text(), said.stderr.text(), timed_out, said.stdout.left_out_b)


def stream(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    on_stderr: Callable[[str], None] | None = None,
) -> "Stream":
    """Start a program and iterate over its stdout lines; `rc` and `stderr_tail` are there afterwards."""
    return Stream(_start(argv, env, cwd, stdin=subprocess.DEVNULL), on_stderr)


def attached(argv: Sequence[str | Path], *, env: Mapping[str, str], lines_to: str) -> "Stream":
    """`stream` for a program that shares our terminal, so that a debugger in it can ask and be answered.

    Its lines come through a pipe of their own, whose number it finds in the variable `lines_to`. Ctrl-C
    reaches it from the terminal as well.
    """
    read, write = os.pipe()
    try:
        child = _popen(argv, env={**env, lines_to: str(write)}, pass_fds=(write,))
    except BaseException:
        os.close(read)
        raise
    finally:
        os.close(write)
    return Stream(child, None, os.fdopen(read, encoding="utf-8", errors="replace"))


class Stream:
    """stdout of a running program as an iterator of lines without their newline.

    Use it in a `with`: leaving the block early (break, Ctrl-C, an exception) ends the child's process group.
    """

    def __init__(
        self,
        child: "subprocess.Popen[str]",
        on_stderr: Callable[[str], None] | None,
        source: IO[str] | None = None,
    ) -> None:
        self._child = child
        self._source = source or child.stdout
        self._on_stderr = on_stderr
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._reader = threading.Thread(target=self._read_stderr, daemon=True)
        self._reader.start()
        self._lines = self._iterate()
        next(self._lines)  # now inside its try block: closing it, even before the first line, ends the child

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def rc(self) -> int | None:
        """The exit status, None while it runs."""
        return self._child.returncode

    @property
    def stderr_tail(self) -> str:
        """The last lines of stderr."""
        return "\n".join(self._tail)

    def __iter__(self) -> Iterator[str]:
        return self._lines

    def __enter__(self) -> "Stream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the child if it still runs; harmless afterwards."""
        self._lines.close()

    def _iterate(self) -> Generator[str, None, None]:
        source = self._source
        assert source is not None
        try:
            yield ""  # swallowed by __init__
            yield from capture.lines(source)
            self._child.wait()
        finally:
            end_group(self._child)
            self._reader.join(timeout=1.0)
            source.close()

    def _read_stderr(self) -> None:
        stderr = self._child.stderr
        if stderr is None:  # attached: it goes to the terminal
            return
        with stderr:
            for line in capture.lines(stderr, TAIL_LINE_CHARS):
                self._tail.append(line)
                if self._on_stderr is not None:
                    self._on_stderr(line)


def end_group(child: "subprocess.Popen[str]", grace_s: float = GRACE_S) -> None:
    """SIGINT, then SIGTERM, then SIGKILL to the child's whole group; nothing where it ended by itself.

    A second Ctrl-C meanwhile moves on to the next signal at once. Where we were started with SIGINT ignored
    (in the background of a script), so was the child: SIGTERM comes first then.
    """
    if child.poll() is not None:
        return
    deaf = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    polite = ((signal.SIGTERM, grace_s),) if deaf else ((signal.SIGINT, grace_s), (signal.SIGTERM, 2.0))
    for number, wait_s in (*polite, (signal.SIGKILL, 2.0)):
        if child.poll() is not None:
            break
        _signal_group(child, number)
        try:
            child.wait(timeout=wait_s)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            continue
    # Grandchildren (data loaders) that outlived their parent.
    _signal_group(child, signal.SIGKILL)


def _signal_group(child: "subprocess.Popen[str]", number: signal.Signals) -> None:
    try:
        os.killpg(child.pid, number)  # start_new_session made the child's pid its group's id
    except ProcessLookupError:
        child.send_signal(number)  # attached: it is in our group; else nobody is left, and nothing is sent
    except PermissionError:
        return  # nobody left in it


def _reap(child: "subprocess.Popen[str]", said: capture.Exchange) -> None:
    """After a timeout: what was printed so far. A child stuck in the kernel (a hung driver) is left to it."""
    _signal_group(child, signal.SIGKILL)
    try:
        _ended(child, said, 1.0)
    except (capture.Late, capture.TooMuch):
        return


def _ended(child: "subprocess.Popen[str]", said: capture.Exchange, timeout_s: float | None) -> None:
    """Its streams, then itself. Raises what Exchange.until raises."""
    end_s = None if timeout_s is None else time.monotonic() + timeout_s
    said.until(end_s)
    try:
        child.wait(None if end_s is None else max(0.0, end_s - time.monotonic()))
    except subprocess.TimeoutExpired as late:
        raise capture.Late from late


def _start(
    argv: Sequence[str | Path], env: Mapping[str, str] | None, cwd: Path | None, stdin: int
) -> "subprocess.Popen[str]":
    pipe = subprocess.PIPE
    return _popen(argv, env=env, cwd=cwd, stdin=stdin, stdout=pipe, stderr=pipe, start_new_session=True)


def _popen(
    argv: Sequence[str | Path], *, env: Mapping[str, str] | None, **how: Any
) -> "subprocess.Popen[str]":
    words, env = [str(part) for part in argv], None if env is None else dict(env)
    try:
        return subprocess.Popen(words, env=env, text=True, encoding="utf-8", errors="replace", **how)
    except OSError as error:
        raise MachineError(
            f"could not start {argv[0]}: {error.strerror}",
            "bevrepro runs it as a program of its own.",
            "Check that it is installed, on PATH and executable.",
        ) from error
