"""A prepared infos file (nuscenes_infos_*.pkl) described without numpy."""

import hashlib
import os
import statistics
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bevrepro.probe.files import open_plain
from bevrepro.probe.pickles import DAMAGE, Array, PlainUnpickler, Refused, bounded, on_deep_stack, printable

ENOUGH_CARS = 2000  # for a median of their sizes
CAN_PART = slice(7, 16)  # what the CAN bus gives; the rest comes from the ego pose
SAMPLED = 50  # paths looked at
# What BEVFormer's data set reads of every frame.
KEYS = tuple(
    "token prev next can_bus frame_idx cams scene_token timestamp lidar2ego_translation "
    "ego2global_translation".split()
)


@dataclass(frozen=True)
class Infos:
    """One file; None where it could not be told."""

    path: str
    refused: str | None = None  # the name that a hostile or foreign pickle asked for
    broken: str | None = None
    layout: str | None = (
        None  # "infos" (mmdet3d 0.x and 1.0, BEVFormer) or "data_list" (mmdet3d 1.1 and later)
    )
    version: str | None = None  # "v1.0-mini"
    frames: int | None = None
    scenes: int | None = None
    lacking: tuple[str, ...] | None = None  # keys that BEVFormer reads and the first frame has not
    prefix: str | None = None  # what stands before samples/ in its paths; "" where they are relative
    prefix_exists: bool | None = None
    car_third: float | None = None  # median of the 4th and 5th number of cars' boxes: width and length,
    car_fourth: float | None = None  # or the other way round
    zero_can_scenes: int | None = None
    stretches: int | None = None  # pieces of one scene in a row, in the order of time: as many as scenes
    convention: str | None = None  # of the boxes, "0.17" or "1.0", where the file says so
    digest: str | None = None  # of tokens, times, boxes and names, as run.json has it


def probe_infos(path: Path) -> Infos:
    """Never raises for what the file holds; whole files of the full set take some seconds."""
    try:
        with open_plain(path) as stream, bounded(path.stat().st_size):
            content = on_deep_stack(stream, PlainUnpickler(stream).load)
        return _describe(str(path), content)
    except Refused as error:
        return Infos(str(path), refused=str(error))
    except DAMAGE as error:
        return Infos(str(path), broken=printable(str(error)) or type(error).__name__)
    except OSError as error:
        return Infos(str(path), broken=error.strerror)


def _describe(path: str, content: Any) -> Infos:
    if not isinstance(content, dict):
        return Infos(path, broken=f"it holds a {type(content).__name__}, not a dict of infos")
    layout = next((name for name in ("infos", "data_list") if isinstance(content.get(name), list)), None)
    if layout is None:
        return Infos(path, broken="it holds neither infos nor data_list")
    frames = [each for each in content[layout] if isinstance(each, dict)]
    metadata = content.get("metadata" if layout == "infos" else "metainfo")
    version = metadata.get("version") if isinstance(metadata, dict) else None
    prefix = _prefix(frames, layout)
    third, fourth = _car_sizes(frames) if layout == "infos" else (None, None)
    return Infos(
        path,
        layout=layout,
        version=printable(str(version)) if version else None,
        frames=len(frames),
        scenes=len({each["scene_token"] for each in frames if "scene_token" in each}) or None,
        lacking=tuple(key for key in KEYS if key not in frames[0]) if frames and layout == "infos" else None,
        prefix=prefix,
        prefix_exists=os.path.isdir(prefix) if prefix else None,
        car_third=third,
        car_fourth=fourth,
        zero_can_scenes=_zero_can_scenes(frames) if layout == "infos" else None,
        stretches=_stretches(frames),
        convention=_convention(metadata),
        digest=_digest(frames) if layout == "infos" else None,
    )


def _digest(frames: Iterable[dict[str, Any]]) -> str | None:
    """As `infos_digest` of the model plane makes it; None where a frame has not what that needs."""
    total = hashlib.sha256()
    try:
        for frame in sorted(frames, key=lambda frame: frame["timestamp"]):
            total.update(f"{frame['token']} {frame['timestamp']}\n".encode())
            boxes, names = frame["gt_boxes"].values(), frame["gt_names"].values()
            total.update(struct.pack(f"<{len(boxes)}d", *boxes))
            total.update(" ".join(map(str, names)).encode())
    except (*DAMAGE, struct.error):
        return None
    return total.hexdigest()


def _convention(metadata: Any) -> str | None:
    """As bevrepro's own files say it: by a key, or by being of `data prepare`, which writes 0.17's."""
    if not isinstance(metadata, dict):
        return None
    said = metadata.get("bevrepro_boxes")
    return str(said) if said else "0.17" if "bevrepro_tables_digest" in metadata else None


def _stretches(frames: Iterable[dict[str, Any]]) -> int | None:
    """None where a frame has no time or no scene."""
    try:
        scenes: list[Any] = [
            frame["scene_token"] for frame in sorted(frames, key=lambda frame: frame["timestamp"])
        ]
    except (KeyError, TypeError):
        return None
    return len([0 for one, other in zip(scenes, scenes[1:]) if one != other]) + bool(scenes)


def _prefix(frames: list[dict[str, Any]], layout: str) -> str | None:
    for frame in frames[:SAMPLED]:
        cams = frame.get("cams") if layout == "infos" else frame.get("images")
        for cam in (cams or {}).values() if isinstance(cams, Mapping) else ():
            name = (
                cam.get("data_path" if layout == "infos" else "img_path") if isinstance(cam, dict) else None
            )
            if isinstance(name, str):
                at = name.find("samples/")
                return printable(name[:at]) if at >= 0 else ""
    return None


def _car_sizes(frames: Iterable[dict[str, Any]]) -> tuple[float | None, float | None]:
    thirds: list[float] = []
    fourths: list[float] = []
    for frame in frames:
        names, boxes = frame.get("gt_names"), frame.get("gt_boxes")
        if not isinstance(names, Array) or not isinstance(boxes, Array) or len(boxes.shape) != 2:
            continue
        width, numbers = boxes.shape[1], boxes.values()
        for index, name in enumerate(names.values()):
            if name == "car" and width >= 7:
                thirds.append(numbers[index * width + 3])
                fourths.append(numbers[index * width + 4])
        if len(thirds) >= ENOUGH_CARS:
            break
    return (statistics.median(thirds), statistics.median(fourths)) if thirds else (None, None)


def _zero_can_scenes(frames: Iterable[dict[str, Any]]) -> int | None:
    """Scenes whose frames all have zeros where the CAN bus's part belongs."""
    scenes: dict[Any, bool] = {}
    for frame in frames:
        can, scene = frame.get("can_bus"), frame.get("scene_token")
        if isinstance(can, Array) and isinstance(scene, str):
            moved = any(can.values()[CAN_PART])
            scenes[scene] = scenes.get(scene, False) or moved
    return sum(not moved for moved in scenes.values()) if scenes else None
