"""What can be reproduced: the published numbers of a recipe and what a run of it has to say of itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bevrepro import facts
from bevrepro.core.errors import ConfigError

EVAL, TRAIN = "eval-verified", "train-verified"
Band = tuple[float, float]


@dataclass(frozen=True)
class Published:
    """One evaluation of published weights; `world`: how many GPUs cut the video (None: nobody wrote it)."""

    world: int
    map: float
    nds: float


@dataclass(frozen=True)
class Recipe:
    """One row of facts/recipes.toml. None: the recipe has no such number."""

    id: str
    config: str
    title: str
    source: str
    evaluations: tuple[Published, ...]  # eval-verified: within `tolerance` of the one with as many GPUs
    tolerance: float
    map_band: Band | None  # train-verified: inside both
    nds_band: Band | None
    trainings: tuple[tuple[float, float], ...]  # (mAP, NDS) that the band is made of
    expect: Mapping[str, float]  # what run.json has to say: lr, batch, queue, frames, epochs or steps
    split: str = "val"
    subset: str = "all"
    scored: int | None = None  # frames of a whole evaluation
    infos: tuple[int, int] | None = None  # frames in the train and the val file
    scenes: tuple[int, int] | None = None  # likewise
    version: str | None = None  # of nuScenes' tables
    cfg_options: tuple[str, ...] = ()
    fingerprints: tuple[str, ...] = ()  # checks of the doctor's metrics that mean something here
    weights: str | None = None  # of facts/weights.toml
    init: str | None = None
    synth: bool = False  # it makes its own data
    sure: bool = True

    @property
    def kinds(self) -> tuple[str, ...]:
        return ((EVAL,) if self.evaluations else ()) + ((TRAIN,) if self.map_band else ())


def recipes() -> tuple[Recipe, ...]:
    """All, in the table's order."""
    return tuple(_of(row) for row in facts.table("recipes") if "config" in row)


def recipe(name: str) -> Recipe:
    """By its name. ConfigError naming the known ones."""
    for each in recipes():
        if each.id == name:
            return each
    raise ConfigError(
        f"no recipe is called {name}",
        "Known: " + ", ".join(each.id for each in recipes()),
        "bevrepro reproduce --list",
    )


def named(name: str) -> Recipe | None:
    """The recipe of that name where no file has it."""
    known = next((each for each in recipes() if each.id == name), None)
    return None if Path(name).exists() else known


def of_run(run: Mapping[str, Any]) -> Recipe | None:
    """The recipe that a run.json says it is; a shorter micro_synth is still that."""
    name = run.get("config_name")
    return next((each for each in recipes() if each.config == name), None)


def _of(row: facts.Row) -> Recipe:
    return Recipe(
        id=row["id"],
        config=row["config"],
        title=row["name"],
        source=row["source"],
        evaluations=tuple(Published(int(world), m, n) for world, m, n in row.get("evaluations", ())),
        tolerance=row.get("eval_tolerance", 0.0),
        map_band=_band(row.get("map_band")),
        nds_band=_band(row.get("nds_band")),
        trainings=tuple((m, n) for m, n in row.get("trainings", ())),
        expect=dict(row["expect"]),
        split=row.get("split", "val"),
        subset=row.get("subset", "all"),
        scored=row.get("scored"),
        infos=_pair(row.get("infos")),
        scenes=_pair(row.get("scenes")),
        version=row.get("version"),
        cfg_options=tuple(row.get("cfg_options", ())),
        fingerprints=tuple(row["fingerprints"]),
        weights=row.get("weights"),
        init=row.get("init"),
        synth=bool(row.get("synth", False)),
        sure=row.get("status") != "unverified",
    )


def _pair(pair: Any) -> tuple[int, int] | None:
    return None if pair is None else (int(pair[0]), int(pair[1]))


def _band(pair: Any) -> Band | None:
    return None if pair is None else (float(pair[0]), float(pair[1]))
