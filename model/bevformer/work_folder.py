"""What a training leaves in its work folder: configuration, frames, logs, checkpoints and run.json."""

import json
import os
import platform
from typing import Any, Dict, Mapping, Optional

from . import record
from .atomic import write_atomically
from .config import Config, to_dict
from .errors import DiskError, UserError
from .frames import frames_digest, write_frames
from .levers import levers_sentence
from .loop import Diverged, Interrupted, train_loop
from .memory import OutOfMemory
from .optim import lr_factor
from .profiling import NoProfile, Profile
from .runstate import Options
from .saving import Saver, keep_last_of
from .step import Training
from .talk import Talk
from .trainlog import NoLog, TrainLog
from .types import CLASSES
from .validation import Validator, attend, scores_of

ENDED = {Interrupted: "interrupted", Diverged: "diverged", OutOfMemory: "out of memory"}
WRITTEN = "The checkpoints that were written before are whole."
AGAIN = "Make room there, then give the same command with --resume auto."
LOG_EVERY = {True: 50, False: 10}  # steps, by epoch (as upstream) or not
COMPARED = {"every": 1, "digits": 12}  # a run in fp64 is there to be compared, step by step


def train_into(
    config: Config,
    options: Options,
    job: Training,
    talk: Talk,
    init: Optional[Dict[str, Any]],
    validator: Optional[Validator],
    checked: Optional[Dict[str, Any]] = None,
) -> Dict[str, Any]:
    """All steps of the job; the fields of the result event.  checked: what the preflight found."""
    meta = checkpoint_meta(
        config,
        job.order.seed,
        options.infos_digest,
        init,
        job.ranks.world,
        job.scale.precision.kind,
        frames_digest(options.frames),
    )
    by_epoch = not config.schedule.max_steps
    keep = keep_last_of(options.keep_last, by_epoch)
    hosts = job.ranks.gather(dict(record.host_summary(job.device), node=platform.node()))
    saver = Saver(options.work_dir, meta, by_epoch, job.order, job.ranks.leads, keep, talk.note)
    if not job.ranks.leads:
        return _follow(job, saver, talk, validator)
    config_text = json.dumps(to_dict(config), indent=2)
    write_atomically(os.path.join(options.work_dir, "config.json"), config_text + "\n")
    if options.frames:
        write_frames(options.work_dir, options.frames)
    keeper = record.RunKeeper(config, options, job, init, checked, hosts)
    said = checked["entries"] if checked else []  # by the preflight
    for entry in (entry for entry in keeper.ledger if entry not in said and "lever" not in entry):
        talk.note("%s (%s): %s" % (entry["what"], entry["effect"], entry["why"]))
    computed = levers_sentence([entry for entry in keeper.ledger if "lever" in entry])
    if computed:
        talk.note(computed)
    return _lead(config, options, job, saver, keeper, talk, validator)


def _follow(job: Training, saver: Saver, talk: Talk, validator: Optional[Validator]) -> Dict[str, Any]:
    """The processes that write nothing; they wait while the first one validates."""

    def wait(done: int, path: str, means: Mapping[str, float]) -> None:
        if validator is not None and validator.due(done, job.total, job.order):
            attend(job.ranks)

    if _validation_was_due(validator, saver, job) and job.ranks.sum([0.0])[0]:
        wait(job.first_step, "", {})
    train_loop(job, saver, NoLog(), talk, wait)
    return {}


def _lead(
    config: Config,
    options: Options,
    job: Training,
    saver: Saver,
    keeper: record.RunKeeper,
    talk: Talk,
    validator: Optional[Validator],
) -> Dict[str, Any]:
    order, by_epoch = job.order, saver.by_epoch
    how = COMPARED if job.scale.precision.kind == "fp64" else {"every": LOG_EVERY[by_epoch]}
    log = TrainLog(
        options.work_dir,
        total=job.total,
        steps_per_epoch=order.steps_per_epoch,
        by_epoch=by_epoch,
        first_step=job.first_step,
        **how,
    )
    scribe = _Scribe(job, keeper, log, talk, validator)
    job.memory.tell = scribe.fell_back
    try:
        _log_header(log, config, options, job)
        keeper.write("running")
        if job.first_step == 0:
            job.save(saver, 0)
        else:
            saver.thin_out(job.start or saver.path(job.first_step))
        if _validation_was_due(validator, saver, job):
            scribe.catch_up(saver.path(job.first_step))
        profile = Profile(options.work_dir, talk, job.device) if options.profile else NoProfile()
        outcome = train_loop(job, saver, log, talk, scribe.saved, profile)
    except UserError as stop:
        if isinstance(stop, DiskError):  # whichever file it was
            stop.why, stop.do = WRITTEN, AGAIN
        _keep_reason(keeper, stop)
        raise
    finally:
        log.close()
    return keeper.finish(outcome, job.model)


class _Scribe:
    """What the leading process says, logs and records on the way."""

    def __init__(
        self,
        job: Training,
        keeper: record.RunKeeper,
        log: TrainLog,
        talk: Talk,
        validator: Optional[Validator],
    ) -> None:
        self._job, self._keeper, self._log, self._talk = job, keeper, log, talk
        self._validator = validator

    def fell_back(self, entry: Dict[str, Any], sentence: str) -> None:
        self._talk.note(sentence)
        self._log.say(sentence)
        self._keeper.departed(entry)

    def saved(self, done: int, path: str, means: Mapping[str, float]) -> None:
        self._keeper.saved(done, path, means)
        self._validate(done, path)

    def catch_up(self, path: str) -> None:
        """The validation that an earlier session did not come to; the other processes wait for the answer."""
        done, ranks = self._job.first_step, self._job.ranks
        missed = os.path.isfile(path) and not self._keeper.has_validation(done)
        if ranks.sum([float(missed)])[0]:
            self._validate(done, path)

    def _validate(self, done: int, path: str) -> None:
        job, validator = self._job, self._validator
        if validator is None or not validator.due(done, job.total, job.order):
            return
        found = validator.run(done, path, self._talk, job.ranks)
        self._keeper.add_validation(found)
        scores = scores_of(found.get("metrics") or {})
        if scores:
            lr = job.schedule.lr * lr_factor(job.schedule, done - 1, job.order.steps_per_epoch)
            self._log.validated(done, lr, scores)


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
