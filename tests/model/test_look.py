"""Whether the colours of classes can be told apart, by everybody."""

from itertools import combinations

import numpy as np
import pytest

from bevformer.draw_bev import NAMES_AT, quiet_angle
from bevformer.draw_camera import Boxes
from bevformer.look import CLASS_COLOURS

LARGE = ("car", "truck", "construction_vehicle", "bus", "trailer")
GROUPS = (LARGE, tuple(name for name in CLASS_COLOURS if name not in LARGE))
# Machado, Oliveira and Fernandes 2009, severity 1.0, on linear RGB.
EYES = {
    "usual": np.eye(3),
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.01182, 0.04294, 0.968881],
    ],
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
}
RGB2XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(colour):
    value = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab(colour, eyes):
    """CIE L*a*b* as these eyes see it."""
    xyz = RGB2XYZ @ np.clip(np.array(EYES[eyes]) @ linear(colour), 0, 1) / [0.9505, 1, 1.089]
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("eyes, least", [("usual", 35), ("deuteranopia", 20), ("protanopia", 20)])
@pytest.mark.parametrize("names", GROUPS, ids=["large", "small"])
def test_classes_of_about_one_size_differ_in_colour(names, eyes, least):
    seen = {name: lab(CLASS_COLOURS[name], eyes) for name in names}
    assert min(np.linalg.norm(seen[one] - seen[other]) for one, other in combinations(names, 2)) > least


@pytest.mark.parametrize("name", CLASS_COLOURS)
def test_lines_can_be_seen_on_white(name):
    brightness = float(RGB2XYZ[1] @ linear(CLASS_COLOURS[name]))
    assert 1.05 / (brightness + 0.05) > 1.6


def boxes_at(*places):
    found = np.zeros((len(places), 9))
    found[:, :2] = np.reshape(places, (-1, 2))
    return Boxes(found, np.zeros(len(places), int), np.ones(len(places)))


def test_ring_names_make_way_for_boxes():
    assert quiet_angle([None, boxes_at()], 30) == NAMES_AT[0] == quiet_angle([boxes_at((0, 9))], 30)
    diagonal = 20 * np.array([np.cos(NAMES_AT[0]), np.sin(NAMES_AT[0])])
    assert quiet_angle([boxes_at(diagonal)], 30) != NAMES_AT[0]
