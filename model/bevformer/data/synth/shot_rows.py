"""Rows of `sample_data` and `ego_pose`, and the tokens that join all tables."""

import hashlib
from typing import Any, Callable, Dict, List

from .recording import Recording, Shot
from .rig import LIDAR, Camera, yaw_quaternion

Table = List[Dict[str, Any]]


class Tokens:
    """Names -> tokens: 32 hexadecimal digits that depend on the set's recipe and the name only."""

    def __init__(self, recipe: str) -> None:
        self._recipe = recipe

    def __call__(self, *name: Any) -> str:
        return hashlib.md5("|".join([self._recipe] + [str(part) for part in name]).encode()).hexdigest()


def neighbours(name_at: Callable[[int], str], index: int, count: int) -> Dict[str, str]:
    """`prev` and `next` of number `index` of `count`."""
    return {
        "prev": name_at(index - 1) if index else "",
        "next": name_at(index + 1) if index + 1 < count else "",
    }


class ShotRows:
    """The files of a scene as rows; each sensor's form a chain in the order of time."""

    def __init__(self, recording: Recording, cameras: List[Camera], token: Tokens) -> None:
        self.scene, self.token = recording.world.name, token
        self.sizes = {camera.channel: (camera.height, camera.width) for camera in cameras}
        self.tokens: Dict[str, str] = {}
        chains: Dict[str, List[Shot]] = {}
        for index, keyframe in enumerate(recording.keyframes):
            for shot in keyframe.shots:
                self.tokens[shot.filename] = token("sample_data", self.scene, shot.channel, index)
                chains.setdefault(shot.channel, []).append(shot)
        for _, shot in recording.sweeps:
            self.tokens[shot.filename] = token("sweep", self.scene, shot.channel, shot.timestamp_us)
            chains[shot.channel].append(shot)
        self.neighbours: Dict[str, Dict[str, str]] = {}
        for chain in chains.values():
            names = [self.tokens[shot.filename] for shot in sorted(chain, key=lambda shot: shot.timestamp_us)]
            for at, name in enumerate(names):
                self.neighbours[name] = neighbours(names.__getitem__, at, len(names))

    def add(self, tables: Dict[str, Table], shot: Shot, index: int, is_key_frame: bool) -> None:
        """The rows of one file of the sample with this index."""
        own, size = self.tokens[shot.filename], self.sizes.get(shot.channel, (0, 0))
        x, y, yaw = shot.ego_pose
        tables["ego_pose"].append(
            {
                "token": own,
                "timestamp": shot.timestamp_us,
                "rotation": yaw_quaternion(yaw),
                "translation": [x, y, 0.0],
            }
        )
        tables["sample_data"].append(
            {
                "token": own,
                "sample_token": self.token("sample", self.scene, index),
                "ego_pose_token": own,
                "calibrated_sensor_token": self.token("calibrated_sensor", self.scene, shot.channel),
                "timestamp": shot.timestamp_us,
                "fileformat": "pcd" if shot.channel == LIDAR else "jpg",
                "is_key_frame": is_key_frame,
                "height": size[0],
                "width": size[1],
                "filename": shot.filename,
                **self.neighbours[own],
            }
        )
