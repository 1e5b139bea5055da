"""The panel seen from above: forward is up, rings in metres, the ego vehicle in the middle."""

from typing import Optional, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.patches import Circle, Polygon

from .boxes import corners
from .draw_camera import DASHES, Boxes
from .look import BEV_SIDE, INK, PALE, PLATE, Style

BEV_RANGE_M = 51.2
# Near the diagonals, where the outermost ring still has room in the corner.
NAMES_AT = tuple(np.radians((-45, -30, -60, 225, 210, 240, 45, 30, 60, 135, 120, 150)))
FREE_M = 5.0  # enough room for a name
_FOOTPRINT = [2, 3, 7, 6]  # front right, front left, back left, back right


def draw_bev(
    axes: Axes,
    points_P3: Optional[np.ndarray],
    truth: Optional[Boxes],
    shown: Optional[Boxes],
    reach_m: float,
    style: Style,
    names_at: float,
) -> None:
    """Predictions as outlines, the truth dashed over them.

    reach_m: half the side of the view.  names_at: the ray (radians from the right) that rings are named on.
    """
    axes.set_facecolor("white")
    if points_P3 is not None:
        image = _points_image(points_P3, reach_m, round(BEV_SIDE * style.px_per_unit))
        axes.imshow(image, extent=(-reach_m, reach_m) * 2)
    _draw_rings(axes, reach_m, style)
    _name_rings(axes, reach_m, style, names_at)
    if shown is not None:
        _draw_predicted(axes, shown, style)
    if truth is not None:
        _draw_true(axes, truth, style)
    _draw_ego(axes, style)
    axes.set_xlim(-reach_m, reach_m)
    axes.set_ylim(-reach_m, reach_m)
    axes.set_aspect("equal")
    for side in axes.spines.values():
        side.set_color("#c5cdd6")
        side.set_linewidth(0.8 * max(style.lines, 0.6))
    plate = dict(boxstyle="square,pad=0.3", facecolor=PLATE, edgecolor="none")
    name = "BIRD'S-EYE VIEW, FRONT IS UP" if style.titled else "BEV, front up"
    x, y = (0.014, 0.981) if style.titled else (0.028, 0.957)
    axes.text(
        x,
        y,
        name,
        color="white",
        fontsize=style.letters_pt,
        va="center",
        transform=axes.transAxes,
        bbox=plate,
    )


def reach_of(*groups: Optional[Boxes]) -> float:
    """Half the side of the view in metres: all boxes fit in, never beyond the BEV grid nor under 25 m."""
    far_m = [
        float(np.abs(boxes.boxes_K9[:, :2]).max()) for boxes in groups if boxes is not None and len(boxes)
    ]
    return float(np.clip(5 * np.ceil((max(far_m, default=BEV_RANGE_M) + 2) / 5), 25.0, BEV_RANGE_M))


def _draw_rings(axes: Axes, reach_m: float, style: Style) -> None:
    for radius in range(10, int(reach_m) + 1, 10):
        line = 0.8 * max(style.lines, 0.6)
        axes.add_patch(
            Circle((0, 0), radius, fill=False, edgecolor="#b9c2cc", linewidth=line, linestyle=(0, (4, 3)))
        )


def _name_rings(axes: Axes, reach_m: float, style: Style, angle: float) -> None:
    """Along one ray, below the boxes: a name may be covered, a box never."""
    step_m = style.ring_step_m if reach_m > 35 else 10
    for radius in range(step_m, int(reach_m) + 1, step_m):
        spot = radius * np.array([np.cos(angle), np.sin(angle)])
        plate = dict(boxstyle="square,pad=0.1", facecolor="#ffffffd0", edgecolor="none")
        size = style.letters_pt * 0.95
        text = "%d m" % radius
        axes.text(*spot, text, color=PALE, fontsize=size, ha="center", va="center", bbox=plate, zorder=0.8)


def quiet_angle(groups: Sequence[Optional[Boxes]], reach_m: float) -> float:
    """The ray (radians from the right) whose ring names lie farthest from boxes; the first of equal ones."""
    outlines = [_outline(boxes.boxes_K9) for boxes in groups if boxes is not None and len(boxes)]
    if not outlines:
        return NAMES_AT[0]
    xy_K2, radii_m = np.concatenate(outlines), np.arange(10, reach_m + 1, 10)

    def free_m(angle: float) -> float:
        spots_R2 = radii_m[:, None] * np.array([np.cos(angle), np.sin(angle)])
        near_m = np.linalg.norm(spots_R2[:, None] - xy_K2, axis=-1).min()
        return min(float(near_m), FREE_M)

    return max(NAMES_AT, key=free_m)


def _outline(boxes_K9: np.ndarray) -> np.ndarray:
    """(16 K, 2) points along the footprints."""
    xy_K42 = corners(boxes_K9)[:, _FOOTPRINT, :2]
    share = np.arange(4)[:, None, None, None] / 4
    return np.asarray(xy_K42 * (1 - share) + np.roll(xy_K42, -1, axis=1) * share).reshape(-1, 2)


def _points_image(points_P3: np.ndarray, reach_m: float, size: int) -> np.ndarray:
    """(size, size, 3) uint8: lidar points on white, darker with their height above the road."""
    inside = (np.abs(points_P3[:, :2]) < reach_m).all(axis=1)
    x, y, z = points_P3[inside].T
    column = ((x + reach_m) * size / (2 * reach_m)).astype(int)
    row = ((reach_m - y) * size / (2 * reach_m)).astype(int)
    image = np.full((size, size), 255, dtype=np.uint8)
    grey = (205 - 90 * np.clip((z + 1.6) / 2.5, 0, 1)).astype(np.uint8)
    np.minimum.at(image, (row, column), grey)
    return np.repeat(image[..., None], 3, axis=2)


def _draw_predicted(axes: Axes, boxes: Boxes, style: Style) -> None:
    """Outline, a thick front edge, and a line from the centre to it."""
    xy_K42, line = corners(boxes.boxes_K9)[:, _FOOTPRINT, :2], 1.5 * style.lines
    front = xy_K42[:, :2].mean(axis=1)
    heading = np.stack([np.asarray(boxes.boxes_K9)[:, :2], front], axis=1)
    rim = dict(edgecolors="black", linewidths=line + 0.8 * style.lines, alpha=0.3)  # for the light colours
    axes.add_collection(PolyCollection(list(xy_K42), facecolors="none", **rim))
    axes.add_collection(
        PolyCollection(list(xy_K42), facecolors="none", edgecolors=boxes.colours, linewidths=line)
    )
    axes.add_collection(LineCollection(list(heading), colors=boxes.colours, linewidths=line))
    axes.add_collection(LineCollection(list(xy_K42[:, :2]), colors=boxes.colours, linewidths=line * 1.9))


def _draw_true(axes: Axes, boxes: Boxes, style: Style) -> None:
    """Filled with the colour of the class, dashed in ink; the same thick front edge."""
    xy_K42, line = corners(boxes.boxes_K9)[:, _FOOTPRINT, :2], 0.7 * style.lines
    axes.add_collection(PolyCollection(list(xy_K42), facecolors=boxes.colours, alpha=0.38, linewidths=0))
    axes.add_collection(
        PolyCollection(list(xy_K42), facecolors="none", edgecolors=INK, linewidths=line, linestyles=[DASHES])
    )
    axes.add_collection(LineCollection(list(xy_K42[:, :2]), colors=INK, linewidths=line * 1.6))


def _draw_ego(axes: Axes, style: Style) -> None:
    """The nuScenes car (4.1 x 1.7 m); the lidar stands 0.9 m before its rear axle."""
    body = np.array([[-0.87, -1.9], [0.87, -1.9], [0.87, 2.2], [-0.87, 2.2]])
    line = 0.8 * style.lines
    axes.add_patch(Polygon(body, closed=True, facecolor=INK, edgecolor="white", linewidth=line))
    axes.add_patch(Polygon([[-0.5, 0.7], [0.5, 0.7], [0, 1.8]], closed=True, facecolor="white"))
