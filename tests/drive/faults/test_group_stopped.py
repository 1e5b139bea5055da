"""Two processes of one run: a stop reaches both at the same step, a death ends both with its cause."""

import json
import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from bevrepro import cli

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
TWO = ("--emulate-gpus", "2")


def started(training, work_dir, *more, launcher=TORCHRUN):
    """A run of two processes that has done a step."""
    child = training.start(work_dir, *TWO, *more, launcher=launcher)
    for line in child.stdout:
        event = json.loads(line) if line.startswith("{") else {}
        assert event.get("event") != "error", line
        if event.get("event") == "progress" and event["done"] > 0:
            return child
    raise AssertionError(child.communicate()[1][-3000:])


def errors(out):
    return [
        event for event in map(json.loads, filter(_is_event, out.splitlines())) if event["event"] == "error"
    ]


def _is_event(line):
    return line.startswith("{")


def ranks_of(child):
    """Process ids of the two trainings, by rank."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            words = dict(w.split("=", 1) for w in (entry / "environ").read_text().split("\0") if "=" in w)
            command = (entry / "cmdline").read_text()
            group = os.getpgid(int(entry.name))
        except (OSError, ValueError, UnicodeDecodeError):
            continue
        if (
            "RANK" in words
            and "bevformer" in command
            and "--nproc" not in command
            and _belongs(entry, child.pid)
        ):
            found[int(words["RANK"])] = (int(entry.name), group)
    return {rank: pid for rank, (pid, _) in found.items()}


def _belongs(entry, ancestor):
    parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    return parent == ancestor


@pytest.mark.slow
@pytest.mark.parametrize("whom", ["torchrun", "one"])
def test_sigterm_stops_both_after_the_same_step_and_the_run_goes_on(training, tmp_path, whom):
    whole = training.finish(tmp_path / "whole", *TWO)[-1]["weights_digest"]
    child = started(training, tmp_path / "w")
    os.kill(child.pid if whom == "torchrun" else ranks_of(child)[1], signal.SIGTERM)
    out, _ = child.communicate(timeout=60)
    said = errors(out)
    assert child.returncode != 0 and {each["exit_code"] for each in said} == {143}
    assert len({each["seen"] for each in said}) == 1 and "Stopped by SIGTERM after step" in said[0]["seen"]
    assert training.finish(tmp_path / "w", *TWO, "--resume", "auto")[-1]["weights_digest"] == pytest.approx(
        whole
    )


@pytest.mark.slow
def test_when_one_is_killed_the_other_stops_within_a_minute_and_says_so(training, tmp_path):
    child = started(training, tmp_path / "w")
    start_s = time.monotonic()
    os.kill(ranks_of(child)[1], signal.SIGKILL)
    out, err = child.communicate(timeout=60)
    assert time.monotonic() - start_s < 60 and child.returncode != 0
    assert not ranks_of(child)
    assert any("lost the others" in each["seen"] for each in errors(out)) or "SIGKILL" in err
    assert training.finish(tmp_path / "w", *TWO, "--resume", "auto")[-1]["steps"] > 0


@pytest.mark.slow
def test_one_that_hangs_is_given_up_after_the_timeout(training, tmp_path):
    child = started(training, tmp_path / "w", "--rank-timeout", "5")
    pid = ranks_of(child)[1]
    os.kill(pid, signal.SIGSTOP)
    try:
        for line in child.stdout:
            if _is_event(line) and json.loads(line)["event"] == "error":
                break
        else:
            raise AssertionError("nothing was said")
        assert "process 0 lost the others" in json.loads(line)["seen"]
    finally:
        os.kill(pid, signal.SIGCONT)
        child.communicate(timeout=60)


def test_a_port_that_is_taken_is_a_sentence(tmp_path, monkeypatch, capsys):
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        taken.listen()
        monkeypatch.setenv("PORT", str(taken.getsockname()[1]))
        words = ["train", "bevformer_micro", "--infos", str(tmp_path), "--gpus", "0", "--processes", "2"]
        assert cli.main(words) == 3
    said = capsys.readouterr().err
    assert "cannot be used: Address already in use" in said and "Unset PORT" in said


@pytest.mark.slow
def test_the_others_wait_while_the_first_process_validates(training, tmp_path):
    plain = training.finish(tmp_path / "plain", *TWO)[-1]["weights_digest"]
    child = training.start(tmp_path / "w", *TWO, "--validate-every", "3", launcher=TORCHRUN)
    out, err = child.communicate(timeout=180)
    assert child.returncode == 0, out[-1000:] + err[-2000:]
    record = json.loads((tmp_path / "w" / "run.json").read_text())
    assert [each["step"] for each in record["validations"]] == [6, 12]
    assert record["weights_digest"] == plain


@pytest.mark.slow
def test_the_command_line_says_which_process_was_killed_and_how(training, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    words = training.command(tmp_path / "w", *TWO)[3:]
    killer = threading.Thread(target=_kill_second, args=(tmp_path / "w",))
    killer.start()
    code = cli.main([*words, "--processes", "2"])
    killer.join()
    said = capsys.readouterr().err
    assert code == 9 and "lost the others" in said and "Process 1 was ended by SIGKILL" in said
    assert "--resume auto" in said


def _kill_second(work_dir):
    while not any(work_dir.glob("epoch_*.pth")):
        time.sleep(0.1)
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            environ, command = (entry / "environ").read_text().split("\0"), (entry / "cmdline").read_text()
        except OSError:
            continue
        if "RANK=1" in environ and str(work_dir) in command:
            os.kill(int(entry.name), signal.SIGKILL)
