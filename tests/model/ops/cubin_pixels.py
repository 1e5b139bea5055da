"""Compiles the kernel of `ops.triton_pixels` for a GPU that is not there: `cubin_pixels.py CAPABILITY...`.

One line of JSON, as of `cubin_child`: for each with distortion, then without.
"""

import json
import sys

import torch
from cubin_child import NamedArchitecture, driver, empty, read
from triton.runtime.jit import JITFunction

from bevformer.ops import triton_pixels

ran, kernels = JITFunction.run, []


def compile_only(self, *args, grid, warmup, **options):
    kernels.append(ran(self, *args, grid=grid, warmup=True, **options))


JITFunction.run = compile_only
images = empty(6, 900, 1600, 3, dtype=torch.uint8)
numbers = empty(6, 5), empty(6, 3, dtype=torch.int32), empty(2, 3, dtype=torch.float64)
for capability in map(int, sys.argv[1:]):
    driver.set_active(NamedArchitecture(capability))
    for distort in (True, False):
        triton_pixels.coloured(images, *numbers, distort)
print(json.dumps([read(kernel) for kernel in kernels]))
