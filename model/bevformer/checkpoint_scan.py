"""What a .pth file holds, found out without torch and without running anything that it carries.

A .pth file is a pickle, that is a program.  Here it is played with inert stand-ins for everything it may
name: what is not on the list is refused by name, and what it declares is compared with what the file has
(older torch reads past the end of a record that is shorter than declared).
"""

import io
import pickle
import re
import struct
import zipfile
from collections import OrderedDict, defaultdict
from dataclasses import dataclass
from typing import Any, Callable, Dict, Tuple

from .numpy_said import DtypeSaid, Refused, array_said, begun, bytes_said
from .pickle_keys import Keys, judging

ZIP_START = b"PK\x03\x04"  # torch decides by these bytes, so the same file is judged as is read
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # of torch < 1.6 (torch/serialization.py)
MAX_EXPANSION = 4  # torch stores records uncompressed; a file zipped again shrinks a little
MAX_DEPTH = 100  # of tuples in tuples

# What torch's own files and mmcv's meta need; everything else is refused.
SAFE_GLOBALS = frozenset(
    [("collections", "OrderedDict"), ("collections", "defaultdict"), ("_codecs", "encode")]
    + [
        (place, name)
        for place in ("builtins", "__builtin__")
        for name in ("set", "frozenset", "complex", "bytes")
    ]
    + [("builtins", "bytearray"), ("argparse", "Namespace")]
    + [("datetime", name) for name in ("datetime", "date", "timedelta", "timezone")]
    + [("pathlib", name) for name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")]
    + [("torch", name) for name in ("Size", "device", "dtype", "Tensor")]
    + [("torch._utils", "_rebuild_" + name) for name in ("tensor", "tensor_v2", "parameter")]
    + [("torch.nn.parameter", "Parameter"), ("torch.serialization", "_get_layout")]
    + [("numpy", "dtype"), ("numpy", "ndarray")]
    + [
        ("numpy.%s.multiarray" % core, name)
        for core in ("core", "_core")
        for name in ("scalar", "_reconstruct")
    ]
)
# Of OpenMMLab's own these are dicts with dots; their content is read, as plain dicts (`Kept`).
DICTS = frozenset([("mmcv.utils.config", "ConfigDict"), ("addict.addict", "Dict"), ("addict", "Dict")])
# Objects of these packages appear in the meta of training checkpoints.  Their classes are never loaded.
INERT_PACKAGES = frozenset(["mmcv", "mmdet", "mmdet3d", "mmseg", "mmengine", "addict", "projects"])

ITEM_BYTES = {
    "Double": 8, "Long": 8, "ComplexFloat": 8, "ComplexDouble": 16, "Float": 4, "Int": 4, "QInt32": 4,
    "Half": 2, "BFloat16": 2, "Short": 2,
}  # fmt: skip


class Damaged(Exception):
    """The file is not what it says it is; the text completes `<path> ...`."""


class Unread:
    """Stands where an object was whose class is not loaded."""

    def __new__(cls, *args: Any, **options: Any) -> "Unread":
        return object.__new__(cls)

    def __setstate__(self, state: Any) -> None:
        """Nothing is kept."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Nothing is kept (pickles of dict subclasses)."""

    def append(self, value: Any) -> None:
        """Nothing is kept (pickles of list subclasses)."""

    def extend(self, values: Any) -> None:
        """Nothing is kept."""

    def __repr__(self) -> str:
        return "<not loaded>"


class Kept(Dict[str, Any]):
    """Stands for a dict of a class that is not loaded, with what is in it."""

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.update(state)


@dataclass(frozen=True)
class Described:
    """A tensor by its shape and the name of its dtype as torch's storages spell it (`Float`, `Half`)."""

    shape: Tuple[int, ...]
    dtype: str

    def __setstate__(self, state: Any) -> None:
        """Parameters of old torch carry requires_grad and hooks: nothing is kept.  Raises Refused."""
        if not isinstance(state, tuple) or len(state) == 4:  # which torch takes for another place in memory
            raise Refused("a change to a tensor")


def is_safe(module: str, name: str) -> bool:
    if module in ("torch", "torch.storage"):
        return (module, name) in SAFE_GLOBALS or re.match(r"[A-Za-z0-9_]+Storage$", name) is not None
    if module == "numpy.dtypes":
        return re.match(r"[A-Za-z0-9]+DType$", name) is not None
    return (module, name) in SAFE_GLOBALS


def is_inert(module: str, name: str) -> bool:
    """Replaced by `Unread`: OpenMMLab's objects, and the getattr by which pickles name their methods."""
    return module.split(".")[0] in INERT_PACKAGES or (
        (module, name) in (("builtins", "getattr"), ("__builtin__", "getattr"))
    )


def scan(path: str) -> Any:
    """The content with every tensor as `Described`.

    Raises Refused, Damaged, OSError, and whatever the pickle module raises for a broken pickle.
    """
    with open(path, "rb") as stream:
        if stream.read(4) == ZIP_START:
            return _scan_zip(path)
        size = stream.seek(0, io.SEEK_END)
        stream.seek(0)
        return _scan_legacy(stream, size)


def _scan_zip(path: str) -> Any:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        sizes = {member.filename: member.file_size for member in members}
        if len({name.lower() for name in sizes}) < len(members):  # torch does not tell A from a
            raise Damaged("is broken: it holds two records of one name")
        if members and (min(member.header_offset for member in members) or not _one_directory(path)):
            raise Damaged("is broken: it is more than one zip archive")
        stored, declared = sum(member.compress_size for member in members), sum(sizes.values())
        if declared > MAX_EXPANSION * stored + 2**20:
            raise Damaged("is broken: its %d bytes declare to be %d" % (stored, declared))
        root = members[0].filename.split("/")[0] if members else ""
        if root + "/constants.pkl" in sizes:
            raise Damaged("is a TorchScript program, not a checkpoint")
        if root + "/data.pkl" not in sizes:
            raise Damaged("is a zip archive, but not one of torch: it has no data.pkl")
        reader = _Describer(io.BytesIO(archive.read(root + "/data.pkl")))
        content = reader.load()
    for key, declared in reader.declared.items():
        present = sizes.get("%s/data/%s" % (root, key))
        if present is None or declared > present:
            raise Damaged(
                "is broken: record %s declares %d bytes and has %s" % (key, declared, present or "none")
            )
    return content


def _one_directory(path: str) -> bool:
    """Whether every reader of zip archives finds the same list of records: it is told at the very end, once.

    zipfile and torch's own differ in where they look when there is more than one.
    """
    with open(path, "rb") as stream:
        size = stream.seek(0, io.SEEK_END)
        stream.seek(max(0, size - 42))
        tail = stream.read()
    if tail[-22:-18] != b"PK\5\6" or tail[-2:] != b"\0\0":
        return False
    return tail[:4] != b"PK\6\7" or struct.unpack("<Q", tail[8:16])[0] == size - 42 - 56


def _scan_legacy(stream: Any, size: int) -> Any:
    reader = _Describer(stream)
    magic = reader.load()
    if magic != LEGACY_MAGIC:
        held = ": " + ", ".join(map(str, list(magic)[:5])) if isinstance(magic, dict) else ""
        raise Damaged("is a pickle, but no checkpoint of torch (a %s%s)" % (type(magic).__name__, held))
    for _ in range(2):  # protocol version, byte order and sizes of the machine that wrote it
        _Describer(stream).load()
    reader = _Describer(stream)
    content = reader.load()
    declared = sum(reader.declared.values())
    if declared > size:
        raise Damaged("is broken: its weights declare %d bytes and it has %d" % (declared, size))
    keys = _Describer(stream).load()  # in which order the weights follow
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise Damaged("is broken: its weights have no names")
    return content


def scan_pickle(stream: Any) -> Any:
    """The content of the one pickle that begins where `stream` is, which is then there again.

    Raises as `scan` does.
    """
    begin = stream.tell()
    content = _Describer(stream).load()
    stream.seek(begin)
    return content


class _Global:
    """A function or class on the list.  Calling it gives what it stands for; changing it is refused."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name

    def __call__(self, *args: Any) -> Any:
        does = _CALLS.get(self.module.replace("._core.", ".core.") + "." + self.name)
        if does is None:  # torch.Tensor(10**11) is a few bytes there and all memory here
            raise Refused("a call of %s.%s" % (self.module, self.name))
        return does(*args)

    def __setstate__(self, state: Any) -> None:
        raise Refused("a change to %s.%s" % (self.module, self.name))


class _ArrayBegun(Unread):
    """A numpy.ndarray before its state, which has to fit itself."""

    def __setstate__(self, state: Any) -> None:
        array_said(state)


def _encode(text: str, *codec: Any) -> bytes:
    """How protocol 2 stores bytes."""
    if codec not in (("latin1",), ("latin-1",), ("iso-8859-1",)):
        raise Refused("text in the codec %s" % (codec,))  # pickles write bytes in latin1 alone
    return text.encode("latin1")


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Described:
    """Raises Damaged where the tensor reaches past its record: torch then shows what lies in memory there."""
    (count,), numbers = storage.shape, (offset,) + tuple(shape) + tuple(strides)
    if len(shape) != len(strides) or any(type(one) is not int or one < 0 for one in numbers):
        raise Damaged("is broken: a tensor of the shape %.80r" % (shape,))
    reach = offset + 1 + sum((length - 1) * step for length, step in zip(shape, strides))
    if 0 not in shape and reach > count:
        raise Damaged("is broken: a tensor reaches number %d of a record that declares %d" % (reach, count))
    return Described(tuple(shape), storage.dtype)


def _parameter(tensor: Any, *_: Any) -> Described:
    if not isinstance(tensor, Described):
        raise Refused("a parameter that is no tensor")
    return tensor


def _array(kind: Any, shape: Any, code: Any) -> _ArrayBegun:
    begun((getattr(kind, "module", ""), getattr(kind, "name", "")), ("numpy", "ndarray"), shape, code)
    return _ArrayBegun()


def _number(dtype: Any, data: Any = None) -> Unread:
    if not isinstance(dtype, DtypeSaid):
        raise Refused("a forged numpy number: of no dtype")
    bytes_said(dtype, 1, data)
    return Unread()


def _no_bytes() -> bytes:
    """How protocol 2 stores b""."""
    return b""


def _listed(kind: Callable[..., Any]) -> Callable[..., Any]:
    """`kind` of what the file spells out: bytearray(10**11) is a few bytes there and all memory here."""

    def make(*args: Any) -> Any:
        if any(not isinstance(arg, (list, tuple, bytes, str)) for arg in args):
            raise Refused("%s of something that is not in the file" % kind.__name__)
        return kind(*args)

    return make


_CALLS: Dict[str, Callable[..., Any]] = {
    "_codecs.encode": _encode,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.nn.parameter.Parameter": _parameter,
    "__builtin__.bytes": _no_bytes,
    "builtins.bytes": _no_bytes,
    "numpy.dtype": DtypeSaid,
    "numpy.core.multiarray.scalar": _number,
    "numpy.core.multiarray._reconstruct": _array,
}
_CALLS.update(  # small things, of which the scan needs to know no more
    ("%s.%s" % place, Unread)
    for place in SAFE_GLOBALS
    if place[0] in ("datetime", "pathlib")
    or place in (("torch", "Size"), ("torch", "device"), ("torch.serialization", "_get_layout"))
)
_CALLS.update(
    ("%s.%s" % (place, kind.__name__), _listed(kind))
    for place in ("builtins", "__builtin__")
    for kind in (set, frozenset, bytearray)
)
_REAL = {"OrderedDict": OrderedDict, "defaultdict": defaultdict, "complex": complex}


class _Describer(pickle._Unpickler):  # type: ignore[name-defined, misc]
    """`declared`: bytes by key of the record.

    In Python, not in C: there a memo of number 2**31 takes all memory, and hashing a tuple of 10**5 tuples
    in each other the whole process.  The pickle without its weights is small.
    """

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self.declared: Dict[str, int] = {}
        self._storages: Dict[str, Described] = {}
        self._depths: Dict[int, Tuple[int, Any]] = {}  # by id, of the tuples that hold tuples
        self.keys = Keys()
        self.dispatch = judging(pickle._Unpickler.dispatch)  # type: ignore[attr-defined]
        for code in (pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3):
            self.dispatch[code[0]] = _shallow(self.dispatch[code[0]])
        self.dispatch.pop(b"\x96"[0], None)  # BYTEARRAY8 takes the memory before it looks for the bytes

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in DICTS:
            return Kept
        if is_inert(module, name) or (module, name) == ("argparse", "Namespace"):
            return Unread
        if not is_safe(module, name):
            raise Refused("%s.%s" % (module, name))
        return _REAL.get(name) or _Global(module, name)

    def persistent_load(self, identity: Any) -> Any:
        kind, storage, key, _, count = identity[:5]
        if kind == "module":  # torch < 0.4 put the source of classes beside their pickles
            raise Refused("the source of a class")
        dtype = str(storage.name)[: -len("Storage")]
        if type(count) is not int or count < 0:
            raise Damaged("is broken: a record declares %r numbers" % (count,))
        whole = Described((count,), dtype)
        if self._storages.setdefault(str(key), whole) != whole:  # torch believes the first
            raise Damaged("is broken: record %s is declared twice, as this and as that" % key)
        self.declared[str(key)] = count * ITEM_BYTES.get(dtype, 1)
        return _view(whole, identity[5]) if len(identity) > 5 and identity[5] is not None else whole


def _shallow(load_tuple: Callable[[Any], None]) -> Callable[[Any], None]:
    def load(reader: Any) -> None:
        load_tuple(reader)
        made = reader.stack[-1]
        inner = [reader._depths.get(id(one), (1,))[0] for one in made if type(one) is tuple]
        if inner:
            reader._depths[id(made)] = 1 + max(inner), made
            if max(inner) > MAX_DEPTH:
                raise Refused("more than %d tuples in each other" % MAX_DEPTH)

    return load


def _view(whole: Described, view: Any) -> Described:
    """A part of a record, as torch < 1.6 named it: (its key, first number, numbers)."""
    _, first, count = view
    if any(type(one) is not int or one < 0 for one in (first, count)) or first + count > whole.shape[0]:
        raise Damaged("is broken: a part of a record that reaches past its end")
    return Described((count,), whole.dtype)
