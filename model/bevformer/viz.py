"""`viz`: one PNG per sample - six cameras with predicted and true boxes, and the bird's-eye view.

viz --data-root R... --infos FILE|DIR --results results_nusc.json --sample TOKEN... --out DIR
"""

import argparse
import datetime
import os
import re
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Sequence

import numpy as np

from .errors import DataError, UserError
from .results import read_results, to_detections
from .talk import Talk
from .types import CAMERAS

if TYPE_CHECKING:
    from .draw import Boxes, Picture

TRUTH_RANGE_M = (-61.2, -61.2, -10.0, 61.2, 61.2, 10.0)  # as far as the model may predict
LIDAR_COLUMNS = 5


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="viz", description="Draw predictions and truth.")
    parser.add_argument("--data-root", action="append", required=True, help="folder or archive; repeatable")
    parser.add_argument("--infos", required=True, help="a prepared file, or the folder that holds both")
    parser.add_argument(
        "--split", choices=("train", "val", "test"), default="val", help="which file of that folder"
    )
    parser.add_argument("--results", help="results_nusc.json; without it only the true boxes are drawn")
    parser.add_argument("--sample", nargs="+", action="extend", default=[], metavar="TOKEN")
    parser.add_argument("--count", type=int, default=4, help="without --sample: so many, spread evenly")
    parser.add_argument("--score", type=float, default=0.3, help="draw predictions from this score on")
    parser.add_argument("--out", required=True, help="folder for the pictures")
    args = parser.parse_args(argv)
    if not 0 <= args.score <= 1:
        parser.error("--score has to be between 0 and 1")
    if args.count < 1:
        parser.error("--count has to be at least 1")
    return args


def main(argv: Sequence[str], talk: Talk) -> int:
    args = parse(argv)
    from .data.infos import infos_path, load_infos
    from .data.store import open_store
    from .evaluate import make_folder

    try:
        from . import draw
    except ImportError as error:
        raise UserError(
            "nothing can be drawn here: %s" % error,
            "Pictures need matplotlib and OpenCV.",
            "Install them in this environment: pip install matplotlib opencv-python-headless",
        ) from None
    store = open_store(args.data_root)
    infos = load_infos(infos_path(args.infos, args.split))
    results = read_results(args.results)[1] if args.results else None
    chosen = choose(infos.infos, results, args.sample, args.count, args.results, infos.source)
    scene_names = _scene_names(store, infos.version)
    make_folder(args.out)
    pictures: List[Dict[str, Any]] = []
    for done, info in enumerate(chosen):
        talk.progress("viz", done, len(chosen), info["token"])
        scene = scene_names.get(info["scene_token"], info["scene_token"])
        entries = None if results is None else results[info["token"]]
        picture = make_picture(info, entries, store, scene, args.score)
        path = os.path.join(args.out, _file_name(scene, info))
        draw.save_png(path, draw.draw(picture))
        pictures.append(_describe(path, info, scene, picture))
    talk.progress("viz", len(chosen), len(chosen))
    talk.result(out=args.out, score_threshold=args.score, pictures=pictures)
    return 0


def choose(
    infos: Sequence[Mapping[str, Any]],
    results: Optional[Mapping[str, Any]],
    tokens: Sequence[str],
    count: int,
    results_name: str,
    infos_name: str,
) -> List[Mapping[str, Any]]:
    """The frames to draw: those asked for, or `count` spread over what has results.

    Raises DataError for a token that is not in the infos or has no results.
    """
    by_token = {info["token"]: info for info in infos}
    drawable = [token for token in by_token if results is None or token in results]
    if not drawable:
        raise DataError(
            "no sample of %s is in %s" % (results_name, infos_name),
            "The results are of another split or of other data.",
            "Give the infos they were made with.",
        )
    if not tokens:
        places = np.unique(np.linspace(0, len(drawable) - 1, min(count, len(drawable))).round().astype(int))
        return [by_token[drawable[place]] for place in places]
    for token in tokens:
        if token not in by_token:
            raise DataError(
                "no such sample: %s" % token,
                "%s holds %d samples, such as %s." % (infos_name, len(by_token), drawable[0]),
                "Give one of its sample tokens, or the infos of the other split.",
            )
        if results is not None and token not in results:
            raise DataError(
                "%s has no results for sample %s" % (results_name, token),
                "It was not among the %d that were evaluated." % len(results),
                "Evaluate it first, or draw it without --results.",
            )
    return [by_token[token] for token in dict.fromkeys(tokens)]


def make_picture(
    info: Mapping[str, Any],
    entries: Optional[Sequence[Mapping[str, Any]]],
    store: Any,
    scene: str,
    score_threshold: float,
) -> "Picture":
    """Gathers images, lidar and boxes of one frame.  Raises DataError when an image is missing or broken."""
    from . import draw
    from .data.dataset import decode_frame

    cameras = {
        channel: draw.Camera(
            image[..., ::-1],
            draw.lidar2cam(info["cams"][channel]),
            np.asarray(info["cams"][channel]["cam_intrinsic"], dtype=np.float64)[:3, :3],
        )
        for channel, image in zip(CAMERAS, decode_frame(dict(info), store))
    }
    when = datetime.datetime.fromtimestamp(info["timestamp"] * 1e-6, tz=datetime.timezone.utc)
    subtitle = "frame %s of its scene   \u00b7   sample %s   \u00b7   %s UTC" % (
        info.get("frame_idx", "?"),
        info["token"],
        when.strftime("%Y-%m-%d %H:%M:%S"),
    )
    predicted = None
    if entries is not None:
        found = to_detections(entries, info)
        predicted = draw.Boxes(found.boxes_K9.numpy(), found.labels_K.numpy(), found.scores_K.numpy())
    points = _lidar_points(info, store)
    return draw.Picture(scene, subtitle, cameras, predicted, _truth(info), points, score_threshold)


def _truth(info: Mapping[str, Any]) -> Optional["Boxes"]:
    """The valid boxes of the ten classes; None where the data set publishes none."""
    from .data.dataset import ground_truth
    from .draw import Boxes

    if "gt_boxes" not in info:
        return None
    boxes_G9, labels_G = ground_truth(dict(info), TRUTH_RANGE_M)
    return Boxes(boxes_G9, labels_G, np.ones(len(labels_G)))


def _lidar_points(info: Mapping[str, Any], store: Any) -> Optional[np.ndarray]:
    """(P, 3) metres, or None: camera-only downloads have no lidar files, and that is fine."""
    name = str(info.get("lidar_path") or "")
    for candidate in (name, "samples/LIDAR_TOP/" + name):
        if name and store.exists(candidate):
            values = np.frombuffer(store.read(candidate), dtype=np.uint8)
            rows = len(values) // (4 * LIDAR_COLUMNS)
            points = values[: rows * 4 * LIDAR_COLUMNS].view(np.float32).reshape(rows, LIDAR_COLUMNS)[:, :3]
            return points[np.isfinite(points).all(axis=1)]
    return None


def _scene_names(store: Any, version: str) -> Dict[str, str]:
    """token -> name; empty for a folder of images without tables."""
    from .data.tables import read_table

    if not store.exists("%s/scene.json" % version):
        return {}
    return {row["token"]: row["name"] for row in read_table(store, version, "scene")}


def _file_name(scene: str, info: Mapping[str, Any]) -> str:
    stem = "%s_%03d_%s" % (scene, info.get("frame_idx", 0), info["token"][:8])
    return re.sub(r"[^A-Za-z0-9_.+-]", "-", stem) + ".png"


def _describe(path: str, info: Mapping[str, Any], scene: str, picture: "Picture") -> Dict[str, Any]:
    """JSON for the report: which sample this is and how many boxes of each kind are in it."""
    from .draw import above

    shown = None if picture.predicted is None else len(above(picture.predicted, picture.score_threshold))
    return {
        "path": path,
        "sample": info["token"],
        "scene": scene,
        "frame": info.get("frame_idx"),
        "true_boxes": None if picture.truth is None else len(picture.truth),
        "predicted_boxes": shown,
    }
