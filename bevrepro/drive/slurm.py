"""A job file for Slurm. It starts `bevrepro train` once per machine, which starts torchrun."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bevrepro.core.errors import ConfigError

STOP_BEFORE_S = 180  # the training finishes a step and saves; torchrun gives its processes 30 s
TIME = re.compile(r"\d+(:\d\d){0,2}|\d+-\d+(:\d\d){0,2}")  # what sbatch takes: minutes, H:MM:SS, D-HH, ...


@dataclass(frozen=True)
class Job:
    """What the cluster has to know; `train` are the words after `bevrepro train`."""

    train: Sequence[str]
    name: str
    folder: Path
    gpus: int = 1
    nodes: int = 1
    cpus_per_gpu: int = 6  # four workers, the process itself and one to spare
    time: str = "1-00:00:00"
    partition: str | None = None
    programs: Path | None = None  # the folder of `bevrepro`, where it is known


def cpus_of(job: Job) -> int:
    """Processor cores of a machine."""
    return job.cpus_per_gpu * max(job.gpus, 1)


def job_file(job: Job) -> str:
    """The text. ConfigError for what Slurm would refuse later, or read as something else."""
    if not TIME.fullmatch(job.time):
        raise ConfigError(
            f"--time {job.time} is no time", do="For example 12:00:00, or 2-00:00:00 for two days."
        )
    for word in (job.name, job.partition or "x"):
        if not re.fullmatch(r"[\w.,+-]+", word):
            raise ConfigError(
                f"{word!r} cannot stand in a line of #SBATCH", do="Use letters, digits, _ and -."
            )
    options = [
        f"--job-name={job.name}",
        *([f"--partition={job.partition}"] if job.partition else []),
        f"--nodes={job.nodes}",
        "--ntasks-per-node=1",
        *([f"--gpus-per-node={job.gpus}"] if job.gpus else []),
        f"--cpus-per-task={cpus_of(job)}",
        f"--time={job.time}",
        f"--signal=TERM@{STOP_BEFORE_S}",
        "--requeue",
        "--open-mode=append",
        "--output=%x-%j.log",
    ]
    return "\n".join(["#!/bin/bash", *(f"#SBATCH {option}" for option in options), "", *_body(job)]) + "\n"


def _body(job: Job) -> list[str]:
    words = ["bevrepro", "train", *job.train, "--gpus", str(job.gpus), "--resume", "auto"]
    command = " ".join(shlex.quote(word) for word in words)
    meeting: list[str] = []
    if job.nodes > 1:
        command += f' --nodes {job.nodes} --rendezvous "$head:$port"'
        meeting = [
            'head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
            "port=$((20000 + SLURM_JOB_ID % 10000))  # two jobs on one machine do not meet",
        ]
    programs = [f'export PATH={shlex.quote(str(job.programs))}:"$PATH"'] if job.programs else []
    return [
        "# The environment that has bevrepro; another one can be activated here.",
        *programs,
        "set -u",
        f"cd {shlex.quote(str(job.folder))} || exit 1",
        *meeting,
        "rc=0",
        "# srun does not take --cpus-per-task over from sbatch (Slurm 22.05).",
        f"srun --kill-on-bad-exit=1 --cpus-per-task={cpus_of(job)} {command} || rc=$?",
        "# 143: stopped in good order because the time was up. The job goes on where it was.",
        '[ "$rc" -eq 143 ] && scontrol requeue "$SLURM_JOB_ID"',
        'exit "$rc"',
    ]
