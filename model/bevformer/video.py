"""Pictures as a film: MP4 through OpenCV where its build has an encoder, GIF through Pillow.

Written beside under another name and renamed when it is whole.
"""

import contextlib
import os
from typing import Any, Iterator, List, Optional, Protocol, Tuple

import cv2
import numpy as np

from .errors import DiskError, UserError
from .look import COLOURS, INK

# H.264 plays everywhere; OpenCV's own wheels are built without it, but with VP9, which browsers and VLC play.
CODECS = ("avc1", "vp09", "mp4v")
GIF_WIDTH_PX = 1212  # half the screen's picture: GIFs are large
GIF_COLOURS = (*COLOURS, INK, "#ffffff")


class _Writer(Protocol):
    def add(self, image_HW3: np.ndarray) -> None: ...

    def close(self) -> None: ...


class Video:
    """Takes (H, W, 3) uint8 RGB pictures of one size; a context manager.

    Raises UserError where nothing here can write such a file, DiskError where it cannot be written.
    `codec` says what wrote it.
    """

    def __init__(self, path: str, frames_per_second: float) -> None:
        self.path, self._rate = path, frames_per_second
        folder, name = os.path.split(os.path.abspath(path))
        # The suffix stays: OpenCV chooses the container by it.
        self._tmp = os.path.join(folder, ".%d.%s" % (os.getpid(), name))
        self._writer: Optional[_Writer] = None
        self.codec, self.count = "", 0

    def __enter__(self) -> "Video":
        return self

    def add(self, image_HW3: np.ndarray) -> None:
        if self._writer is None:
            self._writer, self.codec = self._opened(image_HW3.shape[:2])
        self._writer.add(image_HW3)
        self.count += 1

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            if self._writer is not None:
                self._writer.close()
            if kind is None and self.count:
                self._check()
                _to_disk(self._tmp)
                os.replace(self._tmp, self.path)
        except OSError as problem:
            raise _unwritable(self.path, problem.strerror or str(problem)) from problem
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.remove(self._tmp)

    def _opened(self, size_hw: Tuple[int, int]) -> Tuple[_Writer, str]:
        try:
            with open(self._tmp, "wb"):
                pass
        except OSError as error:
            raise _unwritable(self.path, error.strerror or str(error)) from error
        if self.path.lower().endswith(".gif"):
            return _Gif(self._tmp, self._rate), "gif"
        with _without_chatter():
            for codec in CODECS:
                fourcc = cv2.VideoWriter_fourcc(*codec)  # type: ignore[attr-defined]
                writer = cv2.VideoWriter(self._tmp, fourcc, self._rate, (size_hw[1], size_hw[0]))
                if writer.isOpened():
                    return _Mp4(writer), codec
        raise UserError(
            "this OpenCV (%s) cannot write MP4: none of %s opens" % (cv2.__version__, ", ".join(CODECS)),
            "It was built without video encoders.",
            "Name a .gif instead, or install opencv-python-headless in this environment.",
        )

    def _check(self) -> None:
        """OpenCV's writer does not say that the disk was full."""
        if self.codec == "gif":
            return
        with _without_chatter():
            video = cv2.VideoCapture(self._tmp)
            written = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
            video.release()
        if written != self.count:
            raise _unwritable(self.path, "%d of %d pictures arrived in it" % (written, self.count))


class _Mp4:
    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def add(self, image_HW3: np.ndarray) -> None:
        self._writer.write(np.ascontiguousarray(image_HW3[..., ::-1]))

    def close(self) -> None:
        self._writer.release()


class _Gif:
    """All pictures share a palette, so that what stands still does not flicker: the colours of classes and of
    letters, which have to stay what the legend says, and those of the first picture."""

    def __init__(self, path: str, frames_per_second: float) -> None:
        from PIL import Image

        self._path, self._image = path, Image
        self._duration_ms = round(1000 / frames_per_second)
        self._frames: List[Any] = []
        self._palette: Any = None

    def add(self, image_HW3: np.ndarray) -> None:
        height, width = image_HW3.shape[:2]
        if width > GIF_WIDTH_PX:
            size = (GIF_WIDTH_PX, round(height * GIF_WIDTH_PX / width))
            image_HW3 = np.asarray(cv2.resize(image_HW3, size, interpolation=cv2.INTER_AREA))
        image = self._image.fromarray(np.ascontiguousarray(image_HW3))
        if self._palette is None:
            self._palette = self._palette_of(image)
        self._frames.append(image.quantize(palette=self._palette, dither=0))

    def _palette_of(self, image: Any) -> Any:
        fixed = [value for colour in GIF_COLOURS for value in bytes.fromhex(colour[1:])]
        found = image.quantize(colors=256 - len(GIF_COLOURS), dither=0).getpalette()
        palette = self._image.new("P", (1, 1))
        palette.putpalette((fixed + found)[:768])
        return palette

    def close(self) -> None:
        if self._frames:
            first, rest = self._frames[0], self._frames[1:]
            first.save(
                self._path, "GIF", save_all=True, append_images=rest, duration=self._duration_ms, loop=0
            )


@contextlib.contextmanager
def _without_chatter() -> Iterator[None]:
    """What OpenCV and FFmpeg print about an encoder that is not there belongs to nobody."""
    kept, sink = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(sink)


def _to_disk(path: str) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _unwritable(path: str, what: str) -> DiskError:
    return DiskError("could not write %s: %s" % (path, what), do="Free some space or name another place.")
