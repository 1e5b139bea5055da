"""Work in a forked child that shares what is in memory; what it makes comes back through a pipe, in order."""

import ctypes
import multiprocessing
import os
import signal
import traceback
from contextlib import contextmanager
from typing import Any, Callable, Iterable, Iterator

from .errors import UserError


@contextmanager
def child(make: Callable[..., Iterable[Any]], *args: Any, fork: bool = True) -> Iterator[Iterator[Any]]:
    """An iterator over what the generator `make(*args)` yields in a child, which is gone afterwards.

    The child waits when its pipe is full, so memory stays bounded.  A UserError in it is raised here; a child
    that was killed raises a UserError that says by what.  `fork=False`: the same in this process.
    """
    if not fork:
        yield iter(make(*args))
        return
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(os.getpid(), sender, make, args), daemon=True)
    process.start()
    sender.close()  # its end is the child's alone, so that the child's death is seen
    try:
        yield _results(receiver, process)
    finally:
        process.kill()
        process.join()
        receiver.close()


def _results(receiver: Any, process: Any) -> Iterator[Any]:
    while True:
        try:
            kind, value = receiver.recv()
        except EOFError:
            process.join()
            raise _gone(process.exitcode) from None
        if kind == "end":
            return
        if kind == "error":
            raise value
        if kind == "crash":
            raise RuntimeError("in a helper process:\n" + value)
        yield value


def _gone(exit_code: int) -> UserError:
    name = signal.Signals(-exit_code).name if exit_code < 0 else "exit code %d" % exit_code
    return UserError(
        "a helper process was ended by %s" % name,
        "Most often the system ran out of memory and ended it." if name == "SIGKILL" else "",
        "Close other programs, or use one process: --jobs 1.",
    )


def _serve(parent: int, sender: Any, make: Callable[..., Iterable[Any]], args: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends this one
    end_with(parent)
    try:
        for value in make(*args):
            sender.send(("value", value))
        last = ("end", None)
    except UserError as error:
        last = ("error", error)
    except BrokenPipeError:
        return
    except BaseException:
        last = ("crash", traceback.format_exc())
    sender.send(last)
    sender.close()


def end_with(parent: int, number: int = signal.SIGKILL) -> None:
    """Ask Linux to send this process a signal when its parent ends, also when that is killed."""
    ctypes.CDLL(None).prctl(1, int(number))  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)
