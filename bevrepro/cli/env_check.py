"""`bevrepro env verify`, `env pack` and `env export`: is it what was built; take it along."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Exit, Option, Typer

Prefix = Annotated[
    Path | None, Option("--prefix", help="The environment's folder. By default where --target is built.")
]
Target = Annotated[str, Option("--target", help="One of `bevrepro env list`.")]
MaybeTarget = Annotated[
    str | None,
    Option("--target", help="One of `bevrepro env list`. By default what the receipt says, or cpu."),
]
Json = Annotated[bool, Option("--json", help="Write the result as JSON to stdout.")]


def register(env: Typer) -> None:
    """Add the commands."""
    env.command("verify")(verify_command)
    env.command("pack")(pack_command)


def verify_command(
    prefix: Prefix = None,
    target: MaybeTarget = None,
    deep: Annotated[
        bool, Option("--deep", help="Compile every source anew to see whether its bytecode was forged.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compare every installed file with what was installed: edits, gaps, strangers, versions, patches.

    Exits with 1 where anything is not as it was built.
    """
    from bevrepro.env.layout import resolve
    from bevrepro.env.verify import verify

    # Any folder may be named, also one that bevrepro did not build.
    report = verify(prefix or resolve(None, target or "cpu").prefix, target, deep)
    if as_json:
        from bevrepro.cli.calls import print_json
        from bevrepro.core.codec import to_json

        print_json({"clean": report.clean, **to_json(report)})
    else:
        from bevrepro.cli.env_verify_view import print_report

        print_report(report)
    if not report.clean:
        raise Exit(1)


def pack_command(
    out: Annotated[Path, Argument(metavar="OUT.tar", help="The file to write.")],
    target: Target = "cpu",
    with_cuda: Annotated[
        bool, Option("--with-cuda", help="Take the files of the target's CUDA toolkit and its g++ along.")
    ] = False,
    python: Annotated[
        str | None, Option("--python", metavar="PATH", help="The Python whose wheels are packed.")
    ] = None,
    index_url: Annotated[
        str | None, Option("--index-url", metavar="URL", help="Ask this index instead of pip's own setting.")
    ] = None,
    find_links: Annotated[
        list[str] | None, Option("--find-links", metavar="DIR", help="A folder of wheels; may be repeated.")
    ] = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Only show what would be packed.")] = False,
    as_json: Json = False,
) -> None:
    """Put everything that a target is built from into one file, for `env build --offline` without a network.

    The same target, lock and Python give the same bytes.
    """
    from bevrepro.cli.env_pack_view import print_done, print_planned
    from bevrepro.cli.progress import shown
    from bevrepro.env import index, interpreter, pack, pack_cuda
    from bevrepro.env import target as targets

    wanted = targets.load(target)
    places = index.configured().also(index_url, find_links or ())
    found = interpreter.find_python(wanted.python, python)
    planned = pack.plan(wanted, found, places)
    if dry_run:
        return print_planned(planned, as_json)
    with shown("pack") as on_event:
        cuda = pack_cuda.gather(wanted.cuda.version, on_event=on_event) if with_cuda and wanted.cuda else None
        print_done(pack.pack(planned, out, cuda, on_event), as_json)
