"""A tiny nuScenes v1.0-mini of tables alone: two scenes of mini_val and one of mini_train.

Every class in every frame, boxes on straight lines, ego driving and turning.  Its infos are made with
pyquaternion, apart from the code under test.
"""

import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the helpers of these tests, such as small_frames

CLASSES = (
    "car",
    "truck",
    "construction_vehicle",
    "bus",
    "trailer",
    "barrier",
    "motorcycle",
    "bicycle",
    "pedestrian",
    "traffic_cone",
)
CATEGORY = {
    "car": "vehicle.car",
    "truck": "vehicle.truck",
    "construction_vehicle": "vehicle.construction",
    "bus": "vehicle.bus.rigid",
    "trailer": "vehicle.trailer",
    "barrier": "movable_object.barrier",
    "motorcycle": "vehicle.motorcycle",
    "bicycle": "vehicle.bicycle",
    "pedestrian": "human.pedestrian.adult",
    "traffic_cone": "movable_object.trafficcone",
}
SCENES = {"scene-0103": 3, "scene-0916": 2, "scene-0061": 4}
LIDAR2EGO = dict(translation=[0.94, 0.0, 1.84], rotation=[0.7077955, -0.0064922, 0.0106466, -0.7063073])
ATTRIBUTES = ("vehicle.moving", "cycle.with_rider", "pedestrian.moving")


def _attribute(name):
    kind = CATEGORY[name].split(".")[0]
    return {"human": ["pedestrian.moving"], "movable_object": []}.get(
        kind, ["cycle.with_rider"] if "cycle" in name else ["vehicle.moving"]
    )


def _box(index, step, ego):
    """(translation, yaw, velocity) in the world: object `index` goes its own way around the ego's start."""
    angle = 0.6 * index
    radius = 8.0 + 1.5 * index
    velocity = np.array([1.0 + 0.2 * index, 0.5 - 0.1 * index, 0.0]) * (0.0 if index in (5, 9) else 1.0)
    start = ego + [radius * np.cos(angle), radius * np.sin(angle), 1.0]
    return start + velocity * 0.5 * step, angle - 1.0, velocity


class _Tables:
    def __init__(self):
        self.rows = {
            name: []
            for name in (
                "category",
                "attribute",
                "visibility",
                "instance",
                "sensor",
                "calibrated_sensor",
                "ego_pose",
                "log",
                "scene",
                "sample",
                "sample_data",
                "sample_annotation",
                "map",
            )
        }
        self.infos = []
        self.add("log", "log", logfile="tiny", location="nowhere")
        self.add("map", "map", log_tokens=["log"], filename="maps/none.png", category="semantic_prior")
        self.add("sensor", "lidar", channel="LIDAR_TOP", modality="lidar")
        self.add("calibrated_sensor", "lidar-cal", sensor_token="lidar", camera_intrinsic=[], **LIDAR2EGO)
        for name in CLASSES:
            self.add("category", "cat-" + name, name=CATEGORY[name])
        for name in ATTRIBUTES:
            self.add("attribute", "attr-" + name, name=name)

    def add(self, table, token, **fields):
        self.rows[table].append(dict(token=token, **fields))

    def scene(self, name, count, base_s):
        tokens = ["%s-%d" % (name, step) for step in range(count)]
        self.add(
            "scene",
            name,
            name=name,
            log_token="log",
            nbr_samples=count,
            first_sample_token=tokens[0],
            last_sample_token=tokens[-1],
        )
        for kind in CLASSES:
            self.add("instance", f"{name}-{kind}", category_token="cat-" + kind)
        for step in range(count):
            self.sample(name, tokens, step, base_s)

    def sample(self, name, tokens, step, base_s):
        from pyquaternion import Quaternion

        token, chain = (
            tokens[step],
            dict(
                prev=tokens[step - 1] if step else "", next=tokens[step + 1] if step + 1 < len(tokens) else ""
            ),
        )
        stamp = int((base_s + 0.5 * step) * 1e6)
        ego = np.array([100.0 + 2.0 * step, 50.0 + step, 0.0])
        turn = Quaternion(axis=[0, 0, 1], radians=0.4 + 0.1 * step)
        pose = dict(translation=ego.tolist(), rotation=turn.elements.tolist())
        self.add("sample", token, timestamp=stamp, scene_token=name, **chain)
        self.add("ego_pose", "pose-" + token, timestamp=stamp, **pose)
        self.add(
            "sample_data",
            "data-" + token,
            sample_token=token,
            ego_pose_token="pose-" + token,
            calibrated_sensor_token="lidar-cal",
            is_key_frame=True,
            filename="samples/LIDAR_TOP/x.bin",
        )
        to_lidar = Quaternion(LIDAR2EGO["rotation"]).inverse * turn.inverse
        boxes, velocities = [], []
        for index, kind in enumerate(CLASSES):
            xyz, yaw, velocity = _box(index, step, np.array([100.0, 50.0, 0.0]))
            size = [1.0 + 0.1 * index, 2.0 + 0.2 * index, 1.5]
            self.add(
                "sample_annotation",
                f"{token}-{kind}",
                sample_token=token,
                instance_token=f"{name}-{kind}",
                translation=xyz.tolist(),
                size=size,
                rotation=Quaternion(axis=[0, 0, 1], radians=yaw).elements.tolist(),
                num_lidar_pts=5,
                num_radar_pts=0,
                attribute_tokens=["attr-" + a for a in _attribute(kind)],
                **{key: f"{value}-{kind}" if value else "" for key, value in chain.items()},
            )
            in_lidar = Quaternion(LIDAR2EGO["rotation"]).inverse.rotate(
                turn.inverse.rotate(xyz - ego) - LIDAR2EGO["translation"]
            )
            heading = (to_lidar * Quaternion(axis=[0, 0, 1], radians=yaw)).yaw_pitch_roll[0]
            boxes.append([*in_lidar, *size, -heading - np.pi / 2])
            velocities.append(to_lidar.rotate(velocity)[:2])
        self.infos.append(
            dict(
                token=token,
                scene_token=name,
                timestamp=stamp,
                gt_boxes=np.array(boxes),
                gt_names=np.array(CLASSES),
                gt_velocity=np.array(velocities),
                valid_flag=np.ones(len(boxes), bool),
                lidar2ego_translation=LIDAR2EGO["translation"],
                lidar2ego_rotation=LIDAR2EGO["rotation"],
                ego2global_translation=pose["translation"],
                ego2global_rotation=pose["rotation"],
                lidar_path="samples/LIDAR_TOP/x.bin",
                cams={},
            )
        )


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """.root (folder with v1.0-mini), .val and .train (infos with .infos, .version, .digest)"""
    tables = _Tables()
    for number, (name, count) in enumerate(SCENES.items()):
        tables.scene(name, count, 1000.0 * (number + 1))
    root = tmp_path_factory.mktemp("tiny")
    (root / "v1.0-mini").mkdir()
    for name, rows in tables.rows.items():
        (root / "v1.0-mini" / (name + ".json")).write_text(json.dumps(rows))

    def infos(*scenes):
        chosen = [info for info in tables.infos if info["scene_token"] in scenes]
        return types.SimpleNamespace(infos=chosen, version="v1.0-mini", digest="")

    return types.SimpleNamespace(
        root=str(root), val=infos("scene-0103", "scene-0916"), train=infos("scene-0061")
    )


@pytest.fixture
def heard():
    """A Talk that remembers: .notes, .results, .done"""
    from bevformer.talk import Talk

    class Heard(Talk):
        def __init__(self):
            super().__init__(events=False)
            self.notes, self.results, self.done = [], [], 0

        def note(self, text):
            self.notes.append(text)

        def progress(self, task, done, total, text=""):
            self.done = done

        def result(self, **fields):
            self.results.append(fields)

    return Heard()


@pytest.fixture(scope="session")
def synth(tmp_path_factory):
    """A synthetic set of 2 scenes x 3 frames, prepared: .root, .archives, .infos (folder)"""
    from bevformer.data.prepare import main as prepare
    from bevformer.data.synth.main import main as make
    from bevformer.talk import Talk

    class Silent(Talk):
        def note(self, text):
            """Nothing: the set-up of a test has nothing to say."""

        progress = result = lambda self, *args, **fields: None

    out, infos = tmp_path_factory.mktemp("synth") / "set", tmp_path_factory.mktemp("infos")
    make([str(out), "--scenes", "2", "--samples", "3", "--scale", "0.1"], Silent(False))
    prepare(["--data-root", str(out / "nuscenes"), "--out", str(infos)], Silent(False))
    archives = [str(out / "archives" / name) for name in ("v1.0-mini.tgz", "can_bus.zip")]
    return types.SimpleNamespace(root=str(out / "nuscenes"), archives=archives, infos=str(infos))
