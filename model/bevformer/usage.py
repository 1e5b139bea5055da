"""How much memory this process has used at most."""

import sys
from typing import Optional

import torch


def peak_rss_gib() -> Optional[float]:
    """The most main memory this process has had; None where the system does not say."""
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB on Linux
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30, 3)


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
