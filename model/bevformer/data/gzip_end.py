"""Where the gzip data of a file ends: zeros that a tape or a disk image left may follow, nothing else may.

gzip and tar pass over such zeros with or without a warning; rapidgzip, and so ratarmount, stops at them.
Most often zeros at the end are a download whose space was reserved and that never came, so they are believed
only after every member was read to its own checksum.
"""

import io
import os
import zlib
from typing import Any, NamedTuple, Optional

from bevformer.errors import DataError

from .tar_index import REDO

BOMB_RATIO, BOMB_BYTES = 200, 1 << 30  # tables of JSON shrink to a tenth, never to a two hundredth
_CHUNK = 1 << 20


class Walked(NamedTuple):
    """content_bytes: of all members together.  end: the place in the file behind the last of them."""

    content_bytes: int
    end: int


def damaged(path: str, what: str) -> DataError:
    return DataError(
        "%s is damaged or cut short: %s" % (path, what), "Some of its files would be wrong.", REDO
    )


def bomb(path: str, content: int, size: int) -> DataError:
    return DataError(
        "%s expands to more than %d times its size (%d bytes from %d)" % (path, BOMB_RATIO, content, size),
        "No data set does; it would fill the memory or the disk.",
        "Do not use this archive. " + REDO,
    )


def padded(path: str) -> Optional[Walked]:
    """None where the file ends in gzip's own trailer; else where that lies, every byte checked.

    Only a file whose last four bytes are zeros is read through for it: as ISIZE they would mean a tar of
    exactly 4 GiB or a multiple.  Raises DataError as `walk`.
    """
    with open(path, "rb", buffering=0) as file:
        file.seek(-min(4, os.fstat(file.fileno()).st_size), os.SEEK_END)
        return walk(path) if file.read(4) == bytes(4) else None


def walk(path: str) -> Walked:
    """Every member read to its own trailer, where zlib compares CRC and size; then zeros or nothing.

    Raises DataError for what is cut, damaged, a bomb, or followed by something else.
    """
    content, read, end, raw, decoder = 0, 0, 0, b"", None  # type: int, int, int, bytes, Any
    with open(path, "rb", buffering=0) as file:
        most = max(BOMB_BYTES, BOMB_RATIO * os.fstat(file.fileno()).st_size)
        while True:
            if not raw:
                raw = file.read(_CHUNK)
                read += len(raw)
            if not raw or (decoder is None and raw[:1] == b"\0"):
                break
            decoder = decoder or zlib.decompressobj(31)
            try:
                content += len(decoder.decompress(raw, 4 * _CHUNK))
            except zlib.error as error:
                raise damaged(path, str(error)) from error
            if content > most:
                raise bomb(path, content, os.fstat(file.fileno()).st_size)
            raw = decoder.unconsumed_tail
            if decoder.eof:
                raw, decoder = decoder.unused_data, None
                end = read - len(raw)
        if decoder is not None or not end:
            raise damaged(path, "its last member has no end")
        while raw:
            if raw.strip(b"\0"):
                raise damaged(path, "something else follows its end")
            raw = file.read(_CHUNK)
    return Walked(content, end)


class Front(io.RawIOBase):
    """The first `size` bytes of a file, for a reader that takes a file as its end."""

    def __init__(self, path: str, size: int) -> None:
        super().__init__()
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._size, self._place = size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._place = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        return self._place

    def readinto(self, buffer: Any) -> int:
        data = os.pread(self._fd, max(0, min(len(buffer), self._size - self._place)), self._place)
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            os.close(self._fd)
        super().close()
