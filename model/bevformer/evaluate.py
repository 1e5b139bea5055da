"""`eval`: one pass over the frames in stream order with video memory, then the official score.

    eval CONFIG CKPT --data-root R... --infos FILE|DIR [--split val] [--subset all ...] [--out DIR]

Writes DIR/results_nusc.json (every sample that was run), DIR/metrics/<subset>/metrics_summary.json and
DIR/eval.json.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any, Dict, Optional, Sequence

import torch

from .atomic import write_atomically
from .checkpoint import check_finite, load_checkpoint, notes_on
from .config import Config, from_dict, override, preset
from .errors import CheckpointError, ConfigError, DataError, DiskError
from .ranks import join, leave, local_device
from .stream import CUTS, Step, run_stream
from .talk import Talk

SUBSETS = ("all", "labelled", "between")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="eval", description="Evaluate a checkpoint with nuscenes-devkit.")
    parser.add_argument("config", help="a preset, a work folder's config.json, or an upstream .py file")
    parser.add_argument("checkpoint")
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
    args = parser.parse_args(argv)
    if args.limit is not None and args.limit < 1:
        parser.error("--limit has to be at least 1")
    args.subset = list(dict.fromkeys(args.subset or ["all"]))
    args.out = args.out or os.path.join(os.path.dirname(os.path.abspath(args.checkpoint)), "eval")
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
    dataset = NuScenesQueue(infos, store, config, training=False)
    step = load_model(config, args.checkpoint, device, talk)
    make_folder(args.out)
    path = os.path.join(args.out, "results_nusc.json")
    scoring = Scoring(infos, dataset, store, args, talk) if ranks.leads and not args.format_only else None
    started_s = time.monotonic()
    tokens = run_stream(step, infos, dataset, path, device, args, ranks, talk)
    seconds = time.monotonic() - started_s
    talk.note("%d frames in %.1f s on %s; results in %s" % (len(tokens), seconds, device, path))
    scores = scoring.run(path, tokens) if scoring else {}
    for score in scores.values():
        score["shift_current_reference"] = config.encoder.shift_current_reference
        score.update(world_size=ranks.processes, cut=args.cut)
    if scoring:
        write_atomically(os.path.join(args.out, "eval.json"), json.dumps(scores, indent=2))
    talk.result(
        results=path,
        out=args.out,
        num_samples=len(tokens),
        seconds=round(seconds, 2),
        device=str(device),
        processes=ranks.processes,
        metrics=scores,
    )
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


def load_model(config: Config, checkpoint: str, device: torch.device, talk: Optional[Talk] = None) -> Step:
    """The model's `step` with the checkpoint's weights, all of them.  Raises CheckpointError."""
    if checkpoint == "none":
        raise CheckpointError(
            "eval needs a checkpoint, not 'none'",
            "Fresh weights depend on how they were drawn.",
            "Training saves them as iter_0.pth before the first step: evaluate that file.",
        )
    from .detector import build_model

    model = build_model(config)
    meta = load_checkpoint(checkpoint, model)["meta"]
    check_finite(model.state_dict(), checkpoint)
    for note in notes_on(checkpoint, meta, config) if talk else ():
        talk.note(note)
    step: Step = model.to(device).eval().step
    return step


class Scoring:
    """Reads the ground truth before the model runs, so that wrong data is noticed in seconds, not hours."""

    def __init__(self, infos: Any, dataset: Any, store: Any, args: argparse.Namespace, talk: Talk) -> None:
        from . import devkit

        self._out, self._subsets, self._limited, self._talk = args.out, args.subset, bool(args.limit), talk
        self._nusc = devkit.load_ground_truth(store, infos.version, talk)
        tokens = [info["token"] for info in infos.infos]
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

        scores: Dict[str, Any] = {}
        was_run = set(tokens_run)
        for name in self._subsets:
            tokens = [token for token in self._of_subset[name] if token in was_run]
            if not tokens:
                raise DataError(
                    "none of the %d frames that were run is in the subset %r" % (len(was_run), name),
                    do="Raise --limit.",
                )
            self._talk.note("Scoring %d frames (%s of %s)" % (len(tokens), name, self._split))
            folder = os.path.join(self._out, "metrics", name)
            scores[name] = devkit.score(self._nusc, results_path, tokens, self._split, folder, self._talk)
            scores[name].update(complete=len(tokens) == len(self._of_subset[name]))
        return scores
