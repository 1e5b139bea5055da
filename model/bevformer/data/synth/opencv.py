"""cv2, imported when a picture is drawn: the rest of the package works without it."""

from typing import Any

from bevformer.errors import UserError


def load_cv2() -> Any:
    """The cv2 module.  Raises UserError (exit code 3) where this interpreter has none."""
    try:
        import cv2
    except ImportError as error:
        raise UserError(
            "cv2 cannot be imported by this interpreter: %s" % error,
            "The synthetic set's pictures are drawn and compressed with OpenCV.",
            "pip install opencv-python-headless",
        ) from error
    return cv2
