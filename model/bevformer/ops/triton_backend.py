"""The attentions by our Triton kernels: where they can run, and what they take.

Letters as in `deform_attn.py` and `reference.py`.
"""

import functools
import importlib
import os
import stat
import tempfile
import warnings
from typing import Optional, Sequence, Tuple

import torch
from torch import Tensor

from ..errors import ConfigError
from .backends import Backend
from .visible import Pairs

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
OLDEST_TRITON = (3, 0)  # constexpr tuples, minimum and maximum that keep NaN
OLDEST_SM = (8, 0)  # min.NaN.f32, and Triton itself
_REFERENCE = "Use ops.attention=reference, which runs everywhere."


def load(device_type: str, deterministic: bool = False) -> Backend:
    """The backend, for cuda, or for cpu where TRITON_INTERPRET=1.  ConfigError where Triton cannot run.

    deterministic: the gradient of the value without floating-point atomics (`triton_deterministic`).
    """
    obstacle = _obstacle(device_type)
    if obstacle is not None:
        raise ConfigError("ops.attention=triton cannot run here: " + obstacle[0], obstacle[1], _REFERENCE)
    find_cache()
    return make(deterministic)


def find_cache() -> None:
    """Triton does not run where it cannot write what it compiled (a home that is read-only, or nobody's).
    There it gets a folder of the user's own among temporary ones, by TRITON_CACHE_DIR; that is warned of.
    """
    if os.environ.get("TRITON_CACHE_DIR"):
        return
    home = os.environ.get("TRITON_HOME") or os.path.expanduser("~")
    usual = os.path.join(home, ".triton", "cache")
    if _writable(usual):
        return
    folder = os.path.join(tempfile.gettempdir(), "bevformer-triton-%d" % os.getuid())
    os.environ["TRITON_CACHE_DIR"] = folder = folder if _own(folder) else tempfile.mkdtemp()
    warnings.warn(
        "Triton cannot write %s, so it keeps its kernels in %s. Set TRITON_CACHE_DIR to a folder that stays."
        % (usual, folder),
        stacklevel=2,
    )


def _writable(folder: str) -> bool:
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def _own(folder: str) -> bool:
    """Made, or there and nobody else's: what lies in a cache is run."""
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        found = os.lstat(folder)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022


def make(deterministic: bool) -> Backend:
    """The backend, wherever it may run or be compiled for."""
    return Backend(
        "triton",
        functools.partial(deform_attn, deterministic=deterministic),
        functools.partial(temporal_attn, deterministic=deterministic),
        functools.partial(spatial_attn, deterministic=deterministic),
    )


def _obstacle(device_type: str) -> Optional[Tuple[str, str]]:
    """(what was seen, why it matters), or None."""
    try:
        version = importlib.import_module("triton").__version__
    except ImportError as error:
        return str(error), "The package triton comes with CUDA builds of torch; CPU builds lack it."
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_TRITON:
        return "triton is %s" % version, "The kernels need triton %d.%d or newer." % OLDEST_TRITON
    if os.environ.get("TRITON_INTERPRET") == "1":
        return None
    if device_type != "cuda":
        return "the device is %s" % device_type, "Triton compiles for GPUs; TRITON_INTERPRET=1 is for tests."
    if torch.version.hip is not None:
        return "torch is built for ROCm", "The kernels are tested on NVIDIA GPUs only."
    if not torch.cuda.is_available():
        return "torch sees no GPU", "Triton compiles for GPUs."
    if torch.cuda.get_device_capability() < OLDEST_SM:
        return (
            "the GPU is an sm_%d%d" % torch.cuda.get_device_capability(),
            "The kernels need sm_80 or newer.",
        )
    return None


def deform_attn(
    value_MSC: Tensor,
    shapes_L: Sequence[Tuple[int, int]],
    reference_MQZ2: Tensor,
    offsets_MQHLP2: Tensor,
    logits_MQHLP: Tensor,
    deterministic: bool = False,
) -> Tensor:
    """As `ops.deform_attn`, (M, Q, C).  ConfigError for what the kernels do not take."""
    from .triton_autograd import DeformAttn

    M, Q, _, L, P = logits_MQHLP.shape
    fits = (len(value_MSC), len(shapes_L), *reference_MQZ2.shape[:2]) == (M, L, M, Q)
    fits = fits and P % reference_MQZ2.shape[2] == 0
    _check(fits, value_MSC, shapes_L, reference_MQZ2, offsets_MQHLP2, logits_MQHLP)
    out: Tensor = DeformAttn.apply(
        value_MSC.unsqueeze(1),
        _float32(reference_MQZ2).unsqueeze(1),
        offsets_MQHLP2.unsqueeze(3),
        logits_MQHLP.unsqueeze(3),
        tuple(shapes_L),
        deterministic,
    )
    return out


def temporal_attn(
    value_BTQC: Tensor,
    hw: Tuple[int, int],
    reference_BTQ2: Tensor,
    offsets_BQHTP2: Tensor,
    logits_BQHTP: Tensor,
    deterministic: bool = False,
) -> Tensor:
    """As `ops.reference.temporal_attn`, (B, Q, C).  value may be (B, 1, Q, C), or an expanded view of it."""
    from .triton_autograd import DeformAttn

    B, Q, _, T, _ = logits_BQHTP.shape
    fits = reference_BTQ2.shape == (B, T, Q, 2) and value_BTQC.shape[:2] in ((B, 1), (B, T))
    _check(fits, value_BTQC, [hw], reference_BTQ2, offsets_BQHTP2, logits_BQHTP)
    if value_BTQC.shape[1] > 1 and value_BTQC.stride(1) == 0:  # one map for all queues: one gradient too
        value_BTQC = value_BTQC[:, :1]
    out: Tensor = DeformAttn.apply(
        value_BTQC,
        _float32(reference_BTQ2).unsqueeze(3),
        offsets_BQHTP2.unsqueeze(4),
        logits_BQHTP.unsqueeze(4),
        (tuple(hw),),
        deterministic,
    )
    return out


def spatial_attn(
    value_KSC: Tensor,
    shapes_L: Sequence[Tuple[int, int]],
    pairs: Pairs,
    offsets_GHLP2: Tensor,
    logits_GHLP: Tensor,
    deterministic: bool = False,
) -> Tensor:
    """As `ops.reference.spatial_attn`, (G, C), in the dtype of value."""
    from .triton_autograd import SpatialAttn

    G, _, L, P = logits_GHLP.shape
    fits = len(pairs.starts_G1) == G + 1 and len(shapes_L) == L and P % pairs.points_VZ2.shape[1] == 0
    if pairs.points_VZ2.requires_grad:
        raise ConfigError(
            "ops.attention=triton: the cameras' points require a gradient",
            "The fused spatial attention does not compute it.",
            _REFERENCE,
        )
    _check(fits, value_KSC, shapes_L, pairs.points_VZ2, offsets_GHLP2, logits_GHLP)
    out: Tensor = SpatialAttn.apply(
        value_KSC,
        pairs,
        _float32(pairs.points_VZ2),
        offsets_GHLP2,
        logits_GHLP,
        tuple(shapes_L),
        deterministic,
    )
    return out


def _float32(points: Tensor) -> Tensor:
    return points if points.dtype in DTYPES else points.float()


def _check(
    fits: bool,
    value: Tensor,
    shapes: Sequence[Tuple[int, int]],
    points: Tensor,
    offsets: Tensor,
    logits: Tensor,
) -> None:
    """ConfigError for what the kernels do not take, ValueError for what does not fit together.

    fits: what only the caller knows of the sizes; a kernel would read past the end.
    """
    S, C = value.shape[-2:]
    H = logits.shape[-3]
    wrong = [each.dtype for each in (value, offsets, logits) if each.dtype not in DTYPES]
    seen = why = ""
    if wrong:
        seen, why = "an input is %s" % wrong[0], "The Triton kernels take numbers of 32 and 16 bits."
    elif C % H or (C // H) & (C // H - 1):
        seen, why = "%d channels in %d heads" % (C, H), "The Triton kernels take a power of two per head."
    elif S * C >= 2**31:
        seen, why = "one map has %d numbers" % (S * C), "The Triton kernels count its cells in 32 bits."
    if seen:
        raise ConfigError("ops.attention=triton: " + seen, why, _REFERENCE)
    devices = {each.device for each in (value, points, offsets, logits)}
    if (
        not fits
        or sum(h * w for h, w in shapes) != S
        or offsets.shape != (*logits.shape, 2)
        or len(devices) > 1
    ):
        raise ValueError(
            "value %s, levels %s, points %s, offsets %s and logits %s on %s do not fit together"
            % (value.shape, list(shapes), points.shape, offsets.shape, logits.shape, devices)
        )
