"""Processor: model, instruction sets, how many cores this process may use."""

import os
from pathlib import Path

from bevrepro.core.machine import Cpu
from bevrepro.probe import cgroup
from bevrepro.probe.files import key_values, read_text

# All of a CPU's flags say little and fill a record: these decide which compiled code runs.
FLAGS = ("sse4_1", "sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512_bf16", "amx_tile", "asimd")


def probe_cpu(root: Path = Path("/")) -> Cpu:
    """/proc/cpuinfo, the affinity and the control group's quota."""
    info = key_values(read_text(root / "proc/cpuinfo"))
    return Cpu(
        model=info.get("model name") or info.get("Model"),
        flags=parse_flags(info),
        cores=os.cpu_count(),
        cores_allowed=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        quota=cgroup.cpu_quota(root),
    )


def parse_flags(info: dict[str, str]) -> tuple[str, ...] | None:
    """Those of `FLAGS` that this CPU has; None where the kernel tells none at all."""
    flags = (info.get("flags") or info.get("Features") or "").split()
    return tuple(flag for flag in FLAGS if flag in flags) if flags else None
