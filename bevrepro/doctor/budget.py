"""Which published configuration the GPU has memory for."""

from collections.abc import Iterator

from bevrepro import facts
from bevrepro.core.machine import Machine
from bevrepro.core.units import MIB, size
from bevrepro.doctor.check import Check, Verdict, info, warn

REMEDY = "Take a smaller configuration, fp16, or checkpointed activations."


def _memory(machine: Machine) -> Iterator[Verdict]:
    known = [(gpu.memory_total_mib, gpu.name) for gpu in machine.cuda.gpus or () if gpu.memory_total_mib]
    if not known:
        return
    total_mib, name = min(known)
    rows = facts.table("budget")
    short = [f"{row['id']} {size(row['mib'] * MIB)}" for row in rows if row["mib"] > total_mib]
    if short:
        judge = warn if len(short) == len(rows) else info
        yield judge(f"{name} has {size(total_mib * MIB)}; too little for {', '.join(short)}", REMEDY)


CHECKS = (
    Check("gpu-memory", "cuda", "the GPU's memory against the published configurations",
          "Training stops with 'CUDA out of memory' in its first steps.", _memory,
          ("https://github.com/fundamentalvision/BEVFormer#model-zoo",)),
)  # fmt: skip
