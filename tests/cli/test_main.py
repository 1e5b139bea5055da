"""Failures become sentences and exit codes; a traceback comes only with --debug."""

import errno
import os
import re
import signal
import subprocess
import sys

import pytest

from bevrepro import __version__, cli
from bevrepro.core import errors

KINDS = [
    kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.UserError)
]


@pytest.fixture
def failing(monkeypatch, capsys):
    """`main` where every command raises `error`: (exit code, stderr)."""
    monkeypatch.delenv("BEVREPRO_DEBUG", raising=False)

    def run(error, *argv):
        def app(**_):
            raise error

        monkeypatch.setattr(cli, "app", app)
        try:
            return cli.main(["doctor", *argv]), capsys.readouterr().err
        finally:
            os.environ.pop("BEVREPRO_DEBUG", None)

    return run


@pytest.mark.parametrize("kind", KINDS)
def test_a_user_error_is_three_sentences_and_its_code(failing, kind):
    code, err = failing(kind("seen x", "why y", "do z"))
    assert (code, err) == (kind.exit_code, "error: seen x\n  why y\n  do z\n")


def test_empty_parts_of_an_error_leave_no_empty_lines(failing):
    assert failing(errors.DataError("only this"))[1] == "error: only this\n"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_a_full_or_locked_disk_is_named_wherever_it_shows(failing, number):
    code, err = failing(OSError(number, os.strerror(number), "/data/out"))
    assert code == 8 and "/data/out" in err and os.strerror(number) in err and "Traceback" not in err


def test_ctrl_c_is_130_and_a_sentence(failing):
    code, err = failing(KeyboardInterrupt())
    assert code == 130 and "Interrupted" in err and "Traceback" not in err


def test_our_own_mistake_is_admitted_without_a_traceback(failing):
    code, err = failing(ZeroDivisionError("division by zero"))
    assert code == 70 and "mistake in bevrepro" in err and "--debug" in err and "Traceback" not in err


@pytest.mark.parametrize("error", [errors.DataError("seen"), ValueError("x")])
def test_debug_shows_the_traceback_and_keeps_the_code(failing, error):
    code, err = failing(error, "--debug")
    assert code == getattr(error, "exit_code", 70) and "Traceback" in err and "error: " in err


def test_debug_may_stand_anywhere_but_behind_two_dashes():
    assert cli._split_debug(["--debug", "doctor"]) == (["doctor"], True)
    assert cli._split_debug(["doctor", "--debug"]) == (["doctor"], True)
    assert cli._split_debug(["x", "--", "--debug"]) == (["x", "--", "--debug"], False)


def test_the_version_is_printed(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"bevrepro {__version__}\n"


@pytest.mark.parametrize(
    "argv", [["--nope"], ["no-such-command"], ["doctor", "--nope"], ["doctor", "--python"]]
)
def test_wrong_usage_is_2(argv, capsys):
    assert cli.main(argv) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_every_command_has_help_with_a_sentence(capsys):
    assert cli.main(["--help"]) == 0
    listed = re.findall(r"^│ (\w+)\s+\S", capsys.readouterr().out, re.MULTILINE)
    assert {"doctor", "data", "train", "eval", "viz", "report", "demo"} <= set(listed)
    for command in listed:
        assert cli.main([command, "--help"]) == 0


def test_a_closed_pipe_is_no_error():
    line = f"{sys.executable} -m bevrepro doctor --json | head -c 1 >/dev/null"
    assert "Traceback" not in subprocess.run(line, shell=True, capture_output=True, text=True).stderr


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_unwinds_the_stack(number, code):
    program = (
        "import os, sys\n"
        "from bevrepro import cli\n"
        "def app(**_):\n"
        "    try:\n"
        f"        os.kill(os.getpid(), {int(number)})\n"
        "        sys.stdin.read()\n"
        "    finally:\n"
        "        print('cleaned up', flush=True)\n"
        "cli.app = app\n"
        "sys.exit(cli.main(['x']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert (done.returncode, done.stdout) == (code, "cleaned up\n") and "Traceback" not in done.stderr
