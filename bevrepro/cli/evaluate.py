"""`bevrepro eval`: score a checkpoint, or say what a configuration is."""

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, BadParameter, Context, Option, Typer

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
from bevrepro.cli.run_data import Roots, data


def register(app: Typer) -> None:
    """Add the command."""
    app.command("eval", cls=OldFlags, context_settings=MORE)(evaluate)


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
    results: Annotated[
        Path | None,
        Option("--results", help="Score this results file, of any tool, instead of running CKPT."),
    ] = None,
    split: Annotated[str, Option("--split", metavar="train|val|test", help="Which file of --infos.")] = "val",
    subset: Annotated[
        list[str] | None,
        Option("--subset", metavar="all|labelled|between", help="What to score; may be repeated."),
    ] = None,
    out: Annotated[
        Path | None, Option("--out", help="Folder for the results. [default: eval beside CKPT or FILE]")
    ] = None,
    format_only: Annotated[
        bool,
        Option(
            "--format-only",
            help="Write what the test server takes, score nothing; with --results check it for that.",
        ),
    ] = False,
    metric: Annotated[str, Option("--eval", metavar="bbox", help="What to evaluate; always bbox.")] = "bbox",
    gpus: Gpus = None,
    gpu_ids: GpuIds = None,
    target: Target = None,
    processes: Annotated[
        int | None, Option("--processes", min=1, help="With --gpus 0: share the frames between so many.")
    ] = None,
    cut: Annotated[
        str,
        Option(
            "--cut",
            metavar="scene|upstream",
            help="Where several processes cut the video: scene gives the numbers of one process, "
            "upstream those of the reference on as many GPUs.",
        ),
    ] = "scene",
    workers: Annotated[int | None, Option("--workers", min=0, help="Processes that load images.")] = None,
    amp: Annotated[
        str | None,
        Option(
            "--amp", metavar="bf16|fp16|fp64|off", help="Mixed precision, or all in float64. [default: off]"
        ),
    ] = None,
    limit: Annotated[int | None, Option("--limit", min=1, help="Run only the first N frames.")] = None,
    cfg_options: CfgOptions = None,
    launcher: Launcher = "none",
    as_json: Json = False,
) -> None:
    """Run a checkpoint over a split as video and score it with nuscenes-devkit's own DetectionEval.

    Leaves results_nusc.json, eval.json and the devkit's metrics_summary.json in the folder.
    """
    from bevrepro.drive.processes import of_run

    if describe:
        _describe(context, config, checkpoint, cfg_options, as_json)
        return
    if infos is None or (checkpoint is None) == (results is None):
        raise BadParameter("--infos and CKPT (or --results FILE) are needed, except with --describe")
    if out is not None and out.suffix in (".pkl", ".pickle", ".json"):
        raise BadParameter(f"--out {out}: it names a folder; results_nusc.json and the metrics go into it")
    if amp not in (None, "bf16", "fp16", "fp64", "off"):
        raise BadParameter(f"--amp {amp}: it is bf16, fp16, fp64 or off")
    check_launcher(launcher)
    inside, gpus = entered(target, picked(gpus, gpu_ids))
    argv: list[Any] = [config, *([] if checkpoint is None else [checkpoint]), *given("--results", results)]
    argv += [*data(data_root, infos), "--split", split, "--eval", metric]
    for name in subset or []:
        argv += ["--subset", name]
    argv += given("--out", out) + given("--workers", workers) + given("--limit", limit)
    argv += given("--amp", amp)
    argv += common(gpus, cfg_options, context) + ["--format-only"] * format_only
    result = run_verb("eval", [*argv, "--cut", cut], of_run(gpus, processes, 1, None), inside)
    if as_json:
        print_json(result)
        return
    for name, score in (result.get("metrics") or {}).items():
        count = score.get("num_samples", "?")
        frames = f"{count} frames of {score.get('split')}"
        print(f"{name}: mAP {score['mAP']:.4f}  NDS {score['NDS']:.4f}  ({frames})")
    print(result["results"])


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
