"""`reproduce`: doctor, environment, data, weights, training, evaluation and comparison strung together.

The commands are values (`commands_of`), running them is `run_reproduction`. What was finished is kept in
reproduce.json, so the same command goes on where it stopped; `start` begins again at a step.
"""

import json
import shlex
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from bevrepro.core.errors import CheckpointError, ConfigError, DataError, UserError
from bevrepro.core.paths import atomic_write_text
from bevrepro.drive import evidence
from bevrepro.drive.causes import Evidence, causes_of
from bevrepro.drive.inside import enter
from bevrepro.drive.launch import target_python
from bevrepro.drive.recipes import EVAL, TRAIN, Recipe
from bevrepro.drive.steps import Invoke, Step, Voice, run_step
from bevrepro.drive.verdict import Verdict, judge
from bevrepro.env.layout import real

STEPS = ("doctor", "env", "data", "weights", "train", "eval", "compare")
STATE, VERDICT = "reproduce.json", "verdict.json"


@dataclass(frozen=True)
class Wish:
    """What was asked for. `checkpoint`: evaluate this one and train nothing; `anyway`: go on although the
    data would give another result."""

    recipe: Recipe
    kind: str
    work_dir: Path
    data_root: tuple[Path, ...] = ()
    infos: Path | None = None
    checkpoint: Path | None = None
    gpus: int | None = None
    seed: int = 0
    start: str | None = None
    anyway: bool = False
    target: str | None = None  # the environment that trains and scores; None: bevrepro's own

    @property
    def run_dir(self) -> Path:
        """Where training writes, or where the given checkpoint's training wrote."""
        return self.checkpoint.parent if self.checkpoint else self.work_dir / "run"

    @property
    def page_dir(self) -> Path:
        """Which folder the report is about; the evaluation lies in it."""
        trained = self.kind == TRAIN and self.checkpoint is None
        return self.run_dir if trained else self.work_dir

    @property
    def roots(self) -> tuple[Path, ...]:
        return (self.work_dir / "data" / "nuscenes",) if self.recipe.synth else self.data_root

    @property
    def infos_dir(self) -> Path:
        return self.infos or self.work_dir / "infos"

    @property
    def weights_dir(self) -> Path:
        return self.work_dir / "ckpts"


@dataclass
class State:
    """reproduce.json: which steps are done, and what a later one needs of them."""

    recipe: str
    kind: str
    done: list[str] = field(default_factory=list)
    commands: list[dict[str, Any]] = field(default_factory=list)
    seed: int = 0
    scored: list[Any] | None = None  # which checkpoint was evaluated: path, size, time of change
    doing: str = ""  # the step that is running


def check(wish: Wish) -> None:
    """ConfigError for what does not go together, and what `enter` raises."""
    if wish.target is not None:
        enter(wish.target, wish.gpus)
    if wish.kind not in wish.recipe.kinds:
        raise ConfigError(
            f"{wish.recipe.id} has no {wish.kind} numbers",
            f"It has: {', '.join(wish.recipe.kinds)}.",
            "Choose one of these with --kind, or leave it out.",
        )
    if not wish.recipe.synth and not wish.data_root:
        raise ConfigError(
            f"{wish.recipe.id} needs nuScenes",
            "Its data is not made here and cannot be downloaded without an account.",
            f"bevrepro reproduce {wish.recipe.id} --data-root DIR_OR_ARCHIVE   (see `bevrepro data scan`)",
        )
    if wish.start is not None and wish.start not in STEPS:
        raise ConfigError(f"--from {wish.start} is no step", "Steps: " + ", ".join(STEPS))
    if wish.checkpoint is not None and not wish.checkpoint.is_file():
        raise CheckpointError(f"there is no {wish.checkpoint}", do="Name the .pth file to evaluate.")


def commands_of(wish: Wish) -> Iterator[tuple[str, Step]]:
    """(name of the step, command) of all that has to run, in order. `compare` is no command of its own."""
    yield (
        "doctor",
        Step("Look at this machine", ("doctor", "--record", str(wish.page_dir / "machine.json")), True),
    )
    prefix = real(None, wish.target) if wish.target else Path(target_python()).parent.parent
    yield "env", Step("Look at the environment", ("doctor", "env", str(prefix)), True)
    yield from (("data", step) for step in _data(wish))
    yield from (("weights", step) for step in _weights(wish))
    if wish.kind == TRAIN and wish.checkpoint is None:
        yield "train", Step("Train", tuple(_train(wish)))
    yield "eval", Step("Score it", tuple(_eval(wish)))


def _data(wish: Wish) -> Iterator[Step]:
    if wish.recipe.synth and not (wish.work_dir / "data" / "synth.json").is_file():
        yield Step("Make the data set", ("data", "synth", str(wish.work_dir / "data"), "--seed", "0"))
    made = any(wish.infos_dir.glob("nuscenes_infos_temporal_*"))
    if wish.infos is None and (not made or wish.start == "data"):
        roots = [part for root in wish.roots for part in ("--data-root", str(root))]
        yield Step("Prepare the frames", ("data", "prepare", *roots, "--out", str(wish.infos_dir)))


def _weights(wish: Wish) -> Iterator[Step]:
    name = wish.recipe.weights if wish.kind == EVAL else wish.recipe.init
    if name is not None and wish.checkpoint is None:
        yield Step("Fetch the weights", ("weights", "get", name, "--into", str(wish.weights_dir)))


def _train(wish: Wish) -> Iterator[str]:
    recipe = wish.recipe
    yield from ("train", recipe.config, *_where(wish), "--work-dir", str(wish.run_dir))
    yield from ("--seed", str(wish.seed), "--resume", "auto", "--no-validate", *_gpus(wish))
    if recipe.init is not None:
        yield from ("--init-from", str(_file(wish, recipe.init)))
    if recipe.cfg_options:
        yield from ("--cfg-options", *recipe.cfg_options)


def _eval(wish: Wish) -> Iterator[str]:
    recipe = wish.recipe
    yield from ("eval", recipe.config, str(_checkpoint(wish)), *_where(wish), "--split", recipe.split)
    yield from ("--subset", recipe.subset, "--out", str(wish.page_dir / "eval"), *_gpus(wish))


def _checkpoint(wish: Wish) -> Path:
    if wish.checkpoint is not None:
        return wish.checkpoint
    return _file(wish, str(wish.recipe.weights)) if wish.kind == EVAL else wish.run_dir / "latest.pth"


def _file(wish: Wish, name: str) -> Path:
    from bevrepro.drive.weights import weights

    return wish.weights_dir / weights(name).file


def _where(wish: Wish) -> tuple[str, ...]:
    roots = [part for root in wish.roots for part in ("--data-root", str(root))]
    return (*roots, "--infos", str(wish.infos_dir))


def _gpus(wish: Wish) -> tuple[str, ...]:
    target = ("--target", wish.target) if wish.target else ()
    return target if wish.gpus is None else ("--gpus", str(wish.gpus), *target)


def run_reproduction(wish: Wish, invoke: Invoke, voice: Voice) -> Verdict:
    """Run what is not done yet and judge. A checkpoint that does not load and data that cannot be used are
    part of the verdict; raises what else a command raises.
    """
    check(wish)
    state = _enter(wish)
    try:
        stop = _steps(wish, state, invoke, voice)
    except CheckpointError as error:
        if state.doing != "eval":
            raise
        known = replace(_known(wish), refused=error.seen)
    except DataError as error:
        if state.doing not in ("data", "train", "eval"):
            raise
        known = replace(_known(wish, wish.roots), trouble=error, stopped=f"`{state.doing}` could not go on")
    else:
        known = stop or _known(wish)
    if known.refused or known.stopped:  # what an earlier evaluation left is another one's
        known = replace(known, metrics=None, score=None)
    return _finish(wish, judge(wish.recipe, wish.kind, known), voice)


def _steps(wish: Wish, state: State, invoke: Invoke, voice: Voice) -> Evidence | None:
    """Each that is not done; the evidence where the data alone says that the result will be another one."""
    looked, asked = False, list(commands_of(wish))
    for number, (name, step) in enumerate(asked, start=1):
        if name in state.done:
            continue
        if not looked and not wish.anyway and name in ("weights", "train", "eval"):
            looked = True
            if (stop := _stop(wish)) is not None:
                return stop
        state.doing = name
        voice.step(number, len(asked), step)
        state.commands.append(run_step(step, invoke))
        if number == len(asked) or asked[number][0] != name:
            state.done.append(name)
        if name == "eval":
            state.scored = _identity(_checkpoint(wish))
        _keep(wish, state)
    return None


def _identity(path: Path) -> list[Any] | None:
    """None where there is no such file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return [str(path), found.st_size, found.st_mtime_ns]


def _known(wish: Wish, roots: tuple[Path, ...] = ()) -> Evidence:
    where = (wish.page_dir / "eval", wish.run_dir, wish.infos_dir, roots)
    return evidence.gather(wish.recipe, *where, _checkpoint(wish))


def _stop(wish: Wish) -> Evidence | None:
    """What is known of the data where it cannot give the recipe's result."""
    known = evidence.gather(wish.recipe, None, None, wish.infos_dir, wish.roots)
    if not any(cause.stops for cause in causes_of(wish.recipe, wish.kind, known)):
        return None
    return replace(known, stopped="the data would give another result")


def _finish(wish: Wish, verdict: Verdict, voice: Voice) -> Verdict:
    """Write verdict.json and the report beside it."""
    from bevrepro.drive.report import write_report

    verdict = replace(verdict, next=_filled(wish, verdict.next))
    text = json.dumps({**asdict(verdict), "passed": verdict.passed}, indent=2) + "\n"
    atomic_write_text(wish.work_dir / VERDICT, text)
    if wish.page_dir != wish.work_dir:
        atomic_write_text(wish.page_dir / VERDICT, text)
    try:
        voice.say(f"Report: {write_report(wish.page_dir, wish.work_dir / 'report.html')}")
    except UserError as error:  # nothing was run yet
        voice.say(f"No report: {error.seen}")
    return verdict


def _filled(wish: Wish, command: str) -> str:
    """With this reproduction's paths in place of words like FILE."""
    roots = shlex.join(map(str, wish.roots))
    named = " ".join(f"--data-root {shlex.quote(str(root))}" for root in wish.roots)
    for word in ("DATA", "ROOT"):
        command = command.replace(f"--data-root {word}", named)
    known = {"DATA": roots, "ROOT": roots, "PATH": roots, "CONFIG": wish.recipe.config}
    paths = {"INFOS": wish.infos_dir, "FOLDER": wish.work_dir / "infos", "FILE": _checkpoint(wish),
             "CKPT": _checkpoint(wish), "WORK": wish.work_dir, "RUN": wish.run_dir,
             "NEW_FOLDER": f"{wish.work_dir}_again", "WEIGHTS": wish.weights_dir}  # fmt: skip
    known |= {word: shlex.quote(str(path)) for word, path in paths.items()}
    return " ".join(known.get(word, word) for word in command.split(" "))


def _enter(wish: Wish) -> State:
    """The state of the folder: refused where it belongs to another recipe, cut back for --from."""
    path = wish.work_dir / STATE
    if not path.is_file():
        wish.work_dir.mkdir(parents=True, exist_ok=True)
        done = list(STEPS[: STEPS.index(wish.start)]) if wish.start else []
        return State(wish.recipe.id, wish.kind, done, seed=wish.seed)
    held = _held(path)
    if (held.get("recipe"), held.get("kind")) != (wish.recipe.id, wish.kind):
        raise ConfigError(
            f"{wish.work_dir} holds a reproduction of {held.get('recipe')} ({held.get('kind')})",
            "Two of them in one folder would overwrite each other's results.",
            "Name another --work-dir.",
        )
    if held.get("seed", wish.seed) != wish.seed and wish.kind == TRAIN and wish.checkpoint is None:
        raise ConfigError(
            f"{wish.work_dir} holds a reproduction with seed {held['seed']}, not {wish.seed}",
            "It is another training.",
            "Name another --work-dir.",
        )
    done, scored = [str(name) for name in held.get("done", ())], held.get("scored")
    if wish.start:
        done = list(STEPS[: STEPS.index(wish.start)])
    elif "eval" in done and scored is not None and scored != _identity(_checkpoint(wish)):
        done.remove("eval")  # the numbers are another checkpoint's
    commands = list(held.get("commands", ()))
    return State(wish.recipe.id, wish.kind, done, commands, wish.seed, scored)


def _held(path: Path) -> dict[str, Any]:
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        held = error
    if isinstance(held, dict):
        return held
    raise ConfigError(
        f"{path} cannot be read",
        "It says which steps of the reproduction are done.",
        f"Remove it: every step looks for itself what is there.   rm {shlex.quote(str(path))}",
    )


def _keep(wish: Wish, state: State) -> None:
    atomic_write_text(wish.work_dir / STATE, json.dumps(asdict(state), indent=1) + "\n")
    ran = {"commands": state.commands}
    atomic_write_text(wish.page_dir / "commands.json", json.dumps(ran, indent=1) + "\n")
