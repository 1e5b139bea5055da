"""`python -m bevformer.gpu_machine FILE`: what `gpu_check` has to know of the interpreter and the GPU."""

import datetime
import importlib.util
import json
import platform
import sys
from typing import Any, Dict, Sequence

import torch

PACKAGES = ("numpy", "triton", "scipy", "cv2", "pytest", "mmcv", "deformops", "simplejpeg", "matplotlib")


def main(argv: Sequence[str]) -> int:
    with open(argv[0], "w", encoding="utf-8") as stream:
        json.dump(machine(), stream)
    return 0


def machine() -> Dict[str, Any]:
    """Unknown is None."""
    there = torch.cuda.is_available()
    return {
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "gpu": torch.cuda.get_device_name(0) if there else None,
        "capability": "%d.%d" % torch.cuda.get_device_capability(0) if there else None,
        "memory_gb": round(torch.cuda.get_device_properties(0).total_memory / 1e9, 1) if there else None,
        "installed": {name: installed(name) for name in PACKAGES},
    }


def installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # a finder that refuses; a module without a spec
        return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
