"""`train`: teach a configuration on prepared frames, on the CPU or on GPUs, and go on after a stop.

    train CONFIG --data-root R... --infos FILE|DIR --work-dir W [--gpus N] [--seed N] [--resume-from F]

Several processes are started by torchrun; fewer of them than the recipe's ranks share the ranks (`ranks`).

Leaves in W: config.json, <ts>.log, <ts>.log.json, iter_0.pth (before the first step), epoch_N.pth or
iter_N.pth, latest.pth and run.json.
"""

import argparse
import gc
import inspect
import json
import math
import os
from dataclasses import replace
from typing import Any, Callable, Dict, Mapping, Optional, Sequence

import torch
from torch import nn

from . import record
from .amp import KINDS, LossScale, check_precision, choose_precision
from .atomic import write_atomically
from .checkpoint import load_weights
from .config import Config, override, to_dict
from .errors import ConfigError, DataError, DiskError, UserError
from .frames import frame_lines, frames_digest, write_frames
from .init_weights import initialise
from .loading import free_shared_memory_b, workers_that_fit
from .loop import Diverged, Interrupted, Training, train_loop
from .memory import (
    ALLOW,
    OFF,
    DoesNotFit,
    Memory,
    OutOfMemory,
    allowed_entry,
    asked_precision,
    plan_command,
    rungs_at_start,
    without_use,
)
from .optim import build_optimizer, lr_factor
from .preflight import pointless, preflight
from .profiling import NoProfile, Profile
from .provenance import data_record
from .ranks import Ranks, join, leave, local_device
from .resume import check_resumed, check_world, find_resume, restore_optimizer, resumed_init
from .runstate import DataOrder, Options, seed_weights
from .saving import Saver, keep_last_of, open_work_dir
from .talk import Talk
from .trainlog import NoLog, TrainLog
from .types import CLASSES
from .validation import Validator, attend, scores_of

CACHE_MIB = 512  # sets that are smaller when decoded stay in memory
ENDED = {Interrupted: "interrupted", Diverged: "diverged", OutOfMemory: "out of memory"}
LOG_EVERY = {True: 50, False: 10}  # steps, by epoch (as upstream) or not


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="train", description="Train a configuration.")
    parser.add_argument("config", help="a preset, or the config.json of a work folder")
    parser.add_argument("--data-root", action="append", required=True, help="folder or archive; repeatable")
    parser.add_argument("--infos", required=True, help="a prepared file, or the folder that holds it")
    parser.add_argument("--work-dir", required=True, help="where everything is written")
    parser.add_argument(
        "--gpus",
        type=int,
        default=1 if torch.cuda.is_available() else 0,
        help="GPUs of this machine; 0 is the CPU (default: 1 where torch sees a GPU)",
    )
    parser.add_argument(
        "--emulate-gpus",
        type=int,
        metavar="N",
        help="stand for N ranks, one after another on each device (default: as many as the recipe asks for)",
    )
    parser.add_argument("--seed", type=int, help="default 0")
    parser.add_argument("--cfg-options", nargs="+", action="extend", default=[], metavar="KEY=VALUE")
    parser.add_argument("--resume-from", metavar="FILE", help="go on from this checkpoint")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="auto|FILE",
        help="auto: from latest.pth in the work folder when there is one",
    )
    parser.add_argument(
        "--init-from",
        metavar="FILE",
        help="initial weights of a fresh run: ImageNet or FCOS3D weights of the backbone, or a detector",
    )
    parser.add_argument(
        "--allow-partial-init", action="store_true", help="start although the file does not fit as a whole"
    )
    parser.add_argument("--no-validate", action="store_true", help="neither evaluate nor remind of it")
    parser.add_argument(
        "--validate-every",
        type=int,
        default=0,
        metavar="N",
        help="evaluate on the val infos after every N epochs (steps, where the recipe counts steps)",
    )
    parser.add_argument(
        "--keep-last",
        type=int,
        metavar="K",
        help="delete older checkpoints; 0 keeps all (default: all epochs; 5 where the recipe counts steps)",
    )
    parser.add_argument(
        "--workers", type=int, help="processes that read images (default: 4 with a GPU, else 0)"
    )
    parser.add_argument("--amp", nargs="?", const="fp16", choices=KINDS, help="mixed precision")
    parser.add_argument("--profile", action="store_true", help="trace a few steps into the work folder")
    parser.add_argument(
        "--rank-timeout", type=float, metavar="SECONDS", help="how long processes wait for each other"
    )
    parser.add_argument(
        "--memory",
        metavar="auto|off|NAME,...",
        help="auto: where memory runs out, fall back in ways that keep the result; off: do not; or rungs of "
        "the ladder to begin with (default: auto)",
    )
    parser.add_argument(
        "--allow",
        choices=sorted(ALLOW),
        help="what else may be chosen for want of memory, or be named in --memory",
    )
    parser.add_argument("--deterministic", action="store_true", help="only kernels that repeat bit for bit")
    args = parser.parse_args(argv)
    if args.seed is not None and not 0 <= args.seed < 2**32:
        parser.error("--seed has to be in 0 .. 2**32 - 1")
    for name in ("workers", "keep_last", "validate_every"):
        if (getattr(args, name) or 0) < 0:
            parser.error("--%s cannot be negative" % name.replace("_", "-"))
    if args.rank_timeout is not None and not 0 < args.rank_timeout < math.inf:
        parser.error("--rank-timeout has to be a positive number of seconds")
    if args.resume and args.resume_from:
        parser.error("give --resume or --resume-from, not both")
    if args.resume_from and args.init_from:
        parser.error(
            "--resume-from goes on with a run and its weights; --init-from begins one: give one of them"
        )
    if args.allow_partial_init and not args.init_from:
        parser.error("--allow-partial-init is about the file of --init-from")
    return args


def main(argv: Sequence[str], talk: Talk) -> int:
    args = parse(argv)
    try:
        return _main(args, argv, talk)
    finally:
        leave()


def _main(args: argparse.Namespace, argv: Sequence[str], talk: Talk) -> int:
    from .data.dataset import NuScenesQueue
    from .data.infos import check_infos, infos_path, load_infos
    from .data.store import open_store
    from .evaluate import read_config

    check_gpus(args.gpus)
    if int(os.environ.get("RANK") or 0):
        talk = talk.only_errors()
    config = override(read_config(args.config, talk), args.cfg_options)
    store = open_store(args.data_root)
    infos = load_infos(infos_path(args.infos, "train"))
    for note in getattr(infos, "notes", ()):
        talk.note(note)
    check_infos(infos, store)
    small = decoded_mib(infos.infos) <= CACHE_MIB
    room = free_shared_memory_b()
    workers = workers_that_fit(args.workers, 4 if args.gpus else 0, sample_bytes(config, infos.infos), room)
    dataset = NuScenesQueue(infos, store, config, training=True, cache_frames=small and not workers)
    options = Options(
        args.work_dir,
        args.seed,
        args.gpus,
        args.resume or args.resume_from,
        deterministic=args.deterministic,
        infos_digest=record.infos_digest(infos.infos),
        frames=frame_lines(dataset),
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
        data={} if int(os.environ.get("RANK") or 0) else data_record(store, infos),
    )
    result = run_as_allowed(config, dataset, options, talk, _validator(args, config))
    if result and not args.no_validate and not args.validate_every:
        talk.note(
            "Now score it: bevrepro eval %s %s --data-root ... --infos ..."
            % (os.path.join(args.work_dir, "config.json"), result["checkpoint"])
        )
    talk.result(**result)
    return 0


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


def sample_bytes(config: Config, infos: Sequence[Mapping[str, Any]]) -> int:
    """About how much one rank's batch takes as the model gets it (float32)."""
    one = decoded_mib(infos[:1]) * 2**20 * 4 * config.data.scale**2
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
    config: Config, dataset: Any, options: Options, talk: Talk, validator: Optional[Validator] = None
) -> Dict[str, Any]:
    """`run`; where its preflight does not fit, again with one rung after the other that --allow has."""
    while True:
        try:
            return run(config, dataset, options, talk, validator=validator)
        except DoesNotFit as stop:
            # Without its traceback, which holds the model.
            refused = OutOfMemory(stop.seen, stop.why, stop.do)
        gc.collect()
        entry = allowed_entry(options, refused)
        if entry is None:
            raise refused
        talk.note("%s: begins again with %s." % (entry["why"], entry["what"]))
        options = replace(options, rungs=[*options.rungs, entry])


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
    device = local_device(bool(options.gpus))
    rungs = rungs_at_start(options, resumed)
    precision = choose_precision(asked_precision(options.amp, rungs), config.schedule, device)
    check_precision(resumed, precision)
    if options.deterministic:
        require_repeatable_kernels()
    seed_weights(seed)
    model = build(config).to(device)
    init: Optional[Dict[str, Any]] = None
    if resumed is not None:
        init = resumed_init(resumed, options, talk)
        load_weights(model, resumed["state_dict"], resumed["path"])
    elif options.init_from:
        report = initialise(model, options.init_from, options.allow_partial_init)
        talk.note(report.sentence())
        init = report.record()
    idle = without_use(model, rungs)
    if idle:
        talk.note("--memory: %s has nothing to save in this model, so it is left out." % ", ".join(idle))
    rungs = [entry for entry in rungs if entry["rung"] not in idle]
    memory = Memory(model, rungs, options.memory != OFF, plan_command(options, config, device))
    memory.tell = lambda entry, sentence: talk.note(sentence)
    optimizer = build_optimizer(model, config.schedule)
    first_step = restore_optimizer(optimizer, resumed)
    scale = LossScale(precision, (resumed or {}).get("scaler"))
    ranks.require_equal("%x" % first_step, "checkpoints")
    ranks.require_equal(record.weights_digest(model) if ranks.processes > 1 else "0", "weights")
    schedule = config.schedule
    total = schedule.max_steps or schedule.max_epochs * order.steps_per_epoch
    job = Training(
        model,
        optimizer,
        dataset,
        order,
        schedule,
        first_step,
        total,
        scale,
        ranks,
        device,
        workers=options.workers,
        start=resumed["path"] if resumed else "",
        memory=memory,
    )
    checked = None
    if first_step < total and options.memory != OFF and not pointless(model, device, options.memory):
        try:
            checked = preflight(job, talk)
        except OutOfMemory as error:
            raise (error if resumed else DoesNotFit(error.seen, error.why, error.do)) from None
    return _train(config, options, job, talk, init, validator, checked)


def checkpoint_meta(
    config: Config,
    seed: int,
    infos_digest: str,
    init: Optional[Dict[str, Any]],
    world: int = 1,
    precision: str = "fp32",
    frames: str = "",
) -> Dict[str, Any]:
    """What stands in a checkpoint's meta besides epoch, iter and time.

    The fields of mmcv's come first; `config` is Python text, which mmcv reads back when it resumes.
    """
    return {
        "seed": seed,
        "config": "\n".join("%s = %r" % item for item in to_dict(config).items()) + "\n",
        "exp_name": config.name,
        "CLASSES": list(CLASSES),
        "PALETTE": None,
        "hook_msgs": {},
        "config_json": json.dumps(to_dict(config)),
        "infos_digest": infos_digest,
        "frames_digest": frames,
        "world_size": world,
        "precision": precision,
        "init_from": init,
        "bevformer_version": record.versions()["bevformer"],
    }


def _train(
    config: Config,
    options: Options,
    job: Training,
    talk: Talk,
    init: Optional[Dict[str, Any]],
    validator: Optional[Validator],
    checked: Optional[Dict[str, Any]] = None,
) -> Dict[str, Any]:
    """The part of `run` that writes into the work folder.  checked: what the preflight found."""
    by_epoch, order, ranks, precision = (
        not config.schedule.max_steps,
        job.order,
        job.ranks,
        job.scale.precision,
    )
    frames = frames_digest(options.frames)
    meta = checkpoint_meta(
        config, order.seed, options.infos_digest, init, ranks.world, precision.kind, frames
    )
    keep = keep_last_of(options.keep_last, by_epoch)
    saver = Saver(options.work_dir, meta, by_epoch, order, ranks.leads, keep, talk.note)
    if not ranks.leads:

        def wait(done: int, path: str, means: Mapping[str, float]) -> None:
            if validator is not None and validator.due(done, job.total, order):
                attend(ranks)

        if _validation_was_due(validator, saver, job) and ranks.sum([0.0])[0]:
            wait(job.first_step, "", {})
        train_loop(job, saver, NoLog(), talk, wait)
        return {}
    config_text = json.dumps(to_dict(config), indent=2)
    write_atomically(os.path.join(options.work_dir, "config.json"), config_text + "\n")
    if options.frames:
        write_frames(options.work_dir, options.frames)
    keeper = record.RunKeeper(config, options, job, init, checked)
    said = checked["entries"] if checked else []  # by the preflight
    for entry in (entry for entry in keeper.ledger if entry not in said):
        talk.note("%s (%s): %s" % (entry["what"], entry["effect"], entry["why"]))
    every = LOG_EVERY[by_epoch]
    log = TrainLog(options.work_dir, every, job.total, order.steps_per_epoch, by_epoch, job.first_step)

    def fell_back(entry: Dict[str, Any], sentence: str) -> None:
        talk.note(sentence)
        log.say(sentence)
        keeper.departed(entry)

    def validate(done: int, path: str) -> None:
        if validator is None or not validator.due(done, job.total, order):
            return
        found = validator.run(done, path, talk, ranks)
        keeper.add_validation(found)
        scores = scores_of(found.get("metrics") or {})
        if scores:
            lr = job.schedule.lr * lr_factor(job.schedule, done - 1, order.steps_per_epoch)
            log.validated(done, lr, scores)

    def saved(done: int, path: str, means: Mapping[str, float]) -> None:
        keeper.saved(done, path, means)
        validate(done, path)

    job.memory.tell = fell_back
    try:
        _log_header(log, config, options, job)
        keeper.write("running")
        if job.first_step == 0:
            job.save(saver, 0)
        if _validation_was_due(validator, saver, job):
            path = saver.path(job.first_step)
            missed = os.path.isfile(path) and not keeper.has_validation(job.first_step)
            if ranks.sum([float(missed)])[0]:
                validate(job.first_step, path)
        profile = Profile(options.work_dir, talk, job.device) if options.profile else NoProfile()
        outcome = train_loop(job, saver, log, talk, saved, profile)
    except UserError as stop:
        _keep_reason(keeper, stop)
        raise
    finally:
        log.close()
    return keeper.finish(outcome, job.model)


def _validation_was_due(validator: Optional[Validator], saver: Saver, job: Training) -> bool:
    """Where the run goes on: a run may be ended between a checkpoint and the end of its validation."""
    done = job.first_step
    return (
        validator is not None
        and done > 0
        and saver.due(done, job.total)
        and validator.due(done, job.total, job.order)
    )


def _log_header(log: TrainLog, config: Config, options: Options, job: Training) -> None:
    log.header(
        exp_name=config.name,
        seed=job.order.seed,
        command=" ".join(options.command),
        versions=record.versions(),
        host=record.host_summary(job.device),
    )


def _keep_reason(keeper: record.RunKeeper, stop: UserError) -> None:
    """How the session ended, in run.json; on a full disk the file stays as it was."""
    status = next((word for kind, word in ENDED.items() if isinstance(stop, kind)), "failed")
    try:
        keeper.write(status, why=stop.seen)
    except DiskError:
        if not isinstance(stop, DiskError):
            raise
