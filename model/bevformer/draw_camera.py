"""One camera's panel: the photograph, true and predicted boxes projected onto it, their names.

Boxes are (K, 9) gravity-centred, legacy convention, in the lidar frame (x right, y forward, z up, metres).
"""

from dataclasses import dataclass
from typing import Any, List, Mapping, Optional, Sequence, Tuple

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection

from .boxes import BOX_EDGES, corners
from .data.geometry import rigid_inverse, rigid_of
from .look import COLOURS, FONT, PANEL_H, PANEL_W, PLATE, SHEET_W, Style, letters_on, spoken
from .types import CLASSES

NEAR_M = 0.3
NAMED_FROM_SCORE = 0.5
NAME_PX_PER_LETTER = 7.9
DASHES = (0, (2.6, 1.8))
_FRONT = [0, 1, 2, 3]


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

    @property
    def colours(self) -> np.ndarray:
        """(K,) hexadecimal, one for each class."""
        return np.array(COLOURS)[np.asarray(self.labels_K, dtype=int)]


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


def project_fronts(corners_K83: np.ndarray, camera: Camera) -> Tuple[np.ndarray, np.ndarray]:
    """(F, 4, 2) pixels of the front faces that lie wholly before the camera, and whose they are (F,)."""
    xyz_cam = corners_K83[:, _FRONT] @ camera.lidar2cam_44[:3, :3].T + camera.lidar2cam_44[:3, 3]
    owners = np.flatnonzero((xyz_cam[..., 2] > NEAR_M).all(axis=1))
    uv = xyz_cam[owners] @ camera.intrinsic_33.T
    return uv[..., :2] / uv[..., 2:], owners


def draw_camera(
    axes: Axes, channel: str, camera: Camera, truth: Optional[Boxes], shown: Optional[Boxes], style: Style
) -> None:
    """Predictions as solid lines, the truth in white dashes over them."""
    image = _fit(camera.image_HW3, style)
    camera = _in_units(camera)
    axes.imshow(image, interpolation="antialiased", extent=(0, PANEL_W, PANEL_H, 0), aspect="auto")
    for side in axes.spines.values():
        side.set_visible(False)
    if shown is not None:
        _draw_predicted(axes, shown, camera, style)
    if truth is not None:
        _draw_true(axes, truth, camera, style)
    if shown is not None and style.named:
        _draw_names(axes, shown, camera, style)
    axes.set_xlim(0, PANEL_W)
    axes.set_ylim(PANEL_H, 0)
    plate = dict(boxstyle="square,pad=0.3", facecolor=PLATE, edgecolor="none")
    size = style.letters_pt
    margin = _units(size, style)
    name = channel if style.titled else spoken(channel[4:]).lower()
    axes.text(0.65 * margin, margin, name, color="white", fontsize=size, va="center", family=FONT, bbox=plate)


def _units(points: float, style: Style) -> float:
    """A length in print in units of the sheet."""
    return points / 72 * SHEET_W / style.width_in


def _fit(image_HW3: np.ndarray, style: Style) -> np.ndarray:
    size = (round(PANEL_W * style.px_per_unit), round(PANEL_H * style.px_per_unit))
    how = cv2.INTER_AREA if image_HW3.shape[1] > size[0] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image_HW3, size, interpolation=how))


def _in_units(camera: Camera) -> Camera:
    """The camera with its pixels in units of the panel; of the image only the size counts from here on."""
    height, width = camera.image_HW3.shape[:2]
    scale = np.diag([PANEL_W / width, PANEL_H / height, 1.0])
    return Camera(np.empty((PANEL_H, PANEL_W, 0)), camera.lidar2cam_44, scale @ camera.intrinsic_33)


def _widths(segments: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """A factor per segment: thinner for boxes that are small in the image."""
    boxes, which = np.unique(owners, return_inverse=True)
    height = np.array([np.ptp(segments[owners == k][..., 1]) for k in boxes])
    return np.clip(0.45 + height / 90, 0.6, 1.35)[which]


def _draw_predicted(axes: Axes, boxes: Boxes, camera: Camera, style: Style) -> None:
    segments, owners = project_edges(corners(boxes.boxes_K9), camera)
    if not len(segments):
        return
    lines = 2.1 * style.lines * _widths(segments, owners)
    rim = LineCollection(list(segments), colors="black", linewidths=lines + 1.2 * style.lines, alpha=0.3)
    axes.add_collection(rim)
    axes.add_collection(
        LineCollection(list(segments), colors=boxes.colours[owners], linewidths=lines, capstyle="round")
    )


def _draw_true(axes: Axes, boxes: Boxes, camera: Camera, style: Style) -> None:
    """The front face is filled with the colour of the class."""
    corners_K83 = corners(boxes.boxes_K9)
    fronts, fronts_of = project_fronts(corners_K83, camera)
    axes.add_collection(
        PolyCollection(list(fronts), facecolors=boxes.colours[fronts_of], alpha=0.38, linewidths=0)
    )
    segments, owners = project_edges(corners_K83, camera)
    if not len(segments):
        return
    lines = 0.9 * style.lines * _widths(segments, owners)
    rim = LineCollection(list(segments), colors="black", linewidths=lines + 0.6 * style.lines, alpha=0.3)
    axes.add_collection(rim)
    axes.add_collection(LineCollection(list(segments), colors="white", linewidths=lines, linestyles=[DASHES]))


def _draw_names(axes: Axes, shown: Boxes, camera: Camera, style: Style) -> None:
    """Names of the confident boxes, best first; a name that would cover another is left out."""
    segments, owners = project_edges(corners(shown.boxes_K9), camera)
    taken: List[Tuple[float, float, float, float]] = [(0, 0, 150, 28)]  # the camera's own name
    for k in np.argsort(-shown.scores_K, kind="stable"):
        if shown.scores_K[k] < NAMED_FROM_SCORE or not (owners == k).any():
            continue
        along = np.linspace(0, 1, 17)[:, None, None]
        dots = (segments[owners == k, 0] * (1 - along) + segments[owners == k, 1] * along).reshape(-1, 2)
        dots = dots[(dots >= 0).all(axis=1) & (dots <= (PANEL_W, PANEL_H)).all(axis=1)]
        if not len(dots) or np.ptp(dots[:, 0]) < 4:
            continue
        text = "%s %.2f" % (spoken(CLASSES[shown.labels_K[k]]), shown.scores_K[k])
        low = dots.min(axis=0)
        length = NAME_PX_PER_LETTER * len(text)
        x = float(np.clip(low[0], 3, PANEL_W - length - 6))
        y = float(max(low[1] - 10, 12))
        spot = (x, y - 9, x + length + 4, y + 9)
        if _covered(spot, taken):
            continue
        taken.append(spot)
        colour = str(shown.colours[k])
        plate = dict(boxstyle="square,pad=0.15", facecolor=colour, edgecolor="none", alpha=0.9)
        axes.text(
            x + 2, y, text, color=letters_on(colour), fontsize=8.5, va="center", weight="bold", bbox=plate
        )


def _covered(spot: Tuple[float, ...], taken: Sequence[Tuple[float, ...]]) -> bool:
    return any(
        spot[0] < other[2] and other[0] < spot[2] and spot[1] < other[3] and other[1] < spot[3]
        for other in taken
    )
