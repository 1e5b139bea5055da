"""Reading a .pth file that somebody else wrote: nothing in it is executed, every failure is a sentence."""

import inspect
import os
import pickle
import re
import tarfile
import types
import zipfile
from typing import Any

import torch

from .bounded import bounded
from .checkpoint_scan import DICTS, Damaged, Kept, Refused, Unread, is_inert, is_safe, scan, scan_pickle
from .errors import CheckpointError

_AGAIN = "Fetch or copy it again and compare the size."


def read_file(path: str) -> Any:
    """The content of `path` on the CPU, wherever its tensors were.  Raises CheckpointError."""
    if not os.path.isfile(path):
        raise CheckpointError("no such checkpoint: %s" % path, _neighbours(path))
    try:
        complaint = _not_a_checkpoint(path)
        if complaint:
            raise CheckpointError("%s %s" % (path, complaint), "It cannot be read as a checkpoint.", _AGAIN)
        scan(path)
        return _load_safely(path)
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError("cannot read %s: %s" % (path, error.strerror or error)) from error
    except Refused as error:
        raise CheckpointError(
            "%s carries %s" % (path, error),
            "That is no data but a program, and is never run here.",
            "If you trust the file, load it where it was made and save its state_dict alone.",
        ) from error
    except Damaged as error:
        raise CheckpointError(
            "%s %s" % (path, error), "It cannot be read as a checkpoint.", _AGAIN
        ) from error
    except Exception as error:  # a broken or hostile pickle can raise anything at all
        raise _broken(path, error) from error


def _broken(path: str, error: Exception) -> CheckpointError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
    if isinstance(error, MemoryError) or "allocate memory" in reason:
        return CheckpointError(
            "%s does not fit into this machine's memory" % path,
            "It holds %.1f GiB." % (os.path.getsize(path) / 2**30),
            "Close other programs, or save its state_dict without the optimizer on a larger machine.",
        )
    return CheckpointError(
        "%s is broken: %s" % (path, reason),
        "It was cut short or changed after it was written, or is no checkpoint at all.",
        "Fetch or copy it again, or use an earlier checkpoint beside it.",
    )


def _neighbours(path: str) -> str:
    folder = path if os.path.isdir(path) else os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        return "The folder %s does not exist either." % folder
    found = sorted(name for name in os.listdir(folder) if name.endswith((".pth", ".pt")))
    place = "It is a folder" if folder == path else "Its folder"
    if not found:
        return "%s %s no checkpoint." % (place, "with" if folder == path else "holds")
    return "%s %s: %s." % (place, "with" if folder == path else "holds", ", ".join(found[:10]))


def _not_a_checkpoint(path: str) -> str:
    """Why the first and last bytes cannot be a checkpoint; empty when they can."""
    with open(path, "rb") as stream:
        head = stream.read(256)
    if not head:
        return "is empty"
    if head.startswith(b"PK") and not zipfile.is_zipfile(path):
        return "is truncated: its end is missing (%d bytes)" % os.path.getsize(path)
    if head.startswith(b"version https://git-lfs"):
        return "is a git-lfs pointer, not the file itself"
    if re.match(rb"\s*<(!doctype|html|\?xml)", head, re.IGNORECASE):
        return "is a web page, not a checkpoint: the download failed"
    if re.match(rb".{6}\0\0\{\"", head, re.DOTALL):
        return "is a safetensors file, not a checkpoint of torch"
    if head.startswith(b"\x1f\x8b"):
        return "is compressed with gzip: unpack it first"
    if re.match(rb"[\t\n\r -~]+$", head):
        first = head.decode("ascii").strip().splitlines() or [""]
        return "is a text file, not a checkpoint (it begins with %r)" % first[0][:40]
    if tarfile.is_tarfile(path):
        return "is a tar archive, not a checkpoint"
    return ""


def _load_safely(path: str) -> Any:
    """torch's own `weights_only` where it is there; what that refuses, and older torch, by our allow-list."""
    with bounded(os.path.getsize(path)):
        return _load_by_lists(path)


def _load_by_lists(path: str) -> Any:
    if "weights_only" in inspect.signature(torch.load).parameters:
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:  # for one numpy scalar in the meta, say
            return torch.load(path, map_location="cpu", weights_only=False, pickle_module=_pickle_module())
    return torch.load(path, map_location="cpu", pickle_module=_pickle_module())


class _RestrictedUnpickler(pickle.Unpickler):
    """`scan_pickle` of what torch hands over comes first, whatever was seen of the file before."""

    def __init__(self, stream: Any, **options: Any) -> None:
        super().__init__(stream, **options)
        self._stream = stream

    def load(self) -> Any:
        scan_pickle(self._stream)
        return super().load()

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in DICTS:
            return Kept
        if is_inert(module, name):
            return Unread
        if not is_safe(module, name):
            raise Refused("%s.%s" % (module, name))
        try:
            return super().find_class(module, name)
        except ImportError:  # the same functions in numpy < 1.26 and >= 2
            here, there = ("._core.", ".core.") if "._core." in module else (".core.", "._core.")
            return super().find_class(module.replace(here, there), name)


def _pickle_module() -> Any:
    """What torch.load wants as `pickle_module`: it subclasses Unpickler and calls super().find_class."""
    module = types.ModuleType("bevformer_restricted_pickle")
    module.__dict__.update(
        Unpickler=_RestrictedUnpickler,
        UnpicklingError=pickle.UnpicklingError,
        load=lambda stream, **options: _RestrictedUnpickler(stream, **options).load(),
    )
    return module
