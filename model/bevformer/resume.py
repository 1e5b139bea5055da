"""Going on with a run: which checkpoint, and whether it is the same run at all."""

import json
import os
from typing import Any, Dict, List, Optional

import torch

from .checkpoint import load_checkpoint
from .config import Config, from_dict, to_dict
from .errors import CheckpointError, ConfigError, DataError
from .frames import frames_difference, frames_digest, read_frames
from .init_weights import file_digest
from .ranks import Ranks
from .record import read_record
from .runstate import Options
from .saving import newest_first, step_of
from .talk import Talk


def find_resume(options: Options, talk: Talk) -> Optional[Dict[str, Any]]:
    """The checkpoint to go on from with its `path`, None for a fresh start.

    A named file has to exist and be whole; `auto` takes latest.pth, or the newest whole one where that is
    damaged.  A fresh start in a folder that holds a run already is refused: it would be overwritten.
    """
    if options.resume and options.resume != "auto":
        return _read(options.resume)
    stored = read_record(os.path.join(options.work_dir, "run.json")) or {}
    # Without run.json an epoch counts as long: its file is then newer than any that an interruption left.
    steps_per_epoch = int(stored.get("steps_per_epoch") or 10**6)
    there = newest_first(options.work_dir, steps_per_epoch)
    if options.resume == "auto":
        return _newest_whole(os.path.join(options.work_dir, "latest.pth"), there, talk)
    names = sorted(os.path.basename(path) for path in there if step_of(os.path.basename(path), 1))
    if names:
        raise ConfigError(
            "%s already holds a run: %s" % (options.work_dir, ", ".join(names[:5])),
            "Starting again would overwrite it.",
            "Go on with --resume auto, or name another --work-dir.",
        )
    return None


def _newest_whole(latest: str, there: List[str], talk: Talk) -> Optional[Dict[str, Any]]:
    """None where there is no checkpoint at all.  Raises CheckpointError where none of them is whole."""
    first: Optional[CheckpointError] = None
    if os.path.exists(latest):
        try:
            return _read(latest)
        except CheckpointError as error:
            first = error
            there = [path for path in there if not os.path.samefile(path, latest)]
    for path in there:
        try:
            found = _read(path)
        except CheckpointError as error:
            first = first or error
            talk.note(error.seen)
            continue
        said = first.seen if first else "%s is missing" % latest
        talk.note("%s. Going on from the newest whole checkpoint, %s." % (said.rstrip("."), path))
        return found
    if first is None:
        return None
    raise CheckpointError(
        first.seen,
        "No other checkpoint in %s is whole either." % os.path.dirname(latest),
        "Start afresh in another --work-dir, or copy a whole checkpoint there and name it in --resume-from.",
    )


def _read(path: str) -> Dict[str, Any]:
    """With the path of the file itself where `path` is a link to it, as latest.pth is."""
    folder, name = os.path.split(path)
    if os.path.islink(path) and not os.path.dirname(os.readlink(path)):
        name = os.readlink(path)
    path = os.path.join(folder, name)
    return dict(load_checkpoint(path), path=path)


def check_resumed(resumed: Optional[Dict[str, Any]], config: Config, options: Options) -> int:
    """The seed of the run.  Refuses to go on with another configuration, data or seed, and says which."""
    if resumed is None:
        return options.seed or 0
    meta, path = resumed["meta"], resumed["path"]
    if "optimizer" not in resumed or not {"iter", "config"} <= set(meta):
        raise CheckpointError(
            "%s holds weights, but not where its training stood" % path,
            "A run can only go on from a checkpoint that `train` wrote.",
        )
    lines = config_difference(_stored_config(meta), json.loads(json.dumps(to_dict(config))))
    # How it is computed may change with the machine; what images are decoded with is part of the data.
    difference = [line for line in lines if not line.startswith("ops.") or line.startswith("ops.decoder")]
    if difference:
        raise ConfigError(
            "the configuration differs from the one %s was trained with: %s" % (path, _first(difference)),
            "The result would be neither the one nor the other.",
            "Give the same configuration, or start afresh in another --work-dir.",
        )
    _check_frames(meta, path, options)
    seed = int(meta.get("seed", 0))
    if options.seed is not None and options.seed != seed:
        raise ConfigError(
            "--seed %d, but %s was trained with seed %d" % (options.seed, path, seed),
            do="Leave --seed out, or start afresh in another --work-dir.",
        )
    return seed


def _check_frames(meta: Dict[str, Any], path: str, options: Options) -> None:
    """Raises DataError that says what differs, where frames.txt beside the checkpoint still tells."""
    then, now = str(meta.get("frames_digest") or ""), frames_digest(options.frames)
    if not (then and now):  # an older checkpoint
        then, now = str(meta.get("infos_digest") or ""), options.infos_digest
    if not (then and now) or then == now:
        return
    lines = read_frames(os.path.dirname(path), then)
    raise DataError(
        "the frames differ from those that %s was trained on%s"
        % (path, ": " + frames_difference(lines, options.frames) if lines and options.frames else ""),
        "The result would be neither the one nor the other. Digest %s... then, %s... now."
        % (then[:12], now[:12]),
        "Give the same --infos, or start afresh in another --work-dir.",
    )


def check_world(resumed: Optional[Dict[str, Any]], ranks: Ranks, options: Options) -> None:
    """Refuses to go on with another number of ranks. The number of processes may change."""
    then = resumed["meta"].get("world_size", 1) if resumed else ranks.world
    if then != ranks.world:
        raise ConfigError(
            "%s was trained with %d ranks, this would go on with %d"
            % (resumed["path"] if resumed else "", then, ranks.world),
            "Batch, data order and learning rate would change within the run.",
            "Give --emulate-gpus %d, or start afresh in another --work-dir." % then,
        )


def _stored_config(meta: Dict[str, Any]) -> Dict[str, Any]:
    try:
        stored = json.loads(meta.get("config_json") or meta["config"])
    except (TypeError, ValueError):
        stored = None
    if not isinstance(stored, dict):
        raise CheckpointError(
            "the checkpoint's configuration cannot be read",
            "It was written by another program; mmcv stores Python text there.",
            "Its weights can be evaluated; training can only go on from our own files.",
        )
    try:
        filled: Dict[str, Any] = json.loads(json.dumps(to_dict(from_dict(stored))))  # with what is newer
    except ConfigError:
        return stored  # the difference is told key by key
    return filled


def resumed_init(resumed: Dict[str, Any], options: Options, talk: Talk) -> Optional[Dict[str, Any]]:
    """The record of the initial weights of the run that goes on.

    A run that is resumed has its weights: --init-from is not read again, and refused when it names a file
    that the run did not start from.
    """
    init: Optional[Dict[str, Any]] = resumed["meta"].get("init_from")
    if options.init_from is None:
        return init
    there = os.path.isfile(options.init_from)  # it may be gone by now: nothing is read from it
    same = init is not None and (
        file_digest(options.init_from) == init["sha256"] if there else options.init_from == init["path"]
    )
    if not same:
        raise ConfigError(
            "--init-from %s, but the run in %s started from %s"
            % (options.init_from, options.work_dir, init["path"] if init else "random weights"),
            "The result would be neither the one nor the other.",
            "Leave --init-from out, or start afresh in another --work-dir.",
        )
    talk.note("Going on with the run in %s: --init-from was used when it began." % options.work_dir)
    return init


def config_difference(then: Any, now: Any, path: str = "") -> List[str]:
    """`schedule.lr: 0.001 -> 0.002` for every leaf that differs."""
    if isinstance(then, dict) and isinstance(now, dict):
        return [
            line
            for key in sorted(set(then) | set(now))
            for line in config_difference(then.get(key), now.get(key), "%s.%s" % (path, key) if path else key)
        ]
    return [] if then == now else ["%s: %s -> %s" % (path, then, now)]


def _first(lines: List[str], most: int = 8) -> str:
    return "; ".join(lines[:most] + (["and %d more" % (len(lines) - most)] if len(lines) > most else []))


def restore_optimizer(optimizer: torch.optim.Optimizer, resumed: Optional[Dict[str, Any]]) -> int:
    """Load the optimiser's state; returns the number of steps already done."""
    if resumed is None:
        return 0
    try:
        optimizer.load_state_dict(resumed["optimizer"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            "the optimiser's state does not fit: %s" % error,
            "The checkpoint comes from another recipe or program.",
        ) from error
    return int(resumed["meta"]["iter"])
