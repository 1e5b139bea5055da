"""Two processes of one run: a stop reaches both at the same step, a death ends both with its cause."""

import json
import os
import signal
import socket
import time
from pathlib import Path

import pytest
from small_training import TORCHRUN, proof, until_step

from bevrepro import cli

TWO = ("--emulate-gpus", "2")


def started(training, work_dir, *more):
    """A run of two processes that has done a step."""
    child = training.start(work_dir, *TWO, *more, launcher=TORCHRUN)
    until_step(child, 1)
    return child


def errors(out):
    return [
        event for event in map(json.loads, filter(_is_event, out.splitlines())) if event["event"] == "error"
    ]


def _is_event(line):
    return line.startswith("{")


def ranks_in(work_dir):
    """Process ids of the trainings in a folder, by rank."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            environ, command = (entry / "environ").read_text().split("\0"), (entry / "cmdline").read_text()
        except (OSError, UnicodeDecodeError):
            continue
        ranks = [word[5:] for word in environ if word.startswith("RANK=")]
        if ranks and str(work_dir) in command and "--nproc" not in command:
            found[int(ranks[0])] = int(entry.name)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("whom", ["torchrun", "one"])
def test_sigterm_stops_both_after_the_same_step_and_the_run_goes_on(training, tmp_path, whom):
    training.finish(tmp_path / "whole", *TWO)
    child = started(training, tmp_path / "w")
    os.kill(child.pid if whom == "torchrun" else ranks_in(tmp_path / "w")[1], signal.SIGTERM)
    out, _ = child.communicate(timeout=60)
    said = errors(out)
    assert child.returncode != 0 and {each["exit_code"] for each in said} == {143}
    assert len({each["seen"] for each in said}) == 1 and "Stopped by SIGTERM after step" in said[0]["seen"]
    training.finish(tmp_path / "w", *TWO, "--resume", "auto")
    assert proof(tmp_path / "w") == proof(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_when_one_is_killed_the_other_stops_within_a_minute_with_the_cause(training, tmp_path, rank):
    training.finish(tmp_path / "whole", *TWO)
    child = training.typed(tmp_path / "w", *TWO, "--processes", "2")
    while not (tmp_path / "w" / "epoch_1.pth").exists():
        assert child.poll() is None, child.communicate()
        time.sleep(0.05)
    start_s = time.monotonic()
    os.kill(ranks_in(tmp_path / "w")[rank], signal.SIGKILL)
    _, err = child.communicate(timeout=60)
    assert time.monotonic() - start_s < 60 and not ranks_in(tmp_path / "w")
    assert child.returncode == 9 and f"Process {rank} was ended by SIGKILL" in err, err
    assert "--resume auto" in err and "Traceback" not in err
    assert training.says(tmp_path / "w", *TWO, "--processes", "2", "--resume", "auto")[0] == 0
    assert proof(tmp_path / "w") == proof(tmp_path / "whole")


@pytest.mark.slow
def test_one_that_hangs_is_given_up_after_the_timeout(training, tmp_path):
    child = started(training, tmp_path / "w", "--rank-timeout", "5")
    pid = ranks_in(tmp_path / "w")[1]
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
