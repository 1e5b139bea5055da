"""`bevrepro viz`: pictures of samples."""

from pathlib import Path
from typing import Annotated, Any

from typer import Option, Typer

from bevrepro.cli.calls import Json, given, print_json, run_verb
from bevrepro.cli.run_data import InfosPath, Roots, data


def register(app: Typer) -> None:
    """Add the command."""
    app.command("viz")(viz)


def viz(
    infos: InfosPath,
    out: Annotated[Path, Option("--out", help="Folder for the pictures.")],
    data_root: Roots = None,
    results: Annotated[
        Path | None, Option("--results", help="results_nusc.json from eval; without it only the true boxes.")
    ] = None,
    split: Annotated[str, Option("--split", metavar="train|val", help="Which file of --infos.")] = "val",
    sample: Annotated[
        list[str] | None, Option("--sample", metavar="TOKEN", help="Which frame; may be repeated.")
    ] = None,
    count: Annotated[int | None, Option("--count", min=1, help="Without --sample: so many, spread.")] = None,
    score: Annotated[
        float | None, Option("--score", min=0, max=1, help="Draw predictions from this score on.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Draw single samples as PNG: six cameras with predicted and true boxes, and the bird's-eye view."""
    argv: list[Any] = [*data(data_root, infos), "--split", split, "--out", out]
    argv += given("--results", results) + given("--count", count) + given("--score", score)
    for token in sample or []:
        argv += ["--sample", token]
    result = run_verb("viz", argv)
    if as_json:
        print_json(result)
        return
    for picture in result["pictures"]:
        print(picture["path"])
