"""`train`: teach a configuration on prepared frames, on the CPU or on GPUs, and go on after a stop.

    train CONFIG --data-root R... --infos FILE|DIR --work-dir W [--gpus N] [--seed N] [--resume-from F]

Several processes are started by torchrun; fewer of them than the recipe's ranks share the ranks (`ranks`).

Leaves in W: config.json, <ts>.log, <ts>.log.json, iter_0.pth (before the first step), epoch_N.pth or
iter_N.pth, latest.pth and run.json.
"""

import argparse
import gc
import importlib
import inspect
import os
from dataclasses import replace
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import torch
from torch import nn

from . import record
from .amp import LossScale, check_precision, choose_precision
from .ceiling import hold
from .checkpoint import load_weights
from .config import Config, override
from .errors import ConfigError, DataError
from .frames import frame_lines
from .gradients import build_gradients
from .init_weights import initialise
from .ladder import (
    OFF,
    allowed_entry,
    asked_precision,
    entries_of_config,
    rungs_at_start,
    with_entries,
)
from .loading import free_shared_memory_b, workers_that_fit
from .memory import DoesNotFit, OutOfMemory, memory_of
from .operators import tell_operators
from .ops.backends import NOT_REPEATABLE
from .optim import build_optimizer
from .pixels import choose, data_after_decoding
from .preflight import pointless, preflight
from .provenance import data_record
from .ranks import Ranks, join, leave, local_device
from .resume import check_resumed, check_world, find_resume, restore_optimizer, resumed_init
from .runstate import DataOrder, Options, seed_weights
from .saving import open_work_dir
from .step import Training
from .talk import Talk
from .train_options import parse
from .validation import Validator
from .work_folder import train_into

CACHE_MIB = 512  # sets that are smaller when decoded stay in memory


def main(argv: Sequence[str], talk: Talk) -> int:
    args = parse(argv)
    try:
        return _main(args, argv, talk)
    finally:
        leave()


def _main(args: argparse.Namespace, argv: Sequence[str], talk: Talk) -> int:
    from .data.dataset import NuScenesQueue
    from .evaluate import read_config

    check_gpus(args.gpus)
    follows = bool(int(os.environ.get("RANK") or 0))
    talk = talk.only_errors() if follows else talk
    config = _repeatable(read_config(args.config, talk), args.cfg_options, args.deterministic)
    store, infos = _data(args, talk)
    small = decoded_mib(infos.infos) <= CACHE_MIB
    device_type = "cuda" if args.gpus else "cpu"
    workers = _workers(args, sample_bytes(config, infos.infos, device_type))

    def open_dataset(config: Config) -> NuScenesQueue:
        cached = small and not workers
        return NuScenesQueue(infos, store, config, True, cache_frames=cached, device_type=device_type)

    options = Options(
        args.work_dir,
        args.seed,
        args.gpus,
        args.resume or args.resume_from,
        deterministic=args.deterministic,
        infos_digest=record.infos_digest(infos.infos),
        frames=frame_lines(open_dataset(config)),
        command=["train"] + list(argv),
        init_from=args.init_from,
        allow_partial_init=args.allow_partial_init,
        emulate_gpus=args.emulate_gpus,
        keep_last=args.keep_last,
        workers=workers,
        amp=args.amp,
        profile=args.profile,
        rank_timeout_s=args.rank_timeout,
        memory=args.memory,
        allow=args.allow,
        data={} if follows else data_record(store, infos),
    )
    result = run_as_allowed(config, open_dataset, options, talk, _validator(args, config))
    if result and not args.no_validate and not args.validate_every:
        talk.note(
            "Now score it: bevrepro eval %s %s --data-root ... --infos ..."
            % (os.path.join(args.work_dir, "config.json"), result["checkpoint"])
        )
    talk.result(**result)
    return 0


def _repeatable(config: Config, options: Sequence[str], deterministic: bool) -> Config:
    """With the options; --deterministic asks the attention to repeat bit for bit where it can.

    One that cannot runs all the same when it is named (the ledger says so); that together with
    ops.deterministic=True, both named, is refused where the model meets its device.
    """
    named = override(config, options)
    if not deterministic or named.ops.attention in NOT_REPEATABLE["cuda"]:
        return named
    return override(config, ["ops.deterministic=True", *options])


def _data(args: argparse.Namespace, talk: Talk) -> Tuple[Any, Any]:
    """The store of images, and the infos of the training split, which go together."""
    from .data.infos import check_infos, infos_path, load_infos
    from .data.store import open_store

    store = open_store(args.data_root)
    infos = load_infos(infos_path(args.infos, "train"))
    for note in getattr(infos, "notes", ()):
        talk.note(note)
    check_infos(infos, store)
    return store, infos


def _workers(args: argparse.Namespace, sample_b: int) -> int:
    """--workers, or as many of the usual number as have room for their samples."""
    return workers_that_fit(args.workers, 4 if args.gpus else 0, sample_b, free_shared_memory_b())


def _validator(args: argparse.Namespace, config: Config) -> Optional[Validator]:
    """None without --validate-every.  Without val infos a DataError now, not after an epoch."""
    from .data.infos import infos_path

    if not args.validate_every or args.no_validate:
        return None
    folder = args.infos if os.path.isdir(args.infos) else os.path.dirname(os.path.abspath(args.infos))
    words = ["--infos", infos_path(folder, "val"), "--gpus", str(min(args.gpus, 1))]
    for root in args.data_root:
        words += ["--data-root", root]
    return Validator(args.validate_every, words, not config.schedule.max_steps)


def sample_bytes(config: Config, infos: Sequence[Mapping[str, Any]], device_type: str = "cpu") -> int:
    """About how much one rank's batch takes on its way from a worker: as decoded, or in finished floats."""
    # 2 where images are decoded at half size
    enlarged = data_after_decoding(config).scale / config.data.scale
    raw = choose(config.ops.pixels, device_type) == "device"
    one = decoded_mib(infos[:1]) * 2**20 * (enlarged**-2 if raw else 4 * config.data.scale**2)
    return int(one * config.data.queue_length * config.schedule.samples_per_gpu)


def decoded_mib(infos: Sequence[Mapping[str, Any]]) -> float:
    """About how much all images take decoded (uint8): their sizes from the principal points."""
    pixels = sum(
        4 * float(cam["cam_intrinsic"][0][2]) * float(cam["cam_intrinsic"][1][2])
        for info in infos
        for cam in info["cams"].values()
    )
    return pixels * 3 / 2**20


def check_gpus(gpus: int) -> None:
    """Raises ConfigError when the number cannot be honoured."""
    if gpus < 0:
        raise ConfigError("--gpus %d is not a number of devices" % gpus, do="0 is the CPU, 1 is one GPU.")
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    here = int(os.environ.get("LOCAL_WORLD_SIZE") or 1)
    if gpus > there:
        raise ConfigError(
            "--gpus %d, but torch %s sees %s here" % (gpus, torch.__version__, there or "no GPU"),
            do="Run with --gpus %d, or see `bevrepro doctor`." % there,
        )
    if gpus and gpus != here:
        raise ConfigError(
            "--gpus %d, but this is one of %d processes" % (gpus, here),
            "Every GPU needs a process of its own.",
            "`bevrepro train --gpus %d` starts them; so does torchrun --nproc_per_node %d." % (gpus, gpus),
        )


def require_repeatable_kernels() -> None:
    """For the rest of the process.  What has no such kernel (see the ledger) runs all the same."""
    torch.backends.cudnn.deterministic = True
    if "warn_only" in inspect.signature(torch.use_deterministic_algorithms).parameters:  # torch >= 1.11
        torch.use_deterministic_algorithms(True, warn_only=True)


def run_as_allowed(
    config: Config,
    open_dataset: Callable[[Config], Any],
    options: Options,
    talk: Talk,
    validator: Optional[Validator] = None,
) -> Dict[str, Any]:
    """`run` with the rungs that --memory names; where its preflight does not fit, again with one after the
    other of those that --allow has.
    """
    kept = _kept_entries(options)
    named = entries_of_config(options, config, [str(entry["rung"]) for entry in kept])
    options = replace(options, rungs=[*options.rungs, *named])
    changed = with_entries(config, [*kept, *named])
    while True:
        try:
            return run(changed, open_dataset(changed), options, talk, validator=validator)
        except DoesNotFit as stop:
            # Without its traceback, which holds the model.
            refused = OutOfMemory(stop.seen, stop.why, stop.do)
        gc.collect()
        entry = allowed_entry(options, config, refused.seen)
        if entry is None:
            raise refused
        talk.note("%s: begins again with %s." % (entry["why"], entry["what"]))
        options = replace(options, rungs=[*options.rungs, entry])
        changed = with_entries(changed, [entry])


def _kept_entries(options: Options) -> List[Dict[str, Any]]:
    """Of the run that goes on, the ledger's entries that changed its configuration."""
    if not options.resume:
        return []
    folder = options.work_dir if options.resume == "auto" else os.path.dirname(options.resume)
    stored = record.read_record(os.path.join(folder, "run.json")) or {}
    return [entry for entry in stored.get("ledger") or () if entry.get("cfg_options")]


def run(
    config: Config,
    dataset: Any,
    options: Options,
    talk: Talk,
    build: Optional[Callable[[Config], nn.Module]] = None,
    validator: Optional[Validator] = None,
) -> Dict[str, Any]:
    """Train from the start or from `options.resume` to the end; returns the fields of the result event."""
    if build is None:
        from .detector import build_model as build
    resumed = find_resume(options, talk)
    seed = check_resumed(resumed, config, options)
    world = options.emulate_gpus or config.schedule.world_size
    ranks = join(world, bool(options.gpus), options.rank_timeout_s)
    claim = open_work_dir(options.work_dir) if ranks.leads else None
    try:
        check_world(resumed, ranks, options)
        return _run_ranks(config, dataset, options, talk, build, validator, resumed, seed, ranks)
    finally:
        if claim is not None:
            claim.close()


def _run_ranks(
    config: Config,
    dataset: Any,
    options: Options,
    talk: Talk,
    build: Callable[[Config], nn.Module],
    validator: Optional[Validator],
    resumed: Optional[Dict[str, Any]],
    seed: int,
    ranks: Ranks,
) -> Dict[str, Any]:
    """The part of `run` in which the processes have met and the work folder is this run's."""
    order = DataOrder(tuple(dataset.labelled_indices()), config.schedule.samples_per_gpu, seed, ranks.world)
    if not order.indices:
        raise DataError(
            "the infos hold no frame to train on",
            "With data.label_every = %d none of a scene's frames is labelled." % config.data.label_every,
        )
    device = _device(options, talk)
    rungs = rungs_at_start(options, config, resumed)
    precision = choose_precision(asked_precision(options.amp, rungs), config.schedule, device)
    check_precision(resumed, precision)
    if options.deterministic:
        require_repeatable_kernels()
    importlib.import_module("scipy.optimize")  # now: where memory is full, no library can be loaded
    seed_weights(seed)
    model = precision.prepared(build(config)).to(device)
    tell_operators(model, device.type, talk)
    init = _load_weights(model, resumed, options, talk)
    memory = memory_of(model, rungs, options, config, device, talk)
    optimizer = build_optimizer(model, config.schedule, config.ops.adamw)
    first_step = restore_optimizer(optimizer, resumed)
    ranks.require_equal("%x" % first_step, "checkpoints")
    ranks.require_equal(record.weights_digest(model) if ranks.processes > 1 else "0", "weights")
    job = Training(
        model,
        optimizer,
        dataset,
        order,
        config.schedule,
        first_step,
        config.schedule.max_steps or config.schedule.max_epochs * order.steps_per_epoch,
        LossScale(precision, (resumed or {}).get("scaler")),
        ranks,
        device,
        workers=options.workers,
        start=resumed["path"] if resumed else "",
        memory=memory,
        gradients=build_gradients(config.ops.gradients),
    )
    return train_into(config, options, job, talk, init, validator, _checked(job, options, resumed, talk))


def _device(options: Options, talk: Talk) -> torch.device:
    device = local_device(bool(options.gpus))
    held = hold(device) if options.memory != OFF else None
    if held:
        talk.note(held)
    return device


def _load_weights(
    model: nn.Module, resumed: Optional[Dict[str, Any]], options: Options, talk: Talk
) -> Optional[Dict[str, Any]]:
    """Those of the run that goes on, or of --init-from; the record of the initial ones, if any."""
    if resumed is not None:
        init = resumed_init(resumed, options, talk)
        load_weights(model, resumed["state_dict"], resumed["path"])
        return init
    if not options.init_from:
        return None
    report = initialise(model, options.init_from, options.allow_partial_init)
    talk.note(report.sentence())
    return report.record()


def _checked(
    job: Training, options: Options, resumed: Optional[Dict[str, Any]], talk: Talk
) -> Optional[Dict[str, Any]]:
    """What the preflight found; None without one.  Raises OutOfMemory, for a fresh run DoesNotFit."""
    wanted = options.memory != OFF and not pointless(job.model, job.device, options.memory)
    if not wanted or job.first_step >= job.total:
        return None
    try:
        return preflight(job, talk)
    except OutOfMemory as error:
        raise (error if resumed else DoesNotFit(error.seen, error.why, error.do)) from None
