"""docs/performance.md: its tables from the JSON files beside this program.  It reads JSON, nothing else.

    python benchmarks/performance_page.py [--check]

What stands between `<!-- table NAME -->` and `<!-- end -->` is written anew, the words around it are kept.
--check writes nothing and says with exit code 1 that something would change.
"""

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDER, PAGE = ROOT / "benchmarks", ROOT / "docs" / "performance.md"
BASELINES = {"ops": "grid_sample", "step": "plain", "infer": "plain", "loader": "float"}
LAUNCHES = ("operators", "kernels")  # units: what a step asks of the device one by one
MB = 1e6
Row = Mapping[str, Any]
Document = Mapping[str, Any]


def main(argv: Sequence[str]) -> int:
    old = PAGE.read_text()
    new = written(old, FOLDER)
    if "--check" in argv:
        if new != old:
            sys.stderr.write("docs/performance.md is not that of the files in benchmarks/: run make docs\n")
        return int(new != old)
    PAGE.write_text(new)
    return 0


def written(page: str, folder: Path) -> str:
    """The page with every table made anew.  Raises ValueError for a table that there is not."""

    def table(found: "re.Match[str]") -> str:
        name, *words = found.group(1).split()
        if name not in TABLES:
            raise ValueError(
                "docs/performance.md asks for a table {!r}; there are {}".format(name, ", ".join(TABLES))
            )
        lines = TABLES[name](folder, *words)
        return "<!-- table {} -->\n{}\n<!-- end -->".format(found.group(1), "\n".join(lines))

    return re.sub(r"<!-- table ([^>]+?) -->\n.*?<!-- end -->", table, page, flags=re.DOTALL)


def load(path: Path) -> Document | None:
    found: Document | None = json.loads(path.read_text()) if path.exists() else None
    return found


def grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table; every column but the first to the right."""
    lines = ["| " + " | ".join(head) + " |", "|---|" + "--:|" * (len(head) - 1)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def not_yet(what: str, command: str) -> list[str]:
    return [f"Not measured yet: `{command}` writes {what}."]


def source(document: Document, path: Path) -> str:
    """Hardware, versions, date, command: what a number is worth without them is nothing."""
    host, versions = document["host"], document["versions"]
    machine = host["gpu"] or "{}, {}".format(host["cpu"], _count(host["threads"], "thread"))
    words = [machine, "torch {}".format(versions["torch"]), document["time"][:10]]
    if document.get("commit"):
        words.append(
            "commit {}{}".format(document["commit"][:9], " with changes" if document.get("dirty") else "")
        )
    if document.get("load_1m_before") is not None:
        words.append("load before {:.1f}".format(document["load_1m_before"]))
    return "{}: `{}` ([numbers](../benchmarks/{}))".format(", ".join(words), _command(document), path.name)


def _command(document: Document) -> str:
    """Without where it wrote to."""
    return re.sub(r" --out \S+", "", document["command"])


def _count(number: Any, noun: str) -> str:
    return "{} {}{}".format(number, noun, "" if number == 1 else "s")


def amount(value: float, unit: str) -> str:
    if unit == "s":
        return f"{digits(value)} s" if value >= 1 else f"{digits(value * 1e3)} ms"
    return f"{digits(value)} {unit}"


def digits(value: float) -> str:
    """Three digits that count; 1234 stays 1234."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def ops_table(folder: Path, name: str) -> list[str]:
    path = folder / name
    document = load(path)
    if document is None:
        return not_yet("benchmarks/" + name, "python -m bevformer.bench ops --out benchmarks/" + name)
    head = [
        "",
        "forward",
        "training",
        "times forward",
        "times training",
        "kept for backward",
        "largest error",
    ]
    rows = []
    for case in _unique(row["case"] for row in document["rows"]):
        for who in _unique(row["who"] for row in document["rows"] if row["case"] == case):
            rows.append([f"{case}, {who}", *_ops_cells(document, case, who)])
    return [*grid(head, rows), "", source(document, path), *_absent(document)]


def _ops_cells(document: Document, case: str, who: str) -> list[str]:
    forward, training = (_find(document, case, what, who) for what in ("forward", "training"))
    errors = [row["max_error"] for row in (forward, training) if row and "max_error" in row]
    wrong = any(row and row.get("right") is False for row in (forward, training))
    return [
        *(amount(row["median"], row["unit"]) if row else "" for row in (forward, training)),
        *(_times(document, case, what, who) for what in ("forward", "training")),
        "{} MB".format(digits(training["saved_mb"])) if training and "saved_mb" in training else "",
        (f"{max(errors):.1g}" if errors else "") + (" **wrong**" if wrong else ""),
    ]


def _absent(document: Document) -> list[str]:
    names = [name for name in document.get("absent", {}) if "," not in name]
    return ["", "Not there when it was measured: {}.".format(", ".join(names))] if names else []


def steps_table(folder: Path, name: str, kind: str = "step") -> list[str]:
    path = folder / name
    document = load(path)
    if document is None:
        return not_yet("benchmarks/" + name, f"python -m bevformer.bench {kind} --out benchmarks/{name}")
    counted = _unique(row["what"] for row in document["rows"] if row["unit"] in LAUNCHES)
    head, rows = (
        ["", "time", "times plain", "peak", *(name.split(" of ")[0] for name in counted), "levers"],
        [],
    )
    for row in document["rows"]:
        if row["unit"] != "s":
            continue
        case, who = row["case"], row["who"]
        saved = _times(document, case, "peak memory", who)
        peak = _beside(f"{digits(row['peak_gb'])} GB", saved) if row.get("peak_gb") is not None else ""
        times = _times(document, case, row["what"], who)
        levers = ", ".join(row.get("levers") or []) or "none"
        launches = [_launches(document, case, what, who) for what in counted]
        rows.append([f"{case}, {who}", amount(row["median"], row["unit"]), times, peak, *launches, levers])
    return [*grid(head, rows), "", source(document, path)]


def _launches(document: Document, case: str, what: str, who: str) -> str:
    found, times = _find(document, case, what, who), _times(document, case, what, who)
    return (
        ""
        if found is None
        else "{:.0f}".format(found["median"]) + (f", {times} times fewer" if times else "")
    )


def loader_table(folder: Path, name: str) -> list[str]:
    path = folder / name
    document = load(path)
    if document is None:
        return not_yet("benchmarks/" + name, "python -m bevformer.bench loader --out benchmarks/" + name)
    whats = _unique(row["what"] for row in document["rows"])
    rows = []
    for case in _unique(row["case"] for row in document["rows"]):
        for who in _unique(row["who"] for row in document["rows"] if row["case"] == case):
            found = [_find(document, case, what, who) for what in whats]
            cells = [amount(row["median"], row["unit"]) if row else "" for row in found]
            times = [_times(document, case, what, who) for what in whats]
            rows.append([f"{case}, {who}", *map(_beside, cells, times)])
    return [*grid(["", *whats], rows), "", source(document, path)]


def _beside(cell: str, times: str) -> str:
    return f"{cell}, {times} times less" if times else cell


def memory_table(folder: Path, name: str = "plan_memory.json") -> list[str]:
    """What each rung leaves of a training step's peak, on top of those before it."""
    path = folder / name
    document = load(path)
    if document is None or "rows" not in document:
        return not_yet("benchmarks/" + name, "python -m bevformer.bench memory --out benchmarks/" + name)
    cases = [
        case for case in ("tiny", "small", "base") if any(row["case"] == case for row in document["rows"])
    ]
    names = ["none"] + [rung["name"] for rung in document["ladder"]]
    rows = []
    for rung in names:
        found = [_find(document, case, "peak of a training step", rung) for case in cases]
        cells = ["{:.2f} GB".format(row["median"]) if row else "the same" for row in found]
        rows.append(["nothing" if rung == "none" else f"`{rung}`", *cells])
    return [*grid(["on top of those above", *cases], rows), "", source(document, path)]


def levers_table(folder: Path, name: str = "plan_memory.json") -> list[str]:
    document = load(folder / name)
    if document is None or "ladder" not in document:
        return not_yet("benchmarks/" + name, "python -m bevformer.bench memory --out benchmarks/" + name)
    lines = ["| rung | what it does | what it does to the result | asked for by |", "|---|---|---|---|"]
    for rung in document["ladder"]:
        lines.append("| `{name}` | {what} | {effect} | `{ask}` |".format(**rung))
    return lines


def gpu_table(folder: Path) -> list[str]:
    paths = sorted((folder / "gpu").glob("*.json"))
    if not paths:
        return [
            "Not measured yet: `make gpu-check` on a machine with a GPU writes a file to benchmarks/gpu/."
        ]
    lines: list[str] = []
    for path in paths:
        lines += ["", *_gpu_lines(json.loads(path.read_text()), path)]
    return lines[1:]


def _gpu_lines(result: Document, path: Path) -> list[str]:
    machine = result["machine"]
    title = "{}, torch {}, {}".format(machine["gpu"], machine["torch"], machine["time"][:10])
    rows = []
    for goal in result["goals"]:
        if goal["measured"] is None and goal["met"] is None:
            rows.append([goal["what"], "not measured", "", ""])
            continue
        wanted = (
            ""
            if goal["goal"] is None
            else "{} {:g}".format("<=" if goal["less_is_better"] else ">=", goal["goal"])
        )
        met = {True: "yes", False: "no", None: ""}[goal["met"]]
        rows.append([goal["what"], digits(goal["measured"]), wanted, met])
    agree = (
        "The numbers agree with float64." if result["correct"] else "**The numbers were not shown to agree.**"
    )
    left = "Left out: {}.".format(", ".join(result["left_out"])) if result["left_out"] else ""
    told = " ".join(filter(None, [agree, left, f"[numbers](../benchmarks/gpu/{path.name})"]))
    return [f"**{title}**", "", *grid(["", "measured", "goal", "met"], rows), "", told]


def _times(document: Document, case: str, what: str, who: str) -> str:
    """`4.1`, with the goal where there is one."""
    for row in document.get("ratios", ()):
        same = (row["case"], row["what"], row["who"]) == (case, what, who)
        if same and row["against"] == BASELINES.get(document["kind"]):
            goal = (
                ""
                if "goal" not in row
                else " (goal {:g}{})".format(row["goal"], "" if row["met"] else ", **missed**")
            )
            return digits(row["times"]) + goal
    return ""


def _find(document: Document, case: str, what: str, who: str) -> Row | None:
    rows: list[Row] = document["rows"]
    for row in rows:
        if (row["case"], row["what"], row["who"]) == (case, what, who):
            return row
    return None


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def scores_table(folder: Path, name: str) -> list[str]:
    path = folder / name
    document = load(path)
    if document is None:
        return not_yet("benchmarks/" + name, "python benchmarks/micro_levers.py FOLDER --out FILE")
    rows = []
    for each in document["rows"]:
        words = " ".join(word for word in each["words"] if word != "--cfg-options")
        cells = [f"{each['map']:.4f}", f"{each['nds']:.4f}", "yes" if each["inside"] else "**no**"]
        rows.append([f"`{words}`", *cells])
    bands = ["{:.3f} to {:.3f}".format(*document["band"][key]) for key in ("map", "nds")]
    return grid(["options", "mAP", "NDS", "inside"], [["the band", *bands, ""], *rows])


TABLES: dict[str, Callable[..., list[str]]] = {
    "ops": ops_table,
    "steps": steps_table,
    "loader": loader_table,
    "memory": memory_table,
    "levers": levers_table,
    "scores": scores_table,
    "gpu": gpu_table,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
