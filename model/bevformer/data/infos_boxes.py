"""Boxes of whole files between the conventions of mmdet3d 0.17 and 1.0.

0.17: (x, y, z, w, l, h, -yaw - pi/2); 1.0: (x, y, z, l, w, h, yaw).  The way back gives the same bits: where
rounding would lose the last digit of an angle, the original is kept in the metadata beside the frames.
"""

from typing import Any, Dict, List, Mapping, Sequence, Tuple

import numpy as np

from bevformer import boxes as box_math

from .infos_form import Info

CONVENTION = "bevrepro_boxes"  # key of the metadata: "0.17" or "1.0"
KEPT = "bevrepro_kept_yaws"  # key of the metadata: [frame, box, yaw] in the file's order
CLOSE = 1e-9  # radians; a kept angle that is farther off belongs to a box that was changed since


def to_new(infos: Sequence[Info], metadata: Mapping[str, Any]) -> Tuple[List[Info], Dict[str, Any]]:
    """Legacy boxes to mmdet3d 1.0's, and the metadata that says so."""
    out, kept = _converted(infos, box_math.legacy_to_new, box_math.new_to_legacy, metadata)
    said = {key: value for key, value in metadata.items() if key != KEPT}
    said[CONVENTION] = "1.0"
    return out, dict(said, **({KEPT: kept} if kept else {}))


def to_legacy(infos: Sequence[Info], metadata: Mapping[str, Any]) -> List[Info]:
    """mmdet3d 1.0's boxes to legacy ones."""
    return _converted(infos, box_math.new_to_legacy, box_math.legacy_to_new, metadata)[0]


def kept_yaws(infos: Sequence[Info], metadata: Mapping[str, Any]) -> List[List[Any]]:
    """What `to_legacy` would lose of these boxes in mmdet3d 1.0's convention."""
    return _converted(infos, box_math.new_to_legacy, box_math.legacy_to_new, metadata)[1]


def _converted(
    infos: Sequence[Info], there: Any, back: Any, metadata: Mapping[str, Any]
) -> Tuple[List[Info], List[List[Any]]]:
    known = {(frame, box): yaw for frame, box, yaw in metadata.get(KEPT) or ()}
    out, kept = [], []
    for number, info in enumerate(infos):
        if "gt_boxes" not in info:
            out.append(info)
            continue
        before = np.asarray(info["gt_boxes"], dtype=np.float64).reshape(-1, 7)
        after = there(before)
        for box in range(len(after)):
            yaw = known.get((number, box))
            if yaw is not None and abs(yaw - after[box, 6]) < CLOSE:
                after[box, 6] = yaw
        for box in np.flatnonzero(back(after)[:, 6] != before[:, 6]).tolist():
            if not np.isnan(before[box, 6]):
                kept.append([number, box, float(before[box, 6])])
        out.append(dict(info, gt_boxes=after))
    return out, kept
