"""Carry out a plan: step after step into a folder of its own, and PREFIX shows it only when all is well.

A build that was cut off goes on where it stopped. What a half-done step may have left inside the
environment is not trusted: then the folder begins anew, from caches that are warm by now.
"""

import contextlib
import json
import shutil
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bevrepro import __version__
from bevrepro.core.errors import DiskError, UserError
from bevrepro.core.paths import atomic_write_text, cache_dir
from bevrepro.env import layout, patching, patchset, selftest, steps, toolkit, wheels
from bevrepro.env.digest import digest_of
from bevrepro.env.job import Job, OnEvent, end_orphans
from bevrepro.env.layout import CUDA, LOG, STEPS
from bevrepro.env.plan import Plan, Step, choose_build
from bevrepro.env.receipt import Receipt, read_receipt, write_receipt
from bevrepro.env.slips import find_slips, records_in
from bevrepro.env.tree import hash_tree

GIB = 2**30


@dataclass(frozen=True)
class Options:
    """`rebuild`: make it again although it is there. `wait`: for another build of the same PREFIX."""

    rebuild: bool = False
    wait: bool = False


@dataclass(frozen=True)
class Built:
    """The environment's receipt; `was_there` where nothing had to be done."""

    receipt: Receipt
    was_there: bool = False


def build(plan: Plan, options: Options, on_event: OnEvent) -> Built:
    """The environment, ready to use. Raises a UserError; PREFIX then shows what it showed before."""

    def say(text: str) -> None:
        on_event({"event": "note", "text": text})

    with layout.held(plan.place, options.wait, say):
        end_orphans(plan.place.builds)
        plan = _seen_again(plan, options)
        if plan.finished and not options.rebuild:
            if plan.place.link != plan.build:
                layout.switch(plan.place, plan.build)
            return Built(read_receipt(plan.build), was_there=True)
        _remove_trash(plan.place.builds)
        _prepare(plan, options)
        job = Job(plan, on_event, afresh=options.rebuild)
        done = [_carry_out(job, number, step) for number, step in enumerate(plan.steps, 1)]
        receipt = _receipt(job, done)
        write_receipt(receipt, plan.build)
        layout.switch(plan.place, plan.build)
        shutil.rmtree(job.work, ignore_errors=True)
        return Built(receipt)


def _seen_again(plan: Plan, options: Options) -> Plan:
    """The plan with what the last holder of the lock left."""
    place = layout.resolve(plan.place.prefix, plan.target.name)
    return replace(plan, place=place, build=choose_build(place, plan.inputs_digest, options.rebuild))


def _prepare(plan: Plan, options: Options) -> None:
    """A folder to go on in, or an empty one with enough free disk."""
    if plan.finished or not _can_go_on(plan):
        _trash(plan.build)
        _check_room(plan)
    try:
        (plan.build / STEPS).mkdir(parents=True, exist_ok=True)
        (plan.build / LOG).touch()
    except OSError as error:
        raise DiskError(
            f"could not make {plan.build}: {error.strerror}",
            "Nothing was built.",
            "Free some space, or name a --prefix that can be written.",
        ) from error


def _check_room(plan: Plan) -> None:
    free_b = shutil.disk_usage(plan.place.builds).free
    if free_b < plan.target.disk_gib * GIB:
        raise DiskError(
            f"{free_b / GIB:.1f} GiB are free in {plan.place.builds}; {plan.target.name} needs "
            f"{plan.target.disk_gib:.1f}",
            "A build that ends in a full disk costs as much time as one that does not.",
            "Free some space, or name a --prefix on another disk.",
        )


def _can_go_on(plan: Plan) -> bool:
    """Whether a build was begun here and no step was cut off while it changed the environment."""
    folder = plan.build / STEPS
    return folder.is_dir() and all(
        _done(folder, number, step) is not None or not _started(folder, number, step).exists()
        for number, step in enumerate(plan.steps, 1)
        if step.changes
    )


def _carry_out(job: Job, number: int, step: Step) -> dict[str, Any]:
    """One step, unless it was done before. Its receipt is written when it is through."""
    folder, total = job.plan.build / STEPS, len(job.plan.steps)
    done = _done(folder, number, step)
    job.progress(number - 1, total, job.plan.target.name, step.what)
    if done is not None:
        job.said.update(done.get("said") or {})
        job.notes.extend(done.get("notes") or ())
        job.on_event({"event": "note", "text": f"  {step.what}: done before"})
    else:
        done = _run(job, number, step)
        job.on_event({"event": "note", "text": f"  {step.what}: {done['seconds']:.1f} s"})
    job.progress(number, total, job.plan.target.name, step.what)
    return {key: done[key] for key in ("name", "seconds", "digest")}


def _run(job: Job, number: int, step: Step) -> dict[str, Any]:
    folder = job.plan.build / STEPS
    started_s, notes, said = time.monotonic(), len(job.notes), dict(job.said)
    job.write_log(f"\n== {step.name}: {step.what}")
    try:
        _started(folder, number, step).touch()
        steps.action(job, step.name)()
    except UserError as error:
        with contextlib.suppress(DiskError):
            job.write_log(f"== {step.name} failed: {error.seen}")
        raise
    except OSError as error:
        raise DiskError(
            f"{error.filename or job.work}: {error.strerror or error}",
            f"In the step: {step.what}. The old environment was not touched.",
            f"Free some space or mend the permissions ({cache_dir()} is the cache: BEVREPRO_CACHE), then run "
            "the same command again: it goes on.",
        ) from error
    done = {
        "name": step.name,
        "seconds": round(time.monotonic() - started_s, 3),
        "digest": job.plan.inputs_digest,
        "notes": job.notes[notes:],
        "said": {key: value for key, value in job.said.items() if said.get(key) != value},
    }
    atomic_write_text(_receipt_of(folder, number, step), json.dumps(done, indent=1) + "\n")
    return done


def _receipt_of(folder: Path, number: int, step: Step) -> Path:
    return folder / f"{number}-{step.name}.json"


def _started(folder: Path, number: int, step: Step) -> Path:
    return folder / f"{number}-{step.name}.started"


def _done(folder: Path, number: int, step: Step) -> dict[str, Any] | None:
    try:
        told: dict[str, Any] = json.loads(_receipt_of(folder, number, step).read_text(encoding="utf-8"))
        return told if told["name"] == step.name else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _receipt(job: Job, done: list[dict[str, Any]]) -> Receipt:
    plan, target = job.plan, job.plan.target
    for each in (plan.build / STEPS).glob("*.started"):
        each.unlink()
    entries = hash_tree(plan.build)
    made = toolkit.read_toolkit(plan.build / CUDA) if target.cuda else None
    tests = [selftest.Result(**row) for row in job.said.get("selftest", ())]
    return Receipt(
        target=target.name,
        title=target.title,
        stack=target.stack,
        prefix=str(plan.place.prefix),
        path=str(plan.build),
        python={key: value for key, value in asdict(plan.interpreter).items() if key != "implementation"},
        inputs_digest=plan.inputs_digest,
        digest=digest_of(entries),
        locks=plan.locks.digests(),
        packages=wheels.installed_packages(steps.site_packages(job)),
        built=tuple(pin.name for pin in plan.sdists),
        patches=tuple({"set": each.name, "sha256": patchset.digest(each)} for each in plan.patches),
        cuda={"version": made.version, "home": str(plan.build / CUDA), "digest": made.digest}
        if made
        else None,
        environment=dict(target.environment),
        selftest=tuple(each.to_json() for each in tests),
        steps=tuple(done),
        built_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        bevrepro=__version__,
        evidence=target.level,
        slips=find_slips(entries, records_in(plan.build), _patched(job)),
        notes=tuple(job.notes),
    )


def _patched(job: Job) -> set[str]:
    """Installed files that the plan's patches change, relative to the environment."""
    site = steps.site_packages(job).relative_to(job.plan.build)
    sets = [each for each in job.plan.patches if each.stage == "installed"]
    return {f"{site}/{path}" for each in sets for path in patching.patched_files(each)}


def _trash(folder: Path) -> None:
    """Out of the way in one step: a folder that is half removed must not be taken for a half-built one."""
    if folder.exists():
        away = folder.with_name(f".trash-{folder.name}-{time.time_ns()}")
        folder.rename(away)
        shutil.rmtree(away, ignore_errors=True)


def _remove_trash(builds: Path) -> None:
    for each in builds.glob(".trash-*"):
        shutil.rmtree(each, ignore_errors=True)
