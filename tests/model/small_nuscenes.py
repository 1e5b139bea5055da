"""A small v1.0-mini with all that the prepared files draw on: tilted poses and boxes, sweeps, images, CAN.

Random numbers, no scene to look at: what is tested is the arithmetic.  scene-0061 trains and has CAN data,
scene-0103 validates and has none.
"""

import json
from pathlib import Path

import cv2
import numpy as np

CHANNELS = (
    "CAM_FRONT CAM_FRONT_RIGHT CAM_FRONT_LEFT CAM_BACK CAM_BACK_LEFT CAM_BACK_RIGHT LIDAR_TOP RADAR_FRONT"
).split()
CATEGORIES = (
    "vehicle.car",
    "vehicle.bus.bendy",
    "human.pedestrian.adult",
    "animal",
    "movable_object.barrier",
)
SCENES = {"scene-0061": 5, "scene-0103": 3}
WIDTH, HEIGHT = 96, 54
INTRINSIC = [[70.0, 0.0, 49.0], [0.0, 70.0, 28.0], [0.0, 0.0, 1.0]]


def write(folder, seed=0):
    """The folder as a string, ready for open_store."""
    return str(_Maker(Path(folder), np.random.RandomState(seed)).write())


def quaternion(rng, yaw, tilt=0.1):
    """Mostly a turn about z, tilted; not normalised to the last digit, as in the real tables."""
    q = np.array([np.cos(yaw / 2), *(tilt * rng.randn(2)), np.sin(yaw / 2)])
    return np.round(q / np.linalg.norm(q), 9).tolist()


class _Maker:
    def __init__(self, folder, rng):
        self.folder, self.rng = folder, rng
        self.rows = {
            name: []
            for name in (
                "scene sample sample_data sample_annotation instance category calibrated_sensor sensor"
                " ego_pose attribute visibility log map"
            ).split()
        }

    def add(self, table, token, **fields):
        self.rows[table].append(dict(token=token, **fields))
        return self.rows[table][-1]

    def write(self):
        self.add("log", "log", logfile="x", location="nowhere", vehicle="v", date_captured="2018-01-01")
        self.add("map", "map", log_tokens=["log"], filename="maps/none.png", category="semantic_prior")
        self.image("maps/none.png")
        for name in CATEGORIES:
            self.add("category", name, name=name)
        for i, channel in enumerate(CHANNELS):
            kind = channel.split("_")[0].lower().replace("cam", "camera")
            self.add("sensor", channel, channel=channel, modality=kind)
            self.add(
                "calibrated_sensor",
                "cal-" + channel,
                sensor_token=channel,
                translation=self.rng.randn(3).tolist(),
                rotation=quaternion(self.rng, i, 0.5),
                camera_intrinsic=INTRINSIC if kind == "camera" else [],
            )
        for number, (name, length) in enumerate(SCENES.items()):
            self.scene(name, length, 1_500_000_000_000_000 + 100_000_000 * number)
        for name, rows in self.rows.items():
            self.text("v1.0-mini/%s.json" % name, json.dumps(rows))
        return self.folder

    def text(self, name, text):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def image(self, name, width=WIDTH, height=HEIGHT):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = self.rng.randint(0, 256, (6, 8, 3)).astype(np.uint8)
        cv2.imwrite(str(path), cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC))

    def scene(self, name, length, start_us):
        samples = ["%s-%d" % (name, i) for i in range(length)]
        self.add(
            "scene",
            name + "-token",
            name=name,
            log_token="log",
            nbr_samples=length,
            description="",
            first_sample_token=samples[0],
            last_sample_token=samples[-1],
        )
        for i, category in enumerate(CATEGORIES):
            self.add("instance", "%s/%d" % (name, i), category_token=category)
        self.yaw = self.rng.uniform(-3, 3)
        previous = dict.fromkeys(CHANNELS, "")
        for i, sample in enumerate(samples):
            stamp = start_us + 500_000 * i
            self.add(
                "sample",
                sample,
                timestamp=stamp,
                scene_token=name + "-token",
                prev=samples[i - 1] if i else "",
                next=samples[i + 1] if i + 1 < length else "",
            )
            for channel in CHANNELS:
                for sweep in (1, 2) if channel == "LIDAR_TOP" and i else ():
                    self.datum(sample, channel, stamp - 150_000 * (3 - sweep), False, previous)
                self.datum(sample, channel, stamp, True, previous)
            self.annotations(name, samples, i)
        if name == "scene-0061":
            self.can_bus(name, start_us, length)

    def datum(self, sample, channel, stamp, key, previous):
        token = "%s/%s/%d" % (sample, channel, stamp)
        ending = "jpg" if channel.startswith("CAM") else "pcd.bin"
        folder = "samples" if key else "sweeps"
        filename = "%s/%s/%s__%d.%s" % (folder, channel, sample, stamp, ending)
        if channel.startswith("CAM"):
            self.image(filename)
        elif channel == "LIDAR_TOP":
            self.text(filename, "")
        self.add(
            "ego_pose",
            "pose-" + token,
            timestamp=stamp,
            rotation=quaternion(self.rng, self.yaw + self.rng.rand()),
            translation=(1000 + 50 * self.rng.randn(3)).tolist(),
        )
        self.add(
            "sample_data",
            token,
            sample_token=sample,
            ego_pose_token="pose-" + token,
            calibrated_sensor_token="cal-" + channel,
            timestamp=stamp,
            is_key_frame=key,
            filename=filename,
            fileformat=ending.split(".")[0],
            width=WIDTH,
            height=HEIGHT,
            prev=previous[channel],
            next="",
        )
        previous[channel] = token

    def annotations(self, name, samples, i):
        """Object 1 is seen once; object 2 leaves a hole of three frames; the others are always there."""
        seen = {1: [0], 2: [0, 4]}
        for k in reversed(range(len(CATEGORIES))):
            frames = seen.get(k, list(range(len(samples))))
            frames = [frame for frame in frames if frame < len(samples)]
            if i not in frames:
                continue
            at = frames.index(i)
            self.add(
                "sample_annotation",
                "%s/%d" % (samples[i], k),
                sample_token=samples[i],
                instance_token="%s/%d" % (name, k),
                translation=(1000 + 30 * self.rng.randn(3)).tolist(),
                rotation=quaternion(self.rng, self.rng.uniform(-3, 3)),
                size=self.rng.uniform(0.5, 5, 3).tolist(),
                num_lidar_pts=int(self.rng.randint(0, 3)),
                num_radar_pts=int(self.rng.randint(0, 2)),
                attribute_tokens=[],
                visibility_token="",
                prev="%s/%d" % (samples[frames[at - 1]], k) if at else "",
                next="%s/%d" % (samples[frames[at + 1]], k) if at + 1 < len(frames) else "",
            )

    def can_bus(self, name, start_us, length):
        """Every 20 ms, the first after the first sample and the last before the last one."""
        rows = [
            dict(
                accel=self.rng.randn(3).tolist(),
                orientation=self.rng.randn(4).tolist(),
                pos=self.rng.randn(3).tolist(),
                rotation_rate=self.rng.randn(3).tolist(),
                utime=stamp,
                vel=self.rng.randn(3).tolist(),
            )
            for stamp in range(start_us + 5_000, start_us + 500_000 * (length - 1) - 100_000, 20_000)
        ]
        self.text("can_bus/%s_pose.json" % name, json.dumps(rows))
