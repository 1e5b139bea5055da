"""The demo: the real commands one after another, from nothing to a report.

The commands are values (`steps_of`), running them is `run_demo`. Whatever happens, the mount is removed;
started again in the same folder, it goes on where it stopped.
"""

import json
import shlex
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bevrepro.core.errors import ConfigError, DataError
from bevrepro.core.paths import atomic_write_text
from bevrepro.drive import inside
from bevrepro.drive.launch import Interrupted, target_python
from bevrepro.drive.steps import Invoke, Step, Voice, run_step

CONFIG = "bevformer_micro"
RECIPE_STEPS = 1400
WARMUP_SHARE = 0.03  # of the steps (facts: micro.md)
STATE = "demo.json"
AGAIN = "Start the same demo again: it goes on where it stopped."


@dataclass(frozen=True)
class Demo:
    """What was asked for."""

    out: Path
    steps: int = RECIPE_STEPS
    seed: int = 0
    gpus: int = 0
    target: str | None = None  # the environment that trains and scores; None: bevrepro's own

    @property
    def mountpoint(self) -> Path:
        return self.out / "mnt"

    @property
    def work_dir(self) -> Path:
        return self.out / "work_dirs" / CONFIG


@dataclass(frozen=True)
class Summary:
    """mAP by set of frames, None where it was not scored."""

    before: float | None
    labelled: float | None
    between: float | None
    unseen: float | None
    seconds_per_step: float | None
    steps: int
    seconds: float
    report: Path


def usable_gpus(target: str | None = None) -> int:
    """1 where there is a GPU and the target's torch was built for one, else 0. Raises what `inside.enter`
    raises."""
    from bevrepro.probe.cuda import probe_cuda
    from bevrepro.probe.python import probe_python

    seen = bool(probe_cuda().gpus)
    place = inside.enter(target, None if seen else 0) if target else None
    if not seen or (place and place.gpus == 0):
        return 0
    torch = probe_python(Path(place.python if place else target_python())).torch
    return 1 if torch is not None and torch.cuda else 0


def run_demo(demo: Demo, invoke: Invoke, voice: Voice) -> Summary:
    """Run every step; `invoke` runs one command and returns its exit code, raising what it raises.

    The mount is gone when this returns or raises. Raises ConfigError for a folder that is not a demo's.
    """
    started_s = time.monotonic()
    enter(demo)
    _unmount_leftover(demo, invoke, voice)
    ran: list[dict[str, Any]] = []
    total = sum(1 for _ in steps_of(demo, tokens=lambda results: []))
    try:
        for number, step in enumerate(steps_of(demo), start=1):
            voice.step(number, total, step)
            ran.append(_run(step, invoke, voice))
            atomic_write_text(demo.work_dir / "commands.json", json.dumps({"commands": ran}, indent=1) + "\n")
    except KeyboardInterrupt:
        voice.say(f"\n{AGAIN}")
        raise
    except Interrupted as stop:
        raise Interrupted(stop.seen, stop.why, AGAIN, stop.exit_code) from stop
    finally:
        _unmount(demo, invoke, voice)
    return summarise(demo, time.monotonic() - started_s)


def enter(demo: Demo) -> None:
    """Make the folder, or make sure that it holds a demo with the same steps and seed."""
    asked = {"steps": demo.steps, "seed": demo.seed, **({"target": demo.target} if demo.target else {})}
    state = demo.out / STATE
    if state.is_file():
        held = json.loads(state.read_text(encoding="utf-8"))
        if held != asked:
            then, now = (
                f"{each.get('steps')} steps and seed {each.get('seed')}"
                + (f" in {each['target']}" if each.get("target") else "")
                for each in (held, asked)
            )
            raise ConfigError(
                f"{demo.out} holds a demo with {then}",
                f"{now} were asked for.",
                "Name another folder: bevrepro demo --out DIR",
            )
        return
    if demo.out.exists() and (not demo.out.is_dir() or any(demo.out.iterdir())):
        raise ConfigError(
            f"{demo.out} exists and is not a demo's folder",
            "Nothing in it is touched.",
            "Name a new folder: bevrepro demo --out DIR",
        )
    demo.work_dir.mkdir(parents=True, exist_ok=True)
    atomic_write_text(state, json.dumps(asked) + "\n")


def tokens_in(results: Path) -> list[str]:
    """The sample tokens of a results file in the order they were run. DataError when it is none."""
    try:
        return list(json.loads(results.read_text(encoding="utf-8"))["results"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"no results in {results}: {error}", do="Run `bevrepro eval` first.") from error


def steps_of(demo: Demo, tokens: Callable[[Path], list[str]] = tokens_in) -> Iterator[Step]:
    """The commands in order. Drawn one by one: `viz` names frames that `eval` has just written, which
    `tokens` reads from a results file.
    """
    out, work, mount = demo.out, demo.work_dir, str(demo.mountpoint)
    data = ("--data-root", mount, "--infos", str(out / "infos"))
    gpus = ("--gpus", str(demo.gpus), *(("--target", demo.target) if demo.target else ()))
    yield Step("Look at this machine", ("doctor", "--record", str(work / "machine.json")), may_find=True)
    if not (out / "data" / "synth.json").is_file():
        yield Step("Make a small data set", ("data", "synth", str(out / "data"), "--seed", str(demo.seed)))
    archives = (out / "data" / "archives" / name for name in ("v1.0-mini.tgz", "can_bus.zip"))
    yield Step("Mount its archives", ("data", "mount", *map(str, archives), mount))
    yield Step("Prepare the frames", ("data", "prepare", "--data-root", mount, "--out", str(out / "infos")))
    yield Step("Train", ("train", CONFIG, *data, "--work-dir", str(work), *gpus, *_training(demo)))
    subsets = ("--subset", "labelled", "--subset", "between")
    for name, checkpoint, title in (
        ("before", "iter_0.pth", "Score the untrained model"),
        ("after", "latest.pth", "Score the trained model"),
    ):
        where = ("--out", str(work / "eval" / name))
        scored = ("eval", CONFIG, str(work / checkpoint), *data, "--split", "train", *subsets)
        yield Step(title, (*scored, *where, *gpus))
    unseen = ("eval", CONFIG, str(work / "latest.pth"), *data, "--split", "val")
    yield Step("Score it on unseen scenes", (*unseen, "--out", str(work / "eval" / "unseen"), *gpus))
    yield from _drawings(work, data, tokens)
    yield Step("Put it on one page", ("report", str(work)))


def _training(demo: Demo) -> tuple[str, ...]:
    """--resume auto starts afresh where nothing has been trained yet."""
    options: tuple[str, ...] = ("--seed", str(demo.seed), "--resume", "auto", "--no-validate")
    if demo.steps != RECIPE_STEPS:
        warmup = max(1, round(WARMUP_SHARE * demo.steps))
        options += ("--cfg-options", f"schedule.max_steps={demo.steps}", f"schedule.warmup_steps={warmup}")
    return options


def _drawings(work: Path, data: tuple[str, ...], tokens: Callable[[Path], list[str]]) -> Iterator[Step]:
    """Two trained frames, one between, one of an unseen scene."""
    # Positions 1, 3, 5, ... of each scene are trained on (data.label_every = 2) and scenes have ten frames.
    for name, scored, split, places, title in (
        ("trained", "after", "train", (3, 45), "Draw trained frames"),
        ("between", "after", "train", (24,), "Draw a frame between"),
        ("unseen", "unseen", "val", (5,), "Draw a frame of an unseen scene"),
    ):
        results = work / "eval" / scored / "results_nusc.json"
        found = tokens(results)
        chosen = [part for place in places if place < len(found) for part in ("--sample", found[place])]
        picked = (*data, "--split", split, "--results", str(results), *chosen)
        yield Step(title, ("viz", *picked, "--out", str(work / "viz" / name)))


def _run(step: Step, invoke: Invoke, voice: Voice) -> dict[str, Any]:
    ran = run_step(step, invoke)
    if ran["exit_code"]:
        voice.say("The doctor found something that may fail later; the demo goes on to see.")
    return ran


def _unmount_leftover(demo: Demo, invoke: Invoke, voice: Voice) -> None:
    """A demo that was killed hard may have left its mount behind."""
    if _is_mounted(demo):
        voice.say(f"Taking away the mount that an earlier demo left at {demo.mountpoint}.")
        invoke(["data", "umount", str(demo.mountpoint)])


def _unmount(demo: Demo, invoke: Invoke, voice: Voice) -> None:
    if _is_mounted(demo):
        voice.say(f"\n$ {shlex.join(['bevrepro', 'data', 'umount', str(demo.mountpoint)])}")
        invoke(["data", "umount", str(demo.mountpoint)])


def _is_mounted(demo: Demo) -> bool:
    """Mounted, or remembered for the in-process reader."""
    from bevrepro.data.status import status

    place = demo.mountpoint.resolve()
    return any(Path(one.mountpoint) == place for one in status())


def summarise(demo: Demo, seconds: float) -> Summary:
    """The closing numbers, from the files that the steps left."""
    run = _object(demo.work_dir / "run.json")
    pace = run.get("seconds_per_step")
    return Summary(
        before=_mean_ap(demo, "before", "labelled"),
        labelled=_mean_ap(demo, "after", "labelled"),
        between=_mean_ap(demo, "after", "between"),
        unseen=_mean_ap(demo, "unseen", "all"),
        seconds_per_step=pace if isinstance(pace, float) else None,
        steps=demo.steps,
        seconds=seconds,
        report=demo.work_dir / "report.html",
    )


def _mean_ap(demo: Demo, name: str, subset: str) -> float | None:
    value = (_object(demo.work_dir / "eval" / name / "eval.json").get(subset) or {}).get("mAP")
    return float(value) if isinstance(value, (int, float)) else None


def _object(path: Path) -> dict[str, Any]:
    """Empty where there is no such file or it is broken: a missing number is said to be unknown."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
