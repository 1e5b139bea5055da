"""The twin of a prepared file: its frames as a folder of .npy columns and one index.json, without pickle.

docs/data.md describes the format.  Columns are mapped, so that forked workers and several ranks share them,
and checked against the digests in the index when the twin is opened.
"""

import hashlib
import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, BinaryIO, Dict, Mapping, Optional, Tuple

import numpy as np

from bevformer.errors import DataError
from bevformer.types import CAMERAS

from .columns import Strings
from .infos_columns import BOX, CAM, FRAME, SWEEP, Chunk, Column, all_columns
from .infos_form import PREPARE

FORMAT, VERSION = "bevformer-infos-columns", 1
INDEX = "index.json"
ENDING = ".bev"
_HEADER_BYTES = 128  # as NumPy pads it; the number of rows is filled in at the end


def twin_path(pickle_path: str) -> str:
    """x.pkl -> x.bev, beside it."""
    stem, ending = os.path.splitext(pickle_path)
    return (stem if ending == ".pkl" else pickle_path) + ENDING


def is_twin(path: str) -> bool:
    """A folder with an index in it."""
    return os.path.isfile(os.path.join(path, INDEX))


def _header(dtype: np.dtype, shape: Tuple[int, ...]) -> bytes:
    """As np.save writes it, always of the same length."""
    magic = np.lib.format.magic(1, 0)
    text = repr(dict(descr=dtype.str, fortran_order=False, shape=shape)).encode("ascii")
    text = text.ljust(_HEADER_BYTES - len(magic) - 3) + b"\n"
    return magic + len(text).to_bytes(2, "little") + text


class _Npy:
    """A .npy file whose number of rows is known at the end."""

    def __init__(self, folder: str, name: str, dtype: np.dtype, shape: Tuple[int, ...] = ()) -> None:
        self.name, self.dtype, self.shape, self.rows = name, dtype, shape, 0
        self._digest = hashlib.sha256()
        self._file: BinaryIO = open(os.path.join(folder, name + ".npy"), "wb", buffering=1 << 18)
        self._file.write(b"\0" * _HEADER_BYTES)

    def add(self, rows: np.ndarray) -> None:
        data = np.ascontiguousarray(rows, dtype=self.dtype).tobytes()
        self._digest.update(data)
        self._file.write(data)
        self.rows += len(rows)

    def finish(self) -> Dict[str, Any]:
        """What index.json says of it."""
        self._file.seek(0)
        self._file.write(_header(self.dtype, (self.rows,) + self.shape))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return dict(dtype=self.dtype.str, shape=[self.rows, *self.shape], sha256=self._digest.hexdigest())

    def close(self) -> None:
        self._file.close()


class TwinWriter:
    """Writes a twin chunk by chunk into an empty folder.  Raises OSError where that cannot be written."""

    def __init__(self, folder: str, with_boxes: bool) -> None:
        self.folder, self.with_boxes, self.frames = folder, with_boxes, 0
        os.makedirs(folder)
        self._files: Dict[str, _Npy] = {}
        for column in all_columns(with_boxes):
            if column.kind == "text":
                self._files[column.name + ".bytes"] = self._npy(column.name + ".bytes", "|u1")
                self._offsets(column.name + ".offsets")
            else:
                self._files[column.name] = _Npy(folder, column.name, column.dtype, column.shape)
        for level in ("sweep", "box") if with_boxes else ("sweep",):
            self._offsets(level + ".ends")

    def _npy(self, name: str, dtype: str) -> _Npy:
        return _Npy(self.folder, name, np.dtype(dtype))

    def _offsets(self, name: str) -> None:
        self._files[name] = self._npy(name, "<i8")
        self._files[name].add(np.zeros(1, dtype=np.int64))
        self._last = getattr(self, "_last", {})
        self._last[name] = 0

    def add(self, chunk: Chunk) -> None:
        self.frames += chunk.frames
        for name, value in chunk.values.items():
            if isinstance(value, Strings):
                self._files[name + ".bytes"].add(value.data[value.offsets[0] : value.offsets[-1]])
                self._run(name + ".offsets", np.diff(value.offsets))
            else:
                self._files[name].add(value)
        self._run("sweep.ends", chunk.sweeps)
        if self.with_boxes:
            self._run("box.ends", chunk.boxes)

    def _run(self, name: str, lengths: np.ndarray) -> None:
        if len(lengths):
            ends = self._last[name] + np.cumsum(lengths)
            self._files[name].add(ends)
            self._last[name] = int(ends[-1])

    def finish(self, metadata: Mapping[str, Any], more: Mapping[str, Any]) -> None:
        """`more`: further keys of index.json, such as `made_from`."""
        columns = {name: file.finish() for name, file in sorted(self._files.items())}
        index = dict(
            format=FORMAT,
            version=VERSION,
            frames=self.frames,
            cameras=list(CAMERAS),
            boxes=self.with_boxes,
            metadata=dict(metadata),
            **more,
            columns=columns,
        )
        with open(os.path.join(self.folder, INDEX), "w", encoding="utf-8") as file:
            json.dump(dict(index, sha256=_index_digest(index)), file, indent=1)
            file.flush()
            os.fsync(file.fileno())

    def close(self) -> None:
        """Let go of the files, written or not."""
        for file in self._files.values():
            file.close()


@dataclass(frozen=True)
class Twin:
    """An opened twin.  numbers, texts: mapped columns by name; ends: first row of every frame by level."""

    folder: str
    index: Mapping[str, Any]
    numbers: Dict[str, np.ndarray]
    texts: Dict[str, Strings]
    ends: Dict[str, np.ndarray]

    @property
    def frames(self) -> int:
        return int(self.index["frames"])

    @property
    def with_boxes(self) -> bool:
        return bool(self.index["boxes"])

    def __reduce__(self) -> Any:
        """A worker that is started afresh maps the files again; their digests were checked here."""
        return open_twin, (self.folder, False)


def read_index(folder: str) -> Dict[str, Any]:
    """index.json.  DataError when it is missing or of another format."""
    path = os.path.join(folder, INDEX)
    try:
        with open(path, encoding="utf-8") as file:
            index = json.load(file)
    except OSError as error:
        raise DataError("cannot read %s: %s" % (path, error.strerror), do=PREPARE) from error
    except (ValueError, RecursionError) as error:
        raise DataError("%s is not valid JSON: %s" % (path, error), do=PREPARE) from error
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise DataError("%s is not the index of prepared frames" % path, do=PREPARE)
    if index.get("version") != VERSION:
        raise DataError(
            "%s is of version %.20r of the format; this program reads version %d"
            % (path, index.get("version"), VERSION),
            do=PREPARE,
        )
    if index.get("sha256") != _index_digest(index):
        raise _damaged(path, "its digest is not the one it names")
    return index


def _index_digest(index: Mapping[str, Any]) -> str:
    """sha256 over all of index.json but this, as JSON without spaces, keys sorted."""
    rest = {key: value for key, value in index.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def open_twin(folder: str, check: bool = True) -> Twin:
    """Map the columns; `check` their digests.  DataError names the column that is missing or damaged."""
    index = read_index(folder)
    if index.get("cameras") != list(CAMERAS) or not isinstance(index.get("metadata"), dict):
        raise DataError("%s is damaged: its cameras or metadata" % os.path.join(folder, INDEX), do=PREPARE)
    columns = index.get("columns")
    if not isinstance(columns, dict):
        raise DataError("%s is damaged: it lists no columns" % os.path.join(folder, INDEX), do=PREPARE)

    def mapped(name: str, dtype: str, shape: Tuple[int, ...] = ()) -> np.ndarray:
        return _mapped(folder, columns, name, np.dtype(dtype), shape)

    wanted = all_columns(bool(index.get("boxes")))
    numbers = {one.name: mapped(one.name, one.dtype.str, one.shape) for one in wanted if one.kind != "text"}
    texts = {
        one.name: Strings(mapped(one.name + ".offsets", "<i8"), mapped(one.name + ".bytes", "|u1"))
        for one in wanted
        if one.kind == "text"
    }
    levels = ("sweep", "box") if index.get("boxes") else ("sweep",)
    ends = {level: mapped(level + ".ends", "<i8") for level in levels}
    twin = Twin(folder, index, numbers, texts, ends)
    _check_sizes(twin)
    if check:
        _check_digests(twin)
    return twin


def _mapped(
    folder: str, columns: Mapping[str, Any], name: str, dtype: np.dtype, shape: Tuple[int, ...] = ()
) -> np.ndarray:
    """A column as long as the index says; its header has to be the one that belongs to it, byte for byte."""
    path = os.path.join(folder, name + ".npy")
    entry = columns.get(name)
    rows = entry["shape"][:1] if isinstance(entry, dict) and isinstance(entry.get("shape"), list) else []
    if not rows or type(rows[0]) is not int or not 0 <= rows[0] < 2**48:
        raise _damaged(os.path.join(folder, INDEX), "it does not say how long %s is" % name)
    whole = (rows[0],) + shape
    try:
        with open(path, "rb") as file:
            head, size = file.read(_HEADER_BYTES), os.fstat(file.fileno()).st_size
        if head != _header(dtype, whole) or size != _HEADER_BYTES + dtype.itemsize * math.prod(whole):
            raise _damaged(path, "it is not %s of %s, as %s says" % (whole, dtype, INDEX))
        if not rows[0]:  # nothing to map
            return np.zeros(whole, dtype=dtype)
        return np.asarray(np.memmap(path, dtype=dtype, mode="r", offset=_HEADER_BYTES, shape=whole))
    except OSError as error:
        raise _damaged(path, error.strerror or str(error)) from error


def _damaged(path: str, what: str) -> DataError:
    return DataError(
        "%s is damaged: %s" % (path, what),
        "It was cut or changed after it was written.",
        "Make it again with `bevrepro data prepare` or `bevrepro data convert --to twin`.",
    )


def _check_sizes(twin: Twin) -> None:
    """Every column as long as the frames say, every run of rows within its column."""
    frames = twin.index.get("frames")
    if type(frames) is not int or frames < 0:
        raise _damaged(os.path.join(twin.folder, INDEX), "frames is %.20r" % (frames,))
    rows = dict(frame=frames, cam=frames * len(CAMERAS))
    for level, ends in twin.ends.items():
        rows[level] = int(ends[-1]) if len(ends) else -1
        _check_run(twin, level + ".ends", ends, frames, rows[level])
    for level, columns in (("frame", FRAME), ("cam", CAM), ("sweep", SWEEP), ("box", BOX)):
        for column in columns if level in rows else ():
            _check_column(twin, column, rows[level])


def _check_column(twin: Twin, column: Column, rows: int) -> None:
    if column.kind == "text":
        text = twin.texts[column.name]
        _check_run(twin, column.name + ".offsets", text.offsets, rows, len(text.data))
    elif len(twin.numbers[column.name]) != rows:
        path = os.path.join(twin.folder, column.name + ".npy")
        raise _damaged(path, "%d rows, not %d" % (len(twin.numbers[column.name]), rows))


def _check_run(twin: Twin, name: str, ends: np.ndarray, rows: int, last: int) -> None:
    fits = len(ends) == rows + 1 and ends[0] == 0 and ends[-1] == last and bool((np.diff(ends) >= 0).all())
    if not fits:
        raise _damaged(os.path.join(twin.folder, name + ".npy"), "its runs do not fit the other columns")


def _check_digests(twin: Twin) -> None:
    arrays: Dict[str, np.ndarray] = dict(twin.numbers)
    for name, text in twin.texts.items():
        arrays[name + ".offsets"], arrays[name + ".bytes"] = text.offsets, text.data
    arrays.update((level + ".ends", ends) for level, ends in twin.ends.items())
    said = twin.index.get("columns")
    names = sorted(arrays, key=lambda name: -arrays[name].nbytes)
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:  # hashing lets go of the lock
        for name, digest in zip(names, pool.map(lambda name: _digest(arrays[name]), names)):
            entry = said.get(name) if isinstance(said, dict) else None
            if not isinstance(entry, dict) or entry.get("sha256") != digest:
                path = os.path.join(twin.folder, name + ".npy")
                raise _damaged(path, "its digest is not the one in %s" % INDEX)


def _digest(array: np.ndarray) -> str:
    return hashlib.sha256(
        memoryview(np.ascontiguousarray(array)).cast("B") if array.size else b""
    ).hexdigest()


def is_fresh(folder: str, pickle_path: str) -> bool:
    """Whether the twin was made from the pickle as it is now: size and time, or size and digest."""
    try:
        made_from = read_index(folder).get("made_from")
        found = os.stat(pickle_path)
    except (DataError, OSError):
        return False
    if not isinstance(made_from, dict) or made_from.get("bytes") != found.st_size:
        return False
    return made_from.get("mtime_ns") == found.st_mtime_ns or made_from.get("sha256") == file_digest(
        pickle_path
    )


def file_digest(path: str) -> str:
    total = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            total.update(block)
    return total.hexdigest()


def made_from(path: str, digest: Optional[str] = None) -> Dict[str, Any]:
    """The entry of index.json that `is_fresh` reads."""
    found = os.stat(path)
    return dict(
        name=os.path.basename(path),
        bytes=found.st_size,
        mtime_ns=found.st_mtime_ns,
        sha256=digest or file_digest(path),
    )
