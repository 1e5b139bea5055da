"""How many rows one program of the Triton attentions takes: one table, nothing is tried out at run time.

A thread reads neighbouring channels of one head, at most 16 bytes at once, and two warps make a program: 64
threads cover rows * D channels.  Small programs, because a row may be seen by no camera or by several, and a
program takes as long as its slowest row.

What the numbers stand for (arithmetic and compiled code, not measured on a device): forward, 16 bytes a
thread.  Backward from sm_90 on, 4 channels a thread: one red.global.add.v4.f32 for each.  Backward before
sm_90 there are only single atomics, and lanes side by side share a sector: 2 channels a thread halves the
work that every thread repeats for its row and still adds to half a sector at a time.
"""

from dataclasses import dataclass
from typing import Dict, Tuple

WARPS = 2
# A limit for ptxas, which otherwise saves registers and waits for each of a sample's four cells in turn (19
# to 30 waits for 8 samples, 9 with this limit) or spills a few.  65,536 registers are 24 warps of 80, 16 of
# 128, 12 of 168.
REGISTERS = {"forward": 80, "backward": 128, "backward, fixed": 168}
# (pass, bytes per element of value, whether the device has vector atomics): channels per thread
CHANNELS_PER_THREAD: Dict[Tuple[str, int, bool], int] = {
    ("forward", 2, False): 8,
    ("forward", 2, True): 8,
    ("forward", 4, False): 4,
    ("forward", 4, True): 4,
    ("backward", 2, False): 2,
    ("backward", 2, True): 4,
    ("backward", 4, False): 2,
    ("backward", 4, True): 4,
}
VECTOR_ATOMICS_FROM = 90


@dataclass(frozen=True)
class Block:
    """rows: BLOCK_Q, a power of two.  width: of a tile with one column per sample of a row.

    registers: at most so many per thread.
    """

    rows: int
    width: int
    registers: int
    warps: int = WARPS

    @property
    def launch(self) -> Dict[str, int]:
        """What a launch is told, beside its own arguments."""
        return dict(
            BLOCK_Q=self.rows,
            WIDTH=self.width,
            num_warps=self.warps,
            num_stages=1,  # nothing to pipeline: every address depends on numbers just loaded
            maxnreg=self.registers,
        )


def block(which: str, itemsize: int, D: int, samples: int, sm: int, fixed: bool = False) -> Block:
    """For `which` pass over a head of D channels and its samples (levels * points); sm: 80, 90, ...

    width is D where that suffices: then the tile of a row's samples has the layout of its channels.
    fixed: sums are int64 (`triton_deterministic`), for which no device has vector atomics.
    """
    per_thread = CHANNELS_PER_THREAD[which, itemsize, sm >= VECTOR_ATOMICS_FROM and not fixed]
    rows = max(1, per_thread * 32 * WARPS // D)
    return Block(rows, max(D, 1 << (samples - 1).bit_length()), REGISTERS[which + ", fixed" * fixed])
