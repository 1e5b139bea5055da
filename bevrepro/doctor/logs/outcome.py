"""How a log ends: whether what broke was tried again and went well.

A run that was killed and resumed, or a first attempt that failed and a second one that trains or evaluates,
is no failure any more. Steps alone do not say so: they may be another job's, or the other ranks'. And what a
test runner prints of tests that all passed was meant to be there.
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
# A result of an evaluation that is not zero, and how schedulers and CI say that all went well.
_RESULT = re.compile(
    rb"\b(?:mAP|NDS|mIoU)\b['\"]?(?: of \d+ samples)? ?[:=] ?(?:0?\.\d*[1-9]|[1-9]\d?\.\d)"
    rb"|\bJob succeeded\b|\bState ?[:=] ?COMPLETED\b|\bexited with code 0\b"
)
_TESTS_BEGIN = re.compile(rb"={8,} test session starts ={8,}")
_TESTS_PASSED = re.compile(rb"={4,} (?![^=]*\b(?:failed|errors?)\b)[^=]*\b\d+ passed\b[^=]* in [\d.]+s")
_TROUBLE = re.compile(
    rb"Traceback|(?:Error|Exception)\b|\b(?:error|fatal|killed|abort(?:ed|ing)?|failed|core dumped|cancelled"
    rb"|timed? ?out|out of memory|signal)\b",
    re.IGNORECASE,
)


def overcome(hits: Iterable[Hit], lines: Sequence[bytes], numbers: Sequence[int]) -> tuple[Hit, ...]:
    """The hits without crashes that the log got over, and without what passed tests printed; given the log's
    last lines.
    """
    since = max(_trains_since(lines, numbers), _succeeds_since(lines, numbers))
    tests = _passed_tests(lines, numbers)
    return tuple(hit for hit in hits if not (_is_past(hit, since) or _is_of(hit, tests)))


def _is_past(hit: Hit, since: int) -> bool:
    failure = hit.failure
    return failure.kind == "crash" and failure.tier <= Tier.WRAPPER and max(hit.numbers) < since


def _is_of(hit: Hit, stretches: Iterable[range]) -> bool:
    return any(number in stretch for stretch in stretches for number in hit.numbers)


def _trains_since(lines: Sequence[bytes], numbers: Sequence[int]) -> int:
    """The line with which the training began that runs to the end; 0 where none does."""
    steps = 0
    for line, number in zip(reversed(lines), reversed(numbers)):
        if _START.search(line):
            return number if steps >= STEPS_AFTER else 0
        if _TROUBLE.search(line):
            return 0
        steps += bool(steps < STEPS_AFTER and _STEP.search(clean(line)))
    return 0


def _succeeds_since(lines: Sequence[bytes], numbers: Sequence[int]) -> int:
    """The line of a result that no trouble follows; 0 where there is none."""
    for line, number in zip(reversed(lines), reversed(numbers)):
        if _RESULT.search(line):
            return number
        if _TROUBLE.search(line):
            return 0
    return 0


def _passed_tests(lines: Sequence[bytes], numbers: Sequence[int]) -> list[range]:
    """Sessions of pytest in which nothing failed."""
    begin, found = 0, []
    for line, number in zip(lines, numbers):
        if _TESTS_BEGIN.search(line):
            begin = number
        elif begin and _TESTS_PASSED.search(line):
            found.append(range(begin, number + 1))
            begin = 0
    return found
