"""kill -9 at any moment of a training: the next start goes on, and ends as an uninterrupted run does."""

import json
import os
import random
import re
import signal
import sys
import time
from pathlib import Path

import pytest
from small_training import LIMIT_S, frames_in, proof, until_step

STEPS_PER_EPOCH = 3
TRIES = 24


def test_a_run_that_is_killed_goes_on_and_ends_as_one_that_is_not(tmp_path):
    """At one random moment; the slow tests take more."""
    made, *making = frames_in(tmp_path)
    options, cut = ("schedule.max_epochs=3",), tmp_path / "cut"
    kill = [str(cut / random.choice(("iter_0.pth", "epoch_1.pth", "epoch_2.pth"))), random.uniform(0, 0.05)]
    train = {"argv": made.words(tmp_path / "whole", options=options)}
    killed = {"argv": made.words(cut, options=options), "kill": kill}
    again = {"argv": made.words(cut, "--resume", "auto", options=options)}
    stages = [*([{"argv": words}] for words in making), [train, killed], [again]]
    command = [sys.executable, str(Path(__file__).parent / "forks.py"), json.dumps(stages)]
    done = made.popen(command)
    out, err = done.communicate(timeout=LIMIT_S)
    assert out.split() == ["[0,", "0,", "9,", "0,", "0]"], (kill, out, err)
    assert proof(cut) == proof(tmp_path / "whole"), kill
    assert len(json.loads((cut / "run.json").read_text())["sessions"]) == 2 and not half_written(cut)


def kill_at_random(training, work_dir, chance):
    """Start it, end it between its first words and its last; (was it alive, last step it told of)."""
    child, told = training.start(work_dir, "--resume", "auto"), 0
    if chance.random() < 0.15:
        time.sleep(chance.uniform(0, 3))  # anywhere, also while it imports and reads
    else:
        told = until_step(child, 0)
        time.sleep(chance.uniform(0, 2))
    alive = child.poll() is None
    if alive:
        os.killpg(child.pid, signal.SIGKILL)
    out, _ = child.communicate()
    steps = [json.loads(line)["done"] for line in out.splitlines()[:-1] if '"task": "train"' in line]
    return alive, max([told, *steps])


def newest_step(work_dir):
    """Steps done in the checkpoint that latest.pth names; 0 without one."""
    try:
        kind, number = re.match(r"(iter|epoch)_(\d+)", os.readlink(work_dir / "latest.pth")).groups()
    except FileNotFoundError:
        return 0
    return int(number) * (STEPS_PER_EPOCH if kind == "epoch" else 1)


def half_written(folder):
    return [name for name in os.listdir(folder) if re.match(r"\.\w+\.\w+\.", name)] if folder.is_dir() else []


@pytest.mark.slow
def test_every_resume_goes_on_and_the_end_is_the_same(training, whole, tmp_path):
    chance, kills, halves, ends = random.Random(TRIES), [], 0, 0
    while len(kills) < TRIES:
        work_dir = tmp_path / str(ends)
        before = newest_step(work_dir)
        alive, told = kill_at_random(training, work_dir, chance)
        assert newest_step(work_dir) >= max(before, told - STEPS_PER_EPOCH), "more than an epoch was lost"
        if alive:
            kills.append((before, told))
            halves += bool(half_written(work_dir))
        if not alive or len(kills) % 4 == 0:
            ends_as(training, work_dir, whole())
            ends += 1
    print(f"{len(kills)} kills (from step, last step told): {kills}; {halves} amid a save; {ends} runs ended")


def ends_as(training, work_dir, whole):
    """The last start, which nobody kills, goes on from the newest checkpoint and ends as `whole` does."""
    began = newest_step(work_dir)
    events = training.finish(work_dir, "--resume", "auto")
    assert not [e for e in events if "whole checkpoint" in e.get("text", "")], "a kill left half a file"
    assert proof(work_dir) == proof(whole) and not half_written(work_dir)
    record = json.loads((work_dir / "run.json").read_text())
    assert record["sessions"][-1]["first_step"] == began and record["status"] == "finished"


@pytest.mark.slow
def test_a_worker_that_is_killed_ends_the_run_and_it_goes_on_without(training, whole, tmp_path):
    child = training.typed(tmp_path / "w", "--workers", "1")
    (worker,) = wait_for(lambda: readers_of(child.pid, tmp_path / "w"))
    os.kill(worker, signal.SIGKILL)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 9, err
    assert "a process that reads images was ended by SIGKILL" in err and "--resume auto" in err
    assert training.finish(tmp_path / "w", "--resume", "auto") and proof(tmp_path / "w") == proof(whole())


def readers_of(pid, work_dir):
    """The workers of the training that the command line `pid` has started, once it has done an epoch."""
    if not (work_dir / "epoch_1.pth").exists():
        return []
    return [reader for train in children(pid) for reader in children(train)]


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as stream:
        return [int(word) for word in stream.read().split()]


def wait_for(found, limit_s=60.0):
    end_s = time.monotonic() + limit_s
    while not (answer := found()):
        assert time.monotonic() < end_s
        time.sleep(0.02)
    return answer
