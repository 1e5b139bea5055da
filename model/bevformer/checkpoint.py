"""Checkpoints as mmcv writes them: a dict with meta / state_dict / optimizer.

Written whole or not at all; read without executing anything that a foreign file may carry.
"""

import errno
import inspect
import os
import pickle
import re
import shutil
import tempfile
import types
import zipfile
from collections import Counter, OrderedDict
from typing import Any, Callable, Dict, Iterable, List, Optional, Tuple

import torch
from torch import nn

from .errors import CheckpointError, DiskError

# What torch's own files and mmcv's meta need besides tensors; everything else is refused.
SAFE_GLOBALS = frozenset(
    [
        ("collections", "OrderedDict"),
        ("collections", "defaultdict"),
        ("_codecs", "encode"),
        ("builtins", "set"),
        ("builtins", "frozenset"),
        ("builtins", "complex"),
        ("builtins", "bytearray"),
        ("__builtin__", "set"),
        ("argparse", "Namespace"),
        ("torch", "Size"),
        ("torch", "device"),
        ("torch", "dtype"),
        ("torch", "Tensor"),
        ("torch._utils", "_rebuild_tensor"),
        ("torch._utils", "_rebuild_tensor_v2"),
        ("torch._utils", "_rebuild_parameter"),
        ("torch.nn.parameter", "Parameter"),
        ("numpy", "dtype"),
        ("numpy", "ndarray"),
        ("numpy.core.multiarray", "scalar"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "scalar"),
        ("numpy._core.multiarray", "_reconstruct"),
    ]
)


def save_checkpoint(
    path: str,
    model: nn.Module,
    optimizer: Optional[torch.optim.Optimizer] = None,
    meta: Optional[Dict[str, Any]] = None,
) -> None:
    """Write `path` atomically: temporary name beside it, fsync, rename.  Raises DiskError."""
    weights = model.state_dict()
    state = _on_cpu(weights)
    state._metadata = getattr(weights, "_metadata", None)  # versions of layers, which torch reads back
    content: Dict[str, Any] = {"meta": dict(meta or {}), "state_dict": state}
    if optimizer is not None:
        content["optimizer"] = _on_cpu(optimizer.state_dict())
    _write(path, lambda stream: torch.save(content, stream))


def write_atomically(path: str, content: str) -> None:
    """The whole text or nothing: a full disk or a killed process leaves the old file.  Raises DiskError."""
    _write(path, lambda stream: stream.write(content.encode("utf-8")))


class _Witness:
    """Remembers the OSError of a write: torch's C++ writer turns it into a RuntimeError without a cause."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.error = None  # type: Optional[OSError]

    def write(self, data: Any) -> int:
        try:
            return int(self.stream.write(data))
        except OSError as error:
            self.error = self.error or error
            raise

    def flush(self) -> None:
        self.stream.flush()


def _write(path: str, fill: Callable[[Any], Any]) -> None:
    folder = os.path.dirname(os.path.abspath(path))
    temporary = None
    try:
        os.makedirs(folder, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder, prefix="." + os.path.basename(path) + ".")
        with os.fdopen(handle, "wb") as stream:
            witness = _Witness(stream)
            try:
                fill(witness)
            except RuntimeError as error:
                raise witness.error or OSError(errno.EIO, str(error)) from error
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes 0600
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise DiskError(
            "could not write %s: %s" % (path, error.strerror),
            "What was finished before is whole.",
            "Free some space or name another folder, then run the same command again.",
        ) from error
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)


def link_latest(path: str) -> None:
    """Make `latest.pth` beside `path` point to it (a copy where links are not possible)."""
    folder, name = os.path.split(os.path.abspath(path))
    latest, temporary = os.path.join(folder, "latest.pth"), os.path.join(folder, ".latest.pth.new")
    if os.path.lexists(temporary):
        os.unlink(temporary)
    try:
        os.symlink(name, temporary)
    except OSError:
        with open(path, "rb") as source:
            _write(latest, lambda stream: shutil.copyfileobj(source, stream))
        return
    os.replace(temporary, latest)


def load_checkpoint(path: str, model: Optional[nn.Module] = None) -> Dict[str, Any]:
    """Read `path` on the CPU as {"meta", "state_dict", ...} and, with `model`, load the weights into it.

    A bare dict of tensors counts as a state_dict; a `module.` prefix (DataParallel) is taken off.
    Raises CheckpointError for a missing, truncated or foreign file, and when the keys do not fit.
    """
    content = _read(path)
    if not isinstance(content, dict):
        raise CheckpointError(
            "%s holds a %s, not a checkpoint" % (path, type(content).__name__),
            "A checkpoint is a dict with meta, state_dict and optimizer.",
        )
    if "state_dict" not in content:
        content = {"meta": {}, "state_dict": content}
    state = OrderedDict(
        (key[7:] if key.startswith("module.") else key, value)
        for key, value in content["state_dict"].items()
        if torch.is_tensor(value)
    )
    if not state:
        raise CheckpointError("%s holds no weights" % path, "Its keys are: %s" % _some(content["state_dict"]))
    loaded = dict(content, state_dict=state, meta=dict(content.get("meta") or {}))
    if model is not None:
        load_weights(model, state, path)
    return loaded


def load_weights(model: nn.Module, state: Dict[str, torch.Tensor], path: str = "the checkpoint") -> None:
    """All keys and shapes have to fit; else CheckpointError with counts by sub-module and a guess."""
    own = model.state_dict()
    # A counter of old batch norms that some files lack; it plays no part with a fixed momentum.
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in own]
    reshaped = [key for key in state if key in own and state[key].shape != own[key].shape]
    if missing or unexpected or reshaped:
        parts = [
            "%d of the model's %d weights missing (%s)" % (len(missing), len(own), _by_module(missing)),
            "%d unknown to it (%s)" % (len(unexpected), _by_module(unexpected)),
            "%d of another shape (%s)" % (len(reshaped), _shapes(reshaped, state, own)),
        ]
        said = [part for part, keys in zip(parts, (missing, unexpected, reshaped)) if keys]
        raise CheckpointError(
            "%s does not fit the model: %s." % (path, "; ".join(said)),
            "It looks like %s." % looks_like(state),
            "Give the configuration it was trained with, or a checkpoint of this model.",
        )
    model.load_state_dict(state, strict=False)


def looks_like(state: Dict[str, torch.Tensor]) -> str:
    """A guess in words at what kind of file these keys come from."""
    tops = Counter(key.split(".")[0] for key in state)
    embedding = state.get("pts_bbox_head.bev_embedding.weight")
    if embedding is not None:
        side = int(round(embedding.shape[0] ** 0.5))
        return "a BEVFormer with a %dx%d grid of %d channels%s" % (
            side,
            side,
            embedding.shape[1],
            _known_as(side, embedding.shape[1]),
        )
    if "pts_bbox_head" in tops and "img_backbone" in tops:
        return "another multi-camera detector (it has no bev_embedding), such as DETR3D or PETR"
    if "backbone" in tops and "bbox_head" in tops:
        return "a single-image detector such as FCOS3D (r101_dcn_fcos3d): weights to start the backbone from"
    if set(tops) <= {"backbone", "neck"}:
        return "weights of a backbone only"
    if "conv1" in tops and "layer1" in tops:
        return "ImageNet weights of a ResNet (torchvision's names)"
    if any(top in tops for top in ("pts_voxel_encoder", "voxel_encoder", "pts_middle_encoder")):
        return "a lidar detector"
    return "nothing known; its modules are %s" % _by_module(list(state))


def _known_as(side: int, channels: int) -> str:
    names = {
        (50, 256): "bevformer_tiny",
        (150, 256): "bevformer_small",
        (200, 256): "bevformer_base",
        (25, 128): "bevformer_micro",
    }
    return " (as %s)" % names[(side, channels)] if (side, channels) in names else ""


def _by_module(keys: Iterable[str]) -> str:
    """`pts_bbox_head.transformer 120, img_neck 4`: the five largest."""

    def place(key: str) -> str:
        parts = key.split(".")
        return ".".join(parts[:2]) if parts[0] == "pts_bbox_head" and len(parts) > 2 else parts[0]

    counts = Counter(place(key) for key in keys)
    named = ["%s %d" % item for item in counts.most_common(5)]
    return ", ".join(named + (["%d more modules" % (len(counts) - 5)] if len(counts) > 5 else []))


def _shapes(keys: List[str], state: Dict[str, torch.Tensor], own: Dict[str, torch.Tensor]) -> str:
    if not keys:
        return ""
    key = keys[0]
    return "%s is %s, not %s" % (key, tuple(state[key].shape), tuple(own[key].shape))


def _some(mapping: Any) -> str:
    return ", ".join(list(map(str, mapping))[:5]) if isinstance(mapping, dict) else type(mapping).__name__


def _read(path: str) -> Any:
    if not os.path.isfile(path):
        raise CheckpointError("no such checkpoint: %s" % path, _neighbours(path))
    complaint = _not_a_checkpoint(path)
    if complaint:
        raise CheckpointError(
            "%s %s" % (path, complaint),
            "It cannot be read as a checkpoint.",
            "Fetch or copy it again and compare the size.",
        )
    try:
        return _load_safely(path)
    except _Refused as error:
        raise CheckpointError(
            "%s carries %s" % (path, error),
            "That is no data but a program, and is never run here.",
            "If you trust the file, load it where it was made and save its state_dict alone.",
        ) from error
    except (
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        IndexError,
        AttributeError,
        pickle.UnpicklingError,
        zipfile.BadZipFile,
    ) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise CheckpointError(
            "%s is broken: %s" % (path, reason),
            "It was cut short or changed after it was written.",
            "Fetch or copy it again, or use an earlier checkpoint beside it.",
        ) from error


def _neighbours(path: str) -> str:
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        return "The folder %s does not exist either." % folder
    found = sorted(name for name in os.listdir(folder) if name.endswith((".pth", ".pt")))
    return "In its folder: %s." % ", ".join(found[:10]) if found else "Its folder holds no checkpoint."


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
    return ""


def _load_safely(path: str) -> Any:
    """torch's own `weights_only` where it is there; what that refuses, and older torch, by our allow-list."""
    parameters = inspect.signature(torch.load).parameters
    if "weights_only" in parameters:
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            options = {"weights_only": False}
    else:
        options = {}
    return torch.load(path, map_location="cpu", pickle_module=_restricted_pickle(), **options)


class _Refused(Exception):
    """A global that is not on the allow-list."""


def _allowed(module: str, name: str) -> bool:
    return (
        (module, name) in SAFE_GLOBALS
        or (module in ("torch", "torch.storage") and name.endswith("Storage"))
        or (module == "numpy.dtypes" and name.endswith("DType"))
        or (module == "torch.serialization" and name == "_get_layout")
    )


class _RestrictedUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if not _allowed(module, name):
            raise _Refused("%s.%s" % (module, name))
        return super().find_class(module, name)


def _restricted_pickle() -> Any:
    """What torch.load wants as `pickle_module`: it subclasses Unpickler and calls super().find_class."""
    module = types.ModuleType("bevformer_restricted_pickle")
    module.__dict__.update(
        Unpickler=_RestrictedUnpickler,
        UnpicklingError=pickle.UnpicklingError,
        load=lambda stream, **options: _RestrictedUnpickler(stream, **options).load(),
    )
    return module


def _on_cpu(value: Any) -> Any:
    """Nested dicts and lists with every tensor copied to the CPU."""
    if torch.is_tensor(value):
        return value.detach().cpu()
    if isinstance(value, dict):
        return type(value)((key, _on_cpu(item)) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return type(value)(_on_cpu(item) for item in value)
    return value


def count_parameters(model: nn.Module) -> Tuple[int, int]:
    """(all, trainable)."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(size for size, _ in sizes), sum(size for size, trains in sizes if trains)
