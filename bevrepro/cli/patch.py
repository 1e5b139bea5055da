"""`bevrepro patch ...`: patch sets, on an environment of ours or on a tree of the user's."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Exit, Option, Typer

from bevrepro.cli.calls import print_json

if TYPE_CHECKING:
    from bevrepro.env.patch_check import Check
    from bevrepro.env.patching import Applied
    from bevrepro.env.patchset import Patch, PatchSet

Json = Annotated[bool, Option("--json", help="Write the result as JSON to stdout.")]
Set = Annotated[str, Argument(metavar="SET", help="One of `bevrepro patch list`.")]
Tree = Annotated[
    Path, Option("--tree", help="The folder that paths are relative to: site-packages, an sdist, a checkout.")
]
Only = Annotated[
    list[str] | None, Option("--only", metavar="NUMBER", help="This patch of the set; may be repeated.")
]
Edited = Annotated[
    bool, Option("--edited", help="Take files with other changes too, where every hunk fits at its line.")
]
DryRun = Annotated[bool, Option("--dry-run", help="Check everything, say what would change.")]

patch = Typer(
    help="Patches to pinned packages: list, apply, verify and revert them on any tree.", no_args_is_help=True
)


def register(app: Typer) -> None:
    """Add `patch` with its commands."""
    app.add_typer(patch, name="patch")


@patch.command("list")
def list_command(
    name: Annotated[str | None, Argument(metavar="[SET]", help="Only this one, with its reasons.")] = None,
    as_json: Json = False,
) -> None:
    """Every patch: its class, when it is needed; with SET also why, what it changes, and links."""
    from bevrepro.env import patchset

    found = [patchset.load(each) for each in ([name] if name else patchset.names())]
    if as_json:
        print_json({"sets": [_set_json(each) for each in found]})
        return
    for each in found:
        print(f"{each.name}: {len(each.patches)} for {each.tree}")
        for one in each.patches:
            print(f"  {one.file[:4]}  {one.klass:<11}  {_title(one)}")
            for line in _details(one) if name else (f"when: {one.when}",):
                print(f"        {line}")


@patch.command("apply")
def apply_command(
    name: Set,
    tree: Tree,
    only: Only = None,
    edited: Edited = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Apply a set, all of it or nothing. What is applied already is left alone."""
    from bevrepro.env import patching, patchset

    found = patchset.load(name)
    done = patching.apply(found, tree, _words(only), edited=edited, dry_run=dry_run)
    _print_done(done, "applied", as_json)


@patch.command("revert")
def revert_command(
    name: Set,
    tree: Tree,
    only: Only = None,
    edited: Edited = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Take a set off again, all of it or nothing: the files are byte for byte what they were."""
    from bevrepro.env import patching, patchset

    found = patchset.load(name)
    done = patching.revert(found, tree, _words(only), edited=edited, dry_run=dry_run)
    _print_done(done, "reverted", as_json)


@patch.command("verify")
def verify_command(name: Set, tree: Tree, only: Only = None, as_json: Json = False) -> None:
    """Say of every patch whether it is applied, by the sha256 of its files. Exit code 1 where one is not."""
    from bevrepro.env import patching, patchset

    found = patchset.load(name)
    chosen = {each.file for each in found.choose(_words(only))}
    standings = patching.inspect(found, tree)
    states = {file: state for file, state in patching.state(found, tree).items() if file in chosen}
    reasons = {
        path: each.reason
        for path, each in standings.items()
        if each.reason and any(link.patch in chosen for link in found.chains[path])
    }
    ok = set(states.values()) <= {patching.APPLIED} and not reasons
    if as_json:
        print_json({"set": name, "tree": str(tree), "ok": ok, "patches": states, "files": reasons})
    else:
        for file, state in states.items():
            print(f"{state:<8}  {file}")
        for reason in reasons.values():
            print(f"          {reason}")
        print(f"{name}: {'every patch is applied' if ok else 'not as it should be'} in {tree}")
    if not ok:
        raise Exit(1)


@patch.command("check")
def check_command(
    tree: Annotated[Path, Argument(metavar="TREE", help="A checkout, an sdist or site-packages.")],
    as_json: Json = False,
) -> None:
    """Say what a tree is: the set for it, how far each file has come, and which lines differ."""
    from bevrepro.env import patch_check

    found = patch_check.check(tree)
    ok = all(each.fits for each in found.checks)
    if as_json:
        checks = [{**asdict(each), "fits": each.fits} for each in found.checks]
        print_json({"tree": str(tree), "commit": found.commit, "ok": ok, "sets": checks})
    else:
        print(f"{tree}: {f'git checkout at {found.commit}' if found.commit else 'no git checkout'}")
        for each in found.checks:
            _print_check(each, tree)
    if not ok:
        raise Exit(1)


def _print_check(found: "Check", tree: Path) -> None:
    fits = "fits" if found.fits else "does not fit"
    print(f"{found.set} {fits}: {len(found.applied)} of {found.patches} patches are applied")
    for each in found.files:
        print(f"  {each.path}: {each.said.removeprefix(each.path).lstrip(', ')}")
    if found.fits and len(found.applied) < found.patches:
        print(f"next: bevrepro patch apply {found.set} --tree {tree}")


def _words(only: list[str] | None) -> tuple[str, ...] | None:
    return tuple(only) if only else None


def _print_done(done: "Applied", verb: str, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "set": done.set,
                "tree": str(done.tree),
                "dry_run": done.dry_run,
                verb: list(done.patches),
                "already": list(done.already),
                "files": list(done.files),
            }
        )
        return
    would = "would be " if done.dry_run else ""
    for file in done.patches:
        print(f"{would}{verb}  {file}")
    if not done.patches:
        print(f"{done.set} is {verb} already: nothing to do in {done.tree}")
        return
    more = f", {len(done.already)} were so before" if done.already else ""
    print(f"{done.set}: {len(done.patches)} {would}{verb}{more}; {len(done.files)} files in {done.tree}")


def _title(one: "Patch") -> str:
    return one.file[5 : -len(".patch")].replace("-", " ")


def _details(one: "Patch") -> list[str]:
    return [
        f"when: {one.when}",
        f"why: {one.reason}",
        f"effect: {one.effect}",
        *(f"file: {change.path}" for change in one.changes),
        *(f"see: {link}" for link in one.links),
    ]


def _set_json(found: "PatchSet") -> dict[str, Any]:
    from bevrepro.env.patchset import digest

    return {
        "set": found.name,
        "package": found.package,
        "version": found.version,
        "stage": found.stage,
        "tree": found.tree,
        "origin": found.origin,
        "digest": digest(found),
        "patches": [
            {
                "file": one.file,
                "class": one.klass,
                "when": one.when,
                "reason": one.reason,
                "effect": one.effect,
                "links": list(one.links),
                "sha256": one.sha256,
                "changes": [vars(change) for change in one.changes],
            }
            for one in found.patches
        ],
    }
