"""`bevrepro weights list, get, verify`: published and initial weights."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option, Typer

if TYPE_CHECKING:
    from bevrepro.drive.weights import Checked, Weights

Name = Annotated[str, Argument(metavar="NAME", help="As `weights list` calls it.")]
Into = Annotated[Path, Option("--into", metavar="DIR", help="Folder of the files.")]
Json = Annotated[bool, Option("--json", help="Write JSON to stdout.")]
CKPTS = Path("ckpts")


def register(app: Typer) -> None:
    """Add the family."""
    family = Typer(help="Published and initial weights: where they are, and whether a file is one.",
                   no_args_is_help=True)  # fmt: skip
    family.command("list")(list_command)
    family.command("get")(get_command)
    family.command("verify")(verify_command)
    app.add_typer(family, name="weights")


def list_command(into: Into = CKPTS, as_json: Json = False) -> None:
    """Print what is known: source, size, digest, and whether it is in DIR already."""
    from bevrepro.drive.weights import all_weights

    known = all_weights()
    if as_json:
        print(json.dumps([_row(each, into) for each in known], indent=2))
        return
    for each in known:
        here = "  (here)" if (into / each.file).is_file() else ""
        print(f"{each.id:<21}{each.what}{here}")
        print(f"    {each.url or each.why_not}")
        print(f"    {each.file}, {each.size_text}; sha256: {each.digest_text}")


def get_command(
    name: Name,
    into: Into = CKPTS,
    mirror: Annotated[
        str | None, Option("--mirror", metavar="URL|DIR", help="Where a file of the same name lies.")
    ] = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Say what would be fetched, fetch nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Fetch one, going on where an earlier try stopped; it gets its name when it was checked."""
    from bevrepro.cli.progress import shown
    from bevrepro.drive.weights import get, weights, where_to_put

    wanted = weights(name)
    if dry_run:
        print(f"{wanted.url or wanted.why_not} -> {into / wanted.file} ({wanted.size_text})")
        print(where_to_put(wanted, into), file=sys.stderr)
        return
    with shown("weights") as on_event:
        checked = get(wanted, into, mirror, on_event)
    _tell(checked, as_json)


def verify_command(name: Name, into: Into = CKPTS, as_json: Json = False) -> None:
    """Check a file that is in DIR. Exit code 7: it is not that one."""
    from bevrepro.core.errors import CheckpointError
    from bevrepro.drive.weights import check, weights, where_to_put

    wanted = weights(name)
    path = into / wanted.file
    if not path.is_file():
        raise CheckpointError(f"there is no {path}", "", where_to_put(wanted, into))
    _tell(check(wanted, path), as_json)


def _tell(checked: "Checked", as_json: bool) -> None:
    if as_json:
        print(json.dumps({"path": str(checked.path), "sha256": checked.sha256, "checked_by": checked.by,
                          "note": checked.note, "was_there": checked.was_there}, indent=2))  # fmt: skip
        return
    print(f"{checked.path}: sha256 {checked.sha256}")
    print(f"Checked by {checked.by}.", file=sys.stderr)
    if checked.note:
        print(checked.note, file=sys.stderr)


def _row(each: "Weights", into: Path) -> dict[str, Any]:
    return {
        "id": each.id, "file": each.file, "url": each.url, "kind": each.kind, "what": each.what,
        "size": each.size, "sha256": each.sha256, "sha256_prefix": each.prefix,
        "reported_sha256": each.reported_sha256, "source": each.source,
        "here": (into / each.file).is_file(),
    }  # fmt: skip
