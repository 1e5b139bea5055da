"""Colours and face textures of everything that is drawn.  Colours are (red, green, blue); pictures are BGR.

A texture is drawn in the box's own coordinates: on the sides the right edge is the front, rows run from the
top; the front and back faces run from the right (-y) to the left (+y) of the vehicle.
"""

from typing import Any, Dict, List, Tuple

import numpy as np

from .opencv import load_cv2

Colour = Tuple[int, int, int]
Spot = Tuple[float, float]  # across and down, fractions of a face

PALETTE: Dict[str, Colour] = {  # one hue per class
    "car": (52, 104, 214),
    "truck": (150, 82, 45),
    "construction_vehicle": (240, 200, 30),
    "bus": (40, 160, 80),
    "trailer": (125, 95, 200),
    "barrier": (230, 50, 50),
    "motorcycle": (215, 50, 190),
    "bicycle": (30, 195, 205),
    "pedestrian": (245, 140, 165),
    "traffic_cone": (255, 120, 20),
}
SCENERY: Dict[str, Colour] = {"house": (176, 158, 138), "trunk": (92, 72, 52), "crown": (66, 104, 54)}
TILE_M = {"house": (3.2, 3.0)}  # a texture that repeats: its width and height
HEIGHT, WIDTH = 64, 128
GLASS, TYRE, DARK, WHITE = (44, 56, 66), (24, 24, 26), (58, 58, 60), (232, 232, 226)
LAMP, BRAKE = (255, 250, 205), (176, 18, 24)
FRONT, BACK, LEFT, RIGHT, TOP, BOTTOM = range(6)


class _Canvas:
    """A face being painted; positions are fractions of its width and height."""

    def __init__(self, colour: Colour) -> None:
        self.cv2: Any = load_cv2()
        self.bgr = np.empty((HEIGHT, WIDTH, 3), np.uint8)
        self.bgr[:] = colour[::-1]

    def rect(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> "_Canvas":
        self.bgr[
            int(round(top * HEIGHT)) : int(round(bottom * HEIGHT)),
            int(round(left * WIDTH)) : int(round(right * WIDTH)),
        ] = colour[::-1]
        return self

    def wheels(self, centres: Tuple[float, ...], radius: Tuple[float, float]) -> "_Canvas":
        for x in centres:
            centre = (int(x * WIDTH), int((1.0 - radius[1]) * HEIGHT))
            for part, colour in ((1.0, TYRE), (0.5, (150, 150, 155))):
                axes = (int(radius[0] * part * WIDTH), int(radius[1] * part * HEIGHT))
                self.cv2.ellipse(self.bgr, centre, axes, 0, 0, 360, colour[::-1], -1)
        return self

    def ring(self, centre: Spot, radius: Spot, width: int) -> "_Canvas":
        axes = (int(radius[0] * WIDTH), int(radius[1] * HEIGHT))
        self.cv2.ellipse(self.bgr, self._pixel(centre), axes, 0, 0, 360, TYRE[::-1], width)
        return self

    def bar(self, start: Spot, end: Spot, width: int, colour: Colour) -> "_Canvas":
        self.cv2.line(self.bgr, self._pixel(start), self._pixel(end), colour[::-1], width)
        return self

    @staticmethod
    def _pixel(spot: Spot) -> Tuple[int, int]:
        return int(spot[0] * WIDTH), int(spot[1] * HEIGHT)

    def stripes(self, colour: Colour, step: int, width: int, slant: int) -> "_Canvas":
        for x in range(-HEIGHT, WIDTH + HEIGHT, step):
            self.cv2.line(self.bgr, (x, HEIGHT), (x + slant, 0), colour[::-1], width)
        return self


def _shade(colour: Colour, gain: float) -> Colour:
    red, green, blue = (int(min(255, v * gain)) for v in colour)
    return red, green, blue


def _vehicle(colour: Colour, side: _Canvas, window_top: float, window_bottom: float) -> Dict[int, _Canvas]:
    """Front with windscreen and lamps, back with brake lights, the given side, plain roof."""
    front = (
        _Canvas(colour).rect(0.08, window_top, 0.92, window_bottom, GLASS).rect(0.3, 0.68, 0.7, 0.78, DARK)
    )
    front.rect(0.05, 0.62, 0.22, 0.74, LAMP).rect(0.78, 0.62, 0.95, 0.74, LAMP)
    back = _Canvas(colour).rect(0.15, window_top + 0.03, 0.85, window_bottom - 0.05, GLASS)
    back.rect(0.04, 0.56, 0.2, 0.7, BRAKE).rect(0.8, 0.56, 0.96, 0.7, BRAKE).rect(0.38, 0.7, 0.62, 0.8, WHITE)
    for face in (front, back):
        face.rect(0.0, 0.86, 1.0, 1.0, DARK)
    return {FRONT: front, BACK: back, LEFT: side, RIGHT: side, TOP: _Canvas(colour)}


def _car(colour: Colour) -> Dict[int, _Canvas]:
    side = _Canvas(colour).rect(0.14, 0.08, 0.78, 0.42, GLASS).rect(0.44, 0.08, 0.47, 0.42, colour)
    side.rect(0.0, 0.84, 1.0, 0.93, DARK).rect(0.96, 0.5, 1.0, 0.62, LAMP).rect(0.0, 0.5, 0.04, 0.64, BRAKE)
    side.rect(0.78, 0.0, 1.0, 0.3, _shade(colour, 1.18))
    faces = _vehicle(colour, side.wheels((0.2, 0.8), (0.085, 0.2)), 0.08, 0.42)
    faces[TOP].rect(0.66, 0.08, 0.78, 0.92, GLASS).rect(0.1, 0.12, 0.18, 0.88, GLASS)
    return faces


def _truck(colour: Colour) -> Dict[int, _Canvas]:
    side = _Canvas(colour).rect(0.72, 0.0, 0.74, 0.85, DARK).rect(0.8, 0.12, 0.96, 0.42, GLASS)
    for row in (0.2, 0.4, 0.6):
        side.rect(0.03, row, 0.7, row + 0.03, _shade(colour, 0.7))
    side.rect(0.0, 0.82, 1.0, 0.9, DARK).wheels((0.13, 0.26, 0.85), (0.06, 0.15))
    faces = _vehicle(colour, side, 0.1, 0.42)
    faces[BACK] = _Canvas(colour).rect(0.48, 0.05, 0.52, 0.8, _shade(colour, 0.6)).rect(0, 0.84, 1, 1, DARK)
    faces[BACK].rect(0.02, 0.74, 0.14, 0.82, BRAKE).rect(0.86, 0.74, 0.98, 0.82, BRAKE)
    return faces


def _bus(colour: Colour) -> Dict[int, _Canvas]:
    side = _Canvas(colour).rect(0.03, 0.14, 0.97, 0.46, GLASS).rect(0.0, 0.56, 1.0, 0.62, WHITE)
    for x in np.arange(0.16, 0.95, 0.13):
        side.rect(x, 0.14, x + 0.015, 0.46, colour)
    side.rect(0.86, 0.16, 0.94, 0.86, _shade(GLASS, 1.5)).wheels((0.2, 0.76), (0.05, 0.14))
    faces = _vehicle(colour, side, 0.1, 0.52)
    faces[FRONT].rect(0.3, 0.0, 0.7, 0.07, LAMP)
    return faces


def _trailer(colour: Colour) -> Dict[int, _Canvas]:
    side = _Canvas(colour).stripes(_shade(colour, 0.75), 8, 2, 0)
    side.rect(0.0, 0.74, 1.0, 0.8, DARK).rect(0.35, 0.8, 1.0, 1.0, _shade(colour, 0.35))
    side.wheels((0.08, 0.17, 0.26), (0.045, 0.13))
    end = _Canvas(colour).rect(0.47, 0.04, 0.53, 0.74, _shade(colour, 0.55)).rect(0, 0.8, 1, 1, DARK)
    back = _Canvas(colour).rect(0.47, 0.04, 0.53, 0.74, _shade(colour, 0.55)).rect(0, 0.8, 1, 1, DARK)
    back.rect(0.03, 0.7, 0.16, 0.79, BRAKE).rect(0.84, 0.7, 0.97, 0.79, BRAKE)
    return {FRONT: end, BACK: back, LEFT: side, RIGHT: side, TOP: _Canvas(_shade(colour, 1.1))}


def _digger(colour: Colour) -> Dict[int, _Canvas]:
    side = _Canvas(colour).rect(0.55, 0.08, 0.85, 0.45, GLASS).rect(0.0, 0.7, 1.0, 1.0, DARK)
    side.rect(0.05, 0.3, 0.45, 0.34, DARK).rect(0.05, 0.42, 0.45, 0.46, DARK)
    side.wheels((0.12, 0.3, 0.5, 0.7, 0.88), (0.075, 0.15))
    end = _Canvas(colour).stripes((30, 30, 30), 26, 9, 34).rect(0.0, 0.0, 1.0, 0.5, colour)
    end.rect(0.15, 0.1, 0.85, 0.42, GLASS).rect(0.0, 0.8, 1.0, 1.0, DARK)
    back = _Canvas(colour).stripes((30, 30, 30), 26, 9, 34).rect(0.0, 0.0, 1.0, 0.6, colour)
    back.rect(0.2, 0.12, 0.8, 0.3, DARK).rect(0.0, 0.8, 1.0, 1.0, DARK)
    return {
        FRONT: end,
        BACK: back,
        LEFT: side,
        RIGHT: side,
        TOP: _Canvas(colour).rect(0.1, 0.2, 0.4, 0.8, DARK),
    }


def _barrier(colour: Colour) -> Dict[int, _Canvas]:
    wide = _Canvas(colour).stripes(WHITE, 44, 14, 24).rect(0.0, 0.88, 1.0, 1.0, DARK)
    return dict.fromkeys(range(5), wide)


def _cycle(colour: Colour, sturdy: int) -> Dict[int, _Canvas]:
    """A cycle and its rider as a silhouette on the class's colour; `sturdy` is the frame's width."""
    side, dark, cloth = _Canvas(colour), _shade(colour, 0.35), _shade(colour, 0.6)
    for x in (0.22, 0.78):
        side.ring((x, 0.74), (0.17, 0.23), 5)
    for start, end in (
        ((0.22, 0.74), (0.45, 0.5)),
        ((0.45, 0.5), (0.72, 0.46)),
        ((0.72, 0.4), (0.78, 0.74)),
        ((0.5, 0.74), (0.72, 0.46)),
        ((0.22, 0.74), (0.5, 0.74)),
        ((0.45, 0.5), (0.5, 0.74)),
    ):
        side.bar(start, end, sturdy, dark)
    side.bar((0.44, 0.46), (0.58, 0.22), 14, cloth).bar((0.58, 0.24), (0.72, 0.4), 6, cloth)
    side.bar((0.44, 0.48), (0.6, 0.6), 8, (50, 54, 80)).bar((0.6, 0.6), (0.52, 0.78), 7, (50, 54, 80))
    side.rect(0.56, 0.02, 0.68, 0.18, (205, 160, 130))
    front = _Canvas(colour).rect(0.42, 0.5, 0.58, 1.0, TYRE).rect(0.36, 0.34, 0.64, 0.46, LAMP)
    back = _Canvas(colour).rect(0.42, 0.5, 0.58, 1.0, TYRE).rect(0.36, 0.38, 0.64, 0.5, BRAKE)
    for face, skin in ((front, (205, 160, 130)), (back, (70, 50, 40))):
        face.rect(0.3, 0.02, 0.7, 0.18, skin)
    return {FRONT: front, BACK: back, LEFT: side, RIGHT: side, TOP: _Canvas(_shade(colour, 1.1))}


def _pedestrian(colour: Colour) -> Dict[int, _Canvas]:
    def body(face: Colour) -> _Canvas:
        canvas = (
            _Canvas(colour)
            .rect(0.28, 0.0, 0.72, 0.17, face)
            .rect(0.0, 0.22, 0.14, 0.55, _shade(colour, 0.75))
        )
        canvas.rect(0.86, 0.22, 1.0, 0.55, _shade(colour, 0.75)).rect(0.12, 0.58, 0.88, 1.0, (60, 62, 90))
        return canvas.rect(0.46, 0.62, 0.54, 1.0, _shade(colour, 0.6))

    hair = (70, 50, 40)
    return {
        FRONT: body((225, 178, 150)),
        BACK: body(hair),
        LEFT: body((150, 112, 92)),
        RIGHT: body((150, 112, 92)),
        TOP: _Canvas(hair),
    }


def _cone(colour: Colour) -> Dict[int, _Canvas]:
    face = _Canvas(colour).rect(0.0, 0.3, 1.0, 0.5, WHITE).rect(0.0, 0.92, 1.0, 1.0, DARK)
    return {**dict.fromkeys(range(4), face), TOP: _Canvas(colour)}


def _house(colour: Colour) -> Dict[int, _Canvas]:
    wall = (
        _Canvas(colour)
        .rect(0.3, 0.24, 0.7, 0.74, _shade(colour, 1.25))
        .rect(0.34, 0.28, 0.66, 0.7, (86, 102, 116))
    )
    wall.rect(0.49, 0.28, 0.51, 0.7, _shade(colour, 1.25)).rect(0.0, 0.97, 1.0, 1.0, _shade(colour, 0.8))
    return {**dict.fromkeys(range(4), wall), TOP: _Canvas((120, 90, 80))}


def textures(rng: np.random.RandomState) -> Dict[str, List[np.ndarray]]:
    """kind -> six (HEIGHT, WIDTH, 3) uint8 BGR faces (front, back, left, right, top, bottom), with grain."""
    painted: Dict[str, Dict[int, _Canvas]] = {
        "car": _car(PALETTE["car"]),
        "truck": _truck(PALETTE["truck"]),
        "bus": _bus(PALETTE["bus"]),
        "construction_vehicle": _digger(PALETTE["construction_vehicle"]),
        "trailer": _trailer(PALETTE["trailer"]),
        "barrier": _barrier(PALETTE["barrier"]),
        "motorcycle": _cycle(PALETTE["motorcycle"], 9),
        "bicycle": _cycle(PALETTE["bicycle"], 3),
        "pedestrian": _pedestrian(PALETTE["pedestrian"]),
        "traffic_cone": _cone(PALETTE["traffic_cone"]),
        "house": _house(SCENERY["house"]),
        "trunk": {},
        "crown": {},
    }
    out: Dict[str, List[np.ndarray]] = {}
    for kind, faces in painted.items():
        plain = _Canvas(PALETTE.get(kind) or SCENERY[kind])
        grain = 14.0 if kind == "crown" else 4.0
        drawn = [faces.get(face, plain).bgr for face in range(6)]
        out[kind] = [
            np.clip(bgr + rng.normal(0.0, grain, bgr.shape[:2])[..., None], 0, 255).astype(np.uint8)
            for bgr in drawn
        ]
    return out
