"""One step before the first, on the largest queue of the data: does it fit into memory?

It runs forward and backward with room held for what comes later (gradients of several ranks, moments of the
optimiser), falls back by the ladder where memory runs out, and leaves nothing behind: weights, optimiser,
random streams and the order of the data are as if it had not been.
"""

import random
import time
from contextlib import contextmanager
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np
import torch
from torch import nn

from .loading import draw_queues
from .ranks import BUCKET_B
from .step import Training, backward
from .talk import Talk
from .types import Sample
from .usage import peak_gib

MOMENTS = 2  # AdamW's, per trained parameter
LOOKED_AT = 500  # frames among which the one with most boxes is searched
SMALL_B = 16 << 20  # a model with fewer bytes of trained weights on a CPU: its first step tells as soon


def pointless(model: nn.Module, device: torch.device, asked: Optional[str]) -> bool:
    """Where nobody asked for it and the first step would tell as soon."""
    trained_b = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    return asked is None and device.type == "cpu" and trained_b < SMALL_B


def preflight(job: Training, talk: Talk) -> Dict[str, Any]:
    """For the run's record: seconds, peak memory, and the ledger's entries of the rungs that it took.

    Raises OutOfMemory where nothing that keeps the result as it is makes it fit; in all processes alike.
    """
    talk.progress("preflight", 0, 1)
    start_s, before = time.monotonic(), len(job.memory.entries)
    with _nothing_stays(job):
        samples, boxes = largest_samples(job.dataset, job.order.indices, job.order.batch)
        job.memory.tried(lambda: _step(job, samples, boxes), job.ranks, job.first_step, "the preflight step")
        peak = peak_gib(job.device)
    talk.progress("preflight", 1, 1)
    if job.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(job.device)
    return {
        "seconds": round(time.monotonic() - start_s, 2),
        "peak_gib": peak,
        "boxes": boxes,
        "entries": job.memory.entries[before:],
    }


def largest_samples(dataset: Any, indices: Sequence[int], batch: int) -> Tuple[List[Sample], int]:
    """A batch of the queue that ends with most true boxes, and their number; images are of one size."""
    step = max(1, len(indices) // LOOKED_AT)
    most = max(indices[::step], key=lambda index: len(dataset.truth(index).labels_G))
    rng = np.random.RandomState(0)
    (queue,) = draw_queues(dataset, [most], indices, rng)
    return [dataset.load_queue(queue, rng)] * batch, len(dataset.truth(queue[-1]).labels_G)


def _step(job: Training, samples: List[Sample], boxes: int) -> None:
    """Forward and backward, while what a later step also holds takes its place."""
    held = _later(job)
    backward(job, samples, np.random.RandomState(0), float(max(boxes, 1)))
    if job.ranks.processes > 1:
        held.append(torch.empty(BUCKET_B, dtype=torch.uint8, device=job.device))
    if job.device.type == "cuda":
        torch.cuda.synchronize(job.device)


def _later(job: Training) -> List[torch.Tensor]:
    """Room for the moments that the optimiser has not made yet, and for the gradients of the rank before."""
    job.gradients.clear(job.model)
    trained = [p for p in job.model.parameters() if p.requires_grad]
    if len(job.ranks.mine) > 1:
        for parameter in trained:
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    without = [p for p in trained if not job.optimizer.state.get(p)]
    return [torch.empty_like(p) for p in without for _ in range(MOMENTS)]


@contextmanager
def _nothing_stays(job: Training) -> Iterator[None]:
    """Afterwards gradients, buffers, mode and random streams are as they were."""
    model, was_training = job.model, job.model.training
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    gradients = [parameter.grad for parameter in model.parameters()]
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state(job.device) if job.device.type == "cuda" else None
    model.train()
    try:
        yield
    finally:
        for parameter, gradient in zip(model.parameters(), gradients):
            parameter.grad = gradient
        with torch.no_grad():
            for buffer, copy in buffers:
                buffer.copy_(copy)
        model.train(was_training)
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state(cuda, job.device)
