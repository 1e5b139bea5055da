"""Twenty training steps of the smallest preset, on a synthetic set that is made for it and removed."""

import os
import tempfile
import time
from typing import Any, Dict, List, Sequence, Tuple

import torch

from .amp import LossScale, choose_precision
from .config import Config, override, preset
from .data.dataset import NuScenesQueue
from .data.infos import infos_path, load_infos
from .data.prepare import main as prepare
from .data.store import open_store
from .data.synth.main import main as synth
from .detector import build_model
from .loading import open_loader
from .operators import operators_record
from .optim import build_optimizer, lr_factor, set_lr
from .ranks import ALONE
from .runstate import DataOrder, seed_weights
from .selftest_told import Told, Wrong
from .step import Training, train_step
from .talk import Talk

STEPS, SEED, FEW = 20, 0, 5
SETTINGS = ("schedule.max_steps=%d" % STEPS, "schedule.warmup_steps=1")
SET = ("--scenes", "2", "--samples", "3", "--scale", "0.1", "--seed", "0")  # made in two seconds


class _Silent(Talk):
    """What makes the set has nothing to say here; its errors are raised."""

    def note(self, text: str) -> None: ...

    def progress(self, task: str, done: int, total: int, text: str = "") -> None: ...

    def result(self, **fields: Any) -> None: ...


def check_training() -> Told:
    """On the GPU where torch has one.  Wrong where a loss is not finite or the last ones are no smaller."""
    with tempfile.TemporaryDirectory(prefix="bevformer-selftest-") as folder:
        data_root, infos = os.path.join(folder, "set", "nuscenes"), os.path.join(folder, "infos")
        synth([os.path.join(folder, "set"), *SET], _Silent(False))
        prepare(["--data-root", data_root, "--out", infos], _Silent(False))
        rows, ran = train(data_root, infos, "cuda" if torch.cuda.is_available() else "cpu")
    return judge(rows, ran)


def judge(rows: List[Dict[str, Any]], ran: str) -> Told:
    """rows: step and loss."""
    losses = [float(row["loss"]) for row in rows]
    if not all(torch.isfinite(torch.tensor(losses))):
        raise Wrong("a loss is not finite, %s" % ran, rows)
    first, last = (sum(part) / len(part) for part in (losses[:FEW], losses[-FEW:]))
    said = "%d steps, %s: mean loss of the first %d %.3f, of the last %.3f" % (
        len(rows),
        ran,
        FEW,
        first,
        last,
    )
    if not last < first:
        raise Wrong(said + ": it does not fall, as it should at this learning rate", rows)
    return Told(said, rows)


def train(
    data_root: str, infos: str, device_type: str, settings: Sequence[str] = SETTINGS, amp: str = "off"
) -> Tuple[List[Dict[str, Any]], str]:
    """A row per step, and what ran; amp: as the option of `train`.  Raises Diverged for a loss that is not
    finite.
    """
    config, device = override(preset("bevformer_micro"), settings), torch.device(device_type)
    job = _training(config, data_root, infos, device, amp)
    operators = operators_record(job.model, device_type)
    loader = open_loader(job.dataset, job.order, ALONE, range(job.total), 0, device)
    rows: List[Dict[str, Any]] = []
    try:
        for step in range(job.total):
            set_lr(job.optimizer, lr_factor(config.schedule, step, job.order.steps_per_epoch))
            terms = train_step(job, loader, step, time.monotonic)
            rows.append({"step": step + 1, "loss": terms["loss"], "grad_norm": terms["grad_norm"]})
    finally:
        loader.close()
    used = ", ".join("%s by %s" % pair for pair in sorted(operators.items()))
    return rows, "%s on %s, %s" % (config.name, device_type, used)


def _training(config: Config, data_root: str, infos: str, device: torch.device, amp: str) -> Training:
    """As `train` makes it, of one rank."""
    dataset = NuScenesQueue(
        load_infos(infos_path(infos, "train")), open_store([data_root]), config, True, True, device.type
    )
    order = DataOrder(tuple(dataset.labelled_indices()), config.schedule.samples_per_gpu, SEED)
    seed_weights(SEED)
    precision = choose_precision(amp, config.schedule, device)
    model = precision.prepared(build_model(config)).to(device).train()
    scale = LossScale(precision)
    optimizer = build_optimizer(model, config.schedule, config.ops.adamw)
    return Training(
        model, optimizer, dataset, order, config.schedule, 0, config.schedule.max_steps, scale, device=device
    )
