"""`bevrepro submit --slurm`: print a job file; nothing is submitted."""

import sys
from pathlib import Path
from typing import Annotated

from typer import Argument, BadParameter, Option, Typer

REST = {"ignore_unknown_options": True}  # those of `train`


def register(app: Typer) -> None:
    """Add the command."""
    app.command("submit", context_settings=REST)(submit)


def submit(
    words: Annotated[
        list[str],
        Argument(metavar="CONFIG [OPTIONS OF TRAIN]", help="As after `bevrepro train`; after a -- or not."),
    ],
    slurm: Annotated[bool, Option("--slurm", help="For Slurm's sbatch.")] = False,
    gpus: Annotated[int, Option("--gpus", min=0, help="GPUs of each machine.")] = 1,
    nodes: Annotated[int, Option("--nodes", min=1, help="Machines.")] = 1,
    time: Annotated[str, Option("--time", help="As sbatch takes it.")] = "1-00:00:00",
    partition: Annotated[str | None, Option("--partition", help="Where the cluster has several.")] = None,
    cpus_per_gpu: Annotated[int, Option("--cpus-per-gpu", min=1, help="Processor cores for each GPU.")] = 6,
    name: Annotated[str | None, Option("--name", help="Of the job. [default: the configuration's]")] = None,
) -> None:
    """Print a job file that trains on a cluster.

    The job stops in good order before its time is up, is queued again, and goes on where it was.
    """
    from bevrepro.drive.slurm import Job, job_file

    if not slurm:
        raise BadParameter("say --slurm: it is the only kind there is")
    config = _checked(words, gpus, nodes)
    job_name, here = name or Path(config).stem, Path(sys.executable).parent
    programs = here if (here / "bevrepro").exists() else None
    job = Job(words, job_name, Path.cwd(), gpus, nodes, cpus_per_gpu, time, partition, programs)
    print(job_file(job), end="")


def _checked(words: list[str], gpus: int, nodes: int) -> str:
    """CONFIG of the words for `train`, after its own parser took them: mistakes show now."""
    from typer.main import get_command

    from bevrepro.cli import app
    from bevrepro.drive.inside import require_fitting
    from bevrepro.env.target import load

    given = {word.partition("=")[0] for word in words}
    for mine in ("--resume", "--resume-from", "--rendezvous"):
        if mine in given:
            raise BadParameter(f"leave {mine} out: the job file says it")
    train = get_command(app).commands["train"]  # type: ignore[attr-defined]
    parsed = train.make_context("train", [*words, "--gpus", str(gpus), "--nodes", str(nodes)])
    if parsed.params["target"]:  # whether it is built is a matter of the machines that run the job
        require_fitting(load(parsed.params["target"]), gpus)
    return str(parsed.params["config"])
