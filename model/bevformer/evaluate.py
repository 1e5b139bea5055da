"""`eval`: one pass over the frames in stream order with video memory, then the official score.

    eval CONFIG CKPT --data-root R... --infos FILE|DIR [--split val] [--subset all ...] [--out DIR]
    eval CONFIG --results FILE ...      scores what another run or another tool has written

Writes DIR/results_nusc.json (every sample that was run), DIR/metrics/<subset>/metrics_summary.json and
DIR/eval.json.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence, Tuple

import torch

from .amp import FULL, KINDS, Precision, choose_precision
from .atomic import write_atomically
from .checkpoint import check_finite, load_checkpoint, notes_on
from .config import Config, from_dict, override, preset, to_dict
from .errors import CheckpointError, ConfigError, DataError, DiskError
from .operators import tell_operators
from .ranks import join, leave, local_device
from .stream import CUTS, Step, run_stream
from .talk import Talk
from .types import Detections, Frame, VideoMemory

if TYPE_CHECKING:
    from .detector import BEVFormer

SUBSETS = ("all", "labelled", "between")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="eval", description="Evaluate a checkpoint with nuscenes-devkit.")
    parser.add_argument("config", help="a preset, a work folder's config.json, or an upstream .py file")
    parser.add_argument("checkpoint", nargs="?")
    parser.add_argument("--results", help="score this results file instead of running a checkpoint")
    parser.add_argument("--data-root", action="append", required=True, help="folder or archive; repeatable")
    parser.add_argument("--infos", required=True, help="a prepared file, or the folder that holds both")
    parser.add_argument(
        "--split", choices=("train", "val", "test"), default="val", help="which file of that folder"
    )
    parser.add_argument("--subset", action="append", choices=SUBSETS, help="what to score; repeatable")
    parser.add_argument("--out", help="default: a folder `eval` beside the checkpoint")
    parser.add_argument("--format-only", action="store_true", help="write the results, score nothing")
    parser.add_argument("--eval", nargs="+", choices=("bbox",), default=["bbox"])
    parser.add_argument("--cfg-options", nargs="+", action="extend", default=[], metavar="KEY=VALUE")
    parser.add_argument("--gpus", type=int, default=1 if torch.cuda.is_available() else 0)
    parser.add_argument(
        "--workers", type=int, help="processes that load images (default: 4 with a GPU, else 0)"
    )
    parser.add_argument(
        "--cut",
        choices=CUTS,
        default="scene",
        help="where several processes cut the video: scene gives the numbers of one process",
    )
    parser.add_argument("--limit", type=int, help="run only the first N frames")
    parser.add_argument("--amp", choices=KINDS, help="mixed precision, or fp64 (default: off)")
    args = parser.parse_args(argv)
    if args.limit is not None and args.limit < 1:
        parser.error("--limit has to be at least 1")
    args.subset = list(dict.fromkeys(args.subset or ["all"]))
    if (args.checkpoint is None) == (args.results is None):
        parser.error("give either a checkpoint or --results FILE")
    if args.results and args.limit:
        parser.error("--limit is for running a checkpoint; a results file is scored whole")
    beside = os.path.dirname(os.path.abspath(args.checkpoint or args.results))
    args.out = args.out or os.path.join(beside, "eval")
    return args


def main(argv: Sequence[str], talk: Talk) -> int:
    args = parse(argv)
    try:
        return _main(args, talk)
    finally:
        leave()


def _main(args: argparse.Namespace, talk: Talk) -> int:
    from .data.dataset import NuScenesQueue
    from .data.infos import check_infos, infos_path, load_infos
    from .data.store import open_store

    device = choose_device(args.gpus)
    ranks = join(1, device.type == "cuda")
    if not ranks.leads:
        talk = talk.only_errors()
    config = override(read_config(args.config, talk), args.cfg_options)
    store = open_store(args.data_root)
    infos = load_infos(infos_path(args.infos, args.split))
    for note in infos.notes:
        talk.note(note)
    check_infos(infos, store)
    dataset = NuScenesQueue(infos, store, config, training=False, device_type=device.type)
    if args.results:
        return _score_file(args, infos, dataset, store, talk)
    precision = choose_precision(args.amp or "off", config.schedule, device)
    step = load_model(config, args.checkpoint, device, talk, precision)
    make_folder(args.out)
    path = os.path.join(args.out, "results_nusc.json")
    scoring = Scoring(infos, dataset, store, args, talk) if ranks.leads and not args.format_only else None
    started_s = time.monotonic()
    tokens = run_stream(step, infos, dataset, path, device, args, ranks, talk)
    seconds = time.monotonic() - started_s
    speed = dict(speed_of(len(tokens), seconds), device=str(device), processes=ranks.processes)
    talk.note("%d frames in %.1f s on %s; results in %s" % (len(tokens), seconds, device, path))
    wanted = len(tokens_to_submit(infos, store)) if args.format_only else 0
    if len(tokens) < wanted:
        talk.note(
            "%s has %d of %d samples: the test server takes a whole split only." % (path, len(tokens), wanted)
        )
    scores = scoring.run(path, tokens) if scoring else {}
    for score in scores.values():
        score["shift_current_reference"] = config.encoder.shift_current_reference
        score.update(
            world_size=ranks.processes,
            cut=args.cut,
            speed=speed,
            precision=precision.kind,
            environment=_environment(),
            config=to_dict(config),
        )
    _tell(path, args.out, len(tokens), scores, talk, **speed)
    return 0


def _environment() -> Dict[str, Any]:
    """Where it was run: which target's environment, as it was built, and what of it decides the numbers."""
    from .provenance import environment_record
    from .record import versions

    told = environment_record()
    return {"target": told["target"], "digest": told["digest"], **versions()}


def tokens_to_submit(infos: Any, store: Any) -> List[str]:
    """Every sample that a submission needs: of the test set those of its tables, whatever the infos hold."""
    from .data.tables import read_table

    if infos.version.endswith("test") and store.exists("%s/sample.json" % infos.version):
        return [str(row["token"]) for row in read_table(store, infos.version, "sample")]
    return [str(info["token"]) for info in infos.infos]


def speed_of(frames: int, seconds: float) -> Dict[str, Any]:
    """As it was for whoever waited: images read, decoded and scaled, the model, results written, and the
    first frames too, which are slower.  A model's own speed is `python -m bevformer.bench`.
    """
    return {
        "seconds": round(seconds, 2),
        "frames_per_second": round(frames / max(seconds, 1e-9), 3),
        "timed": "loading, model and writing, from the first frame to the last",
    }


def _tell(results: str, out: str, count: int, scores: Dict[str, Any], talk: Talk, **more: Any) -> None:
    """eval.json and the verb's result, with upstream's two keys (of the first subset)."""
    flat: Dict[str, Any] = {}
    if scores:
        write_atomically(os.path.join(out, "eval.json"), json.dumps(scores, indent=2))
        detail = next(iter(scores.values()))["detail"]
        flat = {key: detail[key] for key in ("pts_bbox_NuScenes/NDS", "pts_bbox_NuScenes/mAP")}
    talk.result(results=results, out=out, num_samples=count, metrics=scores, **more, **flat)


def _score_file(args: argparse.Namespace, infos: Any, dataset: Any, store: Any, talk: Talk) -> int:
    """Scores a results file that exists; with --format-only says whether the test server takes it."""
    tokens = [str(info["token"]) for info in infos.infos]
    if args.format_only:
        from .results_read import check_submission

        tokens = tokens_to_submit(infos, store)
        boxes = check_submission(args.results, tokens)
        talk.note(
            "%s is what the test server takes: %d samples, %d boxes" % (args.results, len(tokens), boxes)
        )
        _tell(args.results, args.out, len(tokens), {}, talk)
        return 0
    scoring = Scoring(infos, dataset, store, args, talk)
    make_folder(args.out)
    _tell(args.results, args.out, len(tokens), scoring.run(args.results, tokens), talk)
    return 0


def read_config(name: str, talk: Optional[Talk] = None) -> Config:
    """A preset's name, the config.json of a work folder, or one of upstream's .py files (never executed)."""
    if name.endswith(".py"):
        from .upstream_config import read_config as read_upstream

        config, notes = read_upstream(Path(name))
        for note in notes if talk else ():
            talk.note(note)
        return config
    if not name.endswith(".json"):
        return preset(name)
    try:
        with open(name) as file:
            return from_dict(json.load(file))
    except FileNotFoundError:
        raise ConfigError(
            "no configuration at %s" % name, do="Give a preset's name or a work folder's config.json."
        ) from None
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError("%s is not a configuration (%s)" % (name, error)) from None


def make_folder(path: str) -> None:
    """Raises DiskError when a file of that name is in the way."""
    try:
        os.makedirs(path, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise DiskError(
            "cannot make the folder %s: %s" % (path, error.strerror), do="Name another one."
        ) from error


def choose_device(gpus: int) -> torch.device:
    """This process's device.  Raises ConfigError when GPUs were asked for and torch sees fewer."""
    from .train import check_gpus

    check_gpus(gpus)
    return local_device(bool(gpus))


def load_model(
    config: Config,
    checkpoint: str,
    device: torch.device,
    talk: Optional[Talk] = None,
    precision: Precision = FULL,
) -> Step:
    """The model's `step` with the checkpoint's weights, all of them.  Raises CheckpointError."""
    if checkpoint == "none":
        raise CheckpointError(
            "eval needs a checkpoint, not 'none'",
            "Fresh weights depend on how they were drawn.",
            "Training saves them as iter_0.pth before the first step: evaluate that file.",
        )
    from .detector import build_model

    model = build_model(config)
    precision.prepared(model)
    meta = load_checkpoint(checkpoint, model)["meta"]
    check_finite(model.state_dict(), checkpoint)
    for note in notes_on(checkpoint, meta, config) if talk else ():
        talk.note(note)
    if talk:
        tell_operators(model, device.type, talk)
    return ready_step(model.to(device).eval(), precision)


def ready_step(model: "BEVFormer", precision: Precision = FULL) -> Step:
    """`model.step` in that precision, with an extractor made of its weights as they are now."""
    with precision.autocast(model.device):
        extract = model.extractor()

    def step(frame: Frame, memory: Optional[VideoMemory]) -> Tuple[Detections, VideoMemory]:
        with precision.autocast(model.device):
            return model.step(frame, memory, extract)

    return step


class Scoring:
    """Reads the ground truth before the model runs, so that wrong data is noticed in seconds, not hours."""

    def __init__(self, infos: Any, dataset: Any, store: Any, args: argparse.Namespace, talk: Talk) -> None:
        from . import devkit

        self._out, self._subsets, self._limited, self._talk = args.out, args.subset, bool(args.limit), talk
        tokens = [info["token"] for info in infos.infos]
        self._nusc = devkit.load_ground_truth(store, infos.version, talk, frozenset(tokens))
        self._split, members = devkit.split_of(self._nusc, tokens)
        if not args.limit and "all" in args.subset and set(tokens) != set(members):
            raise DataError(
                "the infos hold %d of the %d samples of %s" % (len(set(tokens)), len(members), self._split),
                "nuScenes scores a split as a whole: a number on a part of it compares with nothing.",
                "Prepare the infos again from the complete data, or say --limit %d to score a part."
                % len(tokens),
            )
        devkit.check_ground_truth(self._nusc.restricted_to(tokens))
        self._of_subset = {
            "all": tokens,
            "labelled": [tokens[i] for i in dataset.labelled_indices()],
            "between": [tokens[i] for i in dataset.between_indices()],
        }
        for name in args.subset:
            if not self._of_subset[name]:
                raise DataError(
                    "no frames in the subset %r" % name,
                    "With data.label_every = 1 every frame is a labelled one.",
                    "Use --subset all.",
                )

    def run(self, results_path: str, tokens_run: Sequence[str]) -> Dict[str, Any]:
        """Scores by subset; a number on fewer frames than the subset has is marked `complete: false`."""
        from . import devkit

        folders: Dict[str, Any] = {}
        was_run = set(tokens_run)
        for name in self._subsets:
            tokens = [token for token in self._of_subset[name] if token in was_run]
            if not tokens:
                raise DataError(
                    "none of the %d frames that were run is in the subset %r" % (len(was_run), name),
                    do="Raise --limit.",
                )
            folders[os.path.join(self._out, "metrics", name)] = tokens
        found = devkit.score_all(self._nusc, results_path, folders, self._split, self._talk)
        scores = {os.path.basename(folder): score for folder, score in found.items()}
        for name, score in scores.items():
            score.update(complete=score["num_samples"] == len(self._of_subset[name]))
        return scores
