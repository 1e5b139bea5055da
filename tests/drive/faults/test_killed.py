"""kill -9 at any moment of a training: the next start goes on, and ends as an uninterrupted run does."""

import json
import os
import random
import signal
import time

import pytest


def kill_at_random(training, work_dir, chance):
    """Start it, end it somewhere between its first words and its last step; the last step it told of.

    None when it was killed before its first step, or had finished already.
    """
    child = training.start(work_dir, "--resume", "auto")
    wanted, step = chance.choice((0, 0, 1, 2, 3, 5)), None
    if chance.random() < 0.2:
        time.sleep(chance.uniform(0, 3))  # anywhere, also while it imports and reads
    else:
        for line in child.stdout:
            event = json.loads(line)
            assert event["event"] != "error", line
            if event["event"] == "progress" and event["task"] == "train":
                step = event["done"]
                if wanted == 0:
                    break
                wanted -= 1
        time.sleep(chance.uniform(0, 0.08))  # a step and its save take about as long
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        step = None
    child.communicate()
    return step


@pytest.mark.parametrize("times", [2, pytest.param(22, marks=pytest.mark.slow)])
def test_every_resume_goes_on_and_the_end_is_the_same(training, whole, tmp_path, times):
    chance, reached = random.Random(times), []
    for n in range(times):
        reached.append(kill_at_random(training, tmp_path / str(n // 4), chance))
    assert sum(step is not None for step in reached) >= times // 3, "too few were killed while they trained"
    for n in range(0, times, 4):
        events = training.finish(tmp_path / str(n // 4), "--resume", "auto")
        assert events[-1]["weights_digest"] == whole
        assert not [e for e in events if "whole checkpoint" in e.get("text", "")], "a kill left half a file"


@pytest.mark.slow
def test_a_worker_that_is_killed_ends_the_run_and_it_goes_on_without(training, whole, tmp_path):
    child = training.start(tmp_path / "w", "--workers", "1")
    for line in child.stdout:
        if json.loads(line).get("done"):
            break
    (worker,) = _children(child.pid)
    os.kill(worker, signal.SIGKILL)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 9, out + err[-2000:]
    assert "reads images was ended by SIGKILL" in json.loads(out.splitlines()[-1])["seen"]
    assert training.finish(tmp_path / "w", "--resume", "auto")[-1]["weights_digest"] == whole


def _children(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as stream:
        return [int(word) for word in stream.read().split()]
