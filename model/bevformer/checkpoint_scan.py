"""What a .pth file holds, found out without torch and without running anything that it carries.

A .pth file is a pickle, that is a program.  Here it is played with inert stand-ins for everything it may
name: what is not on the list is refused by name, and what it declares is compared with what the file has
(older torch reads past the end of a record that is shorter than declared).
"""

import io
import pickle
import re
import zipfile
from collections import OrderedDict, defaultdict
from dataclasses import dataclass
from typing import Any, Dict, Tuple

ZIP_START = b"PK\x03\x04"  # torch decides by these bytes, so the same file is judged as is read
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # of torch < 1.6 (torch/serialization.py)
MAX_EXPANSION = 4  # torch stores records uncompressed; a file zipped again shrinks a little

# What torch's own files and mmcv's meta need; everything else is refused.
SAFE_GLOBALS = frozenset(
    [("collections", "OrderedDict"), ("collections", "defaultdict"), ("_codecs", "encode")]
    + [(place, name) for place in ("builtins", "__builtin__") for name in ("set", "frozenset", "complex")]
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


class Refused(Exception):
    """The file names something that is not on the list; the text says what."""


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
        """Parameters of old torch carry requires_grad and hooks: nothing is kept."""


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
        if len(sizes) < len(members):
            raise Damaged("is broken: it holds two records of one name")
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
    for key, declared in reader.storages.items():
        present = sizes.get("%s/data/%s" % (root, key))
        if present is None or declared > present:
            raise Damaged(
                "is broken: record %s declares %d bytes and has %s" % (key, declared, present or "none")
            )
    return content


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
    if sum(reader.storages.values()) > size:
        raise Damaged(
            "is broken: its weights declare %d bytes and it has %d" % (sum(reader.storages.values()), size)
        )
    return content


class _Global:
    """A function or class on the list.  Calling it gives what it stands for; changing it is refused."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name

    def __call__(self, *args: Any) -> Any:
        if self.name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
            return Described(tuple(args[2]), args[0].dtype)
        if self.name in ("_rebuild_parameter", "Parameter"):
            return args[0]
        if self.name == "encode" and args[1:] not in (("latin1",), ("latin-1",), ("iso-8859-1",)):
            raise Refused("text in the codec %s" % (args[1:],))  # pickles write bytes in latin1 alone
        return Unread()

    def __setstate__(self, state: Any) -> None:
        raise Refused("a change to %s.%s" % (self.module, self.name))


_REAL = {
    "OrderedDict": OrderedDict,
    "defaultdict": defaultdict,
    "set": set,
    "frozenset": frozenset,
    "complex": complex,
    "bytearray": bytearray,
}


class _Describer(pickle.Unpickler):
    """`storages`: bytes declared by key of the record."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self.storages: Dict[str, int] = {}

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
        if not isinstance(count, int) or count < 0:
            raise Damaged("is broken: a record declares %r numbers" % (count,))
        self.storages[str(key)] = count * ITEM_BYTES.get(dtype, 1)
        return Described((count,), dtype)
