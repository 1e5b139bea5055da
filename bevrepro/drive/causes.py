"""Known mistakes: what data, checkpoint and records say of a run, and what its numbers look like.

Pure: what was measured and recorded comes in as values (`evidence`), causes go out, the surest first.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bevrepro.core.errors import UserError
from bevrepro.core.finding import Finding, Severity
from bevrepro.doctor.judge import judge_all
from bevrepro.doctor.metrics import CHECKS
from bevrepro.drive import settings
from bevrepro.drive.recipes import EVAL, TRAIN, Recipe
from bevrepro.drive.settings import BATCH, HISTORY
from bevrepro.probe.infos import Infos
from bevrepro.probe.metrics import Metrics

ALIKE = 1e-6  # numbers of a recipe and a run are equal up to this share
TORN = 1.5  # stretches of one scene in a row, per scene, from which on the history is lost

BOXES = "box convention"
KEYS = "keys that do not match"
WEIGHTS = "weights that do not belong to the model"
PARTIAL = "incomplete data"
UNREADABLE = "data that cannot be used"
SPLIT = "another split"
LENGTH = "trained for another time"
RAW = "raw weights instead of their average"
MODEL = "another model"

# The doctor's findings by what they are called here.
OF_DATA = {
    "infos-convention": BOXES,
    "infos-zero-can": "history without CAN data",
    "tables-missing": PARTIAL,
    "archive-form": PARTIAL,
}
OF_CHECKPOINT = {
    "ckpt-initial-weights": WEIGHTS,
    "ckpt-ema": "a moving average alone (EMA)",
    "ckpt-broken": "a broken checkpoint",
    "ckpt-refused": "a checkpoint that runs programs",
}
OF_METRICS = {
    "metrics-box-convention": BOXES,
    "metrics-near-zero": WEIGHTS,
    "metrics-batch-lr": BATCH,
    "metrics-temporal": HISTORY,
    "metrics-absent-classes": SPLIT,
    "metrics-ema": RAW,
}
AGAIN = "bevrepro reproduce {id}{kind} --work-dir NEW_FOLDER{data}"
VERIFY = "bevrepro data verify DATA --fast"
PREPARE = "bevrepro data prepare --data-root DATA --out INFOS"


@dataclass(frozen=True)
class Cause:
    """One known mistake. `where`: what it was read from. `sure`: recorded, not only inferred."""

    name: str
    seen: str
    where: str  # "metrics", "run.json", "eval.json", "data", "checkpoint"
    command: str = ""
    sure: bool = True
    stops: bool = False  # nothing that is run on this data gives the recipe's result


@dataclass(frozen=True)
class Evidence:
    """What is known about a run. `run`: run.json; `score`: its entry of eval.json; `found`: the doctor's
    findings on data and checkpoint; `infos`: the prepared files by split; `images`: how many of the camera
    images that were looked for are there, and one that is not."""

    metrics: Metrics | None = None
    run: Mapping[str, Any] | None = None
    score: Mapping[str, Any] | None = None
    found: Sequence[Finding] = ()
    infos: Mapping[str, Infos] = field(default_factory=dict)
    images: tuple[int, int, str] | None = None  # missing, looked for, the first missing one
    refused: str | None = None  # a checkpoint that would not load, in the loader's words
    trouble: UserError | None = None  # data that stopped a step
    stopped: str | None = None  # why it was not run to its end


def causes_of(recipe: Recipe, kind: str, known: Evidence) -> tuple[Cause, ...]:
    """What is recorded first, then what is inferred from the numbers; one of each name."""
    found = [
        *_of_checkpoint(known),
        *_of_data(known),
        *_of_infos(recipe, kind, known.infos),
        *_of_trouble(known.trouble),
    ]
    if kind == TRAIN:
        found += [*_of_run(recipe, known.run), *_of_frames(recipe, known)]
    found += [*_of_score(recipe, known.score), *_of_metrics(recipe, known.metrics)]
    first: dict[str, Cause] = {}
    for cause in found:
        first.setdefault(cause.name, cause)
    return tuple(sorted(first.values(), key=lambda cause: not cause.sure))


def _of_checkpoint(known: Evidence) -> Iterator[Cause]:
    """By the doctor's name for it; in the loader's words where it did not load."""
    command, refused = "bevrepro doctor ckpt FILE", known.refused
    for each in known.found:
        if each.family != "ckpt" or each.severity is Severity.INFO:
            continue
        if each.id == "ckpt-ema" and each.severity is Severity.WARN:  # its twin lies beside it
            yield Cause(RAW, each.seen, "checkpoint", sure=False)
        elif each.severity is Severity.FAIL or each.id in OF_CHECKPOINT:
            name = OF_CHECKPOINT.get(each.id, KEYS)
            yield Cause(name, refused or each.seen, "checkpoint", command)
            refused = None
    if refused:
        yield Cause(KEYS, refused, "checkpoint", command)


def _of_data(known: Evidence) -> Iterator[Cause]:
    for each in known.found:
        stops = each.severity is Severity.FAIL
        if each.family == "data" and (stops or (each.id in OF_DATA and each.severity is Severity.WARN)):
            command = each.commands[0] if each.commands else VERIFY
            yield Cause(OF_DATA.get(each.id, UNREADABLE), each.seen, "data", command, stops=stops)
    if known.images and known.images[0]:
        missing, looked, name = known.images
        seen = f"{missing} of {looked} camera images looked for are not there, {name} first"
        yield Cause(PARTIAL, seen, "data", VERIFY, stops=True)


def _of_infos(recipe: Recipe, kind: str, infos: Mapping[str, Infos]) -> Iterator[Cause]:
    """Frames, and whether scenes are whole and one after another."""
    for split, frames, scenes in zip(("train", "val"), recipe.infos or (), recipe.scenes or ()):
        here = infos.get(split)
        if here is None or (kind == EVAL and split != recipe.split):
            continue
        if recipe.version and here.version not in (None, recipe.version):
            seen = f"the infos of {split} are of {here.version}, the recipe's numbers of {recipe.version}"
            yield Cause(SPLIT, seen, "data", "bevrepro data scan DATA --task camera", stops=True)
        elif here.frames is not None and here.frames != frames:
            seen = f"the infos of {split} hold {here.frames} frames instead of {frames}"
            yield Cause(PARTIAL, seen, "data", VERIFY, stops=True)
        elif here.scenes is not None and here.scenes != scenes:
            seen = f"the infos of {split} name {here.scenes} scenes instead of {scenes}"
            yield Cause(HISTORY, f"{seen}: history ends where a scene does", "data", PREPARE, stops=True)
        elif here.scenes and here.stretches and here.stretches > TORN * here.scenes:
            seen = f"the {here.scenes} scenes of {split} lie in {here.stretches} pieces in the order of time"
            yield Cause(HISTORY, f"{seen}: history ends at each", "data", PREPARE, stops=True)


def _of_trouble(trouble: UserError | None) -> Iterator[Cause]:
    if trouble is not None:
        yield Cause(UNREADABLE, trouble.seen, "data", VERIFY)


def _of_run(recipe: Recipe, run: Mapping[str, Any] | None) -> Iterator[Cause]:
    """What run.json says that the recipe says otherwise."""
    if not run:
        return
    again = again_of(recipe)
    if run.get("config_name") not in (None, recipe.config):
        yield Cause(MODEL, f"the run trained {run['config_name']}, the recipe {recipe.config}", "run.json",
                    again)  # fmt: skip
        return  # every other setting is that model's
    yield from _of_expected(recipe, run, again)
    if run.get("status") not in (None, "finished"):
        yield Cause(LENGTH, f"the training is {run['status']}, not finished", "run.json",
                    f"bevrepro reproduce {recipe.id} --from train --work-dir WORK")  # fmt: skip
    yield from _of_settings(settings.differences(recipe, run.get("config") or {}), "run.json", again)
    for entry in run.get("ledger") or ():
        if isinstance(entry, dict) and entry.get("effect") == "changes the result":
            yield Cause(f"departure: {entry.get('what')}", f"{entry.get('what')}: {entry.get('why')}",
                        "run.json", again)  # fmt: skip


def _of_frames(recipe: Recipe, known: Evidence) -> Iterator[Cause]:
    """Whether the run was trained on the infos that are here, boxes included."""
    then, infos = (known.run or {}).get("infos_digest"), known.infos.get("train")
    if infos is None or infos.digest is None or infos.convention != "0.17":  # converted when they are read
        return
    if isinstance(then, str) and then and then != infos.digest:
        told = f"digest {then[:12]}... then, {infos.digest[:12]}... here"
        seen = f"the run was not trained on {infos.path}: {told}"
        yield Cause("other frames or boxes", seen, "run.json", again_of(recipe))


def again_of(recipe: Recipe) -> str:
    """The whole recipe once more, elsewhere."""
    kind = " --kind train" if len(recipe.kinds) > 1 else ""
    data = "" if recipe.synth else " --data-root DATA --infos INFOS"
    return AGAIN.format(id=recipe.id, kind=kind, data=data)


def _of_expected(recipe: Recipe, run: Mapping[str, Any], again: str) -> Iterator[Cause]:
    said = recorded(run)
    for names, name in (
        (("lr", "batch"), BATCH),
        (("queue",), HISTORY),
        (("frames",), PARTIAL),
        (("epochs", "steps"), LENGTH),
    ):
        differ = [
            key for key in names if key in recipe.expect and not _same(said.get(key), recipe.expect[key])
        ]
        if differ:
            told = ", ".join(
                f"{NAMES[key]} {said[key]:g} instead of {recipe.expect[key]:g}" for key in differ
            )
            yield Cause(name, f"the run has {told}", "run.json", VERIFY if "frames" in names else again)


NAMES = {"lr": "learning rate", "batch": "batch", "queue": "a queue of frames of length",
         "frames": "frames to train on:", "epochs": "epochs:", "steps": "steps:"}  # fmt: skip


def recorded(run: Mapping[str, Any]) -> dict[str, float]:
    """A run.json's own words for what a recipe expects; without what it does not say."""
    config = run.get("config") or {}
    schedule, data = config.get("schedule") or {}, config.get("data") or {}
    told = {
        "lr": schedule.get("lr"),
        "batch": run.get("effective_batch"),
        "queue": data.get("queue_length"),
        "frames": run.get("frames"),
        "epochs": schedule.get("max_epochs"),
        "steps": schedule.get("max_steps"),
    }
    return {key: float(value) for key, value in told.items() if isinstance(value, (int, float))}


def _same(one: float | None, other: float) -> bool:
    return one is None or abs(one - other) <= ALIKE * max(abs(one), abs(other))


def _of_settings(found: Sequence[settings.Difference], where: str, command: str) -> Iterator[Cause]:
    """One cause per group, with all its settings."""
    for group in dict.fromkeys(each.group for each in found):
        yield Cause(group, ", ".join(each.said for each in found if each.group == group), where, command)


def _of_score(recipe: Recipe, score: Mapping[str, Any] | None) -> Iterator[Cause]:
    if score is None:
        return
    command = (f"bevrepro eval {recipe.config} FILE --data-root DATA --infos INFOS --split {recipe.split} "
               f"--subset {recipe.subset}")  # fmt: skip
    config = score.get("config") or {}
    if config.get("name") not in (None, recipe.config):
        yield Cause(MODEL, f"{config['name']} was evaluated, not {recipe.config}", "eval.json", command)
    else:
        yield from _of_settings(settings.at_test(settings.differences(recipe, config)), "eval.json", command)
    other = other_split(recipe, score)
    if other:
        yield Cause(SPLIT, other, "eval.json", command)
    elif partial := partial_of(recipe, score):
        yield Cause(PARTIAL, partial, "eval.json", VERIFY)


def other_split(recipe: Recipe, score: Mapping[str, Any] | None) -> str | None:
    """Why the frames that were scored are others than the recipe's."""
    said = score or {}
    wanted = f"mini_{recipe.split}" if recipe.synth else recipe.split
    if isinstance(said.get("split"), str) and said["split"] != wanted:
        return f"scored on {said['split']}, the recipe's numbers are of {wanted}"
    if isinstance(said.get("subset"), str) and said["subset"] != recipe.subset:
        return f"scored on the subset {said['subset']}, the recipe's numbers are of {recipe.subset}"
    return None


def partial_of(recipe: Recipe, score: Mapping[str, Any] | None) -> str | None:
    """Why the metrics are not those of a whole evaluation of the recipe's split."""
    count = (score or {}).get("num_samples")
    if recipe.scored is not None and isinstance(count, int) and count != recipe.scored:
        return f"{count} frames were scored, the recipe has {recipe.scored}"
    if score is not None and score.get("complete") is False:
        return "only a part of the frames was scored"
    return None


def _of_metrics(recipe: Recipe, metrics: Metrics | None) -> Iterator[Cause]:
    """The doctor's fingerprints that mean something for this recipe."""
    if metrics is None or metrics.nds is None:
        return
    checks = [check for check in CHECKS if check.id in recipe.fingerprints]
    for each in judge_all(metrics, checks):
        command = each.commands[0] if each.commands else ""
        yield Cause(OF_METRICS[each.id], each.seen, "metrics", command, sure=False)
