"""Images on their way to a GPU while it works on those before: pinned, copied on a stream of their own."""

import dataclasses
import queue
import threading
from typing import Any, Callable, Iterable, Iterator, List, Sequence, Tuple

import torch
from torch import Tensor

from .memory import is_out_of_memory
from .types import Frame, Sample

Arrived = Callable[[], None]  # what to do on the device before the images are used
CLOSE_S = 5.0  # that a thread gets to finish what it is reading


class Prefetch:
    """What `source` gives, in order, each item handed to `move` one before it is asked for, in a thread.

    `move(item)` is the item where it is wanted, and what makes it safe to use there.  An error is raised
    where the item is asked for, and again each time after that.
    """

    def __init__(self, source: Iterable[Any], move: Callable[[Any], Tuple[Any, Arrived]]) -> None:
        self._source, self._move = source, move
        self._moved: Any = queue.Queue()
        self._slots = threading.Semaphore(1)  # items that are moved and not asked for yet
        self._closed = False
        self._end: Any = None
        self._thread = threading.Thread(target=self._run, name="prefetch", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._end is None:
            item, arrived = self._moved.get()
            if arrived is not None:
                self._slots.release()
                arrived()
                return item
            self._end = item
        raise self._end

    def _run(self) -> None:
        try:
            for item in self._source:
                self._slots.acquire()
                if self._closed:
                    return
                self._moved.put(self._move(item))
            self._moved.put((StopIteration(), None))
        except BaseException as error:  # raised in the other thread
            self._moved.put((error, None))

    def close(self) -> None:
        """Afterwards the source is not read any more, unless it does not answer."""
        self._closed = True
        self._slots.release()
        self._thread.join(CLOSE_S)


class ToDevice:
    """`move` of a Prefetch: frames, samples and lists of them with their images on a CUDA device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def __call__(self, item: Any) -> Tuple[Any, Arrived]:
        moved: List[Tensor] = []

        def send(images: Tensor) -> Tensor:
            moved.append(images.pin_memory().to(self._device, non_blocking=True))
            return moved[-1]

        try:
            with torch.cuda.stream(self._stream):
                item = with_images(item, send)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            # Stays where it is: it is copied when it is used, where running out of memory is handled.
            moved.clear()
        done = self._stream.record_event()
        return item, lambda: self._arrived(done, moved)

    def _arrived(self, done: Any, moved: Sequence[Tensor]) -> None:
        here = torch.cuda.current_stream(self._device)
        here.wait_event(done)
        for images in moved:
            images.record_stream(here)


def with_images(item: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same with other images; what is neither frame, sample, list nor tuple stays as it is."""
    if isinstance(item, Frame):
        return dataclasses.replace(item, images_NCHW=change(item.images_NCHW))
    if isinstance(item, Sample):
        return dataclasses.replace(item, frames=tuple(with_images(each, change) for each in item.frames))
    if isinstance(item, (list, tuple)) and any(isinstance(each, (Frame, Sample, list)) for each in item):
        return type(item)(with_images(each, change) for each in item)
    return item
