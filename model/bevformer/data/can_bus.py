"""The 18 numbers of ego motion that BEVFormer reads, as upstream's converter and data set make them.

[0:3] ego translation, [3:7] ego rotation (w, x, y, z), [7:10] acceleration, [10:13] rotation rate,
[13:16] velocity, [16] yaw in radians, [17] yaw in degrees, both of [0, 360).
The prepared file keeps what the CAN pose message says; `with_ego_pose` overwrites [0:7], [16], [17] on load.
"""

import re
from typing import Any, Dict, List, Optional, Sequence

import numpy as np

from bevformer.errors import DataError

from .geometry import heading
from .store import Store
from .tables import read_json

# Scenes for which nuScenes has no CAN data (devkit's can_blacklist): 15 train and 6 test scenes.
WITHOUT_CAN = frozenset(list(range(161, 169)) + list(range(170, 177)) + list(range(309, 315)))


def pose_path(scene_name: str) -> str:
    return "can_bus/%s_pose.json" % scene_name


def pose_messages(store: Store, scene_name: str) -> Optional[List[Dict[str, Any]]]:
    """The pose messages of a scene; None where there are none (the devkit refuses the same scenes)."""
    if not re.match(r"^scene-\d{4}$", scene_name) or int(scene_name[-4:]) in WITHOUT_CAN:
        return None
    path = pose_path(scene_name)
    if not store.exists(path):
        return None
    messages = read_json(store, path)
    if not isinstance(messages, list):
        raise DataError("%s is not a list of messages" % path, do="Unpack can_bus.zip again.")
    _check_all(messages, path)
    return messages or None


def can_bus_of_scene(store: Store, scene_name: str, timestamps_us: Sequence[int]) -> Optional[np.ndarray]:
    """(F, 18), a row as `can_bus_at` makes it for each time; None for a scene without messages."""
    messages = pose_messages(store, scene_name)
    if messages is None:
        return None
    return np.array([can_bus_at(messages, stamp) for stamp in timestamps_us]).reshape(-1, 18)


_WIDTHS = {"pos": 3, "orientation": 4, "accel": 3, "rotation_rate": 3, "vel": 3}
_KEYS = {*_WIDTHS, "utime"}


def _check_all(messages: Sequence[Any], path: str) -> None:
    """Every message of the known form, every number finite."""
    try:
        fits = all(set(message) == _KEYS and _widths_fit(message) for message in messages)
        numbers = [message["utime"] for message in messages if fits]
        numbers += [one for message in messages if fits for key in _WIDTHS for one in message[key]]
        fits = (
            fits
            and set(map(type, numbers)) <= {int, float}
            and bool(np.isfinite(np.array(numbers, float)).all())
        )
    except (TypeError, KeyError, OverflowError):  # a number for a list, a huge integer
        fits = False
    if not fits:
        raise DataError(
            "%s holds a message of another form" % path,
            "A pose message has utime, pos, orientation, accel, rotation_rate and vel, all finite numbers.",
            "Unpack can_bus.zip again.",
        )


def _widths_fit(message: Dict[str, Any]) -> bool:
    return all(type(message[key]) is list and len(message[key]) == _WIDTHS[key] for key in _WIDTHS)


def can_bus_at(messages: Optional[Sequence[Dict[str, Any]]], timestamp_us: int) -> np.ndarray:
    """(18,) as upstream's converter writes it; zeros for a scene without messages.

    Position and rotation come from the last message not after the sample.  Quirk, kept for parity: the rest
    comes from the loop variable, which is the message *after* that one unless the messages end first.
    """
    if not messages:
        return np.zeros(18)
    last = loop = messages[0]
    for loop in messages:
        if loop["utime"] > timestamp_us:
            break
        last = loop
    numbers: List[float] = list(last["pos"]) + list(last["orientation"])
    for key in last:
        if key not in ("utime", "pos", "orientation"):
            numbers.extend(loop[key])
    return np.array(numbers + [0.0, 0.0], dtype=np.float64)


def with_ego_pose(can_bus_18: np.ndarray, translation: np.ndarray, rotation_wxyz: np.ndarray) -> np.ndarray:
    """A copy with [0:7], [16] and [17] from the ego pose; also of many at once, (F, 18)."""
    out = np.array(can_bus_18, dtype=np.float64)
    out[..., :3] = translation
    out[..., 3:7] = rotation_wxyz
    yaw_deg = heading(rotation_wxyz) / np.pi * 180
    yaw_deg = np.where(yaw_deg < 0, yaw_deg + 360, yaw_deg)
    out[..., 16] = yaw_deg / 180 * np.pi
    out[..., 17] = yaw_deg
    return out


def queue_differences(can_bus_Q18: np.ndarray, scene_tokens: Sequence[str]) -> np.ndarray:
    """A training queue's absolute rows -> [0:3] and [17] relative to the frame before in the queue.

    The first row and the first of another scene get zeros.  A wrap of the yaw stays as about +-360.
    """
    absolute = np.asarray(can_bus_Q18, dtype=np.float64)
    out = absolute.copy()
    moving = [0, 1, 2, 17]
    for i in range(len(out)):
        same = i > 0 and scene_tokens[i] == scene_tokens[i - 1]
        out[i, moving] = absolute[i, moving] - absolute[i - 1, moving] if same else 0.0
    return out
