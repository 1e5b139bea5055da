"""How a log ends: whether a training was started again after something broke, and still runs.

A run that was killed and resumed, or a first attempt that failed and a second one that trains, is no failure
any more. Steps alone do not say so: they may be another job's, or the other ranks'.
"""

import re
from collections.abc import Iterable, Sequence

from bevrepro.doctor.logs.failures import Tier
from bevrepro.doctor.logs.match import Hit
from bevrepro.doctor.logs.normalise import clean

STEPS_AFTER = 3  # log lines of training after the start
# The text loggers of mmcv and mmengine: how a run begins, and a step with an estimate of the rest.
_START = re.compile(rb"Start running, host|resumed epoch|resumed from epoch|\bworkflow: \[\(")
_STEP = re.compile(r"\bEpoch ?(?:\(train\) ?)?\[\d+\] ?\[ ?\d+/\d+\].*\beta ?:")
_TROUBLE = re.compile(
    rb"Traceback|(?:Error|Exception)\b|\b(?:error|fatal|killed|abort(?:ed|ing)?|failed|core dumped|cancelled"
    rb"|timed? ?out|out of memory|signal)\b",
    re.IGNORECASE,
)


def overcome(hits: Iterable[Hit], lines: Sequence[bytes], numbers: Sequence[int]) -> tuple[Hit, ...]:
    """The hits without crashes from before a training that still runs; given the log's last lines."""
    since = _trains_since(lines, numbers)
    return tuple(hit for hit in hits if since is None or not _is_past(hit, since))


def _is_past(hit: Hit, since: int) -> bool:
    failure = hit.failure
    return failure.kind == "crash" and failure.tier <= Tier.WRAPPER and max(hit.numbers) < since


def _trains_since(lines: Sequence[bytes], numbers: Sequence[int]) -> int | None:
    """The line with which the training began that runs to the end; None where none does."""
    steps = 0
    for line, number in zip(reversed(lines), reversed(numbers)):
        if _START.search(line):
            return number if steps >= STEPS_AFTER else None
        if _TROUBLE.search(line):
            return None
        steps += bool(steps < STEPS_AFTER and _STEP.search(clean(line)))
    return None
