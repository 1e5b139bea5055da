"""A Ctrl-C that falls into a callback is not lost."""

import subprocess
import sys
from pathlib import Path

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


def run(waiting):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM % waiting],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=Path(__file__).parents[2],
    )
    return done.stdout, done.stderr


def test_it_comes_again_to_a_busy_and_to_a_waiting_program():
    for waiting in ("time.sleep(20)", "os.read(os.pipe()[0], 1)", "while True: pass"):
        assert run(waiting) == ("interrupted\n", "")


def test_other_lost_exceptions_are_still_printed():
    program = PROGRAM.replace("os.kill(os.getpid(), signal.SIGINT)", "1 / 0") % "pass"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert "ZeroDivisionError" in done.stderr and done.stdout == ""
