"""`bevrepro train, eval, viz, report, demo`: from data to a page with numbers and pictures."""

import sys
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, BadParameter, Context, Option, Typer

from bevrepro.cli.calls import MORE, CfgOptions, Config, Gpus, Json, common, given, print_json, run_verb

Roots = Annotated[
    list[Path] | None,
    Option(
        "--data-root",
        help="A mount point, folder or archive; may be repeated, the last one wins. "
        "By default data/nuscenes, else the folder of --infos.",
    ),
]
InfosPath = Annotated[
    Path, Option("--infos", help="A file from `bevrepro data prepare`, or the folder that holds both.")
]


def register(app: Typer) -> None:
    """Add the commands."""
    app.command("train", context_settings=MORE)(train)
    app.command("eval", context_settings=MORE)(evaluate)
    app.command("viz")(viz)
    app.command("report")(report)
    app.command("demo")(demo)


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
    argv: list[Any] = [config, *_data(data_root, infos)]
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


def evaluate(
    context: Context,
    config: Config,
    checkpoint: Annotated[Path | None, Argument(metavar="CKPT", help="A .pth file.")] = None,
    infos: Annotated[
        Path | None,
        Option("--infos", help="A file from `bevrepro data prepare`, or the folder that holds both."),
    ] = None,
    data_root: Roots = None,
    describe: Annotated[
        bool,
        Option("--describe", help="Say what CONFIG is - parameters, keys, sizes, memory - and run nothing."),
    ] = False,
    split: Annotated[str, Option("--split", metavar="train|val", help="Which file of --infos.")] = "val",
    subset: Annotated[
        list[str] | None,
        Option("--subset", metavar="all|labelled|between", help="What to score; may be repeated."),
    ] = None,
    out: Annotated[
        Path | None, Option("--out", help="Folder for the results. [default: eval beside CKPT]")
    ] = None,
    format_only: Annotated[bool, Option("--format-only", help="Write the results, score nothing.")] = False,
    metric: Annotated[str, Option("--eval", metavar="bbox", help="What to evaluate; always bbox.")] = "bbox",
    gpus: Gpus = None,
    workers: Annotated[int | None, Option("--workers", min=0, help="Processes that load images.")] = None,
    limit: Annotated[int | None, Option("--limit", min=1, help="Run only the first N frames.")] = None,
    cfg_options: CfgOptions = None,
    as_json: Json = False,
) -> None:
    """Run a checkpoint over a split as video and score it with nuscenes-devkit's own DetectionEval.

    Leaves results_nusc.json, eval.json and the devkit's metrics_summary.json in the folder.
    """
    if describe:
        _describe(context, config, checkpoint, cfg_options, as_json)
        return
    if checkpoint is None or infos is None:
        raise BadParameter("CKPT and --infos are needed, except with --describe")
    argv: list[Any] = [config, checkpoint, *_data(data_root, infos), "--split", split, "--eval", metric]
    for name in subset or []:
        argv += ["--subset", name]
    argv += given("--out", out) + given("--workers", workers) + given("--limit", limit)
    argv += common(gpus, cfg_options, context) + ["--format-only"] * format_only
    result = run_verb("eval", argv)
    if as_json:
        print_json(result)
        return
    for name, score in (result.get("metrics") or {}).items():
        count = score.get("num_samples", "?")
        frames = f"{count} frames of {score.get('split')}"
        print(f"{name}: mAP {score['mAP']:.4f}  NDS {score['NDS']:.4f}  ({frames})")
    print(result["results"])


def viz(
    infos: InfosPath,
    out: Annotated[Path, Option("--out", help="Folder for the pictures.")],
    data_root: Roots = None,
    results: Annotated[
        Path | None, Option("--results", help="results_nusc.json from eval; without it only the true boxes.")
    ] = None,
    split: Annotated[str, Option("--split", metavar="train|val", help="Which file of --infos.")] = "val",
    sample: Annotated[
        list[str] | None, Option("--sample", metavar="TOKEN", help="Which frame; may be repeated.")
    ] = None,
    count: Annotated[int | None, Option("--count", min=1, help="Without --sample: so many, spread.")] = None,
    score: Annotated[
        float | None, Option("--score", min=0, max=1, help="Draw predictions from this score on.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Draw single samples as PNG: six cameras with predicted and true boxes, and the bird's-eye view."""
    argv: list[Any] = [*_data(data_root, infos), "--split", split, "--out", out]
    argv += given("--results", results) + given("--count", count) + given("--score", score)
    for token in sample or []:
        argv += ["--sample", token]
    result = run_verb("viz", argv)
    if as_json:
        print_json(result)
        return
    for picture in result["pictures"]:
        print(picture["path"])


def report(
    work_dir: Annotated[Path, Argument(metavar="WORK_DIR", help="The --work-dir of a training.")],
    out: Annotated[
        Path | None, Option("--out", metavar="FILE", help="[default: report.html in WORK_DIR]")
    ] = None,
) -> None:
    """Put a run on one HTML page that needs nothing else: commands, machine, loss, scores, pictures."""
    from bevrepro.drive.report import write_report

    print(write_report(work_dir, out))


def demo(
    out: Annotated[
        Path, Option("--out", metavar="DIR", help="A new folder, or one of an earlier demo.")
    ] = Path("demo_out"),
    steps: Annotated[int, Option("--steps", min=1, help="Optimiser steps; fewer learn less.")] = 1400,
    seed: Annotated[int, Option("--seed", min=0, max=2**31 - 1, help="Of data and training.")] = 0,
) -> None:
    """Run everything once, on data made for it: no download, no GPU, no root. About 4 minutes on 2 cores.

    Runs the real commands one after another and prints each so that it can be pasted. An interrupted
    demo goes on where it stopped when it is started again.
    """
    from bevrepro.cli.demo_view import Narrator
    from bevrepro.drive.demo import Demo, run_demo, usable_gpus

    narrator = Narrator()
    summary = run_demo(Demo(out, steps, seed, usable_gpus()), _invoke, narrator)
    narrator.close(summary)


def _describe(
    context: Context, config: str, checkpoint: Path | None, cfg_options: list[str] | None, as_json: bool
) -> None:
    """`eval --describe`: everything else that eval takes is refused, none of it would do anything."""
    if checkpoint is not None and cfg_options and "=" in str(checkpoint):
        context.args.insert(0, str(checkpoint))  # `--cfg-options a=1 b=2`: typer took b=2 for CKPT
        checkpoint = None
    allowed = {"config", "checkpoint", "describe", "cfg_options", "as_json"}
    given = {name for name in context.params if _from_command_line(context, name)}
    if checkpoint is not None or given - allowed:
        raise BadParameter("--describe takes CONFIG, --cfg-options and --json only")
    result = run_verb("describe", [config, *common(None, cfg_options, context)])
    if as_json:
        print_json(result)
        return
    from bevrepro.cli.describe_view import description

    print("\n".join(description(result)))


def _from_command_line(context: Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _invoke(argv: list[str]) -> int:
    """One command through the real command line, in this process; errors and Ctrl-C come back as they are."""
    from bevrepro.cli import INTERRUPTED, app

    try:
        app(args=argv, prog_name="bevrepro")
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
        if code == INTERRUPTED:
            raise KeyboardInterrupt from None
        if code > INTERRUPTED:  # SIGTERM or SIGHUP
            raise
        return code
    return 0


def _data(data_root: list[Path] | None, infos: Path) -> list[Any]:
    """--data-root for every root, and --infos. A choice made here is said aloud."""
    from bevrepro.data.roots import resolve

    if not data_root:
        folder = Path("data/nuscenes")
        chosen = folder if folder.is_dir() else infos if infos.is_dir() else infos.parent
        print(f"No --data-root given: reading images from {chosen}", file=sys.stderr)
        data_root = [chosen]
    roots = [part for root in resolve(data_root) for part in ("--data-root", root)]
    return [*roots, "--infos", infos]


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
