"""One sample as a picture: six cameras with true and predicted boxes, and the bird's-eye view.

Boxes are (K, 9) gravity-centred, legacy convention, in the lidar frame (x right, y forward, z up, metres).
The colour of a box is that of its class, in every picture the same. Predictions are solid lines, true boxes
are dashed.
"""

import zlib
from dataclasses import dataclass
from typing import Any, List, Mapping, Optional, Tuple

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from .atomic import write_whole
from .draw_bev import NAMES_AT, draw_bev, quiet_angle, reach_of
from .draw_camera import DASHES, Boxes, Camera, draw_camera
from .look import BEV_SIDE, COLOURS, GAP, INK, PANEL_H, PANEL_W, SHEET_W, STYLES, Style, spoken
from .types import CLASSES

ROWS = (("CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT"), ("CAM_BACK_LEFT", "CAM_BACK", "CAM_BACK_RIGHT"))


@dataclass(frozen=True)
class Picture:
    """All that is drawn.  predicted, truth, points_P3 (lidar metres): None when there is none to draw.

    reach_m: half the side of the bird's-eye view; None for as far as there are boxes.
    """

    title: str
    subtitle: str
    cameras: Mapping[str, Camera]
    predicted: Optional[Boxes]
    truth: Optional[Boxes]
    points_P3: Optional[np.ndarray]
    score_threshold: float
    reach_m: Optional[float] = None


def draw(picture: Picture, style: Style = STYLES["screen"]) -> np.ndarray:
    """The picture as (H, W, 3) uint8 RGB; H and W are even, as videos want them."""
    width, height = (2 * round(side * style.px_per_unit / 2) for side in (SHEET_W, style.height))
    figure = Figure(figsize=(width / style.dpi, height / style.dpi), dpi=style.dpi, facecolor="white")
    canvas = FigureCanvasAgg(figure)

    def axes(left: float, top: float, w: float, h: float) -> Axes:
        whole = style.height
        made: Axes = figure.add_axes((left / SHEET_W, 1 - (top + h) / whole, w / SHEET_W, h / whole))
        made.set_xticks([])
        made.set_yticks([])
        return made

    shown = above(picture.predicted, picture.score_threshold) if picture.predicted is not None else None
    for row, channels in enumerate(ROWS):
        for column, channel in enumerate(channels):
            left, top = GAP + column * (PANEL_W + GAP), style.head + row * (PANEL_H + GAP)
            panel = axes(left, top, PANEL_W, PANEL_H)
            draw_camera(panel, channel, picture.cameras[channel], picture.truth, shown, style)
    panel = axes(3 * (PANEL_W + GAP) + GAP, style.head, BEV_SIDE, BEV_SIDE)
    reach_m = picture.reach_m or reach_of(picture.truth, shown)
    # In a film the names stay where they are.
    names_at = NAMES_AT[0] if picture.reach_m else quiet_angle([picture.truth, shown], reach_m)
    draw_bev(panel, picture.points_P3, picture.truth, shown, reach_m, style, names_at)
    foot = axes(0, style.head + BEV_SIDE + GAP, SHEET_W, style.foot)
    if style.titled:
        _draw_title(axes(0, 0, SHEET_W, style.head), picture, shown, style)
        _draw_classes(foot, style, 0.5)
    else:
        _draw_classes(foot, style, 0.72)
        _draw_kinds(foot, picture, shown, style, "center", (0.5, 0.24))
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def save_png(path: str, image_HW3: np.ndarray, dpi: int = 100) -> None:
    """Written whole or not at all, with its dots per inch.  Raises DiskError when it cannot be."""
    done, data = cv2.imencode(".png", image_HW3[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 4])
    assert done
    content = _with_dpi(data.tobytes(), dpi)
    write_whole(path, lambda stream: stream.write(content))


def _with_dpi(png: bytes, dpi: int) -> bytes:
    """A pHYs chunk behind the header, so that a page places the picture at its size in print."""
    per_metre = round(dpi / 0.0254).to_bytes(4, "big")
    chunk = b"pHYs" + per_metre + per_metre + b"\x01"
    after_header = 8 + 25
    whole = (9).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    return png[:after_header] + whole + png[after_header:]


def above(boxes: Boxes, threshold: float) -> Boxes:
    """The boxes to show, worst first, so that the best are drawn on top."""
    order = np.argsort(boxes.scores_K, kind="stable")
    order = order[boxes.scores_K[order] >= threshold]
    return Boxes(boxes.boxes_K9[order], boxes.labels_K[order], boxes.scores_K[order])


def _draw_title(axes: Axes, picture: Picture, shown: Optional[Boxes], style: Style) -> None:
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.text(0.0036, 0.66, picture.title, fontsize=17, weight="bold", color=INK, va="center")
    axes.text(0.0036, 0.24, picture.subtitle, fontsize=11.5, color="#5b6875", va="center")
    _draw_kinds(axes, picture, shown, style, "center right", None)


def _draw_kinds(
    axes: Axes,
    picture: Picture,
    shown: Optional[Boxes],
    style: Style,
    where: str,
    at: Optional[Tuple[float, float]],
) -> None:
    """What lines mean: predicted, true, the front of a box, lidar."""
    entries: List[Any] = []
    names: List[str] = []
    if shown is not None:
        entries.append(Patch(facecolor="none", edgecolor=INK, linewidth=2.2 * style.lines))
        names.append("predicted, score \u2265 %.2f" % picture.score_threshold)
        names[-1] += " (%d)" % len(shown) if style.titled else ""
    if picture.truth is not None:
        dashed = dict(edgecolor=INK, linewidth=1.2 * style.lines, linestyle=DASHES)
        entries.append(Patch(facecolor="#d9dee4", **dashed))
        names.append("true box (%d)" % len(picture.truth) if style.titled else "true box")
    entries.append(Line2D([], [], color=INK, linewidth=4 * style.lines))
    names.append("front: filled face, thick edge")
    if picture.points_P3 is not None:
        size = style.legend_pt * 0.3
        entries.append(Line2D([], [], marker="o", markersize=size, linestyle="none", color="#9aa5b1"))
        names.append("lidar")
    _legend(axes, entries, names, style, where, at)


def _draw_classes(axes: Axes, style: Style, y: float) -> None:
    """All ten, whether they are in the picture or not: the same in every one."""
    entries = [Patch(facecolor=colour, edgecolor="none") for colour in COLOURS]
    names = [spoken(name) for name in CLASSES]
    _legend(axes, entries, names, style, "center", (0.5, y))


def _legend(
    axes: Axes,
    entries: List[Any],
    names: List[str],
    style: Style,
    where: str,
    at: Optional[Tuple[float, float]],
) -> None:
    axes.axis("off")
    made = axes.legend(
        entries,
        names,
        loc=where,
        bbox_to_anchor=at,
        ncol=len(entries),
        frameon=False,
        fontsize=style.legend_pt,
        labelcolor=INK,
        handlelength=1.6,
        handletextpad=0.5,
        columnspacing=1.5,
        borderaxespad=0.3,
    )
    axes.add_artist(made)
