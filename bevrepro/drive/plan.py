"""Whether a training fits: the measured peak against a GPU's memory."""

from dataclasses import dataclass
from typing import Any

from bevrepro import facts
from bevrepro.core.units import GIB, MIB


@dataclass(frozen=True)
class Limit:
    """Memory of the smallest GPU that would be used, in GiB, and where the number is from."""

    gib: float
    source: str


@dataclass(frozen=True)
class Judgement:
    """`fits`, `close` (the tensors fit, what comes with them may not), `too small`; None without a limit."""

    verdict: str | None
    taken_gib: float  # the peak with the usual share of fragmentation, workspace and CUDA context
    limit: Limit | None


def gpu_limit() -> Limit | None:
    """The smallest GPU that nvidia-smi tells of; None where there is none."""
    from bevrepro.probe.cuda import probe_cuda

    known = [(gpu.memory_total_mib, gpu.name) for gpu in probe_cuda().gpus or () if gpu.memory_total_mib]
    if not known:
        return None
    total_mib, name = min(known)
    return Limit(total_mib * MIB / GIB, f"{name} in this machine")


def headroom() -> float:
    """How many times the tensors' bytes a training takes of a GPU."""
    row = next(row for row in facts.table("headroom") if row["id"] == "taken-per-allocated")
    return float(row["ratio"])


def for_tensors(limit: Limit) -> float:
    """GiB of a GPU that tensors may take, so that all that comes with them fits as well."""
    return limit.gib / headroom()


def judge(result: dict[str, Any], limit: Limit | None) -> Judgement:
    """`result`: the model plane's `plan`."""
    peak_gib = float(result["memory"]["peak_gib"])
    taken_gib = peak_gib * headroom()
    if limit is None:
        return Judgement(None, taken_gib, None)
    if taken_gib <= limit.gib:
        return Judgement("fits", taken_gib, limit)
    return Judgement("close" if peak_gib <= limit.gib else "too small", taken_gib, limit)
