"""`--validate-every N`: what `eval` would say of a checkpoint, while the training waits."""

import os
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

from .errors import ConfigError, UserError
from .memory import give_back, is_out_of_memory, told_by
from .ranks import Ranks
from .runstate import DataOrder
from .talk import Talk

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")  # what makes a process one of several


class Validator:
    """Runs `eval` in this process after every `every` epochs, or steps of a recipe of steps.

    Upstream's `evaluation.interval`. A set that cannot be scored does not end a training of days: the reason
    is said, and kept in run.json.
    """

    def __init__(self, every: int, argv: Sequence[str], by_epoch: bool) -> None:
        if every < 0:
            raise ConfigError("--validate-every %d" % every, do="0 is never, 1 after every epoch.")
        self.every, self._argv, self._by_epoch = every, list(argv), by_epoch

    def due(self, done: int, total: int, order: DataOrder) -> bool:
        """After `done` steps, a checkpoint of which has just been written."""
        if not self.every:
            return False
        period = self.every * (order.steps_per_epoch if self._by_epoch else 1)
        return done == total or done // period > (done - self._since(order)) // period

    def _since(self, order: DataOrder) -> int:
        from .saving import SAVE_EVERY_STEPS

        return order.steps_per_epoch if self._by_epoch else SAVE_EVERY_STEPS

    def run(self, done: int, checkpoint: str, talk: Talk, ranks: Ranks) -> Dict[str, Any]:
        """{"step", "checkpoint", "metrics"} or {"step", "checkpoint", "failed"}.

        With several processes the others wait in `attend`: every frame is a sign of life.
        """
        from . import evaluate

        listener = _Listener(talk, lambda: ranks.sum([0.0]))
        out = os.path.join(os.path.dirname(checkpoint), "eval", os.path.basename(checkpoint)[:-4])
        config = os.path.join(os.path.dirname(checkpoint), "config.json")
        found: Dict[str, Any] = {"step": done, "checkpoint": checkpoint}
        hidden = {name: os.environ.pop(name) for name in TORCHRUN if name in os.environ}
        try:
            # Not `main`, which leaves the process group at its end: the training is still in it.
            evaluate._main(evaluate.parse([config, checkpoint, "--out", out] + self._argv), listener)
            found["metrics"] = listener.metrics
        except (UserError, RuntimeError, MemoryError) as error:
            if not isinstance(error, UserError) and not is_out_of_memory(error):
                raise
            found["failed"] = getattr(error, "seen", "out of memory: %s" % told_by(error))
            talk.note("Not validated: %s" % found["failed"])
        finally:
            give_back()
            os.environ.update(hidden)
            ranks.sum([1.0])
        return found


def attend(ranks: Ranks) -> None:
    """What the other processes do meanwhile."""
    while not ranks.sum([0.0])[0]:
        pass


def scores_of(metrics: Mapping[str, Any]) -> Dict[str, float]:
    """What upstream logs of an evaluation, `pts_bbox_NuScenes/car_AP_dist_0.5` to `/NDS` and `/mAP`; of the
    first subset, without what nuScenes does not define."""
    first: Optional[Mapping[str, Any]] = next(iter(metrics.values()), None)
    if first is None:
        return {}
    scores = {key: float(value) for key, value in first.get("detail", {}).items() if value is not None}
    scores.update({"pts_bbox_NuScenes/%s" % key: float(first[key]) for key in ("NDS", "mAP") if key in first})
    return scores


class _Listener(Talk):
    """Hands on progress and notes, keeps the result."""

    def __init__(self, talk: Talk, alive: Callable[[], List[float]]) -> None:
        super().__init__(talk.events)
        self._talk, self._alive = talk, alive
        self.metrics: Dict[str, Any] = {}

    def progress(self, task: str, done: int, total: int, text: str = "") -> None:
        self._alive()
        self._talk.progress("validate" if task == "eval" else task, done, total, text)

    def note(self, text: str) -> None:
        self._talk.note(text)

    def result(self, **fields: Any) -> None:
        self.metrics = dict(fields.get("metrics") or {})
