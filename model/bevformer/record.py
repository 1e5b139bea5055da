"""run.json: what ran, on what, with what result; enough to say later whether two runs are the same."""

import datetime
import hashlib
import json
import os
import platform
import sys
import time
from typing import Any, Dict, List, Mapping, Optional, Sequence

import numpy as np
import torch

from . import __version__
from .atomic import write_atomically
from .config import Config, to_dict
from .frames import frames_digest
from .ledger import fidelity_ledger, of_environments
from .levers import levers_entries, levers_record
from .loop import Outcome
from .operators import not_repeatable, operators_record
from .provenance import code_record, environment_record, numerics, package_digest
from .runstate import Options
from .step import Training
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
        "cudnn": _text(torch.backends.cudnn.version()) if torch.cuda.is_available() else None,
        "bevformer": __version__,
    }


def host_summary(device: torch.device) -> Dict[str, Any]:
    """What the speed and the bits depend on.  Unknown is None."""
    return {
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cpu_capability": _cpu_capability(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": _memory_gib(),
        "device": str(device),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "gpu_memory_gib": _gpu_memory_gib(device),
        "gpu_capability": _gpu_capability(device),
    }


def _cpu_capability() -> Optional[str]:
    """Which of torch's kernels are used, "AVX2" or "AVX512"; None where torch does not say."""
    backend = getattr(torch.backends, "cpu", None)
    return str(backend.get_cpu_capability()) if hasattr(backend, "get_cpu_capability") else None


def _text(value: Optional[int]) -> Optional[str]:
    return None if value is None else str(value)


def _gpu_memory_gib(device: torch.device) -> Optional[float]:
    if device.type != "cuda":
        return None
    return round(torch.cuda.get_device_properties(device).total_memory / 2**30, 2)


def _gpu_capability(device: torch.device) -> Optional[str]:
    return "%d.%d" % torch.cuda.get_device_capability(device) if device.type == "cuda" else None


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
    """Keeps run.json up to date: one entry in `sessions` for every start of the same run.

    It is written at the start, at every checkpoint and at the end: of a session that is killed it tells up to
    the last checkpoint.
    """

    def __init__(
        self,
        config: Config,
        options: Options,
        job: Training,
        init: Optional[Dict[str, Any]] = None,
        preflight: Optional[Dict[str, Any]] = None,
        hosts: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """hosts: what each process of several runs on."""
        self.path = os.path.join(options.work_dir, "run.json")
        self.work_dir, self._device, self._ranks = options.work_dir, job.device, job.ranks
        self._start_s, self._start_cpu_s = time.monotonic(), time.process_time()
        self.ledger = fidelity_ledger(
            config,
            options,
            job.device,
            init,
            job.ranks,
            job.scale.precision,
            job.memory.entries,
            not_repeatable(job.model, job.device),
        )
        self._session = _session(options, job, preflight)
        self.ledger += levers_entries(
            self._session["operators"],
            self._session["levers"],
            job.device.type,
            job.ranks.processes,
            job.memory.rungs,
        )
        if len(hosts) > 1:
            self._session["hosts"] = [dict(host) for host in hosts]
        resumes = bool(job.first_step or options.resume)
        self._earlier = (read_record(self.path) if resumes else None) or {}
        earlier = list(self._earlier.get("sessions") or [])
        self.ledger += of_environments(earlier + [self._session])
        if _known_diff(self._session["code"], earlier):
            self._session["code"] = _without_diff(self._session["code"])
        self._record = _about(config, options, job, init)
        self._record.update(
            code=_without_diff(self._session["code"]),
            ledger=self.ledger,
            initial_weights_digest=self._earlier.get("initial_weights_digest")
            if job.first_step
            else weights_digest(job.model),
            epochs=_until(job.first_step, self._earlier.get("epochs")),
            validations=list(self._earlier.get("validations") or []),
            sessions=earlier + [self._session],
        )

    def write(self, status: str, **fields: Any) -> Dict[str, Any]:
        seconds = round(time.monotonic() - self._start_s, 2)
        on_gpu = self._device.type == "cuda"
        self._session.update(
            status=status,
            seconds=seconds,
            cpu_seconds=round(time.process_time() - self._start_cpu_s, 2),
            gpu_seconds=round(seconds * self._ranks.processes, 2) if on_gpu else None,
            peak_rss_gib=peak_rss_gib(),
            peak_gpu_gib=peak_gib(self._device) if on_gpu else None,
            updated=now_text(),
            **fields,
        )
        sessions = self._record["sessions"]
        self._record.update(
            status=status,
            wall_seconds=_total(sessions, "seconds"),
            gpu_seconds=_total(sessions, "gpu_seconds"),
        )
        write_record(self.path, self._record)
        return self._record

    def departed(self, entry: Dict[str, Any]) -> None:
        """A departure from the recipe that the run made on its way."""
        self.ledger.append(entry)
        self.write("running")

    def saved(self, done: int, path: str, means: Mapping[str, float]) -> None:
        """A checkpoint after `done` steps; `means` of the loss terms since the one before, or since the start
        of this session where that was later.
        """
        others = [each for each in self._record["epochs"] if each.get("step") != done]
        begun = max([each["step"] for each in others] + [self._session["first_step"]])
        epoch = done / self._record["steps_per_epoch"]
        rounded = {key: round(value, 6) for key, value in means.items()}
        now = {"step": done, "epoch": round(epoch, 3), "checkpoint": path}
        self._record["epochs"] = others + [dict(now, steps=done - begun, means=rounded)]
        self.write("running", last_step=done)

    def add_validation(self, found: Dict[str, Any]) -> None:
        """One entry per validated checkpoint; one that is done again after a resume replaces the earlier."""
        others = [each for each in self._record["validations"] if each.get("step") != found["step"]]
        self._record["validations"] = others + [found]
        self.write("running")

    def has_validation(self, step: int) -> bool:
        return any(each.get("step") == step for each in self._record["validations"])

    def finish(self, outcome: Outcome, model: torch.nn.Module) -> Dict[str, Any]:
        """The result event's fields."""
        result: Dict[str, Any] = {
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


def _session(options: Options, job: Training, preflight: Optional[Dict[str, Any]]) -> Dict[str, Any]:
    """What may differ from one start to the next."""
    return {
        "command": [sys.executable, "-m", "bevformer"] + list(options.command),
        "started": now_text(),
        "first_step": job.first_step,
        "versions": versions(),
        "host": host_summary(job.device),
        "numerics": numerics(),
        "operators": operators_record(job.model, job.device.type),
        "levers": levers_record(job.model, job.optimizer, job.scale.precision.dtype),
        "environment": environment_record(),
        "code": code_record(),
        "package_sha256": package_digest(),
        "processes": job.ranks.processes,
        "nodes": int(os.environ.get("GROUP_WORLD_SIZE") or 1),
        "workers": options.workers,
        "memory": {"asked": options.memory, "allow": options.allow, "preflight": preflight},
    }


def _about(config: Config, options: Options, job: Training, init: Optional[Dict[str, Any]]) -> Dict[str, Any]:
    """What is the same in all sessions of a run."""
    order, ranks, precision = job.order, job.ranks, job.scale.precision
    return {
        "kind": "train",
        "status": "running",
        "config_name": config.name,
        "config": to_dict(config),
        "seed": order.seed,
        "random_scheme": "pure function of (seed, step, rank), version 1",
        "infos_digest": options.infos_digest,
        "frames_digest": frames_digest(options.frames) or None,
        "frames": len(order.indices),
        "data": dict(options.data),
        "steps_per_epoch": order.steps_per_epoch,
        "total_steps": job.total,
        "effective_batch": order.batch * ranks.world,
        "ranks": {"world": ranks.world, "processes": ranks.processes},
        "init_from": init,
        "precision": {"kind": precision.kind, "fixed_loss_scale": precision.fixed_scale},
    }


def _known_diff(code: Optional[Mapping[str, Any]], sessions: Sequence[Mapping[str, Any]]) -> bool:
    """Whether an earlier session holds the same local changes; they are kept once."""
    digests = [(each.get("code") or {}).get("diff_sha256") for each in sessions]
    return (code or {}).get("diff_sha256") in [digest for digest in digests if digest]


def _without_diff(code: Optional[Mapping[str, Any]]) -> Optional[Dict[str, Any]]:
    return None if code is None else {key: value for key, value in code.items() if key != "diff"}


def _until(step: int, entries: Any) -> List[Dict[str, Any]]:
    """The entries of an earlier session that this one does not make again."""
    return [each for each in entries or [] if isinstance(each, dict) and each.get("step", 0) <= step]


def _total(sessions: Sequence[Mapping[str, Any]], key: str) -> Optional[float]:
    """None where no session has it."""
    known = [each[key] for each in sessions if isinstance(each.get(key), (int, float))]
    return round(sum(known), 2) if known else None
