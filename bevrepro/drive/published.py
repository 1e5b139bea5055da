"""A result against the published table: what a folder, a metrics file or a log holds, judged by a recipe."""

import os
from dataclasses import replace
from pathlib import Path

from bevrepro.core.errors import ConfigError, DataError
from bevrepro.drive import evidence
from bevrepro.drive.causes import Evidence
from bevrepro.drive.recipes import EVAL, TRAIN, Recipe
from bevrepro.drive.verdict import Verdict, judge
from bevrepro.probe.metrics import probe_metrics

KINDS = {"eval": EVAL, "train": TRAIN}


def kind_named(recipe: Recipe, name: str | None) -> str:
    """`eval` or `train` as a recipe's kind; its first where none is named. ConfigError."""
    if name is None:
        return recipe.kinds[0]
    if name not in KINDS or KINDS[name] not in recipe.kinds:
        raise ConfigError(
            f"{recipe.id} has no numbers of kind {name}", f"It has: {', '.join(recipe.kinds)}.",
            f"--kind {recipe.kinds[0].partition('-')[0]}",
        )  # fmt: skip
    return KINDS[name]


def against_table(path: Path, recipe: Recipe, kind: str | None = None) -> Verdict:
    """Of a work folder, an evaluation's folder, a metrics_summary.json or a log with the devkit's table.

    A folder with a run.json is judged as a training unless `kind` says otherwise. DataError for no numbers.
    """
    known = _known(path, recipe)
    if known.metrics is None or known.metrics.nds is None:
        why = known.metrics.broken or known.metrics.place.said if known.metrics else None
        raise DataError(
            f"{path} holds no metrics{f': {why}' if why else ''}",
            "A result is an eval.json with its metrics, a metrics_summary.json, or a log of upstream's.",
            "bevrepro eval CONFIG CKPT --infos INFOS --out FOLDER",
        )
    if kind is None and known.run is not None and TRAIN in recipe.kinds:
        return judge(recipe, TRAIN, known)
    return judge(recipe, kind_named(recipe, kind), known)


def _known(path: Path, recipe: Recipe) -> Evidence:
    if not os.path.isdir(path) or (path / "metrics_summary.json").is_file():
        return Evidence(probe_metrics(path))
    folders = [path, *sorted(each.parent for each in path.glob("eval/**/eval.json"))]
    for folder in folders:
        score, metrics = evidence.of_evaluation(folder, recipe.subset)
        if score is not None:
            run_dir = next((each for each in (path, *folder.parents) if (each / "run.json").is_file()), None)
            return replace(evidence.gather(recipe, None, run_dir), metrics=metrics, score=score)
    return Evidence()
