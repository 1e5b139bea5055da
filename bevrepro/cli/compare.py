"""`bevrepro compare A B`: two runs, a run and an upstream log, or a result and the published table."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Exit, Option, Typer

from bevrepro.cli.verdict_view import print_verdict

if TYPE_CHECKING:
    from bevrepro.drive.compare import Comparison

Json = Annotated[bool, Option("--json", help="Write JSON to stdout.")]


def register(app: Typer) -> None:
    """Add the command."""
    app.command("compare")(compare_command)


def compare_command(
    left: Annotated[
        Path,
        Argument(metavar="A", help="A work folder, a log, or (against a recipe) a metrics_summary.json."),
    ],
    right: Annotated[
        str,
        Argument(metavar="B", help="The same; or a recipe's name: the published numbers."),
    ],
    tolerance: Annotated[
        float | None, Option("--tolerance", min=0, help="Share by which values may differ. [default: 0.001]")
    ] = None,
    rows: Annotated[int, Option("--rows", min=2, help="Lines of the table.")] = 12,
    html: Annotated[
        Path | None, Option("--html", metavar="FILE", help="Write a page with the curves, too.")
    ] = None,
    kind: Annotated[
        str | None, Option("--kind", metavar="eval|train", help="Against a recipe: which of its numbers.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Overlay loss, learning rate and gradient norm; name the first step that parts, and why.

    Exit code 1: they part, or the result is not the published one.
    """
    from bevrepro.drive.recipes import named

    known = named(right)
    if known is not None:
        from bevrepro.drive.published import against_table

        verdict = against_table(left, known, kind)
        print_verdict(verdict, as_json)
        raise Exit(0 if verdict.passed else 1)
    from bevrepro.drive.compare import TOLERANCE, compare
    from bevrepro.drive.compare_html import write_page
    from bevrepro.drive.series import read_series

    found = compare(
        read_series(left), read_series(Path(right)), TOLERANCE if tolerance is None else tolerance
    )
    if html is not None:
        write_page(found, html)
    if as_json:
        print(json.dumps(_as_json(found), indent=2))
    else:
        print("\n".join(lines(found, rows)))
    raise Exit(0 if found.equal else 1)


def lines(found: "Comparison", rows: int) -> list[str]:
    """The table, where they part, and what the records say differently."""
    from bevrepro.drive.compare import thinned

    told = [f"A  {found.left.path} ({found.left.kind}, {len(found.left.points)} logged lines)"]
    told += [f"B  {found.right.path} ({found.right.kind}, {len(found.right.points)} logged lines)", ""]
    shown = thinned(found.rows, rows, [each.at for each in found.partings])
    width = max((len(row.at) for row in shown), default=4)
    titles = "".join(f"{name + ' ' + side:>13}" for name in ("lr", "loss", "norm") for side in "AB")
    told.append(f"{'':<{width}}{titles}")
    marks: dict[str, str] = {}
    for each in found.partings:
        marks[each.at] = f"{marks[each.at]}, {each.quantity}" if each.at in marks else each.quantity
    for row in shown:
        cells = [
            _cell(side.get(name)) for name in ("lr", "loss", "grad_norm") for side in (row.left, row.right)
        ]
        mark = f"  < {marks[row.at]} parts" if row.at in marks else ""
        told.append(f"{row.at:<{width}}" + "".join(f"{cell:>13}" for cell in cells) + mark)
    told.append("")
    told += [
        f"{each.quantity} parts first at {each.at}: {each.left:.6g} and {each.right:.6g} ({each.share:.2%})"
        for each in found.partings
    ]
    if found.equal:
        told.append(f"No quantity parts at {found.common} common places (tolerance {found.tolerance:g}).")
    told += [f"Note: {note}" for note in found.notes]
    if found.differences:
        told += ["", "What is different (A | B):", *(f"  {each}" for each in found.differences)]
    elif found.partings:
        told += ["", "The records say nothing different: see `bevrepro replay A/run.json`."]
    return told


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.5g}"


def _as_json(found: "Comparison") -> dict[str, Any]:
    return {
        "a": found.left.path,
        "b": found.right.path,
        "equal": found.equal,
        "common": found.common,
        "tolerance": found.tolerance,
        "partings": [asdict(each) for each in found.partings],
        "differences": list(found.differences),
        "notes": list(found.notes),
        "rows": [asdict(row) for row in found.rows],
    }
