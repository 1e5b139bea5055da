"""`bevrepro env lock`: make locks from targets, or say where the two disagree."""

import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from typer import Argument, BadParameter, Exit, Option, Typer

from bevrepro.cli.calls import print_json

if TYPE_CHECKING:
    from bevrepro.env.index import Index
    from bevrepro.env.locking import Problem
    from bevrepro.env.relocking import Made
    from bevrepro.env.target import Target

FINDINGS = 1

IndexUrl = Annotated[
    str | None,
    Option("--index-url", metavar="URL", help="A mirror to ask instead of what pip is configured with."),
]
FindLinks = Annotated[
    list[str] | None,
    Option("--find-links", metavar="FOLDER", help="A folder of packages, looked in as well."),
]


def register(env: Typer) -> None:
    """Add the command."""
    env.command("lock")(lock)


def lock(
    targets: Annotated[
        list[str] | None, Argument(metavar="TARGET...", help="By default all of them.", show_default=False)
    ] = None,
    check: Annotated[
        bool, Option("--check", help="Write nothing, ask no index; exit 1 where lock and target disagree.")
    ] = False,
    resolve: Annotated[
        bool, Option("--resolve", help="With --check: resolve again as well, and compare (asks the index).")
    ] = False,
    upgrade: Annotated[bool, Option("--upgrade", help="Take the newest versions that are allowed.")] = False,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Resolve and show what would change, write nothing.")
    ] = False,
    index_url: IndexUrl = None,
    find_links: FindLinks = None,
    as_json: Annotated[bool, Option("--json", help="Write the result as JSON to stdout.")] = False,
) -> None:
    """Resolve targets into hashed locks with uv, or compare the two.

    A lock names no index, so any mirror serves it. Pins that still satisfy the target are kept.
    """
    from bevrepro.env import index, target

    if resolve and not check:
        raise BadParameter("--resolve belongs to --check; without it everything is resolved anyway")
    if check and (upgrade or dry_run):
        raise BadParameter("--check changes nothing, so it takes neither --upgrade nor --dry-run")
    chosen = [target.load(name) for name in targets or target.names()]
    # One index: further ones (folders, private copies) tell no upload days, and no one else has them.
    asked = replace(index.configured(), extra=(), find_links=()).also(index_url, find_links or [])
    if check:
        _report(_problems(chosen, asked if resolve else None, everything=not targets), len(chosen), as_json)
    else:
        _lock(chosen, asked, upgrade, dry_run, as_json)


def _problems(chosen: "list[Target]", index: "Index | None", everything: bool) -> "list[Problem]":
    from bevrepro.env import relocking, target
    from bevrepro.env.locking import asked_of, examine, orphans

    found = [problem for each in chosen for asked in asked_of(each) for problem in examine(asked)]
    found += orphans(target.names()) if everything else []
    told = {problem.lock for problem in found}
    for each in chosen if index is not None else []:
        assert index is not None
        for made in relocking.relock(each, index):
            # What is wrong with the file itself was said; that the result differs follows from it.
            again = relocking.problems(made)
            found += [one for one in again if one.kind == "yanked" or made.asked.path.name not in told]
    return found


def _report(found: "list[Problem]", count: int, as_json: bool) -> None:
    if as_json:
        print_json({"targets": count, "problems": [vars(problem) for problem in found]})
    for problem in [] if as_json else found:
        print(f"{problem.kind}: {problem.seen}\n  {problem.do}")
    if not found and not as_json:
        print(f"The locks of {count} target{'' if count == 1 else 's'} are what the targets ask for.")
    if found:
        raise Exit(FINDINGS)


def _lock(chosen: "list[Target]", index: "Index", upgrade: bool, dry_run: bool, as_json: bool) -> None:
    from bevrepro.env import relocking
    from bevrepro.env.evidence import named
    from bevrepro.env.locking import require_checkout

    if not dry_run:
        require_checkout("they are part of its source")
    rows = []
    for target in chosen:
        start_s = time.monotonic()
        print(f"resolving {named(target)} ...", file=sys.stderr)
        made = relocking.relock(target, index, upgrade=upgrade)
        for each in made:
            relocking.refuse_yanked(each)
        for each in made:
            if each.changed and not dry_run:
                relocking.write(each)
            rows.append(_row(each, time.monotonic() - start_s))
            if not as_json:
                _print_made(each, dry_run)
    if as_json:
        print_json({"locks": rows, "written": not dry_run})


def _row(made: "Made", seconds: float) -> dict[str, object]:
    return {
        "target": made.asked.target,
        "lock": made.asked.path.name,
        "changed": made.changed,
        "changes": made.changes(),
        "seconds": round(seconds, 1),
    }


def _print_made(made: "Made", dry_run: bool) -> None:
    state = ("would write" if dry_run else "wrote") if made.changed else "unchanged"
    changes = made.changes() if made.old is not None else []
    print(f"{state:<11} {made.asked.path.name}" + (f"  ({len(changes)} changes)" if changes else ""))
    for line in changes:
        print(f"    {line}")
