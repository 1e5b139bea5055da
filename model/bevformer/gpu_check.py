"""`make gpu-check`: what a GPU machine has to show, from a bare checkout, in less than ten minutes.

    PYTHONPATH=model python -m bevformer.gpu_check [--seconds 520] [--out FILE] [--only PART...] [--list]

It needs a Python with torch, NumPy and Triton, nothing of `.venv`.  Its parts run one by one, the most
telling first, each in a process of its own with a limit of its own, so that a crash or a hang costs that part
alone.  What time did not allow is listed, never dropped silently.  The JSON is written after every part.  The
exit code is 1 when the numbers are wrong or were not compared; a missed goal of speed is shown, no more.
"""

import argparse
import json
import os
import re
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from .atomic import write_atomically
from .errors import ConfigError, UserError
from .gpu_goals import goal_lines, goals
from .gpu_parts import Ended, Part, command_of, parts_for, run_part

SCHEMA = "bevformer-gpu-check/1"
SECONDS = 520.0  # of 600 that the machine's tool gives, and less than the nine minutes of `make gpu-check`
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
Run = Callable[[Sequence[str], float], Ended]
OTHERS = ("mmcv", "deformops")  # in 16 bits they round where samples lie
RAISED = re.compile(r"(?:\w+\.)*\w*(?:Error|Exception): ")  # first line of what a traceback ends with
DONE, FAILED, CUT, LEFT_OUT, MISSING = "done", "failed", "cut off", "no time left", "not possible here"


@dataclass(frozen=True)
class Job:
    """What one run is asked for."""

    device: str
    seconds: float
    parts: Tuple[Part, ...]
    folder: str  # for the parts' own files
    out: Optional[str]


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="gpu-check", description=__doc__)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="cpu: to try this program")
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help="for everything (default: %(default)g)"
    )
    parser.add_argument(
        "--out", metavar="FILE", help="default: $OUT, else benchmarks/gpu/<device>-<date>.json"
    )
    parser.add_argument("--only", nargs="+", metavar="PART", help="these alone; see --list")
    parser.add_argument("--list", action="store_true", help="the parts, in their order")
    args = parser.parse_args(argv)
    parts = parts_for(args.device, ROOT)
    if args.list:
        for part in parts:
            sys.stdout.write("%-16s at most %3.0f s  %s\n" % (part.name, part.limit_s, part.what))
        return 0
    try:
        chosen = choose(parts, args.only)
        with tempfile.TemporaryDirectory(prefix="gpu-check-") as folder:
            job = Job(args.device, args.seconds, chosen, folder, args.out)
            return check(job, run_part, time.monotonic, say)
    except UserError as error:
        say(str(error))
        return error.exit_code


def say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def choose(parts: Sequence[Part], names: Optional[Sequence[str]]) -> Tuple[Part, ...]:
    """Raises ConfigError for a name that there is not.  The machine is always looked at."""
    known = [part.name for part in parts]
    for name in names or ():
        if name not in known:
            raise ConfigError("no such part: %r" % name, do="One of: " + ", ".join(known))
    return tuple(part for part in parts if not names or part.name in names or part.name == "machine")


def check(job: Job, run: Run, clock: Callable[[], float], tell: Callable[[str], None]) -> int:
    """Run the parts; the exit code.  Raises UserError where the machine has not what everything needs."""
    start_s = clock()
    result: Dict[str, Any] = {"schema": SCHEMA, "device": job.device, "budget_s": job.seconds, "parts": []}
    for part in job.parts:
        left_s = job.seconds - (clock() - start_s)
        entry = tried(part, job, result, min(part.limit_s, left_s), run, clock)
        result["parts"].append(entry)
        result.update(summary(result, round(clock() - start_s, 1)))
        tell("%-16s %-18s %6.1f s  %s" % (part.name, entry["status"], entry["seconds"], entry["why"]))
        if part.name == "machine":
            require_machine(entry, job.device)
            result["machine"] = entry["found"]
            out = job.out or default_out(entry["found"])
        write_atomically(out, json.dumps(result, indent=1) + "\n")
    for line in goal_lines(result["goals"]):
        tell(line)
    tell(verdict(result))
    tell("Wrote %s" % out)
    return 0 if result["correct"] else 1


def tried(
    part: Part, job: Job, result: Dict[str, Any], limit_s: float, run: Run, clock: Callable[[], float]
) -> Dict[str, Any]:
    """The entry of one part, run or not."""
    entry: Dict[str, Any] = {"name": part.name, "what": part.what, "correctness": part.correctness}
    entry["shows"] = list(part.shows)
    entry.update(status=LEFT_OUT, why="", seconds=0.0, command=None, found=None, output=None)
    lacking = missing(part, result)
    if lacking:
        return dict(entry, status=MISSING, why="it needs %s, which is not installed" % " and ".join(lacking))
    if limit_s < part.least_s:
        return dict(entry, why="it needs %.0f s, %.0f are left" % (part.least_s, max(limit_s, 0)))
    path = os.path.join(job.folder, part.name + ".json")
    command = command_of(part, path)
    start_s = clock()
    ended = run(command, limit_s)
    entry.update(command=" ".join(command), seconds=round(clock() - start_s, 1), output=ended.tail)
    entry["found"], trouble = read_found(path, part, ended)
    if ended.code is None:
        return dict(
            entry,
            status=CUT,
            why="after %.0f s%s" % (limit_s, "; what it had is kept" * bool(entry["found"])),
        )
    if ended.code != 0 or trouble:
        return dict(entry, status=FAILED, why=trouble or last_line(ended, part))
    return dict(entry, status=DONE, why="" if part.writes else last_words(ended))


def missing(part: Part, result: Dict[str, Any]) -> List[str]:
    installed = (result.get("machine") or {}).get("installed", {})
    return [name for name in part.needs if result.get("machine") and not installed.get(name)]


def read_found(path: str, part: Part, ended: Ended) -> Tuple[Optional[Dict[str, Any]], str]:
    """What the part wrote, and what is wrong with it."""
    if not part.writes:
        return None, ""
    try:
        with open(path, encoding="utf-8") as stream:
            return dict(json.load(stream)), ""
    except OSError:
        return None, "" if ended.code != 0 else "it wrote nothing"
    except (ValueError, TypeError) as error:
        return None, "what it wrote cannot be read: %s" % error


def last_line(ended: Ended, part: Part) -> str:
    """CUDA's errors have several lines, of which the last says how to compile torch."""
    raised = [line for line in ended.tail.splitlines() if RAISED.match(line)]
    said = raised[-1].strip()[:200] if raised and part.writes else last_words(ended)
    return "exit code %s: %s" % (ended.code, said)


def last_words(ended: Ended) -> str:
    lines = [line for line in ended.tail.strip().splitlines() if line.strip()]
    return lines[-1].strip()[:200] if lines else "it said nothing"


def require_machine(entry: Dict[str, Any], device: str) -> None:
    """Raises UserError naming what is not there."""
    found = entry["found"]
    if entry["status"] != DONE or not found:
        raise UserError(
            "%s cannot import torch: %s" % (sys.executable, entry["why"]),
            "Everything here runs in that interpreter.",
            "Name one that has torch: make gpu-check PY=/path/to/python",
        )
    wanted = ["numpy", "triton"] if device == "cuda" else ["numpy"]
    lacking = [name for name in wanted if not found["installed"].get(name)]
    if device == "cuda" and not found.get("gpu"):
        raise UserError(
            "torch %s sees no GPU" % found.get("torch"),
            "There is nothing to check.",
            "Run it where there is one; `--device cpu` tries this program without.",
        )
    if lacking:
        raise UserError(
            "%s is not installed for %s" % (" and ".join(lacking), sys.executable),
            "The operators and the model need it.",
            "Install it there: pip install %s" % " ".join(lacking),
        )


def summary(result: Dict[str, Any], seconds: float) -> Dict[str, Any]:
    """What the parts so far come to."""
    parts = result["parts"]
    judged = [right(each) for each in parts if each["correctness"]]
    documents = [
        each["found"] for each in parts if isinstance(each["found"], dict) and "rows" in each["found"]
    ]
    return {
        "seconds": seconds,
        "correct": bool(judged) and all(judged),
        "left_out": [each["name"] for each in parts if each["status"] in (LEFT_OUT, MISSING)],
        "failed": [each["name"] for each in parts if each["status"] in (FAILED, CUT)],
        "goals": goals(documents),
    }


def right(entry: Dict[str, Any]) -> bool:
    """Whether a part of the class correctness showed it; one that is not possible here is not counted."""
    if entry["status"] == MISSING:
        return True
    return entry["status"] == DONE and not unshown(entry) and not wrong(entry, of_others=False)


def unshown(entry: Dict[str, Any]) -> List[str]:
    """`base spatial bf16, triton`: who has to be there and was not compared in one of the cases."""
    found = entry["found"] or {}
    rows = found.get("rows", [])
    judged = {(row["case"], row["who"]) for row in rows if "right" in row}
    cases = list(dict.fromkeys(row["case"] for row in rows)) or ["no case"] * bool(entry["shows"])
    missed = ["%s, %s" % (case, who) for case in cases for who in entry["shows"] if (case, who) not in judged]
    failed = [key for key in found.get("absent", {}) if key.split(", ")[-1] in entry["shows"]]
    return list(dict.fromkeys(missed + failed))


def wrong(entry: Dict[str, Any], of_others: bool) -> List[str]:
    """`base spatial, forward, cpp`.  Operators that are not of this project are told and not judged."""
    rows = (entry["found"] or {}).get("rows", [])
    found = [row for row in rows if not row.get("right", True) and (row["who"] in OTHERS) is of_others]
    return ["%s, %s, %s" % (row["case"], row["what"], row["who"]) for row in found]


def default_out(machine: Dict[str, Any]) -> str:
    """<gpu>-<date>.json in $OUT where that is a folder, else in benchmarks/gpu of the checkout."""
    slug = "".join(c if c.isalnum() else "-" for c in str(machine.get("gpu") or "cpu").lower())
    name = "%s-%s.json" % (slug, str(machine["time"])[:10])
    folder = os.environ.get("OUT", "")
    return os.path.join(folder if os.path.isdir(folder) else os.path.join(ROOT, "benchmarks", "gpu"), name)


def verdict(result: Dict[str, Any]) -> str:
    lists = [("failed or cut off", result["failed"]), ("left out", result["left_out"])]
    lists.append(("wrong, and not ours", [each for part in result["parts"] for each in wrong(part, True)]))
    left = "".join("; %s: %s" % (title, ", ".join(names)) for title, names in lists if names)
    if result["correct"]:
        return "The numbers agree (%.0f s)%s" % (result["seconds"], left)
    bad = [each for each in result["parts"] if each["correctness"] and not right(each)]
    why = "; ".join(map(_told, bad)) if bad else "nothing that compares them has run"
    return "The numbers are NOT shown to agree: %s (%.0f s)%s" % (why, result["seconds"], left)


def _told(entry: Dict[str, Any]) -> str:
    """The part, what of it is wrong or was not compared, and the first reason there is."""
    lists = [("wrong", wrong(entry, of_others=False)), ("not compared", unshown(entry))]
    absent = (entry["found"] or {}).get("absent", {})
    lists.append(("since", [why for key, why in absent.items() if key.split(", ")[-1] in entry["shows"]][:1]))
    found = ["%s: %s" % (title, ", ".join(names[:6])) for title, names in lists if names]
    return "%s (%s)" % (entry["name"], "; ".join(found)) if found else str(entry["name"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
