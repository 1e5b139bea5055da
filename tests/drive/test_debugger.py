"""`--debug` on a terminal: a breakpoint in the model plane asks there, and is answered."""

import os
import pty
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CHILD = """
import sys
from bevformer.talk import Talk
talk = Talk.from_environment()
talk.note("before")
answer = 6
breakpoint()
talk.result(steps=answer)
"""
PARENT = """
import sys
from bevrepro.cli.progress import shown
from bevrepro.drive import launch
launch.model_argv = lambda *a, **k: [sys.executable, sys.argv[1]]
with shown("train") as on_event:
    print("steps:", launch.run_model("train", [], on_event=on_event)["steps"])
"""


def read_until(master, words, said=""):
    while words not in said:
        said += os.read(master, 4096).decode()
    return said


def test_a_breakpoint_stops_and_goes_on(tmp_path):
    (tmp_path / "child.py").write_text(CHILD)
    master, slave = pty.openpty()
    env = dict(os.environ, BEVREPRO_DEBUG="1", PYTHONPATH=f"{ROOT}{os.pathsep}{ROOT / 'model'}")
    command = [sys.executable, "-c", PARENT, str(tmp_path / "child.py")]
    program = subprocess.Popen(command, env=env, stdin=slave, stdout=slave, stderr=slave)
    try:
        assert "before" in read_until(master, "(Pdb) ")
        os.write(master, b"answer = answer * 7\n")
        read_until(master, "(Pdb) ")
        os.write(master, b"c\n")
        read_until(master, "steps: 42")
        assert program.wait(timeout=10) == 0
    finally:
        program.kill()
        os.close(master)
        os.close(slave)
