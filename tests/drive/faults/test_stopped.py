"""`bevrepro train` that is asked to stop, left alone, or started twice: what is said, and that it goes on."""

import os
import re
import signal
import time

import pytest
from small_training import LIMIT_S, TORCHRUN, proof, until_step

pytestmark = pytest.mark.slow


def typed_and_training(training, work_dir, *more, **given):
    """A running `bevrepro train` that has finished an epoch."""
    child = training.typed(work_dir, *more, **given)
    until_there(child, work_dir / "epoch_1.pth")
    return child


def until_there(child, path):
    end_s = time.monotonic() + LIMIT_S
    while not path.exists():
        assert child.poll() is None and time.monotonic() < end_s, child.communicate()
        time.sleep(0.02)


def family_of(work_dir):
    """Process ids of everything whose command line names the folder."""
    found = []
    for entry in os.listdir("/proc"):
        try:
            with open(f"/proc/{entry}/cmdline", encoding="utf-8", errors="replace") as stream:
                words = stream.read()
        except (OSError, NotADirectoryError):
            continue
        if entry.isdigit() and str(work_dir) in words and int(entry) != os.getpid():
            found.append(int(entry))
    return found


def nobody_left(work_dir, limit_s=30.0):
    end_s = time.monotonic() + limit_s
    while family_of(work_dir):
        assert time.monotonic() < end_s, family_of(work_dir)
        time.sleep(0.1)


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 143)])
def test_what_asks_for_a_stop_gets_a_step_saved(training, whole, tmp_path, number, code):
    child = typed_and_training(training, tmp_path / "w")
    os.kill(child.pid, number)
    os.kill(child.pid, signal.SIGTERM) if number != signal.SIGINT else None  # clusters send it again
    _, err = child.communicate(timeout=60)
    assert child.returncode == code, err
    said = re.search(r"Stopped by SIG\w+ after step (\d+) of 18\.", err)
    assert said and "Everything is saved in" in err and "--resume auto" in err
    assert training.says(tmp_path / "w", "--resume", "auto")[0] == 0
    assert proof(tmp_path / "w") == proof(whole())


def deaf():
    """As under nohup, in the background of a script."""
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


@pytest.mark.parametrize("more", [(), ("--emulate-gpus", "2", "--processes", "2")])
def test_under_nohup_it_outlives_its_terminal_and_still_stops_when_asked(training, tmp_path, more):
    long = ["schedule.max_epochs=99"]
    child = typed_and_training(training, tmp_path / "w", *more, before=deaf, options=long)
    for number in (signal.SIGHUP, signal.SIGINT):
        os.killpg(child.pid, number)
    until_there(child, tmp_path / "w" / "epoch_4.pth")
    os.kill(child.pid, signal.SIGTERM)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 143 and "Stopped by SIGTERM after step" in err, err


@pytest.mark.parametrize("more", [(), ("--emulate-gpus", "2", "--processes", "2"), ("--workers", "2")])
def test_no_process_is_left_over_when_the_command_line_is_killed(training, tmp_path, more):
    child = typed_and_training(training, tmp_path / "w", *more)
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    nobody_left(tmp_path / "w")
    more = tuple(word for word in more if word not in ("--processes",))[:2]
    assert training.finish(tmp_path / "w", *more, "--resume", "auto")[-1]["steps"] > 0


def test_torchrun_that_is_killed_leaves_no_orphans_and_a_checkpoint(training, tmp_path):
    more = ("--emulate-gpus", "2")
    child = training.start(tmp_path / "w", *more, launcher=TORCHRUN)
    until_step(child, 1)
    os.kill(child.pid, signal.SIGKILL)
    out, _ = child.communicate(timeout=60)
    assert "Stopped by SIGTERM after step" in out
    nobody_left(tmp_path / "w")
    assert training.finish(tmp_path / "w", *more, "--resume", "auto")[-1]["steps"] > 0


def test_a_second_training_in_the_folder_is_refused_and_the_first_goes_on(training, whole, tmp_path):
    child = training.start(tmp_path / "w")
    until_step(child, 1)
    os.kill(child.pid, signal.SIGSTOP)
    try:
        code, err = training.says(tmp_path / "w", "--resume", "auto")
    finally:
        os.kill(child.pid, signal.SIGCONT)
    assert code == 3 and f"belongs to a training that still runs: process {child.pid}" in err
    child.communicate(timeout=60)
    assert child.returncode == 0 and proof(tmp_path / "w") == proof(whole())
