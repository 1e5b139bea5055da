"""Two-frame queues of noise with a few boxes, in the real data set's shapes, and a model that fits them.

As a program it trains on them, so that torchrun can start it: `small_frames.py WORK_DIR WORLD [STEPS]`.
"""

import sys

import numpy as np
import torch

from bevformer import train
from bevformer.config import override, preset
from bevformer.detector import build_model
from bevformer.ranks import leave
from bevformer.runstate import Options
from bevformer.talk import Talk
from bevformer.types import Frame, FrameMeta, GroundTruth, Sample


class SmallFrames:
    """Frame i has a far box that depends on i, and i more near ones: ranks differ in their true boxes."""

    def __init__(self, dtype=np.float32, count=3):
        self.dtype, self.count = dtype, count

    def labelled_indices(self):
        return list(range(self.count))

    def draw_queue(self, index, rng):
        return [index + rng.randint(2), index]

    def truth(self, index):
        boxes = [[5.0 + index, 8.0, 0, 2, 4, 1.5, 0.1, 0, 0], [-6.0, 9.0, 0, 1, 1, 1.7, 1, 0, 0]]
        boxes += [[3.0 * k, -8.0, 0, 1, 1, 1.7, 1, 0, 0] for k in range(index)]
        labels = torch.tensor([0, 8] + [5] * index)
        return GroundTruth(torch.tensor(boxes, dtype=torch.from_numpy(np.zeros(1, self.dtype)).dtype), labels)

    def load_queue(self, queue, rng):
        focal = np.array([[40.0, 0, 32, 0], [0, 40.0, 24, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
        to_camera = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
        frames = []
        for step in range(2):
            can_bus = np.zeros(18)
            can_bus[0] = 0.5 * step
            lidar2img = np.stack([focal @ to_camera] * 6)
            meta = FrameMeta(str(queue[-1]), "s", float(step), lidar2img, can_bus, step > 0, (48, 64))
            frames.append(Frame(torch.from_numpy(rng.rand(6, 3, 48, 64).astype(self.dtype)), meta))
        return Sample(tuple(frames), self.truth(queue[-1]))


def config(steps):
    """Micro, smaller, with dropout and GridMask on."""
    options = ["encoder.bev_h=8", "encoder.bev_w=8", "head.num_query=12", "data.grid_mask=True",
               "transformer.embed_dims=32", "transformer.ffn_dims=32", "transformer.dropout=0.1",
               "schedule.warmup_steps=3", "schedule.max_steps=%d" % steps]  # fmt: skip
    return override(preset("bevformer_micro"), options)


def in_float64(work_dir, world, steps=5, **options):
    """The result of a training in double precision."""
    chosen = Options(work_dir, seed=4, emulate_gpus=world, **options)
    data = SmallFrames(np.float64, count=7)
    return train.run(config(steps), data, chosen, Talk(False), lambda it: build_model(it).double())


if __name__ == "__main__":
    torch.set_num_threads(1)
    try:
        in_float64(sys.argv[1], int(sys.argv[2]), *map(int, sys.argv[3:]))
    finally:
        leave()
