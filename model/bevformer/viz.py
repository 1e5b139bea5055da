"""`viz`: six cameras with predicted and true boxes, and the bird's-eye view; PNGs, or a scene as a video.

viz --data-root R... --infos FILE|DIR --results results_nusc.json --sample TOKEN... --out DIR
viz --data-root R... --infos FILE|DIR --results results_nusc.json --scene NAME --video scene.mp4
"""

import argparse
import dataclasses
import datetime
import os
import re
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Sequence

import numpy as np

from .errors import DataError, DiskError, UserError
from .look import STYLES, Style
from .results import to_detections
from .results_read import Results
from .talk import Talk
from .types import CAMERAS

if TYPE_CHECKING:
    from .draw import Boxes, Picture

TRUTH_RANGE_M = (-61.2, -61.2, -10.0, 61.2, 61.2, 10.0)  # as far as the model may predict
LIDAR_COLUMNS = 5
KEYFRAMES_PER_SECOND = 2.0  # of nuScenes: videos run at the speed of the world
MAX_PX = 20000  # of a picture's width


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
    parser.add_argument("--scene", help="by name or token: every frame of it, in order")
    parser.add_argument("--video", help="one file, .mp4 or .gif, instead of a picture per frame")
    parser.add_argument(
        "--fps", type=float, default=KEYFRAMES_PER_SECOND, help="pictures a second of a video"
    )
    parser.add_argument("--score", type=float, default=0.3, help="draw predictions from this score on")
    parser.add_argument(
        "--style", choices=tuple(STYLES), default="screen", help="paper: two columns in print"
    )
    parser.add_argument("--dpi", type=int, help="dots per inch (default: 300 for paper, 100 for screen)")
    parser.add_argument("--out", help="folder for the pictures")
    args = parser.parse_args(argv)
    if not 0 <= args.score <= 1:
        parser.error("--score has to be between 0 and 1")
    if args.count < 1:
        parser.error("--count has to be at least 1")
    if not args.video and not args.out:
        parser.error("give --out FOLDER or --video FILE")
    if args.scene and args.sample:
        parser.error("give --scene or --sample, not both")
    if args.video and os.path.splitext(args.video)[1].lower() not in (".mp4", ".gif"):
        parser.error("--video writes .mp4 or .gif, not %s" % args.video)
    if not 0.1 <= args.fps <= 60:
        parser.error("--fps has to be between 0.1 and 60")
    if args.dpi is not None and not 30 <= args.dpi <= MAX_PX / STYLES[args.style].width_in:
        parser.error("--dpi has to be between 30 and %d" % (MAX_PX / STYLES[args.style].width_in))
    return args


def style_of(args: argparse.Namespace) -> Style:
    style = STYLES[args.style]
    return style if args.dpi is None else dataclasses.replace(style, dpi=args.dpi)


def main(argv: Sequence[str], talk: Talk) -> int:
    args = parse(argv)
    from .data.infos import infos_path, load_infos
    from .data.store import open_store

    check_drawing()
    store = open_store(args.data_root)
    infos = load_infos(infos_path(args.infos, args.split))
    names = _scene_names(store, infos.version)
    frames = of_scene(infos.infos, args.scene, names, bool(args.video), infos.source)
    tokens = args.sample or ([info["token"] for info in frames] if args.video or args.scene else [])
    results = read_wanted(args.results, frames, tokens)
    chosen = choose(frames, results, tokens, args.count, args.results, infos.source)
    pictures = [_Job(info, results, names.get(info["scene_token"], info["scene_token"])) for info in chosen]
    if args.video:
        _write_video(pictures, store, args, talk)
    else:
        _write_pictures(pictures, store, args, talk)
    return 0


def check_drawing() -> None:
    """Raises UserError where nothing can be drawn."""
    try:
        from . import draw  # noqa: F401
    except ImportError as error:
        raise UserError(
            "nothing can be drawn here: %s" % error,
            "Pictures need matplotlib and OpenCV.",
            "Install them in this environment: pip install matplotlib opencv-python-headless",
        ) from None


@dataclasses.dataclass(frozen=True)
class _Job:
    """A frame to draw.  results: by sample token; None when there are none to draw."""

    info: Mapping[str, Any]
    results: Optional[Mapping[str, Any]]
    scene: str

    def reach_m(self, score: float) -> float:
        """How far there are boxes."""
        from .draw import above
        from .draw_bev import reach_of

        found = _predicted(None if self.results is None else self.results[self.info["token"]], self.info)
        return reach_of(_truth(self.info), found and above(found, score))

    def picture(self, store: Any, score: float) -> "Picture":
        entries = None if self.results is None else self.results[self.info["token"]]
        return make_picture(self.info, entries, store, self.scene, score)


def _write_pictures(jobs: Sequence[_Job], store: Any, args: argparse.Namespace, talk: Talk) -> None:
    from . import draw
    from .evaluate import make_folder

    make_folder(args.out)
    style = style_of(args)
    pictures: List[Dict[str, Any]] = []
    for done, job in enumerate(jobs):
        talk.progress("viz", done, len(jobs), job.info["token"])
        picture = job.picture(store, args.score)
        path = os.path.join(args.out, _file_name(job.scene, job.info))
        draw.save_png(path, draw.draw(picture, style), style.dpi)
        pictures.append(_describe(path, job.info, job.scene, picture))
    talk.progress("viz", len(jobs), len(jobs))
    talk.result(out=args.out, score_threshold=args.score, pictures=pictures)


def _write_video(jobs: Sequence[_Job], store: Any, args: argparse.Namespace, talk: Talk) -> None:
    from . import draw
    from .video import Video

    style, path = style_of(args), args.video
    if args.out and not os.path.dirname(path):
        path = os.path.join(args.out, path)
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder) or os.path.isdir(path):
        raise DiskError("cannot write %s: no such folder" % path, do="Make %s first." % folder)
    reach_m = max(job.reach_m(args.score) for job in jobs)  # it does not zoom while the car drives
    with Video(path, args.fps) as video:
        for done, job in enumerate(jobs):
            talk.progress("viz", done, len(jobs), job.info["token"])
            picture = dataclasses.replace(job.picture(store, args.score), reach_m=reach_m)
            video.add(draw.draw(picture, style))
    talk.progress("viz", len(jobs), len(jobs))
    talk.result(
        video=path,
        codec=video.codec,
        frames=len(jobs),
        frames_per_second=args.fps,
        scene=jobs[0].scene,
        score_threshold=args.score,
        pictures=[],
    )


def read_wanted(
    path: Optional[str], frames: Sequence[Mapping[str, Any]], tokens: Sequence[str]
) -> Optional[Dict[str, Any]]:
    """Results by sample token, of the samples that may be drawn; of others nothing is kept.

    Raises DataError for a file that the devkit would refuse.
    """
    if not path:
        return None
    wanted = set(tokens or (info["token"] for info in frames))
    return dict(Results(path).samples(lambda token: token in wanted))


def of_scene(
    infos: Sequence[Mapping[str, Any]],
    scene: Optional[str],
    names: Mapping[str, str],
    one: bool,
    infos_name: str,
) -> List[Mapping[str, Any]]:
    """The frames of a scene in the order of time; all frames when none is named.

    `one`: there has to be one scene.  Raises DataError for a scene that is not there, or one of many.
    """
    have = list(dict.fromkeys(names.get(info["scene_token"], info["scene_token"]) for info in infos))
    if scene is None and (not one or len(have) == 1):
        return list(infos)
    if scene is None:
        raise DataError(
            "a video shows one scene, and %s has %d" % (infos_name, len(have)),
            "Such as %s." % ", ".join(have[:5]),
            "Name one: --scene %s" % have[0],
        )
    frames = [i for i in infos if scene in (i["scene_token"], names.get(i["scene_token"]))]
    if not frames:
        raise DataError(
            "no scene %s in %s" % (scene, infos_name),
            "Its scenes: %s%s" % (", ".join(have[:5]), ", ... (%d)" % len(have) if len(have) > 5 else ""),
            "Name one of these, or give the other --split.",
        )
    return sorted(frames, key=lambda info: info["timestamp"])


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
                "It was not among those that were evaluated.",
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
    from .draw_camera import lidar2cam

    cameras = {
        channel: draw.Camera(
            np.asarray(image)[..., ::-1],
            lidar2cam(info["cams"][channel]),
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
    points = _lidar_points(info, store)
    predicted = _predicted(entries, info)
    return draw.Picture(scene, subtitle, cameras, predicted, _truth(info), points, score_threshold)


def _predicted(entries: Optional[Sequence[Mapping[str, Any]]], info: Mapping[str, Any]) -> Optional["Boxes"]:
    from .draw import Boxes

    if entries is None:
        return None
    found = to_detections(entries, info)
    return Boxes(found.boxes_K9.numpy(), found.labels_K.numpy(), found.scores_K.numpy())


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
