"""What a program prints, kept in bounded memory: its beginning and its end, and how much lay between."""

import os
import selectors
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import IO

from bevrepro.core.units import size

END_B = 4 << 20  # of each end of a stream; `ldconfig -p`, a long answer that is read, has 0.1 MiB
LINE_CHARS = 4 << 20  # an event of the model plane is one line, a run's whole result among them
READ_B = 1 << 16
WRITE_B = 4096  # select.PIPE_BUF: what a pipe that is ready takes without waiting


class Late(Exception):
    """The time is over and the program goes on."""


class TooMuch(Exception):
    """The program printed more than the caller reads whole."""


class Kept:
    """The first and the last `end_b` bytes of a stream."""

    def __init__(self, end_b: int) -> None:
        self._end_b = end_b
        self._head = bytearray()
        self._tail = bytearray()
        self.left_out_b = 0

    def add(self, piece: bytes) -> None:
        room = self._end_b - len(self._head)
        self._head += piece[:room]
        self._tail += piece[room:]
        over = len(self._tail) - self._end_b
        if over > 0:
            del self._tail[:over]
            self.left_out_b += over

    def text(self) -> str:
        """Both ends as text, between them a line that says what is missing."""
        if not self.left_out_b:
            return _text(self._head + self._tail)
        return f"{_text(self._head)}\n[... {size(self.left_out_b)} left out ...]\n{_text(self._tail)}"


class Exchange:
    """Text into a program's stdin, and its stdout and stderr out of it, in one thread."""

    def __init__(
        self, streams: Sequence[IO[str] | None], input_text: str | None, whole_b: int | None = None
    ) -> None:
        """`streams`: our ends of the three; `whole_b`: stdout is wanted whole up to so many bytes."""
        self.stdout, self.stderr = Kept(END_B if whole_b is None else whole_b), Kept(END_B)
        self._streams, self._whole = streams, whole_b is not None
        self._input = memoryview((input_text or "").encode(errors="replace"))
        self._waiting = selectors.DefaultSelector()
        stdin = streams[0]
        for stream, kept in zip(streams[1:], (self.stdout, self.stderr), strict=True):
            if stream is not None:
                self._waiting.register(stream, selectors.EVENT_READ, partial(self._read, stream, kept))
        if stdin is not None:
            self._waiting.register(stdin, selectors.EVENT_WRITE, partial(self._write, stdin))

    def until(self, end_s: float | None) -> None:
        """Go on until both streams have ended.

        Raises Late at `end_s` of the monotonic clock, TooMuch where stdout was wanted whole and is longer.
        """
        while self._waiting.get_map():
            ready = self._waiting.select(None if end_s is None else max(0.0, end_s - time.monotonic()))
            for key, _ in ready:
                key.data()
            if self._whole and self.stdout.left_out_b:
                raise TooMuch
            if end_s is not None and time.monotonic() >= end_s:
                raise Late

    def close(self) -> None:
        """Our ends of the pipes; a program that is left behind is not waited for."""
        self._waiting.close()
        for stream in self._streams:
            if stream is not None:
                _close(stream)

    def _read(self, stream: IO[str], kept: Kept) -> None:
        piece = os.read(stream.fileno(), READ_B)
        if piece:
            kept.add(piece)
        else:
            self._waiting.unregister(stream)
            stream.close()

    def _write(self, stream: IO[str]) -> None:
        try:
            sent = os.write(stream.fileno(), self._input[:WRITE_B]) if self._input else 0
        except BrokenPipeError:  # it reads no more; how it ends says the rest
            sent = len(self._input)
        self._input = self._input[sent:]
        if not self._input:
            self._waiting.unregister(stream)
            _close(stream)


def lines(source: IO[str], most_chars: int = LINE_CHARS) -> Iterator[str]:
    """The lines of a stream without their newline; of one that does not end, the first `most_chars`."""
    while line := source.readline(most_chars):
        left_out = 0
        last = line
        while len(last) == most_chars and not last.endswith("\n"):
            last = source.readline(most_chars)
            left_out += len(last.rstrip("\r\n"))
        yield line.rstrip("\r\n") + (f" [... {left_out} characters left out]" if left_out else "")


def _text(data: bytes | bytearray) -> str:
    return data.decode("utf-8", errors="replace").replace("\r\n", "\n").replace("\r", "\n")


def _close(stream: IO[str]) -> None:
    try:
        stream.close()
    except BrokenPipeError:
        return  # what was left for a program that has ended
