"""`bevrepro env verify`, `env pack` and `env export`: is it what was built; take it along."""

import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

from typer import Argument, BadParameter, Exit, Option, Typer

Prefix = Annotated[
    Path | None, Option("--prefix", help="The environment's folder. By default where --target is built.")
]
Target = Annotated[str, Option("--target", help="One of `bevrepro env list`.")]
MaybeTarget = Annotated[
    str | None,
    Option("--target", help="One of `bevrepro env list`. By default what the receipt says, or cpu."),
]
IndexUrl = Annotated[
    str | None, Option("--index-url", metavar="URL", help="Ask this index instead of pip's own setting.")
]
FindLinks = Annotated[
    list[str] | None, Option("--find-links", metavar="DIR", help="A folder of wheels; may be repeated.")
]
Json = Annotated[bool, Option("--json", help="Write the result as JSON to stdout.")]


class ExportFormat(str, Enum):
    """What other tools read."""

    pylock = "pylock"
    conda = "conda"


def register(env: Typer) -> None:
    """Add the commands."""
    env.command("verify")(verify_command)
    env.command("pack")(pack_command)
    env.command("export")(export_command)


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
    index_url: IndexUrl = None,
    find_links: FindLinks = None,
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
        print_done(pack.pack(planned, out, cuda, on_event), wanted, as_json)


def export_command(
    format: Annotated[ExportFormat, Option("--format", help="PEP 751's lock, or conda's environment.yml.")],
    target: Target = "cpu",
    out: Annotated[
        Path | None,
        Option("--out", metavar="FILE", help="By default pylock.TARGET.toml or environment.TARGET.yml."),
    ] = None,
    packed: Annotated[
        Path | None,
        Option(
            "--pack", metavar="FILE", help="A file of `env pack`: its packages' paths, no index is asked."
        ),
    ] = None,
    index_url: IndexUrl = None,
    find_links: FindLinks = None,
    as_json: Json = False,
) -> None:
    """Write a target for other tools: a pylock.toml with addresses and hashes, or an environment.yml.

    conda's file is unlocked, its pip part hashed. What only bevrepro does is named: operators, patches, nvcc.
    """
    from bevrepro.cli.calls import print_json
    from bevrepro.env import export, index
    from bevrepro.env import target as targets
    from bevrepro.env.evidence import badge

    wanted, name = targets.load(target), out.name if out else None
    if format is ExportFormat.conda:
        if packed or index_url or find_links:
            raise BadParameter("--pack, --index-url and --find-links are for --format pylock")
        exported = export.conda(wanted, name)
    elif packed:
        from bevrepro.env.pack import manifest_of

        exported = export.pylock_of_pack(wanted, manifest_of(packed, wanted), name)
    else:
        exported = export.pylock(wanted, index.configured().also(index_url, find_links or ()), name)
    folder = out.parent if out else Path()
    export.write(exported, folder)
    paths = [str(folder / each) for each in exported.files]
    if as_json:
        return print_json(
            {"target": target, "evidence": badge(wanted), "files": paths, "notes": list(exported.notes)}
        )
    print("\n".join(paths))
    for note in exported.notes:
        print(note, file=sys.stderr)
