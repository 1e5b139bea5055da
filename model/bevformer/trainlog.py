"""`<ts>.log` and `<ts>.log.json` as mmcv writes them: people and tools already read these."""

import datetime
import importlib.util
import json
import os
import re
import time
from typing import Any, Dict, List, Optional, Tuple

from .means import Means
from .usage import peak_mib


class NoLog:
    """For the processes of a run that do not write."""

    def header(self, **fields: Any) -> None: ...

    def say(self, text: str) -> None: ...

    def step(self, step: int, lr: float, terms: Dict[str, float]) -> None: ...

    def validated(self, step: int, lr: float, scores: Dict[str, float]) -> None: ...

    def close(self) -> None: ...


class TrainLog(NoLog):
    """Averages the terms of `every` steps into one line in each file.

    By epoch the count starts anew with every epoch, as mmcv's does, so that lines of two runs lie over each
    other; unlike mmcv's, the rest of an epoch gets a line too.
    """

    def __init__(
        self,
        work_dir: str,
        every: int,
        total: int,
        steps_per_epoch: int,
        by_epoch: bool,
        first_step: int = 0,
        digits: int = 6,
    ) -> None:
        """digits: of the JSON file, after the point."""
        self.every, self.total, self.digits = every, total, digits
        self.steps_per_epoch, self.by_epoch = steps_per_epoch, by_epoch
        self.path = _fresh_path(work_dir)
        self._text = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 - closed in close()
        self._json = open(self.path + ".json", "a", encoding="utf-8")  # noqa: SIM115
        self._board = open_board(work_dir, first_step)
        self._means = Means()  # without the loss of fp16 steps that were left out
        self._first_step, self._start_s = first_step, time.monotonic()

    def header(self, **fields: Any) -> None:
        """The first line of the JSON file: how the run was started."""
        self._json.write(json.dumps(fields) + "\n")
        self._json.flush()
        for key, value in fields.items():
            self.say("%s: %s" % (key, value))

    def say(self, text: str) -> None:
        now = datetime.datetime.now()
        stamp = now.strftime("%Y-%m-%d %H:%M:%S") + ",%03d" % (now.microsecond // 1000)
        self._text.write("%s - bevformer - INFO - %s\n" % (stamp, text))
        self._text.flush()

    def step(self, step: int, lr: float, terms: Dict[str, float]) -> None:
        """`terms`: loss terms, loss, grad_norm, time and data_time in seconds of optimiser step `step`."""
        self._means.add(terms)
        epoch, place = divmod(step, self.steps_per_epoch)
        if not self._due(step, place):
            return
        mean = self._means.take()
        memory = peak_mib()
        line = {
            "mode": "train",
            "epoch": epoch + 1,
            "iter": (place if self.by_epoch else step) + 1,
            "step": step + 1,
            "lr": lr,
        }
        line.update({} if memory is None else {"memory": memory})
        line.update((key, round(value, self.digits)) for key, value in mean.items())
        self._json.write(json.dumps(line) + "\n")
        self._json.flush()
        self.say(self._sentence(epoch, place, step, lr, mean, memory))
        self._plot(dict(mean, lr=lr), step + 1)

    def _due(self, step: int, place: int) -> bool:
        if step + 1 == self.total:
            return True
        if not self.by_epoch:
            return not (step + 1) % self.every
        return not (place + 1) % self.every or place + 1 == self.steps_per_epoch

    def validated(self, step: int, lr: float, scores: Dict[str, float]) -> None:
        """`step` optimiser steps are done; the scores stand in a line of mode val, as mmcv writes it."""
        epoch, place = divmod(step, self.steps_per_epoch)
        line = {
            "mode": "val",
            "epoch": epoch if self.by_epoch else epoch + 1,
            "iter": place or step,
            "lr": lr,
        }
        # `step` comes last: mmdet3d's analyze_logs.py passes over what stands behind a key with a slash.
        self._json.write(json.dumps(dict(line, **scores, step=step)) + "\n")
        self._json.flush()
        where = (
            "Epoch(val) [%d][%d]" % (line["epoch"], line["iter"])
            if self.by_epoch
            else "Iter(val) [%d]" % step
        )
        self.say("%s\t%s" % (where, ", ".join("%s: %.4f" % item for item in scores.items())))
        self._plot(scores, step, "val/")

    def _plot(self, numbers: Dict[str, float], step: int, prefix: str = "train/") -> None:
        for key, value in numbers.items() if self._board is not None else ():
            self._board.add_scalar(prefix + key, value, step)

    def _sentence(
        self, epoch: int, place: int, step: int, lr: float, mean: Dict[str, float], memory: Optional[int]
    ) -> str:
        """In mmcv's order; scripts cut these lines up by it."""
        where = "Iter [%d/%d]" % (step + 1, self.total)
        if self.by_epoch:
            where = "Epoch [%d][%d/%d]" % (epoch + 1, place + 1, self.steps_per_epoch)
        done = step + 1 - self._first_step
        eta_s = (time.monotonic() - self._start_s) / max(done, 1) * (self.total - step - 1)
        words = ["lr: %.3e" % lr, "eta: %s" % datetime.timedelta(seconds=int(eta_s))]
        words += ["%s: %.3f" % (key, mean[key]) for key in ("time", "data_time") if key in mean]
        words += [] if memory is None else ["memory: %d" % memory]
        words += ["%s: %.4f" % item for item in mean.items() if item[0] not in ("time", "data_time")]
        return "%s\t%s" % (where, ", ".join(words))

    def close(self) -> None:
        self._text.close()
        self._json.close()
        if self._board is not None:
            self._board.close()


def open_board(work_dir: str, first_step: int) -> Any:
    """A TensorBoard writer in WORK_DIR/tf_logs, mmcv's place; None where TensorBoard is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(os.path.join(work_dir, "tf_logs"), purge_step=first_step or None)


def _fresh_path(work_dir: str) -> str:
    """`<ts>.log`; a second start within the same second gets the next free name, and so does one after the
    clock was set back: a later session's log always comes later by name.
    """
    found = [_place(name) for name in os.listdir(work_dir) if _place(name)]
    stamp = max([time.strftime("%Y%m%d_%H%M%S")] + [there for there, _ in found])
    count = max([number for there, number in found if there == stamp] + [-1]) + 1
    return os.path.join(work_dir, stamp + ("_%d" % count if count else "") + ".log")


def _place(name: str) -> Tuple[str, int]:
    """(stamp, number within the second) of `<ts>.log` and `<ts>_N.log.json`; falsy for other files."""
    found = re.match(r"(\d{8}_\d{6})(?:_(\d+))?\.log(?:\.json)?$", name)
    return (found.group(1), int(found.group(2) or 0)) if found else ()  # type: ignore[return-value]


def read_losses(work_dir: str) -> List[Dict[str, Any]]:
    """The logged training lines of all sessions in `work_dir`, by step; a later session's line wins."""
    by_step: Dict[int, Dict[str, Any]] = {}
    names = [name for name in os.listdir(work_dir) if name.endswith(".log.json")]
    for name in sorted(names, key=lambda name: _place(name) or ("", 0)):
        with open(os.path.join(work_dir, name), encoding="utf-8") as stream:
            for text in stream:
                line = _parsed(text)
                if line is not None and line.get("mode") == "train" and "step" in line:
                    by_step[int(line["step"])] = line
    return [by_step[step] for step in sorted(by_step)]


def _parsed(text: str) -> Optional[Dict[str, Any]]:
    """None for the half line that a killed process leaves."""
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) else None
