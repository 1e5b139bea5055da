"""Progress of another program, by what it reads."""

import os
import subprocess
import sys

from bevrepro.data import lock, watch

READS = "import sys; open(sys.argv[1], 'rb').read(); print('done', flush=True); sys.stdin.read()"


def test_what_a_child_reads_is_counted_and_what_ended_counts_nothing(tmp_path):
    (tmp_path / "big").write_bytes(bytes(5_000_000))
    command = [sys.executable, "-S", "-c", READS, tmp_path / "big"]
    with subprocess.Popen(command, stdin=-1, stdout=-1) as child:
        child.stdout.readline()
        assert watch.read_below(os.getpid()) >= 5_000_000
        child.stdin.close()
    assert watch.read_below(child.pid) == 0


def test_it_tells_while_the_block_runs_and_is_silent_afterwards(monkeypatch):
    monkeypatch.setattr(watch, "EVERY_S", 0.01)
    heard = []
    with watch.watched(heard.append):
        while not heard:
            pass
    told = len(heard)
    assert told and len(heard) == told


HOLDS = """
import sys; sys.path.insert(0, sys.argv[2])
from pathlib import Path; from bevrepro.data.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True); sys.stdin.read()
"""


def test_a_second_command_waits_for_the_first_and_a_killed_one_holds_nothing(tmp_path):
    place = tmp_path / "folder/lock"
    root = os.path.dirname(os.path.dirname(os.path.dirname(watch.__file__)))
    with subprocess.Popen([sys.executable, "-c", HOLDS, place, root], stdin=-1, stdout=-1) as child:
        assert child.stdout.readline() == b"held\n"
        with lock.locked(place, on_wait=child.kill):
            assert child.wait() == -9
