"""`bevrepro plan`: does a training fit, what would make it fit, how long it takes; before any download."""

from typing import TYPE_CHECKING, Annotated, Any

from typer import Context, Exit, Option, Typer

from bevrepro.cli.calls import (
    MORE,
    CfgOptions,
    Config,
    Json,
    Target,
    common,
    entered,
    given,
    print_json,
    run_verb,
)

if TYPE_CHECKING:
    from bevrepro.drive.pace import Pace
    from bevrepro.drive.plan import Limit

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
    gpu: Annotated[
        str | None, Option("--gpu", metavar="NAME", help="Name of the GPU to plan for, for --time: A100.")
    ] = None,
    with_time: Annotated[
        bool, Option("--time", help="Samples per second and days too: reported, or a step timed here.")
    ] = False,
    target: Target = None,
    cfg_options: CfgOptions = None,
    as_json: Json = False,
) -> None:
    """Measure the memory of a training step of CONFIG without a GPU, and say what makes it fit.

    Rungs that leave the result as it is are chosen; what changes it is only named. Exits with 1 when it does
    not fit.
    """
    from bevrepro.cli.plan_view import lines
    from bevrepro.drive.plan import Limit, for_tensors, judge, machine_limit
    from bevrepro.env.target import load

    inside, _ = entered(target, 0)  # nothing is put on a GPU, so none has to be there
    without_gpu = target is not None and load(target).hardware.kind == "cpu"
    given_limit = None if gpu_memory is None else Limit(gpu_memory, "--gpu-memory", gpu or "")
    limit = given_limit or machine_limit(without_gpu)
    here = with_time and gpu is None and gpu_memory is None
    argv = [
        config,
        *given("--limit-gib", for_tensors(limit) if limit else None),
        *(["--time"] if here else []),
    ]
    result = run_verb("plan", [*argv, *common(None, cfg_options, context)], inside=inside)
    judgement = judge(result, limit)
    pace = _pace(result, gpu, limit) if with_time else None
    if as_json:
        known = {"gib": limit.gib, "source": limit.source} if limit else None
        taken = {"verdict": judgement.verdict, "taken_gib": judgement.taken_gib, "limit": known}
        print_json({**result, **taken, **({"time": _as_json(result, pace)} if pace else {})})
    else:
        print("\n".join(lines(result, judgement, pace)))
    if judgement.verdict == "too small":
        raise Exit(DOES_NOT_FIT)


def _pace(result: dict[str, Any], gpu: str | None, limit: "Limit | None") -> "Pace":
    """A step timed here, else what is reported of the GPU that is planned for."""
    from bevrepro.drive.pace import Pace, pace_here, pace_of

    if result.get("pace"):
        return pace_here(result["pace"])
    name = gpu or (limit.gpu if limit else "")
    if not name:
        return Pace("", None, None, "name the GPU: --gpu A100")
    if not result["as_published"]:
        return Pace(name, None, None, "this configuration is not a published one: no report is about it")
    return pace_of(result["config"], name)


def _as_json(result: dict[str, Any], pace: "Pace") -> dict[str, Any]:
    from bevrepro.drive.pace import samples_of

    samples = samples_of(result["schedule"])
    return {
        "device": pace.device or None,
        "samples": samples,
        "samples_per_s": pace.samples_per_s(),
        "days": pace.days(samples),
        "evidence": pace.evidence,
    }
