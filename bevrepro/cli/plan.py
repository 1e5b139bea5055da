"""`bevrepro plan`: does a training fit, before anything is downloaded."""

from typing import Annotated

from typer import Context, Exit, Option, Typer

from bevrepro.cli.calls import MORE, CfgOptions, Config, Json, common, given, print_json, run_verb

DOES_NOT_FIT = 1


def register(app: Typer) -> None:
    """Add the command."""
    app.command("plan", context_settings=MORE)(plan)


def plan(
    context: Context,
    config: Config,
    gpu_memory: Annotated[
        float | None,
        Option(
            "--gpu-memory",
            metavar="GB",
            min=0.1,
            help="Of the GPU to plan for, as on its box (GiB). [default: the smallest GPU of this machine]",
        ),
    ] = None,
    cfg_options: CfgOptions = None,
    as_json: Json = False,
) -> None:
    """Measure the memory of a training step of CONFIG without a GPU, and say whether it fits.

    Where it does not, smaller models are measured too; they change the result, so they are only named.
    Exits with 1 when it does not fit.
    """
    from bevrepro.cli.plan_view import lines
    from bevrepro.drive.plan import Limit, for_tensors, gpu_limit, judge

    limit = gpu_limit() if gpu_memory is None else Limit(gpu_memory, "--gpu-memory")
    argv = [config, *given("--limit-gib", for_tensors(limit) if limit else None)]
    result = run_verb("plan", [*argv, *common(None, cfg_options, context)])
    judgement = judge(result, limit)
    if as_json:
        known = {"gib": limit.gib, "source": limit.source} if limit else None
        taken = {"verdict": judgement.verdict, "taken_gib": judgement.taken_gib, "limit": known}
        print_json({**result, **taken})
    else:
        print("\n".join(lines(result, judgement)))
    if judgement.verdict == "too small":
        raise Exit(DOES_NOT_FIT)
