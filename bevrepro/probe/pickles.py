"""Pickles of strangers, read as data: without numpy or torch, and never run.

A pickle is a program that may call any function. Here it finds only stand-ins for what a prepared file or
a checkpoint needs; whatever else it names is refused by that name.
"""

import pickle
import re
import resource
import struct
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

from bevrepro.probe.files import read_text
from bevrepro.probe.pickle_keys import Keys, judging

# What the unpickler raises for damaged bytes, besides its own error.
DAMAGE = (
    pickle.UnpicklingError, EOFError, ValueError, LookupError, TypeError, AttributeError, OverflowError,
    MemoryError, RecursionError,
)  # fmt: skip
FORMS = {
    "f8": "d", "f4": "f", "i8": "q", "i4": "i", "i2": "h", "i1": "b", "u8": "Q", "u4": "I", "u2": "H",
    "u1": "B", "b1": "?",
}  # fmt: skip


# A tuple that is a key is hashed, with those in it, on the stack, whose end is the end of the process.
TUPLES = (pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3)
HASH_B, STACK_B = 256, 2**20  # 57 were measured for each level (CPython 3.11)
T = TypeVar("T")

# A pickle of 20 bytes can ask for a table of gigabytes. Plain ones take some 6 times their size.
ROOM_B, ROOM_TIMES = 2 << 30, 24


@contextmanager
def bounded(size_b: int) -> Iterator[None]:
    """Inside, a pickle of `size_b` bytes gets MemoryError where it asks for far more memory than it may."""
    pages = (read_text(Path("/proc/self/statm")) or "").split()
    old, highest = resource.getrlimit(resource.RLIMIT_AS)
    if not pages or not pages[0].isdigit():  # no Linux: as it is
        yield
        return
    wanted = int(pages[0]) * resource.getpagesize() + ROOM_B + ROOM_TIMES * size_b
    known = [each for each in (old, highest, wanted) if each != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(known), highest))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (old, highest))


def on_deep_stack(stream: IO[bytes], read: Callable[[], T]) -> T:
    """`read()` in a thread whose stack fits as many tuples in each other as the rest of `stream` can make.

    What is not used of that stack is never taken. Raises what `read` does, and MemoryError where there is
    not that much.
    """
    start, levels = stream.tell(), 0
    while block := stream.read(STACK_B):
        levels += sum(block.count(code) for code in TUPLES)
    stream.seek(start)
    done: list[tuple[Any, BaseException | None]] = []

    def run() -> None:
        try:
            done.append((read(), None))
        except BaseException as error:  # raised below, where somebody waits for it
            done.append((None, error))

    before = threading.stack_size(STACK_B + levels * HASH_B // STACK_B * STACK_B)
    try:
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
    except RuntimeError as refusal:
        raise MemoryError(f"{levels} tuples in each other") from refusal
    finally:
        threading.stack_size(before)
    thread.join()
    value, raised = done[0]
    if raised is not None:
        raise raised
    return value  # type: ignore[no-any-return]


class Refused(Exception):
    """The pickle names something that is not plain data; the text is that name."""


class Dtype:
    """numpy.dtype: only its text, `f8` or `U20`, and the byte order."""

    def __init__(self, text: Any = "", *_: Any) -> None:
        self.text = str(text).lstrip("<>|=")
        self.order = "<"

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">"):
            self.order = state[1]


class Array:
    """numpy.ndarray: shape, dtype and raw bytes; numbers are made only where they are asked for."""

    __slots__ = ("by_column", "data", "dtype", "shape")

    def __init__(self) -> None:
        self.shape: tuple[int, ...] = ()
        self.dtype = Dtype()
        self.by_column = False
        self.data: Any = b""

    def __setstate__(self, state: Any) -> None:
        _, self.shape, self.dtype, self.by_column, self.data = state

    def values(self) -> list[Any]:
        """All items in order, as Python numbers or texts; ValueError for a dtype that is none of these."""
        found = self._as_they_lie()
        if not self.by_column or len(self.shape) < 2:
            return found
        if len(self.shape) > 2:
            raise ValueError(f"an array of {len(self.shape)} axes that lies by column")
        rows = self.shape[0]
        return [value for row in range(rows) for value in found[row::rows]]

    def _as_they_lie(self) -> list[Any]:
        if isinstance(self.data, list):  # an array of objects
            return list(self.data)
        data = bytes(self.data, "latin1") if isinstance(self.data, str) else bytes(self.data)
        text = self.dtype.text
        if text[:1] in ("U", "S") and text[1:].isdigit():
            width = int(text[1:]) * (4 if text[0] == "U" else 1)
            coding = {"U": "utf-32-le", "S": "latin1"}[text[0]]
            pieces = range(0, len(data), width) if width else ()
            return [data[at : at + width].decode(coding).rstrip("\0") for at in pieces]
        if text not in FORMS:
            raise ValueError(f"an array of {text!r}")
        size = struct.calcsize(FORMS[text])
        return list(struct.unpack(f"{self.dtype.order}{len(data) // size}{FORMS[text]}", data))


class Unread:
    """Stands where an object was whose class is not loaded; nothing of it is kept."""

    def __new__(cls, *args: Any, **options: Any) -> "Unread":
        return object.__new__(cls)

    def __setstate__(self, state: Any) -> None:
        return

    def __setitem__(self, key: Any, value: Any) -> None:
        return

    def append(self, value: Any) -> None:
        return

    def extend(self, values: Any) -> None:
        return


class Stand:
    """A function or class that a pickle may call. Changing it is refused."""

    __slots__ = ("_does", "_name")

    def __init__(self, name: str, does: Callable[..., Any]) -> None:
        self._name, self._does = name, does

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self._does(*args, **options)

    def __setstate__(self, state: Any) -> None:
        raise Refused(f"a change to {self._name}")


def _encode(text: str, coding: str = "latin1") -> bytes:
    """How protocol 2 stores bytes; other codecs are not needed for that."""
    if coding not in ("latin1", "latin-1"):
        raise Refused(f"the codec {coding}")
    return text.encode("latin1")


def _from_buffer(data: Any, dtype: Any, shape: Any, _order: Any) -> Array:
    array = Array()
    array.__setstate__((1, shape, dtype, False, bytes(data)))
    return array


def _scalar(dtype: Any, data: Any = b"") -> Any:
    return _from_buffer(data if isinstance(data, bytes) else _encode(data), dtype, (), "C").values()[0]


def _bytearray(data: Any = b"", coding: str = "latin1") -> bytes:
    """A number would be a size to allocate."""
    return data if isinstance(data, bytes) else _encode(str(data), coding)


def plain_globals() -> dict[tuple[str, str], Any]:
    """What a pickle of builtins and numpy arrays needs."""
    found: dict[tuple[str, str], Any] = {
        ("_codecs", "encode"): Stand("encode", _encode),
        ("collections", "OrderedDict"): OrderedDict,
        ("numpy", "dtype"): Stand("dtype", Dtype),
        ("numpy", "ndarray"): Stand("ndarray", Array),
    }
    for core in ("numpy.core", "numpy._core"):  # the second is NumPy 2's name
        found[f"{core}.multiarray", "_reconstruct"] = Stand("_reconstruct", lambda *_: Array())
        found[f"{core}.multiarray", "scalar"] = Stand("scalar", _scalar)
        found[f"{core}.numeric", "_frombuffer"] = Stand("_frombuffer", _from_buffer)
    for builtins in ("builtins", "__builtin__"):
        for kind_of_bytes in ("bytearray", "bytes"):  # the second without arguments: b"" in protocol 2
            found[builtins, kind_of_bytes] = Stand(kind_of_bytes, _bytearray)
        for kind in (set, frozenset, complex):
            found[builtins, kind.__name__] = kind
    return found


class _Plain:
    """Builtins and numpy only: `known`."""

    known: dict[tuple[str, str], Any]

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.known[module, name]
        except KeyError:
            raise Refused(printable(f"{module}.{name}")) from None

    def persistent_load(self, pid: Any) -> Any:
        raise Refused("a persistent id")


class PlainUnpickler(_Plain, pickle.Unpickler):
    """Of infos, which take gigabytes: in C, so keys are not judged. Raises Refused, or one of DAMAGE."""

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(stream)
        self.known = plain_globals()


def printable(text: str) -> str:
    """A stranger's words, fit for a terminal."""
    return "".join(each if each.isprintable() else "?" for each in text)[:200]


# ---- torch's checkpoints


INERT_PACKAGES = frozenset(["mmcv", "mmdet", "mmdet3d", "mmseg", "mmengine", "addict", "projects", "numpy"])
ITEM_BYTES = {
    "Double": 8, "Long": 8, "ComplexFloat": 8, "ComplexDouble": 16, "Float": 4, "Int": 4, "QInt32": 4,
    "Half": 2, "BFloat16": 2, "Short": 2,
}  # fmt: skip


class Weights:
    """A tensor: shape and the name of its dtype as torch's storages spell it (`Float`)."""

    __slots__ = ("dtype", "shape")

    def __init__(self, shape: tuple[int, ...], dtype: str) -> None:
        self.shape, self.dtype = shape, dtype

    def __setstate__(self, state: Any) -> None:
        return


class Storage:
    """`torch.FloatStorage`: only its name."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __setstate__(self, state: Any) -> None:
        raise Refused(f"a change to {self.name}")


def _rebuild(storage: Any, _offset: Any, shape: Any, *_: Any) -> Weights:
    return Weights(tuple(shape), storage.dtype)


class TorchUnpickler(_Plain, pickle._Unpickler):
    """Tensors by shape. `records`: key of the storage -> bytes it must have. Small, so in Python: each key
    is looked at first. Raises Refused, or one of DAMAGE."""

    dispatch = judging(pickle._Unpickler.dispatch)

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(stream)
        self.known, self.keys = plain_globals(), Keys()
        self.records: dict[str, int] = {}
        for name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
            self.known["torch._utils", name] = Stand(name, _rebuild)
        for place, name in (("torch._utils", "_rebuild_parameter"), ("torch.nn.parameter", "Parameter")):
            self.known[place, name] = Stand(name, lambda data=None, *_: data)
        for place, name in (
            ("torch", "Size"), ("torch", "device"), ("torch", "dtype"),
            ("torch.serialization", "_get_layout"),
            ("argparse", "Namespace"), ("builtins", "getattr"), ("__builtin__", "getattr"),
            *(("datetime", each) for each in ("datetime", "date", "timedelta", "timezone")),
            *(("pathlib", each) for each in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")),
        ):  # fmt: skip
            self.known[place, name] = Unread
        self.known["collections", "defaultdict"] = Stand("defaultdict", lambda *_: defaultdict(Unread))

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self.known:
            return self.known[module, name]
        if module in ("torch", "torch.storage") and re.fullmatch(r"\w+Storage", name):
            return Storage(name)
        if module == "torch" and re.fullmatch(r"u?int\d+|b?float\d+|bool|half|double|long", name):
            return Unread
        if module.split(".")[0] in INERT_PACKAGES:  # objects in mmcv's meta: their classes are never loaded
            return Unread
        raise Refused(printable(f"{module}.{name}"))

    def persistent_load(self, pid: Any) -> Any:
        kind, storage, key, _, count = pid[:5]
        if kind != "storage" or not isinstance(storage, Storage) or not isinstance(count, int) or count < 0:
            raise Refused("a persistent id that is no storage")
        dtype = storage.name[: -len("Storage")]
        self.records[str(key)] = count * ITEM_BYTES.get(dtype, 1)
        return Weights((count,), dtype)
