"""What is known about a run, read from the files that train, eval and prepare left; judged in `verdict`."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from bevrepro.core.finding import Finding
from bevrepro.doctor.data import examine_data
from bevrepro.drive.recipes import Recipe
from bevrepro.drive.report import read_object
from bevrepro.drive.verdict import Evidence
from bevrepro.probe.infos import probe_infos
from bevrepro.probe.metrics import Metrics, probe_metrics

SPLITS = ("train", "val")
# Counts are the recipe's own matter: the doctor compares them with the official sets.
COUNTS = ("infos-counts", "table-counts")


def gather(
    recipe: Recipe, eval_dir: Path | None, run_dir: Path | None, infos: Path | None = None
) -> Evidence:
    """Of a reproduction's folders; None or a missing file: nothing is known of it."""
    run = read_object(run_dir / "run.json", []) if run_dir is not None else None
    score, metrics = (None, None) if eval_dir is None else of_evaluation(eval_dir, recipe.subset)
    known = Evidence(metrics, run, score)
    return known if infos is None else replace(known, found=_findings(infos, recipe), frames=_frames(infos))


def of_evaluation(folder: Path, subset: str | None = None) -> tuple[dict[str, Any] | None, Metrics | None]:
    """(entry of eval.json, metrics) of a folder that eval wrote: of `subset`, else of the first there is."""
    scores = read_object(folder / "eval.json", []) or {}
    name = subset if subset in scores else next(iter(scores), None)
    if name is None:
        return None, None
    entry = scores[name]
    summary = probe_metrics(folder / "metrics" / name)
    return (entry if isinstance(entry, dict) else None), summary


def _files(infos: Path) -> dict[str, Path]:
    """By split; a single file is the one of its name."""
    if infos.is_file():
        return {split: infos for split in SPLITS if split in infos.stem}
    return {split: infos / f"nuscenes_infos_temporal_{split}.pkl" for split in SPLITS}


def _findings(infos: Path, recipe: Recipe) -> tuple[Finding, ...]:
    found = [each for path in _files(infos).values() if path.is_file() for each in examine_data(path)]
    return tuple(each for each in found if each.id not in COUNTS)


def _frames(infos: Path) -> dict[str, int | None]:
    return {split: probe_infos(path).frames for split, path in _files(infos).items() if path.is_file()}
