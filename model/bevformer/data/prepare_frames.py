"""From tables and CAN data to frames, scene by scene: what `prepare` writes.

Two processes at most times: one reads sample_data and ego_pose while another reads the annotations and the
CAN bus; then each makes the frames of every second scene.  The result does not depend on their number.
"""

import argparse
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Dict, FrozenSet, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from bevformer import __version__
from bevformer.errors import DataError
from bevformer.forked import child
from bevformer.talk import Talk

from .annotations import load_annotations
from .can_bus import can_bus_of_scene, pose_path
from .columns import native
from .infos_write import Part, part_of
from .sample_info import MAX_SWEEPS, scene_infos
from .sensor_data import load_sensor_data
from .splits import scene_names
from .store import Store
from .table_set import Scenes, Tables, load_scenes

CanBus = Dict[str, Optional[np.ndarray]]  # scene name -> rows of its samples in time order
ROWS_PER_SAMPLE = 77  # of sample_data in v1.0-trainval, for the progress bar


@dataclass(frozen=True)
class Scene:
    """positions: its samples' in `Scenes.samples`, in time order."""

    name: str
    split: str
    positions: Tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """What is to be made; `scenes` in the order of scene.json, those without samples left out."""

    version: str
    tables: Scenes
    scenes: Tuple[Scene, ...]
    listed: FrozenSet[str]
    sweeps: int = MAX_SWEEPS
    jobs: int = 1
    allow_no_can: bool = False

    @property
    def is_test(self) -> bool:
        return self.version == "v1.0-test"

    @property
    def splits(self) -> Tuple[str, ...]:
        return ("test",) if self.is_test else ("train", "val")

    def of(self, split: str) -> List[Scene]:
        return [scene for scene in self.scenes if scene.split == split]

    def metadata(self, can_bus: CanBus) -> Dict[str, Any]:
        """What the files say of themselves."""
        said = dict(
            version=self.version,
            bevrepro_tables_digest=self.tables.digest,
            tool="bevformer " + __version__,
            zero_can_scenes=sorted(name for name, rows in can_bus.items() if rows is None),
        )
        return said if self.sweeps == MAX_SWEEPS else dict(said, bevrepro_sweeps=self.sweeps)

    def notes(self, can_bus: CanBus) -> List[str]:
        """What is worth telling."""
        notes, zero = [], sorted(name for name, rows in can_bus.items() if rows is None)
        unknown = [scene.name for scene in self.scenes if scene.name not in self.listed]
        if zero:
            notes.append(
                "%d of %d scenes have no CAN data; acceleration, rotation rate and velocity are zero there: "
                "%s" % (len(zero), len(self.scenes), _few(zero))
            )
        if unknown:
            notes.append(
                "%d scenes are in no official list and went to %s: %s"
                % (len(unknown), "test" if self.is_test else "val", _few(unknown))
            )
        return notes


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:21]) + (", ..." if len(names) > 21 else "")


def plan_of(store: Store, version: str, args: argparse.Namespace) -> Plan:
    """Reads the small tables.  DataError as `load_scenes`, or where there is no CAN data at all."""
    tables = load_scenes(store, version)
    train, val = scene_names(version)
    by_scene, test = tables.by_scene(), version == "v1.0-test"
    # Quirk of upstream: whatever is not in the train list validates.
    scenes = tuple(
        Scene(
            row["name"],
            "test" if test else "train" if row["name"] in train else "val",
            tuple(by_scene[row["token"]]),
        )
        for row in tables.scenes
        if row["token"] in by_scene
    )
    names = [row["name"] for row in tables.scenes]
    if not args.no_can_bus and not any(store.exists(pose_path(name)) for name in names):
        raise _no_can(len(names))
    return Plan(version, tables, scenes, train | val, args.sweeps, args.jobs or 2, args.no_can_bus)


def _no_can(scenes: int) -> DataError:
    return DataError(
        "no CAN data in the data: all %d scenes would be zero" % scenes,
        "BEVFormer reads acceleration, rotation rate and velocity from can_bus/<scene>_pose.json; "
        "without them the published numbers are out of reach.",
        "Add can_bus.zip, or a folder with can_bus/ in it, as another --data-root, or say --no-can-bus.",
    )


def load(store: Store, plan: Plan, talk: Talk) -> Tuple[Tables, CanBus]:
    """The big tables and the CAN bus.  DataError names what is missing or broken."""
    scenes = plan.tables
    total = ROWS_PER_SAMPLE * len(scenes.samples)

    def told(rows: int) -> None:
        talk.progress("read", min(rows, total - 1), total, "sample_data.json")

    with child(_side, store, plan, fork=plan.jobs > 1) as side:
        data = load_sensor_data(store, plan.version, scenes.place, scenes.calibrated, plan.sweeps > 0, told)
        talk.progress("read", total, total)
        annotations, can_bus = next(side)
    if can_bus and all(rows is None for rows in can_bus.values()) and not plan.allow_no_can:
        raise _no_can(len(can_bus))
    can_bus = {name: None if rows is None else native(rows) for name, rows in can_bus.items()}
    return Tables(scenes, data, annotations.native() if annotations else None), can_bus


def _side(store: Store, plan: Plan) -> Iterator[Any]:
    """Annotations (None for the test set, which has none) and CAN rows of all scenes, as one item."""
    scenes, annotations = plan.tables, None
    if not plan.is_test:
        annotations = load_annotations(store, plan.version, scenes.place, scenes.timestamp_us)
    stamps = {scene.name: [scenes.samples[i]["timestamp"] for i in scene.positions] for scene in plan.scenes}
    names = [row["name"] for row in scenes.scenes]
    yield annotations, {name: can_bus_of_scene(store, name, stamps.get(name, ())) for name in names}


def frames_of(plan: Plan, tables: Tables, can_bus: CanBus, talk: Talk) -> Iterator[Tuple[str, Part]]:
    """(split, its next frames), in the order of the scenes.  DataError names a sample and what it lacks."""
    total, done = len(plan.tables.samples), 0
    with ExitStack() as stack:
        makers = [
            stack.enter_context(
                child(_make, plan, tables, can_bus, plan.scenes[i :: plan.jobs], fork=plan.jobs > 1)
            )
            for i in range(plan.jobs)
        ]
        for number, scene in enumerate(plan.scenes):
            yield scene.split, next(makers[number % plan.jobs])
            done += len(scene.positions)
            talk.progress("prepare", done, total, scene.name)


def _make(plan: Plan, tables: Tables, can_bus: CanBus, scenes: Sequence[Scene]) -> Iterator[Part]:
    for scene in scenes:
        rows = can_bus[scene.name]
        rows = np.zeros((len(scene.positions), 18)) if rows is None else rows
        infos = scene_infos(tables, scene.positions, rows, plan.sweeps)
        yield part_of(infos, with_boxes=not plan.is_test)
