"""Where a run stands, as a pure function of (seed, step).

Nothing random is carried from step to step: the order of an epoch comes from (seed, epoch), the random
streams of a step from (seed, step, rank), the learning rate from the step (`optim.lr_factor`).  So a
checkpoint needs only the weights, the optimiser and the step number, and a resumed run equals an
uninterrupted one by construction: bit for bit on a CPU with the same library versions and number of threads.
"""

import random
from dataclasses import dataclass, field
from typing import Any, List, Mapping, Optional, Sequence

import numpy as np
import torch

# One number per purpose keeps the streams of equal (seed, step) apart.
_ORDER, _NUMPY, _TORCH, _PYTHON, _WEIGHTS = range(5)


@dataclass(frozen=True)
class Options:
    """What the command line says beyond the configuration.  seed None: 0, or what the resumed run had."""

    work_dir: str
    seed: Optional[int] = None
    gpus: int = 0
    resume: Optional[str] = None  # "auto" or a file
    init_from: Optional[str] = None  # initial weights of a fresh run
    allow_partial_init: bool = False
    deterministic: bool = False
    infos_digest: str = ""
    frames: Sequence[str] = ()  # a line for each (`frames`); none: only the digest can tell that they changed
    command: Sequence[str] = ()
    emulate_gpus: Optional[int] = None  # ranks to stand for; None: as many as the recipe asks for
    keep_last: Optional[int] = None  # checkpoints; 0: all; None: as the recipe's kind has it
    workers: int = 0  # processes that read images ahead
    amp: Optional[str] = None  # off, bf16, fp16; None: as the recipe where the device can
    profile: bool = False
    memory: Optional[str] = None  # auto, off, names of rungs; None: auto, no preflight where pointless
    allow: Optional[str] = None  # statistics or changes: what may be chosen to save memory
    rungs: Sequence[Mapping[str, Any]] = ()  # entries of rungs that were chosen before this start
    data: Mapping[str, Any] = field(default_factory=dict)  # for the record: `provenance.data_record`
    rank_timeout_s: Optional[float] = None  # how long processes wait for each other; None: RANK_TIMEOUT_S


@dataclass(frozen=True)
class DataOrder:
    """Which frames step `step` trains on: each epoch is a permutation of `indices`, cut into one part per
    rank, and each part into batches.

    What is missing at the end of an epoch is filled up from its beginning, as the reference's sampler does.
    """

    indices: Sequence[int]
    batch: int  # of one rank
    seed: int
    world: int = 1

    @property
    def steps_per_epoch(self) -> int:
        return max(1, -(-len(self.indices) // (self.batch * self.world)))

    def epoch_of(self, step: int) -> int:
        return step // self.steps_per_epoch

    def at(self, step: int, rank: int = 0) -> List[int]:
        """The `batch` frame indices of a rank's step."""
        epoch, place = divmod(step, self.steps_per_epoch)
        order = _stream(self.seed, epoch, _ORDER).permutation(len(self.indices))
        first = (rank * self.steps_per_epoch + place) * self.batch
        return [int(self.indices[order[k % len(order)]]) for k in range(first, first + self.batch)]


def step_rng(seed: int, step: int, rank: int = 0) -> np.random.RandomState:
    """Queue, redraw, photometric distortion and GridMask of a rank's step."""
    return _stream(seed, step, _NUMPY, rank)


def seed_step(seed: int, step: int, rank: int = 0) -> None:
    """Set the global generators that dropout and library code draw from, on every device."""
    torch.manual_seed(_number(seed, step, _TORCH, rank))
    random.seed(_number(seed, step, _PYTHON, rank))
    np.random.seed(_number(seed, step, _PYTHON, rank))


def seed_weights(seed: int) -> None:
    """Before the model is built: its initial weights depend on the seed alone."""
    torch.manual_seed(_number(seed, 0, _WEIGHTS))
    random.seed(seed)
    np.random.seed(_number(seed, 0, _WEIGHTS))


def _stream(seed: int, step: int, purpose: int, rank: int = 0) -> np.random.RandomState:
    """Rank 0 has the streams that a run of one rank has."""
    return np.random.RandomState([seed % 2**32, step, purpose] + ([rank] if rank else []))


def _number(seed: int, step: int, purpose: int, rank: int = 0) -> int:
    return int(_stream(seed, step, purpose, rank).randint(2**31 - 1))
