"""Scores a results file with nuscenes-devkit's own, unmodified DetectionEval.

A subset of frames is scored by showing the devkit ground truth and predictions of those frames only.
"""

import contextlib
import io
import json
import math
import os
import shutil
import tempfile
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Optional, Sequence, Tuple

from .data.store import Store
from .errors import DataError, UserError
from .results import CLASS_RANGE_M, read_results
from .talk import Talk

if TYPE_CHECKING:
    from .devkit_tables import StoreNuScenes

VERSIONS = ("v1.0-mini", "v1.0-trainval", "v1.0-test")
_ERROR_NAMES = {
    "trans_err": "mATE",
    "scale_err": "mASE",
    "orient_err": "mAOE",
    "vel_err": "mAVE",
    "attr_err": "mAAE",
}


def load_ground_truth(store: Store, version: str, talk: Talk) -> "StoreNuScenes":
    """The devkit's view of the tables.  Raises DataError, or UserError when the devkit is not installed."""
    if not store.exists("%s/sample.json" % version):
        found = [name for name in VERSIONS if store.exists("%s/sample.json" % name)]
        raise DataError(
            "no tables of %s in %s" % (version, ", ".join(root.path for root in store.roots)),
            "Tables found: %s." % (", ".join(found) or "none"),
            "Give the data these infos were made from as --data-root, or add --format-only.",
        )
    try:
        with _quiet(talk):
            from .devkit_tables import StoreNuScenes
    except ImportError as error:
        raise UserError(
            "nuscenes-devkit cannot be imported here: %s" % error,
            "Results are scored by its own DetectionEval and nothing else.",
            "Install it in this environment (pip install nuscenes-devkit), or add --format-only.",
        ) from None
    return StoreNuScenes(store, version)


def split_of(nusc: "StoreNuScenes", sample_tokens: Sequence[str]) -> Tuple[str, List[str]]:
    """(the official split holding all these samples, every sample token of that split).

    Raises DataError for tokens that are not in the tables, or that belong to more than one split.
    """
    from nuscenes.utils.splits import create_splits_scenes

    known = {row["token"]: nusc.get("scene", row["scene_token"])["name"] for row in nusc.sample}
    strange = [token for token in sample_tokens if token not in known]
    if strange:
        raise DataError(
            "%d of %d samples are not in %s of %s, first %s"
            % (len(strange), len(sample_tokens), nusc.version, nusc.dataroot, strange[0]),
            "The infos or results were made from other data.",
            "Run `bevrepro data prepare` on this data first.",
        )
    names = (
        ("mini_train", "mini_val")
        if nusc.version.endswith("mini")
        else ("test",)
        if nusc.version.endswith("test")
        else ("train", "val")
    )
    scenes = create_splits_scenes()
    for name in names:
        members = set(scenes[name])
        if all(known[token] in members for token in sample_tokens):
            return name, [token for token, scene in known.items() if scene in members]
    raise DataError(
        "the frames to score are not all in one of the splits %s" % ", ".join(names),
        "nuScenes defines its numbers per split.",
        "Evaluate the train and val infos one by one.",
    )


def score(
    nusc: "StoreNuScenes",
    results_path: str,
    sample_tokens: Sequence[str],
    split: str,
    out_dir: str,
    talk: Talk,
) -> Dict[str, Any]:
    """Scores the given samples; returns `summary_of` and leaves metrics_summary.json in `out_dir`.

    Raises DataError when a sample has no results or there is nothing to compare with.
    """
    meta, results = read_results(results_path)
    missing = [token for token in sample_tokens if token not in results]
    if missing:
        raise DataError(
            "%s has no entry for %d of %d samples, first %s"
            % (results_path, len(missing), len(sample_tokens), missing[0]),
            "A sample without detections still needs an empty list; a missing one was not evaluated.",
            "Evaluate again, on the whole split.",
        )
    view = nusc.restricted_to(sample_tokens)
    check_ground_truth(view)
    scored = {token: results[token] for token in sample_tokens}
    if not any(scored.values()):
        talk.note("No sample has a detection within the class ranges: every score is 0.")
        scored[sample_tokens[0]] = [_placeholder(sample_tokens[0])]
    os.makedirs(out_dir, exist_ok=True)
    summary, table = _run_devkit(view, meta, scored, split, out_dir, talk)
    talk.note(table)
    return summary_of(summary, len(sample_tokens), split)


def check_ground_truth(view: "StoreNuScenes") -> None:
    """Raises DataError when no sample has a box to score against."""
    from nuscenes.eval.detection.utils import category_to_detection_name

    for sample in view.sample:
        if any(
            category_to_detection_name(view.get("sample_annotation", ann)["category_name"])
            for ann in sample["anns"]
        ):
            return
    raise DataError(
        "none of the %d samples has an annotated box of the ten classes" % len(view.sample),
        "There is nothing to score against (the test split is published without annotations).",
        "Use --format-only to write the results file.",
    )


def _placeholder(sample_token: str) -> Dict[str, Any]:
    """The devkit raises on a file without any box; this one lies far outside every range and is dropped."""
    return {
        "sample_token": sample_token,
        "translation": [1e9, 1e9, 0.0],
        "size": [1.0, 1.0, 1.0],
        "rotation": [1.0, 0.0, 0.0, 0.0],
        "velocity": [0.0, 0.0],
        "detection_name": next(iter(CLASS_RANGE_M)),
        "detection_score": 0.0,
        "attribute_name": "",
    }


def _run_devkit(
    view: "StoreNuScenes", meta: Dict[str, Any], scored: Dict[str, Any], split: str, out_dir: str, talk: Talk
) -> Tuple[Dict[str, Any], str]:
    from nuscenes.eval.common.config import config_factory
    from nuscenes.eval.detection.evaluate import DetectionEval

    scratch = tempfile.mkdtemp(prefix=".scoring-", dir=out_dir)
    try:
        path = os.path.join(scratch, "results.json")
        with open(path, "w") as file:
            json.dump({"meta": meta, "results": scored}, file)
        with _quiet(talk) as chatter:
            judge = DetectionEval(
                view, config_factory("detection_cvpr_2019"), path, split, scratch, verbose=False
            )
            summary: Dict[str, Any] = judge.main(plot_examples=0, render_curves=False)
        for name in ("metrics_details.json", "metrics_summary.json"):
            os.replace(os.path.join(scratch, name), os.path.join(out_dir, name))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    text = chatter.getvalue()
    return summary, text[text.index("mAP:") :].rstrip()


@contextlib.contextmanager
def _quiet(talk: Talk) -> Iterator[io.StringIO]:
    """Collects what the devkit prints (it also draws progress bars); told as one note if it fails."""
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            yield out
    except BaseException:
        for text in (out.getvalue(), err.getvalue()):
            if text.strip():
                talk.note(text.rstrip())
        raise


def _finite(value: float) -> Optional[float]:
    return None if math.isnan(value) else float(value)


def summary_of(metrics: Dict[str, Any], num_samples: int, split: str) -> Dict[str, Any]:
    """JSON: mAP, NDS, the five TP errors, AP and errors per class, and upstream's flat `detail` keys.

    A number that nuScenes does not define (the orientation of a cone) is null.
    """
    detail: Dict[str, Optional[float]] = {}
    for name, aps in metrics["label_aps"].items():
        for distance_m, ap in aps.items():
            detail["pts_bbox_NuScenes/%s_AP_dist_%s" % (name, distance_m)] = _finite(round(ap, 4))
        for key, value in metrics["label_tp_errors"][name].items():
            detail["pts_bbox_NuScenes/%s_%s" % (name, key)] = _finite(round(value, 4))
    errors = {_ERROR_NAMES[key]: _finite(value) for key, value in metrics["tp_errors"].items()}
    for key, value in errors.items():
        detail["pts_bbox_NuScenes/%s" % key] = None if value is None else round(value, 4)
    detail["pts_bbox_NuScenes/NDS"] = float(metrics["nd_score"])
    detail["pts_bbox_NuScenes/mAP"] = float(metrics["mean_ap"])
    return {
        "mAP": float(metrics["mean_ap"]),
        "NDS": float(metrics["nd_score"]),
        "num_samples": num_samples,
        "split": split,
        "errors": errors,
        "class_ap": {name: float(ap) for name, ap in metrics["mean_dist_aps"].items()},
        "detail": detail,
    }
