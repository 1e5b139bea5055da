"""Rain and night: noise over a finished picture and sweep, so that the set is not always a clear day.

The boxes, their visibility and their lidar points stay those of the clear set: ground truth does not depend
on the weather.
"""

import numpy as np

from .lidar import Sweep
from .opencv import load_cv2

NIGHT_TINT = np.array((1.15, 1.0, 0.82), np.float32)  # blue, green, red
NIGHT_GAIN, NIGHT_GAMMA, NIGHT_NOISE = 0.34, 1.35, 5.0
HEADLIGHT_GAIN = 1.1
RAIN_GREY = np.array((186, 182, 178), np.float32)
RAIN_HAZE, RAIN_NOISE = 0.32, 3.0
STREAKS_PER_MEGAPIXEL, DROPS = 2600, 9
FAR_M = 35.0  # no annotated box is farther, so what rain takes away there was in none
RAIN_KEEPS, RAIN_SHINE = 0.5, 0.7


def weathered(weather: str, picture: np.ndarray, channel: str, rng: np.random.RandomState) -> np.ndarray:
    """The (height, width, 3) uint8 BGR picture as it looks in this weather; the same object when clear."""
    if weather == "clear":
        return picture
    bgr = picture.astype(np.float32)
    bgr = _night(bgr, channel, rng) if weather == "night" else _rain(bgr, rng)
    return np.asarray(np.clip(bgr, 0, 255).astype(np.uint8))


def weathered_sweep(weather: str, sweep: Sweep, rng: np.random.RandomState) -> Sweep:
    """In rain the lidar loses far returns and all are weaker; darkness does not matter to it."""
    if weather != "rain":
        return sweep
    points = sweep.points_P5
    keep = (np.hypot(points[:, 0], points[:, 1]) < FAR_M) | (rng.uniform(size=len(points)) < RAIN_KEEPS)
    points = points[keep]
    points[:, 3] = np.floor(points[:, 3] * RAIN_SHINE)
    return Sweep(points, sweep.hits_N)


def _night(bgr: np.ndarray, channel: str, rng: np.random.RandomState) -> np.ndarray:
    """Dark and blue, with the own headlights on the road ahead, and the noise of a high gain."""
    height, width = bgr.shape[:2]
    dark = 255.0 * (bgr / 255.0) ** NIGHT_GAMMA * NIGHT_GAIN * NIGHT_TINT
    if channel == "CAM_FRONT":
        down, across = np.mgrid[0:height, 0:width].astype(np.float32)
        reach = ((across / width - 0.5) / 0.38) ** 2 + ((down / height - 0.82) / 0.26) ** 2
        dark *= 1.0 + HEADLIGHT_GAIN * np.exp(-reach)[..., None]
    return dark + rng.normal(0.0, NIGHT_NOISE, bgr.shape).astype(np.float32)


def _rain(bgr: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """Grey and low in contrast, with slanted streaks and a few drops on the lens."""
    cv2 = load_cv2()
    height, width = bgr.shape[:2]
    grey = bgr * (1.0 - RAIN_HAZE) + RAIN_GREY * RAIN_HAZE
    streaks = np.zeros((height, width), np.uint8)
    length, slant = max(2.0, height * 0.05), rng.uniform(-0.25, 0.25)
    for x, y in rng.uniform(size=(int(height * width * STREAKS_PER_MEGAPIXEL / 1e6), 2)) * (width, height):
        end = (int(x + slant * length), int(y + length))
        cv2.line(streaks, (int(x), int(y)), end, int(rng.randint(60, 140)), 1, cv2.LINE_AA)
    grey += streaks[..., None] * 0.5
    soft = cv2.GaussianBlur(grey, (0, 0), max(0.8, height * 0.015))
    drops = np.zeros((height, width), np.float32)
    for x, y in rng.uniform(size=(DROPS, 2)) * (width, height):
        cv2.circle(
            drops, (int(x), int(y)), max(1, int(height * rng.uniform(0.01, 0.035))), 1.0, -1, cv2.LINE_AA
        )
    drops = np.clip(drops, 0.0, 1.0)[..., None]
    return grey * (1 - drops) + soft * drops + rng.normal(0.0, RAIN_NOISE, bgr.shape).astype(np.float32)
