"""`bevrepro viz`: pictures of samples, and a scene as a video."""

from pathlib import Path
from typing import Annotated, Any

from typer import BadParameter, Option, Typer

from bevrepro.cli.calls import Json, given, print_json, run_verb
from bevrepro.cli.run_data import InfosPath, Roots, data


def register(app: Typer) -> None:
    """Add the command."""
    app.command("viz")(viz)


def viz(
    infos: InfosPath,
    out: Annotated[Path | None, Option("--out", help="Folder for the pictures.")] = None,
    data_root: Roots = None,
    results: Annotated[
        Path | None, Option("--results", help="results_nusc.json from eval; without it only the true boxes.")
    ] = None,
    split: Annotated[str, Option("--split", metavar="train|val|test", help="Which file of --infos.")] = "val",
    sample: Annotated[
        list[str] | None, Option("--sample", metavar="TOKEN", help="Which frame; may be repeated.")
    ] = None,
    count: Annotated[int | None, Option("--count", min=1, help="Without --sample: so many, spread.")] = None,
    scene: Annotated[
        str | None, Option("--scene", metavar="NAME", help="All frames of this scene, in order.")
    ] = None,
    video: Annotated[
        Path | None, Option("--video", metavar="FILE", help="The scene as one .mp4 or .gif instead.")
    ] = None,
    fps: Annotated[
        float | None, Option("--fps", min=0.1, max=60, help="Of the video; by default 2, as it was recorded.")
    ] = None,
    style: Annotated[
        str,
        Option(
            "--style", metavar="screen|paper", help="paper: two columns wide, letters of 6 points, 300 dpi."
        ),
    ] = "screen",
    dpi: Annotated[int | None, Option("--dpi", min=30, help="Dots per inch.")] = None,
    score: Annotated[
        float | None, Option("--score", min=0, max=1, help="Draw predictions from this score on.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Draw samples as PNG: six cameras with predicted and true boxes, and the bird's-eye view.

    A class has the same colour in every picture. Predictions are solid lines, true boxes are dashed.
    """
    if out is None and video is None:
        raise BadParameter("give --out FOLDER for pictures, or --video FILE")
    argv: list[Any] = [*data(data_root, infos), "--split", split, "--style", style, *given("--out", out)]
    argv += given("--results", results) + given("--count", count) + given("--score", score)
    argv += given("--scene", scene) + given("--video", video) + given("--fps", fps) + given("--dpi", dpi)
    for token in sample or []:
        argv += ["--sample", token]
    result = run_verb("viz", argv)
    if as_json:
        print_json(result)
        return
    if result.get("video"):
        print(f"{result['video']} ({result['frames']} pictures, {result['codec']})")
    for picture in result["pictures"]:
        print(picture["path"])
