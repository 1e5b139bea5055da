"""Boxes of whole files between the conventions of mmdet3d 0.17 and 1.0.

0.17: (x, y, z, w, l, h, -yaw - pi/2); 1.0: (x, y, z, l, w, h, yaw).  The way back gives the same bits: where
rounding would lose the last digit of an angle, the original is kept in the metadata beside the frames.
"""

from typing import Any, Callable, Dict, List, Mapping, Sequence, Tuple

import numpy as np

from bevformer.boxes import wrap_angle

from .infos_form import Info

CONVENTION = "bevrepro_boxes"  # key of the metadata: "0.17" or "1.0"
KEPT = "bevrepro_kept_yaws"  # key of the metadata: [frame, box, yaw] in the file's order, for the way back
CLOSE = 1e-9  # radians; a kept angle that is farther off belongs to a box that was changed since
Turn = Callable[[np.ndarray], np.ndarray]


def to_new(infos: Sequence[Info], metadata: Mapping[str, Any]) -> Tuple[List[Info], Dict[str, Any]]:
    """0.17 to 1.0: the frames, and the metadata that says so."""
    out, kept = _converted(infos, _new_yaw, _legacy_yaw, metadata)
    return out, _said(metadata, "1.0", kept)


def to_legacy(infos: Sequence[Info], metadata: Mapping[str, Any]) -> Tuple[List[Info], Dict[str, Any]]:
    """1.0 to 0.17: the frames, and the metadata that says so."""
    out, kept = _converted(infos, _legacy_yaw, _new_yaw, metadata)
    return out, _said(metadata, "0.17", kept)


def _said(metadata: Mapping[str, Any], convention: str, kept: List[List[Any]]) -> Dict[str, Any]:
    said = {key: value for key, value in metadata.items() if key not in (KEPT, CONVENTION)}
    if (
        convention != "0.17" or "bevrepro_tables_digest" not in metadata
    ):  # which are 0.17 unless they say else
        said[CONVENTION] = convention
    if kept:
        said[KEPT] = kept
    return said


def _legacy_yaw(new: np.ndarray) -> np.ndarray:
    """Not wrapped, as upstream's converter writes it."""
    return -new - np.pi / 2


def _new_yaw(legacy: np.ndarray) -> np.ndarray:
    new = -legacy - np.pi / 2
    return np.where(np.abs(new) > np.pi, wrap_angle(new), new)


def _converted(
    infos: Sequence[Info], there: Turn, back: Turn, metadata: Mapping[str, Any]
) -> Tuple[List[Info], List[List[Any]]]:
    known: Dict[int, List[Tuple[int, float]]] = {}
    for frame, box, yaw in metadata.get(KEPT) or ():
        known.setdefault(frame, []).append((box, yaw))
    out, kept = [], []
    for number, info in enumerate(infos):
        if "gt_boxes" not in info:
            out.append(info)
            continue
        before = np.array(info["gt_boxes"], dtype=np.float64).reshape(-1, 7)
        after = before[:, [0, 1, 2, 4, 3, 5, 6]]
        after[:, 6] = there(before[:, 6])
        for box, yaw in known.get(number, ()):
            if box < len(after) and abs(wrap_angle(np.array(yaw - after[box, 6]))) < CLOSE:
                after[box, 6] = yaw
        lost = (back(after[:, 6]) != before[:, 6]) & ~np.isnan(before[:, 6])
        kept += [[number, box, float(before[box, 6])] for box in np.flatnonzero(lost).tolist()]
        out.append(dict(info, gt_boxes=after))
    return out, kept
