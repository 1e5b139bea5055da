"""The command line: `app` and `main`. One file per command family; each has `register(app)`."""

import errno
import io
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Annotated

from typer import Exit, Option, Typer

from bevrepro import __version__
from bevrepro.cli import compare, data, doctor, env, patch, plan, replay, reproduce, run, weights
from bevrepro.core import interrupts
from bevrepro.core.errors import DiskError, UserError

INTERNAL = 70  # EX_SOFTWARE: our mistake, not the user's
DISK_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)

app = Typer(
    name="bevrepro",
    help="Reproduce BEVFormer on the machine you have.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"bevrepro {__version__}")
        raise Exit()


@app.callback()
def _global_options(
    version: Annotated[
        bool, Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, Option("--debug", help="Show tracebacks, here and in children. May stand anywhere.")
    ] = False,
) -> None:
    """Reproduce BEVFormer on the machine you have."""


for _family in (doctor, env, patch, data, plan, run, reproduce, compare, replay, weights):
    _family.register(app)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; every failure is a sentence on stderr."""
    args, debug = _split_debug(sys.argv[1:] if argv is None else argv)
    if debug:
        os.environ["BEVREPRO_DEBUG"] = "1"  # the model plane reads it too
    debug = os.environ.get("BEVREPRO_DEBUG") == "1"
    _turn_signals_into_exits()
    _tolerate_narrow_encodings()
    try:
        return _invoke(args)
    except KeyboardInterrupt:
        return interrupts.say()
    except Exception as error:
        if debug:
            import traceback

            traceback.print_exc()
        failure = explain(error)
        _print_error(failure)
        return failure.exit_code


class InternalError(UserError):
    """A mistake in bevrepro itself."""

    exit_code = INTERNAL


def explain(error: Exception) -> UserError:
    """The sentence for any exception: itself, a full disk, or an admission that this is a bug."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, OSError) and error.errno in DISK_ERRNOS:
        return DiskError(
            f"could not use {error.filename or 'a file'}: {error.strerror}",
            "What was finished before is whole.",
            "Free some space or name another folder, then run the same command again.",
        )
    return InternalError(
        f"{type(error).__name__}: {error}",
        "This is a mistake in bevrepro, not in your input.",
        "Run the same command with --debug and report what it prints.",
    )


def _invoke(args: list[str]) -> int:
    """typer's own exits as a number; a command that returns is a success."""
    try:
        app(args=args, prog_name="bevrepro")
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
        # typer turns a KeyboardInterrupt into a silent 130.
        return interrupts.say() if code == interrupts.INTERRUPTED else code
    return 0


def _split_debug(argv: Sequence[str]) -> tuple[list[str], bool]:
    """Take `--debug` out wherever it stands before a `--`, so that it can be added to any command's end."""
    args = list(argv)
    end = args.index("--") if "--" in args else len(args)
    kept = [arg for arg in args[:end] if arg != "--debug"]
    return kept + args[end:], len(kept) < end


def _turn_signals_into_exits() -> None:
    """SIGTERM and SIGHUP unwind the stack as Ctrl-C does, so that mounts and children are cleaned up."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # nohup ignores SIGHUP: leave it ignored
            signal.signal(number, leave)


def _tolerate_narrow_encodings() -> None:
    """A terminal that cannot show a character shows `?`; it is no reason to stop."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _print_error(error: UserError) -> None:
    """Never wrapped: a command in `do` stays one line that can be pasted."""
    red, plain = ("\x1b[1;31m", "\x1b[0m") if _colour() else ("", "")
    lines = [f"{red}error:{plain} {error.seen}", *(part for part in (error.why, error.do) if part)]
    print("\n  ".join("\n".join(lines).splitlines()), file=sys.stderr)


def _colour() -> bool:
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR")
