"""A set of tables as large as v1.0-trainval's, laid out line by line as nuScenes ships them.

    python benchmarks/full_tables.py OUT [--scenes 850]

Writes OUT/tables/v1.0-trainval/*.json (2.7 GB for 850 scenes), OUT/tables/can_bus/*_pose.json (0.3 GB) and
OUT/images.tar: the keyframes' images, empty, so that they can be looked for. The numbers are random, of the
real ones' range and length. Rows per table are about v1.0-trainval's, as the devkit counts them: 34,149
samples, 2,631,083 sample_data and ego_pose, 1,166,187 sample_annotation, 64,386 instance, 10,200
calibrated_sensor.
"""

import argparse
import json
import math
import tarfile
from pathlib import Path

import numpy as np  # noqa: TID251
from nuscenes.utils import splits  # noqa: TID251

SAMPLES, DATA, ANNOTATIONS, INSTANCES = 34_149, 2_631_083, 1_166_187, 64_386
CAMERAS = ("FRONT", "FRONT_RIGHT", "FRONT_LEFT", "BACK", "BACK_LEFT", "BACK_RIGHT")
RADARS = ("FRONT", "FRONT_LEFT", "FRONT_RIGHT", "BACK_LEFT", "BACK_RIGHT")
CHANNELS = [f"CAM_{name}" for name in CAMERAS] + ["LIDAR_TOP"] + [f"RADAR_{name}" for name in RADARS]
CATEGORIES = (
    "human.pedestrian.adult human.pedestrian.child human.pedestrian.wheelchair human.pedestrian.stroller "
    "human.pedestrian.personal_mobility human.pedestrian.police_officer "
    "human.pedestrian.construction_worker animal vehicle.car vehicle.motorcycle vehicle.bicycle "
    "vehicle.bus.bendy vehicle.bus.rigid vehicle.truck vehicle.construction vehicle.emergency.ambulance "
    "vehicle.emergency.police vehicle.trailer movable_object.barrier movable_object.trafficcone "
    "movable_object.pushable_pullable movable_object.debris static_object.bicycle_rack"
).split()
WITHOUT_CAN = {*range(161, 169), *range(170, 177), *range(309, 315)}
STEP_US = 500_000
INTRINSIC = [[1266.4, 0.0, 816.27], [0.0, 1266.4, 491.5], [0.0, 0.0, 1.0]]

SAMPLE_DATA = (
    '{\n"token": "%s",\n"sample_token": "%s",\n"ego_pose_token": "%s",\n"calibrated_sensor_token": "%s",\n'
    '"timestamp": %d,\n"fileformat": "%s",\n"is_key_frame": %s,\n"height": %d,\n"width": %d,\n'
    '"filename": "%s",\n"prev": "%s",\n"next": "%s"\n}'
)
EGO_POSE = (
    '{\n"token": "%s",\n"timestamp": %d,\n"rotation": [\n%r,\n%r,\n%r,\n%r\n],\n'
    '"translation": [\n%r,\n%r,\n%r\n]\n}'
)
ANNOTATION = (
    '{\n"token": "%s",\n"sample_token": "%s",\n"instance_token": "%s",\n"visibility_token": "%d",\n'
    '"attribute_tokens": [%s],\n"translation": [\n%.3f,\n%.3f,\n%.3f\n],\n"size": [\n%.3f,\n%.3f,\n%.3f\n],\n'
    '"rotation": [\n%r,\n0.0,\n0.0,\n%r\n],\n"prev": "%s",\n"next": "%s",\n"num_lidar_pts": %d,\n'
    '"num_radar_pts": %d\n}'
)


class Table:
    """One JSON file, written row by row."""

    def __init__(self, folder: Path, name: str) -> None:
        self.file = open(folder / f"{name}.json", "w", buffering=1 << 20)  # noqa: SIM115
        self.rows = 0
        self.file.write("[\n")

    def add(self, text: str) -> None:
        self.file.write(",\n" + text if self.rows else text)
        self.rows += 1

    def close(self) -> None:
        self.file.write("\n]")
        self.file.close()


class Maker:
    """Everything of the set; tokens are random, everything repeats with the seed."""

    def __init__(self, out: Path, scenes: int) -> None:
        self.rng = np.random.RandomState(0)
        self.folder = out / "tables" / "v1.0-trainval"
        self.folder.mkdir(parents=True)
        (out / "tables" / "can_bus").mkdir()
        self.images = tarfile.open(out / "images.tar", "w")  # noqa: SIM115
        self.big = {
            name: Table(self.folder, name) for name in ("sample_data", "ego_pose", "sample_annotation")
        }
        self.small: dict[str, list[dict]] = {
            "scene": [],
            "sample": [],
            "instance": [],
            "calibrated_sensor": [],
        }
        names = sorted([*splits.train, *splits.val])[:scenes]
        self.samples_left = SAMPLES * scenes // 850
        for left, name in zip(range(len(names), 0, -1), names):
            self.scene(name, self.samples_left // left)
        self.finish()

    def token(self) -> str:
        return self.rng.bytes(16).hex()

    def scene(self, name: str, count: int) -> None:
        self.samples_left -= count
        tokens = [self.token() for _ in range(count)]
        scene, start_us = self.token(), 1_531_000_000_000_000 + int(name[-4:]) * 10_000_000_000
        self.small["scene"].append(
            dict(
                token=scene, log_token="log", nbr_samples=count, first_sample_token=tokens[0],
                last_sample_token=tokens[-1], name=name, description="Parked cars, turn, café ahead",
            )
        )  # fmt: skip
        for i, token in enumerate(tokens):
            self.small["sample"].append(
                dict(
                    token=token, timestamp=start_us + i * STEP_US, prev=tokens[i - 1] if i else "",
                    next=tokens[i + 1] if i + 1 < count else "", scene_token=scene,
                )
            )  # fmt: skip
        self.recordings(tokens, start_us, f"n015-2018-07-24-11-22-45+0800_{name[-4:]}")
        self.objects(tokens)
        if int(name[-4:]) not in WITHOUT_CAN:
            self.can_bus(name, start_us, count)

    def recordings(self, samples: list[str], start_us: int, recording: str) -> None:
        """77 sample_data a sample, one chain a sensor; every one has an ego pose of the same token."""
        center, yaw = self.rng.uniform(300, 2500, 2), self.rng.uniform(-3, 3)
        for channel in CHANNELS:
            calibrated = self.token()
            camera = channel.startswith("CAM")
            self.small["calibrated_sensor"].append(
                dict(
                    token=calibrated, sensor_token=f"sensor-{channel}",
                    translation=self.rng.uniform(-2, 2, 3).round(3).tolist(), rotation=self.quaternion(yaw),
                    camera_intrinsic=INTRINSIC if camera else [],
                )
            )  # fmt: skip
            between = 6 if camera else 10 if channel == "LIDAR_TOP" else 6
            rows = [(s, k) for s in range(len(samples)) for k in range(between)]
            if channel.startswith("RADAR"):  # 6.2 a sample and what is missing to the real number of rows
                rows += [(s, 6) for s in range(0, len(samples), 5)]
                done = len(self.small["sample"])
                short = DATA * done // SAMPLES - self.big["sample_data"].rows - len(rows)
                if channel == RADAR_LAST and short > 0:
                    rows += [(s, 7) for s in range(min(short, len(samples)))]
                rows.sort()
            tokens = ["", *(self.token() for _ in rows), ""]
            for i, (s, k) in enumerate(rows):
                key = k == 0
                stamp = (
                    start_us + s * STEP_US + k * (STEP_US // (between + 2)) + (CHANNELS.index(channel) * 1000)
                )
                ending = "jpg" if camera else "pcd" if channel.startswith("RADAR") else "pcd.bin"
                place = "samples" if key else "sweeps"
                file = f"{place}/{channel}/{recording}__{channel}__{stamp}.{ending}"
                size = (900, 1600) if camera else (0, 0)
                self.big["sample_data"].add(
                    SAMPLE_DATA
                    % (
                        tokens[i + 1], samples[s], tokens[i + 1], calibrated, stamp, ending.split(".")[0],
                        "true" if key else "false", *size, file, tokens[i], tokens[i + 2],
                    )
                )  # fmt: skip
                t = (stamp - start_us) * 1e-6
                turn = self.quaternion(yaw + 0.01 * t, 1e-3)
                x, y = center[0] + 8.0 * t * math.cos(yaw), center[1] + 8.0 * t * math.sin(yaw)
                self.big["ego_pose"].add(EGO_POSE % (tokens[i + 1], stamp, *turn, float(x), float(y), 0.0))
                if camera and key:
                    self.images.addfile(tarfile.TarInfo(file))

    def objects(self, samples: list[str]) -> None:
        """34 boxes a sample and a few more; an object lives for about 23 samples."""
        slots = 34
        done = len(self.small["sample"])
        extra = max(
            0, ANNOTATIONS * done // SAMPLES - self.big["sample_annotation"].rows - slots * len(samples)
        )
        for slot in range(slots + 1):
            seen = list(range(len(samples) if slot < slots else min(extra, len(samples))))
            while seen:
                length = int(self.rng.randint(12, 36))
                self.track([samples[i] for i in seen[:length]])
                seen = seen[length:]

    def track(self, samples: list[str]) -> None:
        instance, tokens = self.token(), ["", *(self.token() for _ in samples), ""]
        position, speed = self.rng.uniform(300, 2500, 3), self.rng.uniform(-5, 5, 3) * [1, 1, 0.01]
        size, yaw = self.rng.uniform(0.4, 6, 3), self.rng.uniform(-3, 3)
        turn = (math.cos(yaw / 2), math.sin(yaw / 2))
        points = self.rng.randint(0, 60, (len(samples), 2)) * [1, 0.1]
        for i, sample in enumerate(samples):
            here = position + 0.5 * i * speed
            attribute = '\n"%s"\n' % ("a" * 32) if i % 3 else ""
            self.big["sample_annotation"].add(
                ANNOTATION
                % (
                    tokens[i + 1], sample, instance, 1 + i % 4, attribute, *here, *size, *turn, tokens[i],
                    tokens[i + 2], *points[i].astype(int),
                )
            )  # fmt: skip
        self.small["instance"].append(
            dict(
                token=instance, category_token=f"category-{self.rng.randint(len(CATEGORIES))}",
                nbr_annotations=len(samples), first_annotation_token=tokens[1],
                last_annotation_token=tokens[-2],
            )
        )  # fmt: skip

    def quaternion(self, yaw: float, tilt: float = 0.02) -> list[float]:
        x, y = self.rng.uniform(-tilt, tilt, 2)
        w, z = math.cos(yaw / 2), math.sin(yaw / 2)
        length = math.sqrt(w * w + x * x + y * y + z * z)
        return [float(one / length) for one in (w, x, y, z)]

    def can_bus(self, name: str, start_us: int, samples: int) -> None:
        """50 messages a second, as one line."""
        draw = self.rng.uniform(-10, 10, (25 * samples, 16)).tolist()
        rows = [
            dict(
                accel=one[:3], orientation=one[3:7], pos=one[7:10], rotation_rate=one[10:13],
                utime=start_us + 20_000 * i, vel=one[13:16],
            )
            for i, one in enumerate(draw)
        ]  # fmt: skip
        (self.folder.parent / "can_bus" / f"{name}_pose.json").write_text(json.dumps(rows))

    def finish(self) -> None:
        for table in self.big.values():
            table.close()
        self.images.close()
        self.small["sensor"] = [
            dict(token=f"sensor-{name}", channel=name, modality=name.split("_")[0].lower())
            for name in CHANNELS
        ]
        self.small["category"] = [
            dict(token=f"category-{i}", name=name, description="") for i, name in enumerate(CATEGORIES)
        ]
        self.small["log"] = [dict(token="log", logfile="", vehicle="n015", date_captured="", location="")]
        self.small["map"] = [dict(category="semantic_prior", token="map", filename="", log_tokens=["log"])]
        self.small["attribute"] = [dict(name="vehicle.moving", description="", token="a" * 32)]
        self.small["visibility"] = [dict(description="", token=str(i), level="") for i in range(1, 5)]
        for name, rows in self.small.items():
            (self.folder / f"{name}.json").write_text(json.dumps(rows, indent=0))


RADAR_LAST = CHANNELS[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--scenes", type=int, default=850)
    args = parser.parse_args()
    maker = Maker(args.out, args.scenes)
    counts = {name: table.rows for name, table in maker.big.items()}
    print(json.dumps({**counts, **{name: len(rows) for name, rows in maker.small.items()}}))


if __name__ == "__main__":
    main()
