"""Whether a run reproduces its recipe, and if not, which known mistake its numbers and records look like.

Pure: what was measured and recorded comes in as values (`evidence`), a verdict goes out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bevrepro.drive.causes import Cause, Evidence, again_of, causes_of, other_split, partial_of
from bevrepro.drive.recipes import EVAL, TRAIN, Band, Published, Recipe

PASS, BELOW, ABOVE, UNKNOWN, STOPPED = "pass", "below", "above", "not comparable", "not reached"
SLACK = 1e-9
WORDS = {PASS: "within", BELOW: "below", ABOVE: "above"}


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
    if metrics is None or metrics.nds is None:
        what = "the checkpoint does not load" if evidence.refused else evidence.stopped
        what = what or (metrics.broken if metrics is not None else None)
        sentence = f"there are no metrics to compare{f': {what}' if what else ''}"
        return _verdict(recipe, kind, STOPPED, sentence, causes, evidence)
    maps, nds, said = _wanted(recipe, kind, evidence)
    if maps is None or nds is None:
        return _verdict(recipe, kind, UNKNOWN, said, causes, evidence)
    partial = other_split(recipe, evidence.score) or partial_of(recipe, evidence.score)
    if partial:
        return _verdict(recipe, kind, UNKNOWN, partial, causes, evidence, maps, nds)
    word = _place(metrics.map, metrics.nds, maps, nds)
    if word == UNKNOWN:
        return _verdict(
            recipe, kind, word, f"NDS is within {said}, mAP is not known", causes, evidence, maps, nds
        )
    if word == PASS and any(cause.sure for cause in causes):  # right numbers of another recipe are no pass
        said = f"within {said}, but this is not the recipe's run"
        return _verdict(recipe, kind, UNKNOWN, said, causes, evidence, maps, nds)
    return _verdict(recipe, kind, word, f"{WORDS[word]} {said}", causes, evidence, maps, nds)


def _place(map_: float | None, nds: float, maps: Band, ndss: Band) -> str:
    """NDS alone can be outside, not inside."""
    known = [(nds, ndss)] if map_ is None else [(map_, maps), (nds, ndss)]
    if any(value < band[0] - SLACK for value, band in known):
        return BELOW
    if any(value > band[1] + SLACK for value, band in known):
        return ABOVE
    return UNKNOWN if map_ is None else PASS


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
        "" if word == PASS else _next(recipe, kind, word, kept),
    )


def _next(recipe: Recipe, kind: str, word: str, causes: Sequence[Cause]) -> str:
    """The command of the first cause that has one."""
    for cause in causes:
        if cause.command:
            return cause.command
    if word == UNKNOWN and recipe.evaluations:
        world = recipe.evaluations[0].world
        where = "--data-root DATA --infos INFOS"
        return f"bevrepro eval {recipe.config} FILE {where} --gpus {world} --cut upstream"
    if kind == EVAL:
        return f"bevrepro weights verify {recipe.weights} --into WEIGHTS"
    return f"{again_of(recipe)} --seed 1" if recipe.synth else "bevrepro compare RUN UPSTREAM_LOG"
