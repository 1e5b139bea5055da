"""run.json: what ran, on what, with what result; enough to say later whether two runs are the same."""

import datetime
import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from typing import Any, Dict, Mapping, Optional, Sequence

import numpy as np
import torch

from . import __version__
from .amp import FULL, Precision
from .atomic import write_atomically
from .config import Config, to_dict
from .ledger import fidelity_ledger
from .loop import Outcome
from .ranks import ALONE, Ranks
from .runstate import DataOrder, Options
from .usage import peak_gib, peak_rss_gib


def now_text() -> str:
    """Local time with its offset, to the second."""
    return datetime.datetime.now(datetime.timezone.utc).astimezone().isoformat(timespec="seconds")


def versions() -> Dict[str, Optional[str]]:
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "cuda": torch.version.cuda,
        "bevformer": __version__,
    }


def host_summary(device: torch.device) -> Dict[str, Any]:
    """What the speed and the bits depend on.  Unknown is None."""
    return {
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": _memory_gib(),
        "device": str(device),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
    }


def git_commit(folder: Optional[str] = None) -> Optional[Dict[str, Any]]:
    """{"commit", "dirty"} of the checkout this code runs from; None outside one or without git."""
    folder = folder or os.path.dirname(os.path.abspath(__file__))
    if _git(folder, "ls-files", "--error-unmatch", "record.py") is None:
        return None  # installed inside somebody else's repository
    commit, changes = _git(folder, "rev-parse", "HEAD"), _git(folder, "status", "--porcelain", "--", ".")
    return None if commit is None else {"commit": commit, "dirty": None if changes is None else bool(changes)}


def infos_digest(infos: Sequence[Mapping[str, Any]]) -> str:
    """sha256 over tokens, times, boxes and names of the frames in order: what the training sees of them."""
    total = hashlib.sha256()
    for info in infos:
        total.update(("%s %s\n" % (info["token"], info["timestamp"])).encode())
        total.update(np.ascontiguousarray(info.get("gt_boxes", ()), dtype=np.float64).tobytes())
        total.update(" ".join(map(str, info.get("gt_names", ()))).encode())
    return total.hexdigest()


def weights_digest(model: torch.nn.Module) -> str:
    """sha256 over names, shapes and bytes of all weights: equal digests mean equal models, bit for bit."""
    total = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        total.update(("%s %s %s\n" % (name, tensor.dtype, tuple(tensor.shape))).encode())
        total.update(tensor.detach().cpu().contiguous().view(-1).numpy().tobytes())
    return total.hexdigest()


def write_record(path: str, record: Dict[str, Any]) -> None:
    write_atomically(path, json.dumps(record, indent=2) + "\n")


def read_record(path: str) -> Optional[Dict[str, Any]]:
    """None where there is none yet, or it cannot be read (it is a report, nothing depends on it)."""
    try:
        with open(path, encoding="utf-8") as stream:
            content = json.load(stream)
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _git(folder: str, *words: str) -> Optional[str]:
    try:
        done = subprocess.run(
            ["git", "-C", folder] + list(words), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace").strip() if done.returncode == 0 else None


def _cpu_name() -> Optional[str]:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as stream:
            for line in stream:
                if line.lower().startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        return platform.processor() or None
    return platform.processor() or None


def _memory_gib() -> Optional[float]:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 2)
    except (ValueError, OSError):
        return None


class RunKeeper:
    """Keeps run.json up to date: one entry in `sessions` for every start of the same run."""

    def __init__(
        self,
        config: Config,
        options: Options,
        order: DataOrder,
        device: torch.device,
        first_step: int,
        total: int,
        init: Optional[Dict[str, Any]] = None,
        ranks: Ranks = ALONE,
        precision: Precision = FULL,
    ) -> None:
        self.path = os.path.join(options.work_dir, "run.json")
        self.work_dir, self._device = options.work_dir, device
        self.ledger = fidelity_ledger(config, options, device, init, ranks, precision)
        self._start_s = time.monotonic()
        self._session: Dict[str, Any] = {
            "command": [sys.executable, "-m", "bevformer"] + list(options.command),
            "started": now_text(),
            "first_step": first_step,
            "versions": versions(),
            "host": host_summary(device),
            "workers": options.workers,
        }
        self._earlier = (read_record(self.path) if first_step or options.resume else None) or {}
        self._record: Dict[str, Any] = {
            "kind": "train",
            "status": "running",
            "config_name": config.name,
            "config": to_dict(config),
            "seed": order.seed,
            "random_scheme": "pure function of (seed, step, rank), version 1",
            "infos_digest": options.infos_digest,
            "frames": len(order.indices),
            "steps_per_epoch": order.steps_per_epoch,
            "total_steps": total,
            "effective_batch": order.batch * ranks.world,
            "ranks": {"world": ranks.world, "processes": ranks.processes},
            "code": git_commit(),
            "init_from": init,
            "precision": {"kind": precision.kind, "fixed_loss_scale": precision.fixed_scale},
            "ledger": self.ledger,
            "validations": list(self._earlier.get("validations") or []),
            "sessions": list(self._earlier.get("sessions") or []) + [self._session],
        }

    def write(self, status: str, **fields: Any) -> Dict[str, Any]:
        self._session.update(
            status=status,
            seconds=round(time.monotonic() - self._start_s, 2),
            peak_rss_gib=peak_rss_gib(),
            peak_gpu_gib=peak_gib(self._device) if self._device.type == "cuda" else None,
            updated=now_text(),
            **fields,
        )
        self._record.update(status=status)
        write_record(self.path, self._record)
        return self._record

    def add_validation(self, found: Dict[str, Any]) -> None:
        """One entry per validated checkpoint; one that is done again after a resume replaces the earlier."""
        others = [each for each in self._record["validations"] if each.get("step") != found["step"]]
        self._record["validations"] = others + [found]
        self.write("running")

    def has_validation(self, step: int) -> bool:
        return any(each.get("step") == step for each in self._record["validations"])

    def finish(self, outcome: Outcome, model: torch.nn.Module) -> Dict[str, Any]:
        """The result event's fields."""
        result = {
            "checkpoint": outcome.checkpoint,
            "steps": outcome.steps_done,
            "seconds_per_step": outcome.seconds_per_step or self._earlier.get("seconds_per_step"),
            "losses": outcome.terms or self._earlier.get("losses"),
            "weights_digest": weights_digest(model),
            "peak_rss_gib": peak_rss_gib(),
        }
        self._record.update(result)
        self.write("finished")
        return dict(result, work_dir=self.work_dir, run=self.path)
