"""A Ctrl-C that falls into a callback is not lost."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, signal, time, weakref
from bevrepro.core import interrupts

class Thing: pass

interrupts.keep()
thing = Thing()
watch = weakref.ref(thing, lambda ref: os.kill(os.getpid(), signal.SIGINT) or sum(range(1000)))
try:
    del thing
    %s
except KeyboardInterrupt:
    print("interrupted")
"""


def program(text):
    words = [sys.executable, "-c", text]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[2])


def run(waiting):
    done = program(PROGRAM % waiting)
    return done.stdout, done.stderr


def test_it_comes_again_to_a_busy_and_to_a_waiting_program():
    for waiting in ("time.sleep(20)", "os.read(os.pipe()[0], 1)", "while True: pass"):
        assert run(waiting) == ("interrupted\n", "")


SLOW = """
import threading, time
start = threading.Thread.start
threading.Thread.start = lambda thread: (start(thread), time.sleep(0.2))
"""


def test_it_waits_for_a_busy_machine_that_is_still_noting_the_loss():
    done = program(SLOW + PROGRAM % "time.sleep(9)")
    assert (done.stdout, done.stderr) == ("interrupted\n", "")


def test_other_lost_exceptions_are_still_printed():
    done = program(PROGRAM.replace("os.kill(os.getpid(), signal.SIGINT)", "1 / 0") % "pass")
    assert "ZeroDivisionError" in done.stderr and done.stdout == ""


STARTS = """
import atexit, os, signal, sys
from bevrepro.__main__ import main

class Presser:  # of Ctrl-C, when this module is looked for
    def find_spec(self, name, path=None, target=None):
        if name == %r:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Presser())
sys.argv = ["bevrepro", "--version"]
atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))
sys.exit(main())
"""


@pytest.mark.parametrize("module", ["bevrepro.cli", "typer", "bevrepro.cli.data", "bevrepro.cli.run"])
def test_ctrl_c_while_the_program_starts_is_a_sentence(module):
    done = program(STARTS % module)
    assert (done.returncode, done.stderr) == (130, "\nInterrupted. What was finished before is whole.\n")


def test_ctrl_c_while_the_program_ends_changes_nothing():
    done = program(STARTS % "none")
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("bevrepro ")


def test_an_interrupted_exec_does_not_end_the_program_by_a_signal():
    text = (
        "from bevrepro.core import interrupts\n"
        "try: exec('raise KeyboardInterrupt')\n"
        "except KeyboardInterrupt: pass\n"
        "%s\nraise SystemExit(3)"
    )
    assert program(text % "interrupts.settle()").returncode == 3
    assert program(text % "pass").returncode in (3, -2)  # CPython 3.11 says -2
