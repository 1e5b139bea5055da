"""`bevrepro train`: teach a configuration, and go on after a stop."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

from typer import BadParameter, Context, Option, Typer

from bevrepro.cli.calls import (
    MORE,
    CfgOptions,
    Config,
    GpuIds,
    Gpus,
    Json,
    Launcher,
    Target,
    check_launcher,
    common,
    entered,
    given,
    picked,
    print_json,
    run_verb,
)
from bevrepro.cli.old_flags import OldFlags
from bevrepro.cli.run_data import InfosPath, Roots, data


def register(app: Typer) -> None:
    """Add the command."""
    app.command("train", cls=OldFlags, context_settings=MORE)(train)


def train(
    context: Context,
    config: Config,
    infos: InfosPath,
    data_root: Roots = None,
    work_dir: Annotated[
        Path | None, Option("--work-dir", help="Where everything is written. [default: work_dirs/CONFIG]")
    ] = None,
    gpus: Gpus = None,
    gpu_ids: GpuIds = None,
    target: Target = None,
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
    validate_every: Annotated[
        int | None,
        Option(
            "--validate-every",
            min=1,
            metavar="N",
            help="Evaluate on the val infos every N epochs (steps, at checkpoints, of a recipe of steps).",
        ),
    ] = None,
    no_validate: Annotated[bool, Option("--no-validate", help="Neither evaluate nor remind of it.")] = False,
    keep_last: Annotated[
        int | None,
        Option(
            "--keep-last",
            min=0,
            metavar="K",
            help="Delete older checkpoints; 0 keeps all. [default: all epochs; 5 of a recipe of steps]",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        Option(
            "--workers",
            min=0,
            help="Processes that read images; the result is the same. [default: 4 on GPUs]",
        ),
    ] = None,
    amp: Annotated[
        str | None,
        Option(
            "--amp",
            metavar="bf16|fp16|fp64|off",
            help="Mixed precision, or all in float64 to compare runs. [default: what the recipe says]",
        ),
    ] = None,
    memory: Annotated[
        str | None,
        Option(
            "--memory",
            metavar="auto|off|NAME,...",
            help="When memory runs out: fall back in ways that keep the result, or not; or begin with these. "
            "[default: auto]",
        ),
    ] = None,
    allow: Annotated[
        str | None,
        Option("--allow", metavar="statistics|changes", help="What else may be done for want of memory."),
    ] = None,
    profile: Annotated[
        bool, Option("--profile", help="Trace a few steps into the work folder's profile/.")
    ] = False,
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
    rank_timeout: Annotated[
        float | None,
        Option("--rank-timeout", min=1, metavar="SECONDS", help="How long processes wait for each other."),
    ] = None,
    print_launch: Annotated[
        str | None,
        Option("--print-launch", metavar="vscode", help="Print a debugger's launch file and run nothing."),
    ] = None,
    launcher: Launcher = "none",
    as_json: Json = False,
) -> None:
    """Train a configuration on prepared frames. Ctrl-C saves; --resume auto goes on exactly.

    Leaves config.json, a log, checkpoints, latest.pth and run.json in the work folder. With --debug
    everything runs in one process, as a debugger likes it.
    """
    from bevrepro.drive.processes import ALONE, of_run

    check_launcher(launcher)
    inside, gpus = entered(target, picked(gpus, gpu_ids))
    if init_from and resume_from:
        raise BadParameter("--resume-from goes on with a run, --init-from begins one: give one of them")
    if allow_partial_init and not init_from:
        raise BadParameter("--allow-partial-init is about the file of --init-from")
    if amp not in (None, "bf16", "fp16", "fp64", "off"):
        raise BadParameter(f"--amp {amp}: it is bf16, fp16, fp64 or off")
    if allow not in (None, "statistics", "changes"):
        raise BadParameter(f"--allow {allow}: it is statistics or changes")
    started = of_run(gpus, processes, nodes, rendezvous)
    if print_launch or os.environ.get("BEVREPRO_DEBUG") == "1":
        if started.count > 1:
            print("For the debugger: one process, its ranks one after another", file=sys.stderr)
        started, workers = ALONE, workers or 0
        gpus = gpus and 1
    argv: list[Any] = [config, *data(data_root, infos)]
    argv += ["--work-dir", work_dir or Path("work_dirs") / Path(config).stem]
    argv += common(gpus, cfg_options, context)
    argv += given("--seed", seed) + given("--resume-from", resume_from) + given("--resume", resume)
    argv += given("--init-from", init_from) + ["--allow-partial-init"] * allow_partial_init
    argv += ["--no-validate"] * no_validate + ["--deterministic"] * deterministic
    argv += given("--emulate-gpus", emulate_gpus) + given("--keep-last", keep_last)
    argv += given("--workers", workers) + given("--amp", amp) + ["--profile"] * profile
    argv += given("--validate-every", validate_every) + given("--rank-timeout", rank_timeout)
    argv += given("--memory", memory) + given("--allow", allow)
    if print_launch:
        from bevrepro.drive.editor import launch_file

        python = inside.python if inside else None
        print(launch_file(print_launch, "train", argv, Path.cwd(), python), end="")
        return
    result = run_verb("train", argv, started, inside)
    if as_json:
        print_json(result)
        return
    if result.get("elsewhere"):
        print("Done; the machine with the first process has the result.", file=sys.stderr)
        return
    pace = result.get("seconds_per_step")
    print(f"{result['checkpoint']}: {result['steps']} steps" + (f", {pace:.3f} s per step" if pace else ""))
