"""`bevrepro reproduce RECIPE`: from a machine to a verdict."""

import shlex
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

from typer import Argument, BadParameter, Exit, Option, Typer

from bevrepro.cli.calls import Json, Target
from bevrepro.cli.verdict_view import print_verdict


def register(app: Typer) -> None:
    """Add the command."""
    app.command("reproduce")(reproduce)


def reproduce(
    name: Annotated[str | None, Argument(metavar="RECIPE", help="See --list.")] = None,
    start: Annotated[
        str | None,
        Option(
            "--from", metavar="STEP", help="Begin again at: doctor, env, data, weights, train, eval, compare."
        ),
    ] = None,
    data_root: Annotated[
        list[Path] | None,
        Option("--data-root", help="nuScenes: a mount point, folder or archive; may be repeated."),
    ] = None,
    infos: Annotated[
        Path | None, Option("--infos", help="A folder of prepared infos. [default: made in the work folder]")
    ] = None,
    checkpoint: Annotated[
        Path | None, Option("--checkpoint", metavar="FILE", help="Judge this one; fetch and train nothing.")
    ] = None,
    work_dir: Annotated[
        Path | None,
        Option("--work-dir", help="Everything is written there. [default: work_dirs/reproduce_RECIPE]"),
    ] = None,
    kind: Annotated[
        str | None,
        Option(
            "--kind", metavar="eval|train", help="Score published weights, or train. [default: the first]"
        ),
    ] = None,
    gpus: Annotated[int | None, Option("--gpus", min=0, help="0: the CPU.")] = None,
    target: Target = None,
    seed: Annotated[int, Option("--seed", min=0, help="Of the training.")] = 0,
    anyway: Annotated[
        bool, Option("--anyway", help="Go on although the data would give another result.")
    ] = False,
    dry_run: Annotated[bool, Option("--dry-run", help="Print the commands, run nothing.")] = False,
    list_: Annotated[bool, Option("--list", help="Print the recipes and their numbers.")] = False,
    as_json: Json = False,
) -> None:
    """Doctor, environment, data, training or weights, evaluation, comparison: one verdict at the end.

    What was finished is kept: the same command goes on. Exit code 1: the result is not the published one.
    """
    if list_:
        _print_recipes()
        return
    if name is None:
        raise BadParameter("name a RECIPE, or --list")
    from bevrepro.cli.demo_view import Narrator
    from bevrepro.drive.published import kind_named
    from bevrepro.drive.recipes import recipe
    from bevrepro.drive.reproduce import Wish, check, commands_of, run_reproduction

    known = recipe(name)
    wanted = kind_named(known, kind)
    usual = f"reproduce_{name}" if wanted == known.kinds[0] else f"reproduce_{name}_{kind}"
    folder = work_dir or Path("work_dirs") / usual  # not that of `train`
    roots = tuple(data_root or ())
    wish = Wish(known, wanted, folder, roots, infos, checkpoint, gpus, seed, start, anyway, target)
    if dry_run:
        check(wish)
        for step, each in commands_of(wish):
            print(f"{step:<8} {each.text}")
        print(f"{'compare':<8} {shlex.join(['bevrepro', 'compare', str(wish.page_dir), name])}")
        return
    verdict = run_reproduction(wish, _aside, Narrator())
    print_verdict(verdict, as_json)
    raise Exit(0 if verdict.passed else 1)


def _aside(argv: list[str]) -> int:
    """One command; what it prints is talk here, the verdict alone is the product."""
    from bevrepro.cli.demo import _invoke

    with redirect_stdout(sys.stderr):
        return _invoke(argv)


def _print_recipes() -> None:
    from bevrepro.drive.recipes import recipes

    for each in recipes():
        print(f"{each.id:<21}{each.title} ({', '.join(each.kinds)})")
        for one in each.evaluations:
            on = f"{one.world} GPU{'s' if one.world > 1 else ''}"
            print(
                f"    weights, evaluated on {on}: mAP {one.map:g}, NDS {one.nds:g}, within {each.tolerance:g}"
            )
        if each.map_band and each.nds_band:
            (low, high), (least, most) = each.map_band, each.nds_band
            print(f"    trainings: mAP {low:g} to {high:g}, NDS {least:g} to {most:g}"
                  + ("" if each.sure else " (a guessed width)"))  # fmt: skip
        print(f"    {each.source}")
