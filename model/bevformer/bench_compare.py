"""`python -m bevformer.bench --compare A.json B.json`: two runs of the same benchmark, row by row."""

from typing import Any, Dict, List, Mapping, Sequence

from .bench_common import MORE_IS_BETTER
from .bench_read import read
from .errors import ConfigError
from .talk import Talk

HARDWARE = ("cpu", "cpu_capability", "cpus", "threads", "device", "gpu")
ABOUT = "times: A / B in units where less is better, else B / A: above 1, B is better."


def compare(paths: Sequence[str], talk: Talk) -> int:
    """Tells both numbers and their ratio, and what differs between the machines."""
    first, second = (read(path) for path in paths)
    if first["kind"] != second["kind"]:
        raise ConfigError(
            "%s is of `bench %s`, %s of `bench %s`" % (paths[0], first["kind"], paths[1], second["kind"]),
            "Their numbers are of different things.",
            "Compare two files of one kind.",
        )
    differ = differences(first, second)
    for line in differ:
        talk.note("The machines differ, the ratios are not of the code alone: " + line)
    rows, alone = matched(first["rows"], second["rows"])
    for line in told(rows):
        talk.note(line)
    talk.result(
        kind=first["kind"], a=paths[0], b=paths[1], differ=differ, rows=rows, alone=alone, about=ABOUT
    )
    return 0


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> List[str]:
    """`torch: 2.13.0 / 2.12.0`, of the hardware and the versions."""
    found = []
    for group, keys in (("host", HARDWARE), ("versions", ())):
        a, b = first.get(group) or {}, second.get(group) or {}
        for key in keys or sorted({*a, *b}):
            if a.get(key) != b.get(key):
                found.append("%s: %s / %s" % (key, a.get(key), b.get(key)))
    return found


def matched(first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]]) -> Any:
    """Rows that both have, with `times`; and the names of those that one lacks."""
    others = {_key(each): each for each in second}
    rows: List[Dict[str, Any]] = []
    alone: Dict[str, List[str]] = {"a": [], "b": []}
    for each in first:
        key = _key(each)
        other = others.pop(key, None)
        if other is None:
            alone["a"].append(", ".join(key[:3]))
            continue
        case, what, who, unit = key
        a, b = float(each["median"]), float(other["median"])
        more = unit in MORE_IS_BETTER
        above, below = (b, a) if more else (a, b)
        times = above / below if below else None
        rows.append(dict(case=case, what=what, who=who, unit=unit, a=a, b=b, times=times))
    alone["b"] = [", ".join(key[:3]) for key in others]
    return rows, alone


def _key(each: Mapping[str, Any]) -> Any:
    return each["case"], each["what"], each["who"], each["unit"]


def told(rows: Sequence[Mapping[str, Any]]) -> List[str]:
    """A table in plain text."""
    lines = ["%-44s %12s %12s %8s" % ("", "A", "B", "times")]
    for each in rows:
        name = "%s, %s, %s" % (each["case"], each["what"], each["who"])
        times = "-" if each["times"] is None else "%.3g" % each["times"]
        a, b = (amount(each[side], each["unit"]) for side in "ab")
        lines.append("%-44s %12s %12s %8s" % (name, a, b, times))
    return lines


def amount(value: float, unit: str) -> str:
    """Seconds below one as milliseconds."""
    if unit == "s" and value < 1:
        return "%.4g ms" % (value * 1e3)
    return "%.4g %s" % (value, unit)
