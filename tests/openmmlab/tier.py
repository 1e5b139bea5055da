"""`make test-openmmlab`: build the OpenMMLab targets and test each of them, from inside and from outside.

    .venv/bin/python tests/openmmlab/tier.py [--target NAME ...] [PYTEST'S WORDS]

A target whose Python is nowhere on this machine is skipped, and the last lines say so. The environments lie
in .openmmlab/ of the checkout ($BEVREPRO_DATA chooses another folder); one that is there is used again.
The summary has wall and CPU time of every step, the bound that the whole is held to, and what was skipped.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from bevrepro.core.errors import UserError
from bevrepro.env import interpreter
from bevrepro.env.target import load

CHECKOUT = Path(__file__).resolve().parents[2]
TARGETS = ("cpu-openmmlab", "cpu-openmmlab-torch2")
OUTSIDE = ("tests/cli", "tests/doctor", "tests/drive", "tests/env")
NO_TESTS = 5  # pytest's exit code
BEVREPRO = (sys.executable, "-m", "bevrepro")
# What was asked for, from nothing on 2 cores: both halves, and the one that CI takes.
CORES, BOTH_MIN, CI, CI_MIN = 2, 45, ("cpu-openmmlab-torch2",), 25
UPSTREAM = "BEVREPRO_BEVFORMER"  # names a checkout of BEVFormer, which nothing here can fetch


@dataclass(frozen=True)
class Done:
    """A step that ran, or a target that was skipped; `skipped`: reason -> how many tests."""

    name: str
    told: str
    well: bool
    wall_s: float = 0.0
    cpu_s: float = 0.0
    skipped: "dict[str, int]" = field(default_factory=dict)

    def lines(self) -> "list[str]":
        spent = "%6.1f s %7.1f s CPU" % (self.wall_s, self.cpu_s) if self.wall_s else " " * 21
        more = ["    skipped %d: %s" % (count, reason) for reason, count in self.skipped.items()]
        return ["%-44s %s  %s" % (self.name, spent, self.told), *more]


def without_python(target: str) -> "str | None":
    """Why the target cannot be built here; None where its Python was found."""
    try:
        interpreter.find_python(load(target).python)
    except UserError as error:
        return error.seen
    return None


def steps(target: str, words: "list[str]", report: Path) -> "list[tuple[str, tuple[object, ...]]]":
    """What is done with one target: a name and a command each."""
    at = ("--target", target)
    inside = Path(__file__).with_name("inside.py")
    return [
        ("build", (*BEVREPRO, "env", "build", *at)),
        ("verify", (*BEVREPRO, "env", "verify", *at)),
        ("self-test", (*BEVREPRO, "env", "run", *at, "--", "python", "-m", "bevformer.selftest")),
        ("tests inside", (sys.executable, inside, target, "--junitxml=%s" % report, *words)),
    ]


def run(
    name: str, command: "tuple[object, ...]", allowed: "tuple[int, ...]" = (0,), report: "Path | None" = None
) -> Done:
    """One step, measured with all that it starts and waits for."""
    started_s, before_s = time.monotonic(), _cpu_s()
    print("-- %s" % name, flush=True)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (CHECKOUT / "model", CHECKOUT)))}
    code = subprocess.run([str(word) for word in command], cwd=CHECKOUT, env=env).returncode
    told = "ok" if code in allowed else "FAILED with exit code %d" % code
    skipped = skipped_in(report) if report and report.exists() else {}
    return Done(name, told, code in allowed, time.monotonic() - started_s, _cpu_s() - before_s, skipped)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def skipped_in(report: Path) -> "dict[str, int]":
    """Reason -> how many, of pytest's JUnit file."""
    found = ElementTree.parse(report).iter("skipped")
    return dict(Counter(each.get("message", "") for each in found if each.get("type") == "pytest.skip"))


def test(target: str, words: "list[str]", report: Path) -> "list[Done]":
    """The target's steps; what follows a build that failed is not tried."""
    reason = without_python(target)
    if reason:
        return [Done(target, "skipped: %s" % reason, True)]
    rows = []
    for name, command in steps(target, words, report):
        inside = name == "tests inside"
        rows.append(run(target + ": " + name, command, report=report if inside else None))
        if name == "build" and not rows[-1].well:
            break
    return rows


def judge(rows: "list[Done]", targets: "tuple[str, ...]") -> "tuple[list[str], bool]":
    """What the whole took against its bound, and whether that is still within reason.

    A slow or busy machine alone fails nothing. More CPU time than CORES idle cores have in that time does:
    no machine of this kind could hold the bound then.
    """
    wall_min, cpu_min = (sum(spent) / 60 for spent in zip(*((row.wall_s, row.cpu_s) for row in rows)))
    bound = CI_MIN if targets == CI else BOTH_MIN
    cores = len(os.sched_getaffinity(0))
    said = ["%.1f minutes, %.1f CPU minutes, %d cores; bound: %d minutes on %d cores"
            % (wall_min, cpu_min, cores, bound, CORES)]  # fmt: skip
    if wall_min > bound:
        said.append("PASSED THE BOUND of %d minutes; that alone is no failure" % bound)
    possible = cpu_min <= CORES * bound
    if not possible:
        said.append("FAILED: %d idle cores cannot do that in %d minutes" % (CORES, bound))
    return said, possible


def summary(rows: "list[Done]", targets: "tuple[str, ...]") -> "tuple[list[str], bool]":
    """The last lines: every step, each half, the whole, and what no run without a checkout tests."""
    lines = [line for row in rows for line in row.lines()] + [""]
    for target in targets:
        mine = [row for row in rows if row.name.startswith(target + ":")]
        wall_s, cpu_s = sum(row.wall_s for row in mine), sum(row.cpu_s for row in mine)
        lines += ["%s: %.1f minutes, %.1f CPU minutes" % (target, wall_s / 60, cpu_s / 60)] if mine else []
    said, possible = judge(rows, targets)
    unseen = sum(count for row in rows for reason, count in row.skipped.items() if UPSTREAM in reason)
    if unseen:
        said.append("%d tests of a patched BEVFormer checkout did not run: %s names none, as always in CI"
                    % (unseen, UPSTREAM))  # fmt: skip
    return lines + said, possible


def main(argv: "list[str]") -> int:
    """0 where all that was tried went well and something was tried."""
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--target", action="append", choices=TARGETS)
    options, words = parser.parse_known_args(argv)
    os.environ.setdefault("BEVREPRO_DATA", str(CHECKOUT / ".openmmlab"))
    targets = tuple(options.target or TARGETS)
    with tempfile.TemporaryDirectory() as scratch:
        rows = [row for target in targets for row in test(target, words, Path(scratch) / (target + ".xml"))]
        tested = any("tests inside" in row.name for row in rows)
        if tested:
            report = Path(scratch) / "outside.xml"
            pytest = (sys.executable, "-m", "pytest", "-m", "openmmlab", "--junitxml=%s" % report)
            command = (*pytest, *OUTSIDE, *words)
            rows.append(run("tests from outside, --target", command, (0, NO_TESTS), report))
    lines, possible = summary(rows, targets)
    print("\n" + "\n".join(lines))
    return 0 if tested and possible and all(row.well for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
