"""Compiles what the Triton backend launches, for GPUs that are not there, and reads the machine code.

`python cubin_child.py < jobs.json`: every job runs one operator, forward and backward, on tensors of the meta
device, with a driver that only names an architecture; a launch compiles and does not run.  One JSON line per
job: its kernels, each with registers, stack and counted instructions.
"""

import collections
import json
import os
import re
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

os.environ.pop("TRITON_INTERPRET", None)  # read when a kernel is defined

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from bevformer.ops.visible import Pairs

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
HEADS, CHANNELS, CAMERAS = 8, 256, 6
# BEV cells per side; (height, width) of the levels that the cameras give; rows that a camera sees.
CLASSES = {
    "tiny": (50, ((15, 25),), 2800),
    "small": (150, ((23, 40),), 25200),
    "base": (200, ((116, 200), (58, 100), (29, 50), (15, 25)), 44855),
}


class NamedArchitecture:
    """What Triton asks of a driver until it launches."""

    def __init__(self, capability):
        self.capability = capability

    def get_current_target(self):
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self):
        return self.capability  # Triton keeps what it compiled by device

    def get_current_stream(self, device):
        return 0


def empty(*shape, dtype=torch.float32):
    return torch.empty(shape, dtype=dtype, device="meta")


def deform(backend, name, dtype):
    side, *_ = CLASSES[name]
    points = empty(1, 900, 1, 2).requires_grad_(name == "base")  # as in the decoder's first layer
    inputs = empty(1, side * side, CHANNELS, dtype=dtype), empty(1, 900, HEADS, 1, 4, 2, dtype=dtype)
    inputs += (empty(1, 900, HEADS, 1, 4, dtype=dtype),)
    return inputs, lambda v, o, w: backend.deform_attn(v, ((side, side),), points, o, w)


def temporal(backend, name, dtype):
    side, *_ = CLASSES[name]
    Q = side * side
    inputs = empty(1, 2, Q, CHANNELS, dtype=dtype), empty(1, Q, HEADS, 2, 4, 2, dtype=dtype)
    inputs += (empty(1, Q, HEADS, 2, 4, dtype=dtype),)
    return inputs, lambda v, o, w: backend.temporal_attn(v, (side, side), empty(1, 2, Q, 2), o, w)


def spatial(backend, name, dtype):
    side, shapes, visible = CLASSES[name]
    G, L, S = side * side, len(shapes), sum(h * w for h, w in shapes)
    indices = {key: empty(visible, dtype=torch.int32) for key in ("camera_V", "row_V", "by_camera_V")}
    pairs = Pairs(
        starts_G1=empty(G + 1, dtype=torch.int32),
        points_VZ2=empty(visible, 4, 2),
        camera_starts_K1=empty(CAMERAS + 1, dtype=torch.int32),
        points_KRZ2=empty(CAMERAS, G, 4, 2),
        query_KR=empty(CAMERAS, G, dtype=torch.int64),
        slot_KR=empty(CAMERAS, G, dtype=torch.int64),
        counts_G=empty(G),
        **indices,
    )
    inputs = empty(CAMERAS, S, CHANNELS, dtype=dtype), empty(G, HEADS, L, 8, 2, dtype=dtype)
    inputs += (empty(G, HEADS, L, 8, dtype=dtype),)
    return inputs, lambda v, o, w: backend.spatial_attn(v, shapes, pairs, o, w)


OPERATORS = {"deform": deform, "temporal": temporal, "spatial": spatial}


def launched(operator, name, dtype, capability, deterministic):
    """The compiled kernels of a forward and a backward pass."""
    from bevformer.ops.triton_backend import make

    kernels = []

    def compile_only(self, *args, grid, warmup, **options):
        kernels.append(original(self, *args, grid=grid, warmup=True, **options))

    original, JITFunction.run = JITFunction.run, compile_only
    driver.set_active(NamedArchitecture(capability))
    try:
        inputs, attend = OPERATORS[operator](make(deterministic), name, getattr(torch, dtype))
        inputs = [each.requires_grad_() for each in inputs]
        attend(*inputs).sum().backward()
    finally:
        JITFunction.run = original
    return kernels


def tool(name, *words):
    done = subprocess.run([TOOLS / name, *words], capture_output=True, text=True, check=True)
    return done.stdout


def counted(pattern, text):
    return dict(collections.Counter(re.findall(pattern, text)))


def read(kernel):
    """What the machine code of a kernel does with registers and memory."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        usage = tool("cuobjdump", "--dump-resource-usage", file.name)
        sass = tool("nvdisasm", "-c", file.name)
    used = {key: int(number) for key, number in re.findall(r"\b(REG|STACK|LOCAL|SHARED):(\d+)", usage)}
    return {
        "kernel": kernel.name,
        "warps": kernel.metadata.num_warps,
        "registers": used["REG"],
        "stack": used["STACK"] + used["LOCAL"],
        "shared": used["SHARED"],
        "ptx": counted(r"\b(?:ld|st|atom|red)\.[a-z][\w:.]*", kernel.asm["ptx"]),
        "sass": counted(r"\b(?:LDG|STG|LDL|STL|LDS|STS|RED|REDG|ATOM|ATOMG)\b[\w.]*", sass),
        "waits": waits(sass),
    }


def waits(sass):
    """How often a load from memory comes right after an atomic: nothing is moved across, so a wait begins."""
    order = re.findall(r"\b(LDG|RED|REDG|ATOM|ATOMG)\.", sass)
    return sum(first != "LDG" and then == "LDG" for first, then in zip(order, order[1:]))


def main():
    for job in json.load(sys.stdin):
        try:
            found = {"kernels": [read(kernel) for kernel in launched(**job)]}
        except Exception:  # a test names the job that failed; the others go on
            found = {"error": traceback.format_exc()}
        print(json.dumps({"job": job, **found}), flush=True)


if __name__ == "__main__":
    main()
