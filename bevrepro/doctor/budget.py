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


def _days(machine: Machine) -> Iterator[Verdict]:
    (_, alone), (many, together) = facts.row("recipes", "days")["by_gpus"]
    base_mib = facts.row("budget", "bevformer_base")["mib"]
    able = [gpu for gpu in machine.cuda.gpus or () if (gpu.memory_total_mib or 0) >= base_mib]
    if 0 < len(able) < many:
        yield info(
            f"{len(able)} GPU(s) with memory for bevformer_base: its 24 epochs were reported to take "
            f"{alone} days on one A100 and {together} on {many}",
            "Measure some steps first; tiny and small take a fraction, published weights none of it.",
        )


CHECKS = (
    Check("gpu-memory", "cuda", "the GPU's memory against the published configurations",
          "Training stops with 'CUDA out of memory' in its first steps.", _memory,
          ("https://github.com/fundamentalvision/BEVFormer#model-zoo",)),
    Check("train-days", "cuda", "how long the published training would take",
          "Two weeks are better known before they begin.", _days),
)  # fmt: skip
