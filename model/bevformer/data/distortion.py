"""What mmdet's PhotoMetricDistortion draws for an image.  The numbers do not depend on the image, so they can
be drawn where it is decoded and applied where it is finished.
"""

from typing import NamedTuple, Tuple

import numpy as np

BRIGHTNESS_DELTA = 32.0
CONTRAST = (0.5, 1.5)
SATURATION = (0.5, 1.5)
HUE_DELTA = 18.0


class Distortion(NamedTuple):
    """In the order in which it is applied; what was not drawn is neutral.

    brightness is added, the contrasts multiply (at most one of them is drawn), `saturation` multiplies and
    `hue_deg` is added in HSV; at last channel c becomes the channel `channels[c]`.
    """

    brightness: float = 0.0
    contrast_before: float = 1.0
    saturation: float = 1.0
    hue_deg: float = 0.0
    contrast_after: float = 1.0
    channels: Tuple[int, ...] = (0, 1, 2)


def draw_distortion(rng: np.random.RandomState) -> Distortion:
    """Upstream's draws for one image, in its order."""
    brightness = rng.uniform(-BRIGHTNESS_DELTA, BRIGHTNESS_DELTA) if rng.randint(2) else 0.0
    last = rng.randint(2) == 0
    before = rng.uniform(*CONTRAST) if not last and rng.randint(2) else 1.0
    saturation = rng.uniform(*SATURATION) if rng.randint(2) else 1.0
    hue_deg = rng.uniform(-HUE_DELTA, HUE_DELTA) if rng.randint(2) else 0.0
    after = rng.uniform(*CONTRAST) if last and rng.randint(2) else 1.0
    channels = tuple(int(c) for c in rng.permutation(3)) if rng.randint(2) else (0, 1, 2)
    return Distortion(brightness, before, saturation, hue_deg, after, channels)
