"""The goals of the H200 as rows: what was measured against what was to be reached.  None: not measured."""

from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

Rows = Sequence[Mapping[str, Any]]
STEP, INFER = "training step", "inference step with history"
SPATIAL = ("base spatial", "base spatial bf16")
# Times another contender, at the largest preset: (what, against, goal).
OPERATORS: Tuple[Tuple[str, str, float], ...] = (
    ("forward", "mmcv", 2.5),
    ("backward", "mmcv", 3.0),
    ("forward", "grid_sample", 8.0),
    ("backward", "grid_sample", 8.0),
    ("forward", "deformops", 1.3),
    ("backward", "deformops", 1.3),
)
INSTEAD = "grid_sample"  # judged only where mmcv's kernel is not installed


def goals(documents: Sequence[Mapping[str, Any]]) -> List[Dict[str, Any]]:
    rows = [row for document in documents for row in document["rows"]]
    made = operator_goals(rows)
    for preset, times, frames in (("base", 3.0, 25.0), ("tiny", 4.0, 100.0)):
        made.append(
            _goal("%s training step, times a plain fp32 one" % preset, _times(rows, preset, STEP), times)
        )
        made.append(_goal("%s frames per second" % preset, _frames(rows, preset), frames))
    peak = (_row(rows, "base", STEP, "lean") or {}).get("peak_gb")
    made.append(_goal("base training step, peak in GB (bf16)", peak, 7.5, less=True))
    return made


def operator_goals(rows: Rows) -> List[Dict[str, Any]]:
    """Of triton's spatial cross-attention, in fp32 and bf16, against others in the same numbers."""
    found = []
    for case in SPATIAL:
        has_mmcv = _row(rows, case, "forward", "mmcv") is not None
        for what, against, goal in OPERATORS:
            theirs, ours = (_row(rows, case, what, who) for who in (against, "triton"))
            measured = theirs["median"] / ours["median"] if theirs and ours else None
            row = _goal("%s, %s, times %s" % (case, what, against), measured, goal)
            if against == INSTEAD and has_mmcv:
                row.update(goal=None, met=None)
            found.append(row)
    return found


def _goal(what: str, measured: Optional[float], goal: float, less: bool = False) -> Dict[str, Any]:
    met = None if measured is None else (measured <= goal if less else measured >= goal)
    return {"what": what, "measured": measured, "goal": goal, "met": met, "less_is_better": less}


def _row(rows: Rows, case: str, what: str, who: str) -> Optional[Mapping[str, Any]]:
    for each in rows:
        if (each["case"], each["what"], each["who"]) == (case, what, who):
            return each
    return None


def _times(rows: Rows, preset: str, what: str) -> Optional[float]:
    plain, fast = (_row(rows, preset, what, who) for who in ("plain", "fast"))
    return float(plain["median"] / fast["median"]) if plain and fast else None


def _frames(rows: Rows, preset: str) -> Optional[float]:
    fast = _row(rows, preset, INFER, "fast")
    return float(1 / fast["median"]) if fast else None


def goal_lines(found: Sequence[Mapping[str, Any]]) -> List[str]:
    """A table in plain text."""
    lines = ["", "%-48s %10s %10s  %s" % ("", "measured", "goal", "met")]
    for each in found:
        measured = "-" if each["measured"] is None else "%.3g" % each["measured"]
        goal = (
            ""
            if each["goal"] is None
            else "%s%g" % ("<= " if each["less_is_better"] else ">= ", each["goal"])
        )
        met = {True: "yes", False: "NO", None: "not measured" if each["measured"] is None else ""}[
            each["met"]
        ]
        lines.append("%-48s %10s %10s  %s" % (each["what"], measured, goal, met))
    return lines
