"""Bytes of an image file -> (H, W, 3) uint8 BGR, by OpenCV or by what was asked for instead.

`cv2` is what upstream uses.  `simplejpeg` (libjpeg-turbo, as in OpenCV's wheels) is faster; whether its
pixels are the same is measured where it is used (`same_pixels`).  `cv2-half` decodes JPEGs at half size, by
leaving out the high frequencies: other pixels than scaling gives.
"""

from dataclasses import dataclass
from typing import Callable, Optional, Union

import cv2
import numpy as np

from bevformer.errors import ConfigError, DataError

Data = Union[bytes, memoryview]
Decode = Callable[[Data, str, Optional[np.ndarray]], np.ndarray]
PLAIN_FLAGS = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
HALF_FLAGS = cv2.IMREAD_REDUCED_COLOR_2 | cv2.IMREAD_IGNORE_ORIENTATION


@dataclass(frozen=True)
class Decoder:
    """decode(data, name, out): the image, which is `out` itself where it was decoded into that.

    shrink: how many times smaller than the file's picture it is.  DataError names the file.
    """

    name: str
    decode: Decode
    shrink: int = 1


def open_decoder(name: str) -> Decoder:
    """Raises ConfigError for an unknown one, or one that is not installed."""
    if name not in DECODERS:
        raise ConfigError("ops.decoder=%s" % name, do="It is one of %s." % ", ".join(DECODERS))
    if name == "simplejpeg":
        _simplejpeg()
    return DECODERS[name]


def decode(data: Data, name: str, out: Optional[np.ndarray] = None) -> np.ndarray:
    """By OpenCV.  JPEG or PNG; grey and CMYK become BGR; EXIF turns are ignored, as upstream."""
    return _by_opencv(data, name, PLAIN_FLAGS)


def decode_half(data: Data, name: str, out: Optional[np.ndarray] = None) -> np.ndarray:
    return _by_opencv(data, name, HALF_FLAGS)


def decode_turbo(data: Data, name: str, out: Optional[np.ndarray] = None) -> np.ndarray:
    """By simplejpeg.  What is no whole JPEG in colour is left to OpenCV, which also says what is wrong."""
    library = _simplejpeg()
    try:
        height, width, colours, _ = library.decode_jpeg_header(data)
        if colours not in ("YCbCr", "RGB"):
            return decode(data, name)
        into = out if out is not None and out.shape == (height, width, 3) else None
        if into is None:
            into = np.empty((height, width, 3), np.uint8)
        library.decode_jpeg(data, "BGR", buffer=into)
        return into
    except ValueError:
        return decode(data, name)


def same_pixels() -> bool:
    """Whether simplejpeg decodes as this OpenCV does, on small noisy pictures of all usual kinds."""
    smooth = np.random.RandomState(0).randint(0, 256, (9, 12, 3)).astype(np.uint8)
    picture = cv2.resize(smooth, (96, 72), interpolation=cv2.INTER_CUBIC)
    for quality in (30, 75, 95):
        for picture_of in (picture, picture[:-3, :-5]):
            data = cv2.imencode(".jpg", picture_of, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
            if not np.array_equal(decode(data, ""), decode_turbo(data, "")):
                return False
    return True


def _by_opencv(data: Data, name: str, flags: int) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    if image is None:
        raise DataError(
            "%s is not a readable image (%d bytes)" % (name, len(data)),
            "It is cut or of another format.",
            "Fetch it again and compare its checksum.",
        )
    return image


def _simplejpeg():  # type: ignore[no-untyped-def]
    try:
        import simplejpeg
    except ImportError as error:
        raise ConfigError(
            "ops.decoder=simplejpeg, but it cannot be imported here: %s" % error,
            do="`pip install simplejpeg` into this environment, or leave ops.decoder at cv2.",
        ) from error
    return simplejpeg


DECODERS = {
    "cv2": Decoder("cv2", decode),
    "simplejpeg": Decoder("simplejpeg", decode_turbo),
    "cv2-half": Decoder("cv2-half", decode_half, 2),
}
