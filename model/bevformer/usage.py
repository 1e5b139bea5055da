"""How much memory this process has used at most."""

import sys
from typing import Optional

import torch


def peak_rss_gib() -> Optional[float]:
    """The most main memory this program has had; None where the system does not say."""
    found = _high_water_b("/proc/self/status") or _rusage_b()
    return None if found is None else round(found / 2**30, 3)


def _high_water_b(path: str) -> Optional[int]:
    """Linux's own mark of this address space."""
    try:
        with open(path) as status:
            return next((int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:")), None)
    except (OSError, ValueError, IndexError):
        return None


def _rusage_b() -> Optional[int]:
    """A process's: on Linux it outlives exec, so the peak of whoever started this program is in it."""
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def peak_gib(device: torch.device) -> Optional[float]:
    """Of the GPU where there is one, else of main memory."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**30, 3)
    return peak_rss_gib()


def peak_mib() -> Optional[int]:
    """The same in MiB, as mmcv logs it: of this process's GPU where it has used one."""
    if torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_allocated() / 2**20)
    gib = peak_rss_gib()
    return None if gib is None else int(gib * 1024)
