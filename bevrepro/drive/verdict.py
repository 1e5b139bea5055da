"""Whether a run reproduces its recipe, and if not, which known mistake its numbers and records look like.

Pure: what was measured and recorded comes in as values (`evidence`), a verdict goes out.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bevrepro.core.finding import Finding, Severity
from bevrepro.doctor.judge import judge_all
from bevrepro.doctor.metrics import CHECKS
from bevrepro.drive.recipes import TRAIN, Band, Published, Recipe
from bevrepro.probe.metrics import Metrics

PASS, BELOW, ABOVE, UNKNOWN, STOPPED = "pass", "below", "above", "not comparable", "not reached"
SLACK = 1e-9
ALIKE = 1e-6  # numbers of a recipe and a run are equal up to this share

# Fingerprints by what they are called elsewhere, and the next command where the finding has none.
OF_DATA = {"infos-convention": "box convention", "infos-zero-can": "history without CAN data",
           "sensor-files-missing": "incomplete data"}  # fmt: skip
OF_METRICS = {
    "metrics-box-convention": "box convention",
    "metrics-near-zero": "weights that do not belong to the model",
    "metrics-batch-lr": "batch and learning rate",
    "metrics-temporal": "history lost",
    "metrics-absent-classes": "another split",
    "metrics-ema": "raw weights instead of their average",
}


@dataclass(frozen=True)
class Cause:
    """One known mistake. `where`: what it was read from. `sure`: recorded, not only inferred."""

    name: str
    seen: str
    where: str  # "metrics", "run.json", "eval.json", "data", "checkpoint"
    command: str = ""
    sure: bool = True


@dataclass(frozen=True)
class Evidence:
    """What is known about a run. `run`: run.json; `score`: its entry of eval.json; `found`: the doctor's
    findings on data and checkpoint; `refused`: a checkpoint that would not load, in the loader's words."""

    metrics: Metrics | None = None
    run: Mapping[str, Any] | None = None
    score: Mapping[str, Any] | None = None
    found: Sequence[Finding] = ()
    refused: str | None = None
    frames: Mapping[str, int | None] = field(default_factory=dict)  # in the infos, by split
    stopped: str | None = None  # why it was not run to its end


@dataclass(frozen=True)
class Verdict:
    """`word`: one of PASS, BELOW, ABOVE, UNKNOWN, STOPPED. Causes: the surest first; () for a pass."""

    recipe: str
    kind: str
    word: str
    sentence: str
    map: float | None = None
    nds: float | None = None
    wanted_map: Band | None = None
    wanted_nds: Band | None = None
    causes: tuple[Cause, ...] = ()
    next: str = ""

    @property
    def passed(self) -> bool:
        return self.word == PASS


def judge(recipe: Recipe, kind: str, evidence: Evidence) -> Verdict:
    """The verdict of `kind` (recipes.EVAL or TRAIN) on what is known."""
    causes = causes_of(recipe, kind, evidence)
    metrics = evidence.metrics
    if metrics is None or metrics.map is None or metrics.nds is None:
        what = "the checkpoint does not load" if evidence.refused else evidence.stopped
        what = what or (metrics.broken if metrics is not None else None)
        sentence = f"there are no metrics to compare{f': {what}' if what else ''}"
        return _verdict(recipe, kind, STOPPED, sentence, causes, evidence)
    maps, nds, said = _wanted(recipe, kind, evidence)
    if maps is None or nds is None:
        return _verdict(recipe, kind, UNKNOWN, said, causes, evidence)
    partial = _partial(recipe, evidence.score)
    if partial:
        return _verdict(recipe, kind, UNKNOWN, partial, causes, evidence, maps, nds)
    word = _place(metrics.map, metrics.nds, maps, nds)
    if word == PASS and any(cause.sure for cause in causes):  # right numbers of another recipe are no pass
        said = f"within {said}, but this is not the recipe's run"
        return _verdict(recipe, kind, UNKNOWN, said, causes, evidence, maps, nds)
    return _verdict(recipe, kind, word, f"{WORDS[word]} {said}", causes, evidence, maps, nds)


WORDS = {PASS: "within", BELOW: "below", ABOVE: "above"}


def _place(map_: float, nds: float, maps: Band, ndss: Band) -> str:
    if map_ < maps[0] - SLACK or nds < ndss[0] - SLACK:
        return BELOW
    return ABOVE if map_ > maps[1] + SLACK or nds > ndss[1] + SLACK else PASS


def _wanted(recipe: Recipe, kind: str, known: Evidence) -> tuple[Band | None, Band | None, str]:
    """(mAP from and to, NDS from and to, what that is)."""
    if kind == TRAIN:
        count = len(recipe.trainings)
        doubt = "" if recipe.sure else ", a guessed width"
        said = f"the band of {count} published training{'s' if count > 1 else ''}{doubt}"
        return recipe.map_band, recipe.nds_band, said
    world = _world(known.score)
    alike = [each for each in recipe.evaluations if world in (None, each.world)]
    here = known.metrics.nds if known.metrics and known.metrics.nds else 0.0
    same = min(alike, key=lambda each: abs(each.nds - here), default=None)
    if same is None:
        near = ", ".join(f"{each.map:.4g}/{each.nds:.4g} on {each.world}" for each in recipe.evaluations)
        return None, None, (
            f"evaluated as {world} GPU{'s' if world != 1 else ''}; published: {near}. The video is cut "
            "at rank borders, so only equal numbers compare"
        )  # fmt: skip
    return *_around(
        same, recipe.tolerance
    ), f"{recipe.tolerance:g} of the published {same.map:g}/{same.nds:g}"


def _world(score: Mapping[str, Any] | None) -> int | None:
    """Into how many parts the video was cut; cut at scene borders, N processes give one process's numbers.
    None: only the numbers are known, so any published evaluation may be meant."""
    if score is None:
        return None
    if score.get("cut", "scene") == "scene":
        return 1
    return int(score.get("world_size") or 1)


def _around(one: Published, tolerance: float) -> tuple[Band, Band]:
    return (one.map - tolerance, one.map + tolerance), (one.nds - tolerance, one.nds + tolerance)


def _partial(recipe: Recipe, score: Mapping[str, Any] | None) -> str | None:
    """Why the metrics are not those of a whole evaluation of the recipe's split."""
    count = (score or {}).get("num_samples")
    if recipe.scored is not None and isinstance(count, int) and count != recipe.scored:
        return f"{count} frames were scored, the recipe has {recipe.scored}"
    if score is not None and score.get("complete") is False:
        return "only a part of the frames was scored"
    return None


def _verdict(
    recipe: Recipe,
    kind: str,
    word: str,
    sentence: str,
    causes: tuple[Cause, ...],
    evidence: Evidence,
    maps: Band | None = None,
    nds: Band | None = None,
) -> Verdict:
    found = evidence.metrics
    kept = () if word == PASS else causes
    return Verdict(
        recipe.id,
        kind,
        word,
        sentence,
        found.map if found else None,
        found.nds if found else None,
        maps,
        nds,
        kept,
        "" if word == PASS else _next(recipe, word, kept),
    )


def _next(recipe: Recipe, word: str, causes: Sequence[Cause]) -> str:
    """The command of the first cause that has one."""
    for cause in causes:
        if cause.command:
            return cause.command
    if word == UNKNOWN and recipe.evaluations:
        world = recipe.evaluations[0].world
        return f"bevrepro eval {recipe.config} CKPT --infos INFOS --gpus {world} --cut upstream"
    return f"bevrepro reproduce {recipe.id} --dry-run"


def causes_of(recipe: Recipe, kind: str, evidence: Evidence) -> tuple[Cause, ...]:
    """What is recorded first, then what is inferred from the numbers; one of each name."""
    found = [
        *_of_checkpoint(evidence),
        *_of_findings(evidence.found),
        *_of_frames(recipe, kind, evidence.frames),
    ]
    if kind == TRAIN:
        found += _of_run(recipe, evidence.run)
    found += [*_of_score(recipe, evidence.score), *_of_metrics(recipe, evidence.metrics)]
    first: dict[str, Cause] = {}
    for cause in found:
        first.setdefault(cause.name, cause)
    return tuple(sorted(first.values(), key=lambda cause: not cause.sure))


def _of_checkpoint(evidence: Evidence) -> Iterator[Cause]:
    if evidence.refused:
        yield Cause("keys that do not match", evidence.refused, "checkpoint", "bevrepro doctor ckpt FILE")


def _of_findings(found: Sequence[Finding]) -> Iterator[Cause]:
    for each in found:
        if each.severity is Severity.INFO:
            continue
        command = each.commands[0] if each.commands else ""
        if each.id in OF_DATA:
            yield Cause(OF_DATA[each.id], each.seen, "data", command)
        elif each.family == "ckpt" and each.severity is Severity.FAIL:
            yield Cause("keys that do not match", each.seen, "checkpoint", command)
        elif each.id == "ckpt-initial-weights":
            yield Cause("weights that do not belong to the model", each.seen, "checkpoint", command)


def _of_frames(recipe: Recipe, kind: str, frames: Mapping[str, int | None]) -> Iterator[Cause]:
    for split, wanted in zip(("train", "val"), recipe.infos or ()):
        there, needed = frames.get(split), kind == TRAIN or split == recipe.split
        if needed and there is not None and there != wanted:
            yield Cause("incomplete data", f"the infos of {split} hold {there} frames instead of {wanted}",
                        "data", "bevrepro data verify DATA")  # fmt: skip


def _of_run(recipe: Recipe, run: Mapping[str, Any] | None) -> Iterator[Cause]:
    """What run.json says that the recipe says otherwise."""
    if not run:
        return
    said = recorded(run)
    again = f"bevrepro reproduce {recipe.id} --from train --work-dir NEW_FOLDER"
    if run.get("config_name") not in (None, recipe.config):
        yield Cause("another model", f"the run trained {run['config_name']}, the recipe {recipe.config}",
                    "run.json", again)  # fmt: skip
    for names, name in (
        (("lr", "batch"), "batch and learning rate"),
        (("queue",), "history lost"),
        (("frames",), "incomplete data"),
        (("epochs", "steps"), "trained for another time"),
    ):
        differ = [
            key for key in names if key in recipe.expect and not _same(said.get(key), recipe.expect[key])
        ]
        if differ:
            told = ", ".join(
                f"{NAMES[key]} {said[key]:g} instead of {recipe.expect[key]:g}" for key in differ
            )
            command = "bevrepro data verify DATA" if "frames" in names else again
            yield Cause(name, f"the run has {told}", "run.json", command)
    if run.get("status") not in (None, "finished"):
        yield Cause("trained for another time", f"the training is {run['status']}, not finished", "run.json",
                    f"bevrepro reproduce {recipe.id} --from train")  # fmt: skip
    for entry in run.get("ledger") or ():
        if isinstance(entry, dict) and entry.get("effect") == "changes the result":
            yield Cause(f"departure: {entry.get('what')}", f"{entry.get('what')}: {entry.get('why')}",
                        "run.json", again)  # fmt: skip


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


def _of_score(recipe: Recipe, score: Mapping[str, Any] | None) -> Iterator[Cause]:
    partial = _partial(recipe, score)
    if partial:
        yield Cause("incomplete data", partial, "eval.json", "bevrepro data verify DATA")
    split, wanted = (score or {}).get("split"), recipe.split
    if isinstance(split, str) and split.startswith("mini_") and not recipe.synth:
        yield Cause("another split", f"scored on {split}, published for {wanted}", "eval.json")


def _of_metrics(recipe: Recipe, metrics: Metrics | None) -> Iterator[Cause]:
    """The doctor's fingerprints that mean something for this recipe."""
    if metrics is None or metrics.nds is None:
        return
    checks = [check for check in CHECKS if check.id in recipe.fingerprints]
    for each in judge_all(metrics, checks):
        command = each.commands[0] if each.commands else ""
        yield Cause(OF_METRICS[each.id], each.seen, "metrics", command, sure=False)
