"""Map masks: a PNG per location, white where one can drive, 0.1 m per pixel as MapMask expects."""

from typing import Dict, List, Tuple

import numpy as np

from .opencv import load_cv2
from .street import is_road
from .world import World

METRES_PER_PIXEL = 0.1
COARSE = 4  # the mask is computed on every fourth pixel and enlarged
SCENE_M = 160.0  # every scene owns a square of this side on its location's map
LOCATIONS = ("boston-seaport", "singapore-onenorth", "singapore-queenstown", "singapore-hollandvillage")


def place_scene(index: int) -> Tuple[str, Tuple[float, float]]:
    """The location of the scene with this number, and where its road begins (global x, y in m)."""
    slot = index // len(LOCATIONS)
    return LOCATIONS[index % len(LOCATIONS)], ((slot + 0.5) * SCENE_M, 0.5 * SCENE_M)


def draw_maps(worlds: Dict[str, List[World]]) -> Dict[str, bytes]:
    """location -> PNG.  Row 0 is the largest y."""
    cv2 = load_cv2()
    pictures = {}
    step = METRES_PER_PIXEL * COARSE
    cells = int(SCENE_M / step)
    for location, scenes in sorted(worlds.items()):
        mask = np.zeros((cells, cells * len(scenes)), np.uint8)
        for slot, world in enumerate(scenes):
            x, y = np.meshgrid(
                (np.arange(cells) + 0.5) * step + slot * SCENE_M, (np.arange(cells) + 0.5) * step
            )
            mask[:, slot * cells : (slot + 1) * cells] = is_road(world.road, *world.road.locate(x, y)) * 255
        large = mask[::-1].repeat(COARSE, axis=0).repeat(COARSE, axis=1)
        pictures[location] = cv2.imencode(".png", large, [cv2.IMWRITE_PNG_COMPRESSION, 3])[1].tobytes()
    return pictures
