"""What a frame of a prepared file has to hold before anything is computed from it."""

import re
from typing import Any, Dict, List, Mapping, Tuple

import numpy as np

from bevformer.errors import DataError
from bevformer.types import CAMERAS

Info = Dict[str, Any]
PREPARE = "Make it again with `bevrepro data prepare`."
NEEDED: Dict[str, Any] = dict(
    token=None,
    scene_token=None,
    timestamp=(),
    cams=None,
    ego2global_translation=(3,),
    ego2global_rotation=(4,),
    can_bus=(18,),
)
NEEDED_CAM: Dict[str, Any] = dict(
    data_path=None, cam_intrinsic=(3, 3), sensor2lidar_rotation=(3, 3), sensor2lidar_translation=(3,)
)


def relative_path(path: str) -> str:
    """Drop a baked-in prefix: ./data/nuscenes/samples/... -> samples/...; others stay as they are."""
    clean = path.replace("\\", "/")
    found = list(re.finditer(r"(?:^|/)((?:samples|sweeps)/)", clean))
    return clean[found[-1].start(1) :] if found else clean


def check_form(infos: List[Info], path: str) -> None:
    """DataError names sample, camera and field that is missing or of another shape."""
    for number, info in enumerate(infos):
        try:
            _check_info(info, path)
        except (
            TypeError,
            ValueError,
            AttributeError,
        ) as error:  # a number for a dict, ...
            raise DataError("%s: frame %d is damaged: %s" % (path, number, error), do=PREPARE) from error


def _check_info(info: Info, path: str) -> None:
    where = "sample %s in %s" % (info.get("token", "?"), path)
    _check_fields(info, NEEDED, where)
    absent = [channel for channel in CAMERAS if channel not in info["cams"]]
    if absent:
        raise DataError(
            "%s has %d cameras: %s is missing" % (where, len(info["cams"]), ", ".join(absent)),
            "The model takes all six; its features are tied to them.",
            PREPARE,
        )
    for channel in CAMERAS:
        _check_fields(
            info["cams"][channel], NEEDED_CAM, "sample %s, %s in %s" % (info["token"], channel, path)
        )
    if "gt_boxes" in info:
        count = len(info["gt_boxes"])
        _check_fields(
            info,
            dict(gt_boxes=(count, 7), gt_velocity=(count, 2), gt_names=count, valid_flag=(count,)),
            where + ", %d boxes" % count,
        )


def _check_fields(values: Mapping[str, Any], wanted: Mapping[str, Any], where: str) -> None:
    """`wanted`: a tuple is a shape of numbers, a number a length, None anything."""
    for key, form in wanted.items():
        if key not in values:
            raise DataError("%s lacks %s" % (where, key), do=PREPARE)
        value = values[key]
        fits = form is None or (_is_numbers(value, form) if isinstance(form, tuple) else len(value) == form)
        if not fits:
            raise DataError(
                "%s: %s has the shape %s, not %s" % (where, key, np.shape(value), form), do=PREPARE
            )


def _is_numbers(value: Any, shape: Tuple[int, ...]) -> bool:
    try:
        return np.asarray(value, dtype=np.float64).shape == shape
    except (TypeError, ValueError):
        return False
