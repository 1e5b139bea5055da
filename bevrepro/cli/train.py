"""`bevrepro train`: teach a configuration, and go on after a stop."""

from pathlib import Path
from typing import Annotated, Any

from typer import BadParameter, Context, Option, Typer

from bevrepro.cli.calls import MORE, CfgOptions, Config, Gpus, Json, common, given, print_json, run_verb
from bevrepro.cli.run_data import InfosPath, Roots, data


def register(app: Typer) -> None:
    """Add the command."""
    app.command("train", context_settings=MORE)(train)


def train(
    context: Context,
    config: Config,
    infos: InfosPath,
    data_root: Roots = None,
    work_dir: Annotated[
        Path | None, Option("--work-dir", help="Where everything is written. [default: work_dirs/CONFIG]")
    ] = None,
    gpus: Gpus = None,
    seed: Annotated[int | None, Option("--seed", min=0, help="Same seed, same result on a CPU.")] = None,
    cfg_options: CfgOptions = None,
    resume_from: Annotated[
        Path | None, Option("--resume-from", metavar="FILE", help="Go on from this checkpoint.")
    ] = None,
    resume: Annotated[
        str | None,
        Option("--resume", metavar="auto|FILE", help="auto: from the work folder's latest.pth, if any."),
    ] = None,
    init_from: Annotated[
        Path | None,
        Option(
            "--init-from",
            metavar="FILE",
            help="Initial weights of a new run: ImageNet or FCOS3D weights of the backbone, or a detector.",
        ),
    ] = None,
    allow_partial_init: Annotated[
        bool, Option("--allow-partial-init", help="Start although the file does not fit as a whole.")
    ] = False,
    no_validate: Annotated[bool, Option("--no-validate", help="Do not remind of the evaluation.")] = False,
    deterministic: Annotated[
        bool, Option("--deterministic", help="Only kernels that repeat bit for bit.")
    ] = False,
    emulate_gpus: Annotated[
        int | None,
        Option(
            "--emulate-gpus",
            min=1,
            metavar="N",
            help="Train as N ranks, whatever devices there are. [default: as many as the recipe asks for]",
        ),
    ] = None,
    processes: Annotated[
        int | None, Option("--processes", min=1, help="With --gpus 0: share the ranks between so many.")
    ] = None,
    nodes: Annotated[int, Option("--nodes", min=1, help="Machines; run the same command on each.")] = 1,
    rendezvous: Annotated[
        str | None, Option("--rendezvous", metavar="HOST:PORT", help="Where several machines meet.")
    ] = None,
    launcher: Annotated[str, Option("--launcher", help="none or pytorch; others are refused.")] = "none",
    as_json: Json = False,
) -> None:
    """Train a configuration on prepared frames. Ctrl-C saves; --resume auto goes on exactly.

    Leaves config.json, a log, checkpoints, latest.pth and run.json in the work folder.
    """
    from bevrepro.drive.processes import of_run

    _check_launcher(launcher)
    if resume is not None and resume.startswith("-"):
        raise BadParameter("write --resume auto, or --resume FILE")
    if init_from and resume_from:
        raise BadParameter("--resume-from goes on with a run, --init-from begins one: give one of them")
    if allow_partial_init and not init_from:
        raise BadParameter("--allow-partial-init is about the file of --init-from")
    argv: list[Any] = [config, *data(data_root, infos)]
    argv += ["--work-dir", work_dir or Path("work_dirs") / Path(config).stem]
    argv += common(gpus, cfg_options, context)
    argv += given("--seed", seed) + given("--resume-from", resume_from) + given("--resume", resume)
    argv += given("--init-from", init_from) + ["--allow-partial-init"] * allow_partial_init
    argv += ["--no-validate"] * no_validate + ["--deterministic"] * deterministic
    argv += given("--emulate-gpus", emulate_gpus)
    result = run_verb("train", argv, of_run(gpus, processes, nodes, rendezvous))
    if as_json:
        print_json(result)
        return
    pace = result.get("seconds_per_step")
    print(f"{result['checkpoint']}: {result['steps']} steps" + (f", {pace:.3f} s per step" if pace else ""))


def _check_launcher(launcher: str) -> None:
    """Raises ConfigError for every launcher that this version does not have."""
    from bevrepro.core.errors import ConfigError

    if launcher in ("slurm", "mpi"):
        raise ConfigError(
            f"--launcher {launcher} is not supported",
            "Several processes are started by torchrun, in a job as well.",
            "Leave --launcher out and say --gpus N; with several machines also --nodes and --rendezvous.",
        )
    if launcher not in ("none", "pytorch"):
        raise BadParameter(f"unknown launcher: {launcher}")
