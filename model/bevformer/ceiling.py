"""A ceiling for a GPU's memory where the driver never says that it is full.

Under WSL 2 Windows' driver moves to main memory what the GPU has no room for: 30 GiB were had on a card of
16 without an error (microsoft/WSL#11050, driver 546.33), and the setting against it is Windows' own.  Nothing
runs out, so no rung of the memory ladder is ever taken, and each step waits for the bus.  With a ceiling
torch itself says that memory ran out.  Evidence: simulated; no such machine was at hand.
"""

import platform
from typing import Optional

import torch

# Left to what torch's allocator does not give out: kernels as they are loaded, cuDNN, Windows' own needs.
# In WSL 2 less than what is called free can be had (microsoft/WSL#41176).
MARGIN_B = 512 << 20
UNKNOWN_FREE = 0.9  # of the whole, where torch (< 1.11) cannot ask


def spills(release: Optional[str] = None) -> bool:
    """Whether this kernel is WSL 2's: `5.15.167.4-microsoft-standard-WSL2`."""
    release = platform.release() if release is None else release
    return "microsoft" in release.lower() or "wsl2" in release.lower()


def hold(device: torch.device) -> Optional[str]:
    """Set the ceiling for this process and say so; None where the driver itself says that memory ran out.

    What is free now is all that will ever be taken, so call it before the first tensor.
    """
    if device.type != "cuda" or not spills():
        return None
    whole_b = torch.cuda.get_device_properties(device).total_memory
    most_b = ceiling_b(whole_b, _free_b(device), torch.cuda.memory_reserved(device))
    torch.cuda.set_per_process_memory_fraction(most_b / whole_b, device)
    return (
        "The GPU's memory is held to %.1f of %.1f GiB: beyond that WSL's driver would use main memory, "
        "slowly and without a word." % (most_b / 2**30, whole_b / 2**30)
    )


def ceiling_b(whole_b: int, free_b: Optional[int], reserved_b: int) -> int:
    """What torch's allocator may hold.  free_b: of the whole; reserved_b: what it holds already."""
    if free_b is None:
        return int(whole_b * UNKNOWN_FREE)
    return min(whole_b, max(0, free_b + reserved_b - MARGIN_B))


def _free_b(device: torch.device) -> Optional[int]:
    asked = getattr(torch.cuda, "mem_get_info", None)
    return None if asked is None else int(asked(device)[0])
