"""How pictures look: sizes, letters, lines and colours, for a screen and for a page.

Everything is laid out in units of a sheet that is SHEET_W wide; a style says how many inches that is.
"""

from dataclasses import dataclass
from typing import Dict

from .types import CLASSES

SHEET_W = 2424
PANEL_W, PANEL_H, GAP = 576, 324, 8
BEV_SIDE = 2 * PANEL_H + GAP

# Ten colours that stay apart on photographs and on white. Among large things, and among small ones, they do
# so for eyes that tell red from green badly too (a test measures it).
CLASS_COLOURS: Dict[str, str] = {
    "car": "#e86f00",
    "truck": "#e5243b",
    "construction_vehicle": "#e6c800",
    "bus": "#b04bff",
    "trailer": "#ff6fb0",
    "barrier": "#12bfe8",
    "motorcycle": "#0c8f62",
    "bicycle": "#86cc16",
    "pedestrian": "#2d7dff",
    "traffic_cone": "#7a3f18",
}
COLOURS = tuple(CLASS_COLOURS[name] for name in CLASSES)
INK, PALE = "#1c2733", "#6f7c89"
PLATE = "#000000a0"
FONT = "DejaVu Sans"


@dataclass(frozen=True)
class Style:
    """width_in at dpi gives the pixels.  Letters in points, lines as a factor, head and foot in units.

    named: whether confident boxes carry their class and score.  titled: scene, sample and time on top.
    """

    width_in: float
    dpi: int
    letters_pt: float
    legend_pt: float
    lines: float
    ring_step_m: int
    head: int
    foot: int
    named: bool
    titled: bool

    @property
    def px_per_unit(self) -> float:
        return self.width_in * self.dpi / SHEET_W

    @property
    def height(self) -> int:
        """Of the sheet, in units."""
        return self.head + BEV_SIDE + GAP + self.foot


STYLES = {
    "screen": Style(24.24, 100, 10.5, 13.5, 1.0, 10, 58, 38, True, True),
    # Two columns of a conference paper; letters keep their size in print.
    "paper": Style(7.16, 300, 6.0, 6.5, 0.42, 20, GAP, 84, False, False),
}


def letters_on(colour: str) -> str:
    """White or ink, whichever is read more easily on a plate of this colour."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 150 else INK


def spoken(name: str) -> str:
    return name.replace("_", " ")
