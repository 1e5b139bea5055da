"""The job file run by bash, with programs that stand for Slurm's."""

import os
import subprocess
from pathlib import Path

import pytest

from bevrepro.drive.slurm import Job, job_file

# Every program says how it was called; srun runs the command once per machine.
SCONTROL = """echo "scontrol $*" >> "$SAID"; [ "$1" = show ] && printf 'gpu7\\ngpu8\\n'; exit 0"""
SRUN = """while [ "${1#--}" != "$1" ]; do echo "srun $1" >> "$SAID"; shift; done
for machine in 0 1; do "$@" || rc=$?; done; exit ${rc:-0}"""
BEVREPRO = """echo "bevrepro $*" >> "$SAID"; echo "in $PWD" >> "$SAID"; exit $ENDS"""


@pytest.fixture
def submitted(tmp_path):
    """Run a job that ends with a status; returns (exit status, what the programs were asked)."""

    def play(job, ends=0):
        for name, text in (("scontrol", SCONTROL), ("srun", SRUN), ("bevrepro", BEVREPRO)):
            (tmp_path / name).write_text("#!/bin/sh\n" + text)
            (tmp_path / name).chmod(0o755)
        env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SAID": str(tmp_path / "said"), "ENDS": str(ends)}
        env.update(SLURM_JOB_ID="12345", SLURM_JOB_NODELIST="gpu[7-8]")
        done = subprocess.run(["bash"], input=job_file(job), env=env, capture_output=True, text=True)
        assert done.stderr == ""
        return done.returncode, (tmp_path / "said").read_text().splitlines()

    return play


def test_every_machine_trains_and_meets_at_the_first(submitted, tmp_path):
    (tmp_path / "my folder").mkdir()
    job = Job(["bevformer_base", "--infos", "i n"], "base", tmp_path / "my folder", gpus=8, nodes=2)
    rc, said = submitted(job)
    train = (
        "bevrepro train bevformer_base --infos i n --gpus 8 --resume auto --nodes 2 --rendezvous gpu7:22345"
    )
    assert rc == 0 and said.count(train) == 2 and said.count(f"in {tmp_path / 'my folder'}") == 2
    assert "scontrol show hostnames gpu[7-8]" in said and "srun --cpus-per-task=48" in said


@pytest.mark.parametrize("ends, requeued", [(0, False), (143, True), (1, False), (8, False)])
def test_only_a_job_that_was_stopped_in_good_order_is_queued_again(submitted, tmp_path, ends, requeued):
    rc, said = submitted(Job(["bevformer_tiny"], "tiny", tmp_path), ends)
    assert rc == ends and ("scontrol requeue 12345" in said) == requeued


def test_a_folder_that_is_gone_stops_the_job_at_once(tmp_path):
    text = job_file(Job(["bevformer_tiny"], "tiny", tmp_path / "gone"))
    assert subprocess.run(["bash"], input=text, capture_output=True, text=True).returncode == 1


def test_the_environment_that_printed_it_is_the_one_that_runs(submitted, tmp_path):
    (tmp_path / "env bin").mkdir()
    job = Job(["bevformer_tiny"], "tiny", tmp_path, programs=tmp_path / "env bin")
    other = tmp_path / "env bin" / "bevrepro"
    other.write_text('#!/bin/sh\necho "that of the environment" >> "$SAID"\n')
    other.chmod(Path("/bin/sh").stat().st_mode)
    assert "that of the environment" in submitted(job)[1]
