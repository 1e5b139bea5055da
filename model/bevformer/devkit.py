"""Scores a results file with nuscenes-devkit's own, unmodified DetectionEval.

A subset of frames is scored by showing the devkit ground truth and predictions of those frames only.
"""

import contextlib
import io
import math
import os
import shutil
import sys
import tempfile
from typing import (
    TYPE_CHECKING,
    Any,
    Collection,
    Dict,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Set,
    Tuple,
)

from .collecting import without_gc
from .data.store import Store
from .errors import DataError, UserError
from .results_read import Results
from .results_share import share_out
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


def load_ground_truth(
    store: Store, version: str, talk: Talk, sample_tokens: Optional[Collection[str]] = None
) -> "StoreNuScenes":
    """The devkit's view of the tables, with the annotations of the scenes of these samples (None: of all).

    Raises DataError, or UserError when the devkit is not installed."""
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
    return StoreNuScenes(store, version, sample_tokens)


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
    """`score_all` of one set of samples."""
    return score_all(nusc, results_path, {out_dir: sample_tokens}, split, talk)[out_dir]


def score_all(
    nusc: "StoreNuScenes", results_path: str, subsets: Mapping[str, Sequence[str]], split: str, talk: Talk
) -> Dict[str, Dict[str, Any]]:
    """Scores sets of samples, each named by its folder; returns `summary_of` and leaves metrics_summary.json.

    The file is read once, sample by sample, whatever the number of sets; what is held in memory is the
    devkit's own.  Raises DataError when a sample has no results, the file is not one that the devkit takes,
    or there is nothing to compare with.
    """
    views = {folder: nusc.restricted_to(tokens) for folder, tokens in subsets.items()}
    for view in views.values():
        check_ground_truth(view)
    scores: Dict[str, Dict[str, Any]] = {}
    with contextlib.ExitStack() as stack:
        parts = {folder: stack.enter_context(_scratch(folder)) for folder in subsets}
        files = share_out(
            results_path, subsets, parts, lambda found: _check(results_path, subsets, found, nusc)
        )
        for folder, tokens in subsets.items():
            talk.note("Scoring %d frames (%s of %s)" % (len(tokens), os.path.basename(folder), split))
            path, boxes = files[folder]
            if not boxes:
                talk.note("No sample has a detection within the class ranges: every score is 0.")
            summary, table = _run_devkit(views[folder], path, parts[folder], split, folder, talk)
            talk.note(table)
            scores[folder] = summary_of(summary, len(tokens), split)
    return scores


@contextlib.contextmanager
def _scratch(folder: str) -> Iterator[str]:
    os.makedirs(folder, exist_ok=True)
    path = tempfile.mkdtemp(prefix=".scoring-", dir=folder)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _check(path: str, subsets: Mapping[str, Sequence[str]], found: Set[str], nusc: "StoreNuScenes") -> None:
    """Raises DataError for a file of other samples, or one that lacks some."""
    strangers = found.difference(row["token"] for row in nusc.sample)
    for wanted in subsets.values():
        missing = [token for token in wanted if token not in found]
        if strangers or len(missing) == len(wanted):
            raise DataError(
                "%s is of other samples: %s" % (path, _whose(found, strangers, nusc)),
                "Of the %d samples to score it has %d." % (len(wanted), len(wanted) - len(missing)),
                "Give the --split, infos and data that it was made with.",
            )
        if missing:
            raise DataError(
                "%s has no entry for %d of %d samples, first %s"
                % (path, len(missing), len(wanted), missing[0]),
                "A sample without detections still needs an empty list; a missing one was not evaluated.",
                "Evaluate again, on the whole split.",
            )


def _whose(found: Set[str], strangers: Set[str], nusc: "StoreNuScenes") -> str:
    if strangers:
        some = (len(strangers), len(found), nusc.version, min(strangers))
        return "%d of its %d are not in %s, such as %s" % some
    return "they are of %s" % split_of(nusc, sorted(found))[0] if found else "it has none"


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


def _run_devkit(
    view: "StoreNuScenes", path: str, scratch: str, split: str, out_dir: str, talk: Talk
) -> Tuple[Dict[str, Any], str]:
    from nuscenes.eval.common.config import config_factory
    from nuscenes.eval.detection.evaluate import DetectionEval

    with _quiet(talk) as chatter, _streamed_reading(), without_gc():
        judge = DetectionEval(
            view, config_factory("detection_cvpr_2019"), path, split, scratch, verbose=False
        )
        summary: Dict[str, Any] = judge.main(plot_examples=0, render_curves=False)
    for name in ("metrics_details.json", "metrics_summary.json"):
        os.replace(os.path.join(scratch, name), os.path.join(out_dir, name))
    text = chatter.getvalue()
    return summary, text[text.index("mAP:") :].rstrip()


@contextlib.contextmanager
def _streamed_reading() -> Iterator[None]:
    """The devkit's own reader holds the file's JSON and its boxes at once: 1.7 KB a box instead of 0.9.  The
    boxes are the same, made by its own class."""
    from nuscenes.eval.detection import evaluate

    its_own = evaluate.load_prediction
    evaluate.load_prediction = load_prediction
    try:
        yield
    finally:
        evaluate.load_prediction = its_own


def load_prediction(
    result_path: str, max_boxes_per_sample: int, box_cls: Any, verbose: bool = False
) -> Tuple[Any, Dict[str, Any]]:
    """Stands for the devkit's: (EvalBoxes, meta), read sample by sample.  Raises DataError."""
    from nuscenes.eval.common.data_classes import EvalBoxes

    boxes, results = EvalBoxes(), Results(result_path)
    for token, entries in results.samples():
        for entry in entries:  # of each name one object, not one per box
            entry["sample_token"] = token
            entry.update((key, sys.intern(entry[key])) for key in ("detection_name", "attribute_name"))
        boxes.add_boxes(token, [box_cls.deserialize(entry) for entry in entries])
    return boxes, results.meta


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
