"""Whether a training fits: the measured peak against a GPU's memory, and which memory rungs make it fit."""

from dataclasses import dataclass
from typing import Any

from bevrepro import facts
from bevrepro.core.units import GIB, MIB


@dataclass(frozen=True)
class Limit:
    """Memory of the smallest device that would be used, in GiB, where the number is from, and its name."""

    gib: float
    source: str
    gpu: str = ""  # "" where only a number is known, or on a CPU


@dataclass(frozen=True)
class Judgement:
    """`fits`; `rungs` (with some that leave the result as it is); `close` (with all of them the tensors fit,
    what comes with them may not); `too small`; None without a limit."""

    verdict: str | None
    taken_gib: float  # the peak with the usual share of fragmentation, workspace and CUDA context
    limit: Limit | None


def machine_limit(without_gpu: bool = False) -> Limit | None:
    """The smallest GPU that nvidia-smi tells of, else the main memory; None where neither is known.

    without_gpu: the training would use none, whatever there is.
    """
    from bevrepro.probe.cuda import probe_cuda

    gpus = () if without_gpu else probe_cuda().gpus or ()
    known = [(gpu.memory_total_mib, gpu.name) for gpu in gpus if gpu.memory_total_mib]
    if known:
        total_mib, name = min(known)
        return Limit(total_mib * MIB / GIB, f"{name} in this machine", name or "")
    from bevrepro.probe.host import probe_host

    host = probe_host()
    sizes = [size for size in (host.memory_total_b, host.memory_limit_b) if size]
    return (
        Limit(
            min(sizes) / GIB,
            "main memory of this machine" + ("" if without_gpu else ", which has no GPU that is seen"),
        )
        if sizes
        else None
    )


def headroom() -> float:
    """How many times the tensors' bytes a training takes of a GPU."""
    row = next(row for row in facts.table("headroom") if row["id"] == "taken-per-allocated")
    return float(row["ratio"])


def for_tensors(limit: Limit) -> float:
    """GiB of a device that tensors may take, so that all that comes with them fits as well."""
    return limit.gib / headroom()


def judge(result: dict[str, Any], limit: Limit | None) -> Judgement:
    """`result`: the model plane's `plan`. taken_gib: with what is chosen, with all rungs where nothing is."""
    plain_gib = float(result["memory"]["peak_gib"])
    if limit is None:
        return Judgement(None, plain_gib * headroom(), None)
    peaks = [plain_gib, *(float(row["peak_gib"]) for row in result["rungs"])]
    if result["chosen"] is not None:
        used = len(result["chosen"])
        return Judgement("rungs" if used else "fits", peaks[used] * headroom(), limit)
    least = min(peaks)
    return Judgement("close" if least <= limit.gib else "too small", least * headroom(), limit)
