"""`bevrepro env build, run, shell, digest, remove`: from a lock to an environment, and using it."""

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, BadParameter, Exit, Option, Typer

if TYPE_CHECKING:
    from bevrepro.env.build import Built
    from bevrepro.env.index import Index
    from bevrepro.env.layout import Layout
    from bevrepro.env.plan import Plan
    from bevrepro.env.receipt import Receipt
    from bevrepro.env.target import Target as EnvTarget

Target = Annotated[str | None, Option("--target", metavar="NAME", help="See `env list`; by default cpu.")]
Prefix = Annotated[
    Path | None,
    Option("--prefix", metavar="DIR", help="By default envs/TARGET in the data folder."),
]
Json = Annotated[bool, Option("--json", help="Write JSON to stdout.")]
Python = Annotated[
    str | None, Option("--python", metavar="PATH", help="Build on this interpreter and no other.")
]
IndexUrl = Annotated[
    str | None, Option("--index-url", metavar="URL", help="A mirror, instead of what pip is set up for.")
]
FindLinks = Annotated[
    list[str] | None,
    Option("--find-links", metavar="FOLDER", help="Look for packages there as well; may be repeated."),
]
Offline = Annotated[
    Path | None, Option("--offline", metavar="BUNDLE", help="From a pack of `env pack`, no network.")
]
Conda = Annotated[
    bool, Option("--conda", help="Python and compilers from a conda, mamba or micromamba that is here.")
]
Channel = Annotated[
    list[str] | None, Option("--conda-channel", metavar="URL", help="Instead of conda-forge.")
]
Rebuild = Annotated[
    bool, Option("--rebuild", help="Build it again; the old one works until the new one does.")
]
Operators = Annotated[
    list[str] | None,
    Option("--operators", metavar="NAME", help="Compile only these of mmcv's operators; may be repeated."),
]
Wait = Annotated[bool, Option("--wait", help="Wait for another build of the same environment.")]
INSIDE = {"ignore_unknown_options": True, "allow_interspersed_args": False}


def register(env: Typer) -> None:
    """Add the commands."""
    env.command("build")(build)
    env.command("run", context_settings=INSIDE)(run)
    env.command("shell")(shell)
    env.command("digest")(digest)
    env.command("remove")(remove)


def build(
    target: Target = None,
    prefix: Prefix = None,
    python: Python = None,
    index_url: IndexUrl = None,
    find_links: FindLinks = None,
    offline: Offline = None,
    conda: Conda = False,
    conda_channel: Channel = None,
    operators: Operators = None,
    rebuild: Rebuild = False,
    wait: Wait = False,
    dry_run: Annotated[bool, Option("--dry-run", help="Show what would be done.")] = False,
    as_json: Json = False,
) -> None:
    """Build a locked environment: packages by hash, operators compiled, patched, tested.

    DIR becomes a link to the new environment at the very end; a build that fails or is killed changes
    nothing, and the same command goes on with it.
    """
    if offline is not None and (index_url or find_links):
        raise BadParameter(
            "--offline takes everything from the bundle: leave --index-url and --find-links out"
        )
    if conda_channel and not conda or conda and python:
        raise BadParameter("--conda-channel goes with --conda, and --python does not")
    from bevrepro.env import bundled, index
    from bevrepro.env.evidence import named
    from bevrepro.env.target import load, with_operators

    wanted = load(target or "cpu")
    reduced = with_operators(wanted, operators) if operators else wanted
    if conda:
        from bevrepro.cli.env_conda import python_by_conda

        versions = bundled.pythons(offline, wanted)
        python = python_by_conda(wanted, versions, conda_channel or (), dry_run, as_json)
        if python is None:
            return
    with bundled.opened(offline, wanted) as folder:
        own = index.configured().also(index_url, find_links or [])
        source = bundled.index_of(folder) if folder else own
        plan = _plan(reduced, prefix, bundled.pythons(offline, wanted), python, source, rebuild, folder)
        if dry_run:
            _print_plan(plan, as_json)
            return
        built = _build(plan, rebuild, wait)
    if as_json:
        print(json.dumps(built.receipt.to_json(), indent=2, sort_keys=True))
    else:
        _print_receipt(built.receipt, built.was_there, named(wanted))


def run(
    command: Annotated[list[str], Argument(metavar="CMD", help="The program and its arguments, after --.")],
    target: Target = None,
    prefix: Prefix = None,
) -> None:
    """Run a program inside an environment; its exit code is this command's."""
    from bevrepro.env import run as running

    receipt, folder = _finished(target, prefix)
    running.start(command, running.variables(receipt, folder), folder)


def shell(target: Target = None, prefix: Prefix = None) -> None:
    """Start a shell inside an environment; leave it with `exit`."""
    from bevrepro.env import run as running
    from bevrepro.env.evidence import named_by

    receipt, folder = _finished(target, prefix)
    command, env = running.shell(receipt, running.variables(receipt, folder))
    print(f"In {named_by(receipt.target)} at {receipt.prefix}; `exit` leaves it.", file=sys.stderr)
    running.start(command, env, folder)


def digest(target: Target = None, prefix: Prefix = None, as_json: Json = False) -> None:
    """Print the digest of every file in an environment. Exit code 1: it is not the one that was built."""
    from bevrepro.env.digest import digest_at

    receipt, folder = _finished(target, prefix)
    now = digest_at(folder)
    if as_json:
        print(json.dumps({"digest": now, "built": receipt.digest, "same": now == receipt.digest}, indent=2))
    else:
        print(now)
    if now != receipt.digest:
        print(f"It was {receipt.digest} when it was built: bevrepro env verify", file=sys.stderr)
        raise Exit(1)


def remove(
    target: Target = None,
    prefix: Prefix = None,
    prune: Annotated[
        bool, Option("--prune", help="Only old and unfinished builds; keep what is used.")
    ] = False,
    dry_run: Annotated[bool, Option("--dry-run", help="Show what would be removed.")] = False,
    as_json: Json = False,
) -> None:
    """Remove an environment with all its builds, and nothing that is not one."""
    from bevrepro.core.errors import ConfigError
    from bevrepro.env import remove as removing

    place = _place(target, prefix)
    removal = removing.plan_removal(place, prune)
    if not prune and removal.prefix is None and not removal.builds:
        raise ConfigError(f"there is no environment at {place.prefix}", do="bevrepro env list")
    if not dry_run and (removal.prefix or removal.builds):
        removing.remove(place, removal)
    gone = [str(each) for each in ((removal.prefix,) if removal.prefix else ()) + removal.builds]
    if as_json:
        left = [str(each) for each in removal.left]
        print(json.dumps({"removed": gone, "left": left, "dry_run": dry_run}, indent=2))
        return
    for path in gone:
        print(f"{'would remove' if dry_run else 'removed'} {path}")
    for each in removal.left:
        print(f"left alone: {each}", file=sys.stderr)


def _plan(
    wanted: "EnvTarget",
    prefix: Path | None,
    versions: tuple[str, ...],
    python: str | None,
    source: "Index",
    rebuild: bool,
    folder: Path | None,
) -> "Plan":
    from bevrepro.env import interpreter, layout, plan

    place = layout.resolve(prefix, wanted.name)
    on = interpreter.find_python(versions, python)
    return plan.make_plan(wanted, place, on, source, rebuild=rebuild, bundle=folder)


def _build(plan: "Plan", rebuild: bool, wait: bool) -> "Built":
    from bevrepro.cli.progress import shown
    from bevrepro.env.build import Options, build

    if plan.interpreter.platform not in plan.target.platforms:
        known = ", ".join(plan.target.platforms) or "nothing yet"
        print(f"{plan.interpreter.platform} is unverified for {plan.target.name}: known is {known}.",
              file=sys.stderr)  # fmt: skip
    with shown(plan.target.name) as on_event:
        return build(plan, Options(rebuild, wait), on_event)


def _place(target: str | None, prefix: Path | None) -> "Layout":
    from bevrepro.env import layout

    return layout.resolve(prefix, target or "cpu")


def _finished(target: str | None, prefix: Path | None) -> "tuple[Receipt, Path]":
    """The receipt and folder of an environment that is there. BadParameter where it is of another target."""
    from bevrepro.env import layout
    from bevrepro.env.receipt import read_receipt

    folder = layout.real(prefix, target or "cpu")
    receipt = read_receipt(folder)
    if target and receipt.target != target:
        raise BadParameter(f"{prefix} holds {receipt.target}, not {target}")
    return receipt, folder


def _print_plan(plan: "Plan", as_json: bool) -> None:
    if as_json:
        print(json.dumps({**plan.to_json(), "dry_run": True}, indent=2, sort_keys=True))
        return
    from bevrepro.env.evidence import named

    print(f"{named(plan.target)}: {plan.target.title}")
    print(f"  at      {plan.place.prefix} -> {plan.build}")
    print(f"  on      Python {plan.interpreter.version}, {plan.interpreter.path}")
    print(f"  from    {plan.to_json()['from']}")
    if plan.finished:
        print("  It is there already; nothing would be done.")
        return
    for number, step in enumerate(plan.steps, 1):
        print(f"  {number}. {step.what}")


def _print_receipt(receipt: "Receipt", was_there: bool, name: str) -> None:
    state = "is there already" if was_there else "is ready"
    seconds = sum(float(step["seconds"]) for step in receipt.steps)
    print(f"{name} {state}: {receipt.prefix}")
    print(f"  Python {receipt.python['version']}, {len(receipt.packages)} packages, {seconds:.1f} s")
    for each in receipt.selftest:
        print(f"  {each['name']}: {each['said']}")
    print(f"  digest {receipt.digest}")
    default = receipt.prefix.endswith(f"/bevrepro/envs/{receipt.target}")
    own = f"--target {receipt.target}" if default else f"--prefix {shlex.quote(receipt.prefix)}"
    print(f"  bevrepro env run {own} -- python -m bevformer.selftest")
