"""What is known about a run, read from the files that train, eval and prepare left; judged in `verdict`."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bevrepro.core.finding import Finding
from bevrepro.doctor.ckpt import examine_ckpt
from bevrepro.doctor.data import CHECKS
from bevrepro.doctor.judge import judge_all
from bevrepro.drive.causes import Evidence
from bevrepro.drive.recipes import Recipe
from bevrepro.drive.report import read_object
from bevrepro.probe.infos import Infos
from bevrepro.probe.metrics import Metrics, probe_metrics
from bevrepro.probe.nuscenes import DataSet, probe_data

SPLITS = ("train", "val")
# What is asked of the infos, and of a data root; counts are the recipe's own matter.
OF_INFOS = (
    "data-unreadable",
    "infos-refused",
    "infos-broken",
    "infos-keys",
    "infos-convention",
    "infos-zero-can",
)
OF_ROOT = ("data-unreadable", "data-nothing", "archive-form")
OF_TABLES = ("tables-missing",)


def gather(
    recipe: Recipe,
    eval_dir: Path | None,
    run_dir: Path | None,
    infos: Path | None = None,
    roots: Sequence[Path] = (),
    checkpoint: Path | None = None,
) -> Evidence:
    """Of a reproduction's folders; None or a missing file: nothing is known of it."""
    run = read_object(run_dir / "run.json", []) if run_dir is not None else None
    score, metrics = (None, None) if eval_dir is None else of_evaluation(eval_dir, recipe.subset)
    seen = {} if infos is None else _seen(infos)
    data = {root: probe_data(root) for root in roots}
    found = [each for one in seen.values() for each in _of_infos(one)]
    found += [each for one in data.values() for each in _of_root(one, len(roots) == 1)]
    if checkpoint is not None and checkpoint.is_file():
        found += examine_ckpt(checkpoint)
    files = {split: each.infos[0] for split, each in seen.items() if each.infos}
    images = _images(next(iter(data.values()))) if len(data) == 1 else None
    return Evidence(metrics, run, score, tuple(found), files, images)


def of_evaluation(folder: Path, subset: str | None = None) -> tuple[dict[str, Any] | None, Metrics | None]:
    """(entry of eval.json, metrics) of a folder that eval wrote: of `subset`, else of the first there is."""
    scores = read_object(folder / "eval.json", []) or {}
    name = subset if subset in scores else next(iter(scores), None)
    if name is None:
        return None, None
    entry = scores[name]
    summary = probe_metrics(folder / "metrics" / name)
    return ({**entry, "subset": name} if isinstance(entry, dict) else None), summary


def _seen(infos: Path) -> dict[str, DataSet]:
    """The prepared files by split, each read once; a single file is the one of its name."""
    if infos.is_file():
        files = {split: infos for split in SPLITS if split in infos.stem}
    else:
        files = {split: infos / f"nuscenes_infos_temporal_{split}.pkl" for split in SPLITS}
    return {split: probe_data(path) for split, path in files.items() if path.is_file()}


def _of_infos(data: DataSet) -> Iterator[Finding]:
    """Boxes of mmdet3d 1.0 are no fault where the file is not one of `data prepare`: they are converted."""
    for each in judge_all(data, [check for check in CHECKS if check.id in OF_INFOS]):
        if each.id != "infos-convention" or not all(map(is_converted, data.infos)):
            yield each


def is_converted(infos: Infos) -> bool:
    """Whether the model plane turns the file's boxes where its cars show that they have to be."""
    return infos.convention != "0.17"


def _of_root(data: DataSet, alone: bool) -> Iterator[Finding]:
    """Several roots complete each other: only what each is by itself counts then."""
    asked = OF_ROOT + OF_TABLES if alone else OF_ROOT
    yield from judge_all(data, [check for check in CHECKS if check.id in asked])


def _images(data: DataSet) -> tuple[int, int, str] | None:
    """Of the one data root, where it is a folder with tables."""
    if not os.path.isdir(data.place.path):
        return None
    missing = [name for each in data.tables for name in each.images_missing]
    looked = sum(each.images_looked_for or 0 for each in data.tables)
    return (len(missing), looked, missing[0]) if missing else (0, looked, "")
