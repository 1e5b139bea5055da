"""One sample as a picture: six cameras with true and predicted boxes, and the bird's-eye view.

Boxes are (K, 9) gravity-centred, legacy convention, in the lidar frame (x right, y forward, z up, metres).
"""

import os
from dataclasses import dataclass
from typing import Any, List, Mapping, Optional, Sequence, Tuple

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Patch, Polygon

from .boxes import BOX_EDGES, corners
from .data.geometry import rigid_inverse, rigid_of
from .types import CLASSES

# Two hues that stay apart in every common colour blindness, on photographs and on white.
TRUE_COLOUR, PREDICTED_COLOUR = "#18a0fb", "#ff7a00"
INK, PALE = "#1c2733", "#6f7c89"
ROWS = (("CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT"), ("CAM_BACK_LEFT", "CAM_BACK", "CAM_BACK_RIGHT"))
PANEL_W, PANEL_H, GAP, HEAD = 576, 324, 8, 58
BEV_RANGE_M, RING_STEP_M = 51.2, 10
NEAR_M = 0.3
NAMED_FROM_SCORE = 0.5
NAME_PX_PER_LETTER = 7.9
_FRONT = [0, 1, 2, 3]
_FOOTPRINT = [2, 3, 7, 6]  # front right, front left, back left, back right


@dataclass(frozen=True)
class Camera:
    """image_HW3 RGB uint8; lidar2cam_44 and intrinsic_33 for its full size."""

    image_HW3: np.ndarray
    lidar2cam_44: np.ndarray
    intrinsic_33: np.ndarray


@dataclass(frozen=True)
class Boxes:
    boxes_K9: np.ndarray
    labels_K: np.ndarray
    scores_K: np.ndarray

    def __len__(self) -> int:
        return len(self.boxes_K9)


@dataclass(frozen=True)
class Picture:
    """All that is drawn.  predicted, truth, points_P3 (lidar metres): None when there is none to draw."""

    title: str
    subtitle: str
    cameras: Mapping[str, Camera]
    predicted: Optional[Boxes]
    truth: Optional[Boxes]
    points_P3: Optional[np.ndarray]
    score_threshold: float


def lidar2cam(cam: Mapping[str, Any]) -> np.ndarray:
    """(4, 4) from the `cams` entry of a prepared file."""
    return rigid_inverse(rigid_of(cam["sensor2lidar_rotation"], cam["sensor2lidar_translation"]))


def project_edges(corners_K83: np.ndarray, camera: Camera) -> Tuple[np.ndarray, np.ndarray]:
    """Box edges in pixels: segments (S, 2, 2) and the box each belongs to (S,).

    An edge that crosses the near plane is cut there; boxes wholly outside the image are left out.
    """
    xyz_cam = corners_K83 @ camera.lidar2cam_44[:3, :3].T + camera.lidar2cam_44[:3, 3]
    ends = xyz_cam[:, np.array(BOX_EDGES)]  # K, 12, 2, 3
    depth = ends[..., 2]
    step = np.where(np.abs(depth[..., 1] - depth[..., 0]) < 1e-9, 1.0, depth[..., 1] - depth[..., 0])
    share = np.clip((NEAR_M - depth) / np.stack([step, -step], axis=-1), 0, 1)
    cut = ends + share[..., None] * (ends[:, :, ::-1] - ends)
    ends = np.where((depth < NEAR_M)[..., None], cut, ends)
    ahead = (depth > NEAR_M).any(axis=2)
    uv = ends @ camera.intrinsic_33.T
    uv = uv[..., :2] / np.maximum(uv[..., 2:], 1e-6)
    height, width = camera.image_HW3.shape[:2]
    kept, owners = [], []
    for k in np.flatnonzero(ahead.any(axis=1)):
        segments = uv[k][ahead[k]]
        low, high = segments.min(axis=(0, 1)), segments.max(axis=(0, 1))
        if (high > 0).all() and low[0] < width and low[1] < height:
            kept.append(segments)
            owners.append(np.full(len(segments), k))
    if not kept:
        return np.zeros((0, 2, 2)), np.zeros(0, dtype=int)
    return np.concatenate(kept), np.concatenate(owners)


def project_fronts(corners_K83: np.ndarray, camera: Camera) -> np.ndarray:
    """(F, 4, 2) pixels of the front faces that lie wholly before the camera."""
    xyz_cam = corners_K83[:, _FRONT] @ camera.lidar2cam_44[:3, :3].T + camera.lidar2cam_44[:3, 3]
    xyz_cam = xyz_cam[(xyz_cam[..., 2] > NEAR_M).all(axis=1)]
    uv = xyz_cam @ camera.intrinsic_33.T
    return uv[..., :2] / uv[..., 2:]


def draw(picture: Picture) -> np.ndarray:
    """The picture as (H, W, 3) uint8 RGB."""
    bev = 2 * PANEL_H + GAP
    width = 3 * PANEL_W + bev + 5 * GAP
    height = HEAD + bev + GAP
    figure = Figure(figsize=(width / 100, height / 100), dpi=100, facecolor="white")
    canvas = FigureCanvasAgg(figure)

    def axes(left: float, top: float, w: float, h: float) -> Axes:
        made: Axes = figure.add_axes((left / width, 1 - (top + h) / height, w / width, h / height))
        made.set_xticks([])
        made.set_yticks([])
        return made

    shown = above(picture.predicted, picture.score_threshold) if picture.predicted is not None else None
    for row, channels in enumerate(ROWS):
        for column, channel in enumerate(channels):
            left, top = GAP + column * (PANEL_W + GAP), HEAD + row * (PANEL_H + GAP)
            _draw_camera(axes(left, top, PANEL_W, PANEL_H), channel, picture, shown)
    _draw_bev(axes(3 * (PANEL_W + GAP) + GAP, HEAD, bev, bev), picture, shown)
    _draw_head(axes(0, 0, width, HEAD), picture, shown)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def save_png(path: str, image_HW3: np.ndarray) -> None:
    """Written whole or not at all.  Raises OSError when it cannot be."""
    done, data = cv2.imencode(".png", image_HW3[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 4])
    assert done
    tmp = "%s.%d.tmp" % (path, os.getpid())
    try:
        with open(tmp, "wb") as file:
            file.write(data.tobytes())
        os.replace(tmp, path)
    finally:
        if os.path.exists(tmp):
            os.remove(tmp)


def above(boxes: Boxes, threshold: float) -> Boxes:
    """The boxes to show, worst first, so that the best are drawn on top."""
    order = np.argsort(boxes.scores_K, kind="stable")
    order = order[boxes.scores_K[order] >= threshold]
    return Boxes(boxes.boxes_K9[order], boxes.labels_K[order], boxes.scores_K[order])


def _draw_camera(axes: Axes, channel: str, picture: Picture, shown: Optional[Boxes]) -> None:
    camera = _fit(picture.cameras[channel])
    axes.imshow(camera.image_HW3, interpolation="nearest", extent=(0, PANEL_W, PANEL_H, 0), aspect="auto")
    for side in axes.spines.values():
        side.set_visible(False)
    if picture.truth is not None:
        _draw_boxes(axes, corners(picture.truth.boxes_K9), camera, TRUE_COLOUR, 2.4, rim=1.0)
    if shown is not None:
        corners_K83 = corners(shown.boxes_K9)
        _draw_boxes(axes, corners_K83, camera, PREDICTED_COLOUR, 1.0, rim=0.4)
        _draw_names(axes, corners_K83, camera, shown)
    axes.set_xlim(0, PANEL_W)
    axes.set_ylim(PANEL_H, 0)
    plate = dict(boxstyle="square,pad=0.35", facecolor="#000000a0", edgecolor="none")
    axes.text(9, 14, channel, color="white", fontsize=10.5, va="center", family="DejaVu Sans", bbox=plate)


def _fit(camera: Camera) -> Camera:
    """The camera at the panel's size."""
    height, width = camera.image_HW3.shape[:2]
    how = cv2.INTER_AREA if width > PANEL_W else cv2.INTER_CUBIC
    scale = np.diag([PANEL_W / width, PANEL_H / height, 1.0])
    image = cv2.resize(camera.image_HW3, (PANEL_W, PANEL_H), interpolation=how)
    return Camera(image, camera.lidar2cam_44, scale @ camera.intrinsic_33)


def _draw_boxes(
    axes: Axes, corners_K83: np.ndarray, camera: Camera, colour: str, line: float, rim: float
) -> None:
    """Lines over a dark rim, thinner for boxes that are small in the image.

    A true box stays visible as a border where a prediction covers it exactly.
    """
    segments, owners = project_edges(corners_K83, camera)
    fronts = project_fronts(corners_K83, camera)
    height_px = np.array([np.ptp(segments[owners == k][..., 1]) for k in np.unique(owners)])
    lines = line * np.clip(0.45 + height_px / 90, 0.6, 1.35)[np.unique(owners, return_inverse=True)[1]]
    axes.add_collection(PolyCollection(list(fronts), facecolors=colour, alpha=0.25, linewidths=0))
    axes.add_collection(LineCollection(list(segments), colors="black", linewidths=lines + rim, alpha=0.35))
    axes.add_collection(LineCollection(list(segments), colors=colour, linewidths=lines, capstyle="round"))


def _draw_names(axes: Axes, corners_K83: np.ndarray, camera: Camera, shown: Boxes) -> None:
    """Names of the confident boxes, best first; a name that would cover another is left out."""
    segments, owners = project_edges(corners_K83, camera)
    taken: List[Tuple[float, float, float, float]] = [(0, 0, 150, 28)]  # the camera's own name
    for k in np.argsort(-shown.scores_K, kind="stable"):
        if shown.scores_K[k] < NAMED_FROM_SCORE or not (owners == k).any():
            continue
        along = np.linspace(0, 1, 17)[:, None, None]
        dots = (segments[owners == k, 0] * (1 - along) + segments[owners == k, 1] * along).reshape(-1, 2)
        dots = dots[(dots >= 0).all(axis=1) & (dots <= (PANEL_W, PANEL_H)).all(axis=1)]
        if not len(dots) or np.ptp(dots[:, 0]) < 4:
            continue
        text = "%s %.2f" % (CLASSES[shown.labels_K[k]].replace("_", " "), shown.scores_K[k])
        low = dots.min(axis=0)
        length = NAME_PX_PER_LETTER * len(text)
        x = float(np.clip(low[0], 3, PANEL_W - length - 6))
        y = float(max(low[1] - 10, 12))
        spot = (x, y - 9, x + length + 4, y + 9)
        if _covered(spot, taken):
            continue
        taken.append(spot)
        plate = dict(boxstyle="square,pad=0.15", facecolor=PREDICTED_COLOUR, edgecolor="none", alpha=0.85)
        axes.text(x + 2, y, text, color="white", fontsize=8.5, va="center", weight="bold", bbox=plate)


def _covered(spot: Tuple[float, ...], taken: Sequence[Tuple[float, ...]]) -> bool:
    return any(
        spot[0] < other[2] and other[0] < spot[2] and spot[1] < other[3] and other[1] < spot[3]
        for other in taken
    )


def _draw_bev(axes: Axes, picture: Picture, shown: Optional[Boxes]) -> None:
    """Seen from above, forward is up."""
    axes.set_facecolor("white")
    reach_m = _reach_m(picture.truth, shown)
    if picture.points_P3 is not None:
        axes.imshow(
            _points_image(picture.points_P3, reach_m, 2 * PANEL_H + GAP), extent=(-reach_m, reach_m) * 2
        )
    for radius in range(RING_STEP_M, int(reach_m) + 1, RING_STEP_M):
        axes.add_patch(
            Circle((0, 0), radius, fill=False, edgecolor="#b9c2cc", linewidth=0.8, linestyle=(0, (4, 3)))
        )
        spot = radius * np.array([np.sin(np.pi / 4), -np.cos(np.pi / 4)])
        plate = dict(boxstyle="square,pad=0.1", facecolor="#ffffffd0", edgecolor="none")
        axes.text(*spot, "%d m" % radius, color=PALE, fontsize=10, ha="center", va="center", bbox=plate)
    if picture.truth is not None:
        _draw_footprints(axes, picture.truth.boxes_K9, TRUE_COLOUR, 1.7, 0.25)
    if shown is not None:
        _draw_footprints(axes, shown.boxes_K9, PREDICTED_COLOUR, 1.0, 0.0)
    _draw_ego(axes)
    axes.set_xlim(-reach_m, reach_m)
    axes.set_ylim(-reach_m, reach_m)
    axes.set_aspect("equal")
    for side in axes.spines.values():
        side.set_color("#c5cdd6")
    plate = dict(boxstyle="square,pad=0.35", facecolor="#000000a0", edgecolor="none")
    axes.text(
        0.014,
        0.981,
        "BIRD'S-EYE VIEW",
        color="white",
        fontsize=10.5,
        va="center",
        transform=axes.transAxes,
        bbox=plate,
    )


def _reach_m(*groups: Optional[Boxes]) -> float:
    """Half the side of the view: all boxes fit in, but never beyond the BEV grid nor closer than 25 m."""
    far_m = [
        float(np.abs(boxes.boxes_K9[:, :2]).max()) for boxes in groups if boxes is not None and len(boxes)
    ]
    return float(np.clip(5 * np.ceil((max(far_m, default=BEV_RANGE_M) + 2) / 5), 25.0, BEV_RANGE_M))


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


def _draw_footprints(axes: Axes, boxes_K9: np.ndarray, colour: str, line: float, fill: float) -> None:
    """Outline, a thick front edge, and a line from the centre to it."""
    xy_K42 = corners(boxes_K9)[:, _FOOTPRINT, :2]
    if fill:
        axes.add_collection(PolyCollection(list(xy_K42), facecolors=colour, alpha=fill, linewidths=0))
    axes.add_collection(
        PolyCollection(list(xy_K42), facecolors="none", edgecolors=colour, linewidths=line * 0.7)
    )
    front = xy_K42[:, :2].mean(axis=1)
    heading = np.stack([np.asarray(boxes_K9)[:, :2], front], axis=1)
    axes.add_collection(LineCollection(list(heading), colors=colour, linewidths=line * 0.7))
    axes.add_collection(LineCollection(list(xy_K42[:, :2]), colors=colour, linewidths=line * 1.5))


def _draw_ego(axes: Axes) -> None:
    """The nuScenes car (4.1 x 1.7 m); the lidar stands 0.9 m before its rear axle."""
    body = np.array([[-0.87, -1.9], [0.87, -1.9], [0.87, 2.2], [-0.87, 2.2]])
    axes.add_patch(Polygon(body, closed=True, facecolor=INK, edgecolor="white", linewidth=0.8))
    axes.add_patch(Polygon([[-0.5, 0.7], [0.5, 0.7], [0, 1.8]], closed=True, facecolor="white"))


def _draw_head(axes: Axes, picture: Picture, shown: Optional[Boxes]) -> None:
    axes.axis("off")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.text(0.0036, 0.66, picture.title, fontsize=17, weight="bold", color=INK, va="center")
    axes.text(0.0036, 0.24, picture.subtitle, fontsize=11.5, color="#5b6875", va="center")
    entries: List[Any] = []
    names: List[str] = []
    if picture.truth is not None:
        entries.append(Patch(facecolor=TRUE_COLOUR + "38", edgecolor=TRUE_COLOUR, linewidth=2.6))
        names.append("true box (%d)" % len(picture.truth))
    if shown is not None:
        entries.append(Patch(facecolor="none", edgecolor=PREDICTED_COLOUR, linewidth=1.6))
        names.append("predicted, score \u2265 %.2f (%d)" % (picture.score_threshold, len(shown)))
    entries.append(Line2D([], [], color=INK, linewidth=4))
    names.append("front: shaded face / thick edge")
    if picture.points_P3 is not None:
        entries.append(Line2D([], [], marker="o", markersize=4, linestyle="none", color="#9aa5b1"))
        names.append("lidar")
    axes.legend(
        entries,
        names,
        loc="center right",
        ncol=len(entries),
        frameon=False,
        fontsize=13.5,
        labelcolor=INK,
        handlelength=1.8,
        columnspacing=1.8,
        borderaxespad=0.3,
    )
