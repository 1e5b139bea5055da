"""What is known about a run, read from the files that train, eval and prepare left; judged in `verdict`."""

from pathlib import Path
from typing import Any

from bevrepro.doctor.data import CHECKS
from bevrepro.doctor.judge import judge_all
from bevrepro.drive.recipes import Recipe
from bevrepro.drive.report import read_object
from bevrepro.drive.verdict import Evidence
from bevrepro.probe.metrics import Metrics, probe_metrics
from bevrepro.probe.nuscenes import DataSet, probe_data

SPLITS = ("train", "val")
# Counts are the recipe's own matter: the doctor compares them with the official sets.
COUNTS = ("infos-counts", "table-counts")


def gather(
    recipe: Recipe, eval_dir: Path | None, run_dir: Path | None, infos: Path | None = None
) -> Evidence:
    """Of a reproduction's folders; None or a missing file: nothing is known of it."""
    run = read_object(run_dir / "run.json", []) if run_dir is not None else None
    score, metrics = (None, None) if eval_dir is None else of_evaluation(eval_dir, recipe.subset)
    seen = {} if infos is None else _seen(infos)
    found = [each for data in seen.values() for each in judge_all(data, CHECKS) if each.id not in COUNTS]
    frames = {split: data.infos[0].frames for split, data in seen.items() if data.infos}
    return Evidence(metrics, run, score, tuple(found), frames=frames)


def of_evaluation(folder: Path, subset: str | None = None) -> tuple[dict[str, Any] | None, Metrics | None]:
    """(entry of eval.json, metrics) of a folder that eval wrote: of `subset`, else of the first there is."""
    scores = read_object(folder / "eval.json", []) or {}
    name = subset if subset in scores else next(iter(scores), None)
    if name is None:
        return None, None
    entry = scores[name]
    summary = probe_metrics(folder / "metrics" / name)
    return (entry if isinstance(entry, dict) else None), summary


def _seen(infos: Path) -> dict[str, DataSet]:
    """The prepared files by split, each read once; a single file is the one of its name."""
    if infos.is_file():
        files = {split: infos for split in SPLITS if split in infos.stem}
    else:
        files = {split: infos / f"nuscenes_infos_temporal_{split}.pkl" for split in SPLITS}
    return {split: probe_data(path) for split, path in files.items() if path.is_file()}
