"""`make test-openmmlab`: build the OpenMMLab targets and test each of them, from inside and from outside.

    .venv/bin/python tests/openmmlab/tier.py [--target NAME ...] [PYTEST'S WORDS]

A target whose Python is nowhere on this machine is skipped, and the last lines say so. The environments lie
in .openmmlab/ of the checkout ($BEVREPRO_DATA chooses another folder); one that is there is used again.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from bevrepro.core.errors import UserError
from bevrepro.env import interpreter
from bevrepro.env.target import load

CHECKOUT = Path(__file__).resolve().parents[2]
TARGETS = ("cpu-openmmlab", "cpu-openmmlab-torch2")
OUTSIDE = ("tests/cli", "tests/doctor", "tests/drive", "tests/env")
NO_TESTS = 5  # pytest's exit code
BEVREPRO = (sys.executable, "-m", "bevrepro")


def without_python(target: str) -> "str | None":
    """Why the target cannot be built here; None where its Python was found."""
    try:
        interpreter.find_python(load(target).python)
    except UserError as error:
        return error.seen
    return None


def steps(target: str, words: "list[str]") -> "list[tuple[str, tuple[object, ...]]]":
    """What is done with one target: a name and a command each."""
    at = ("--target", target)
    inside = Path(__file__).with_name("inside.py")
    return [
        ("build", (*BEVREPRO, "env", "build", *at)),
        ("verify", (*BEVREPRO, "env", "verify", *at)),
        ("self-test", (*BEVREPRO, "env", "run", *at, "--", "python", "-m", "bevformer.selftest")),
        ("tests inside", (sys.executable, inside, target, *words)),
    ]


def run(name: str, command: "tuple[object, ...]", allowed: "tuple[int, ...]" = (0,)) -> "tuple[str, bool]":
    """One line of the summary, and whether it went well."""
    started_s = time.monotonic()
    print("-- %s" % name, flush=True)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (CHECKOUT / "model", CHECKOUT)))}
    code = subprocess.run([str(word) for word in command], cwd=CHECKOUT, env=env).returncode
    told = "ok" if code in allowed else "FAILED with exit code %d" % code
    return "%-44s %6.1f s  %s" % (name, time.monotonic() - started_s, told), code in allowed


def test(target: str, words: "list[str]") -> "list[tuple[str, bool]]":
    """The target's lines; what follows a build that failed is not tried."""
    reason = without_python(target)
    if reason:
        return [("%-44s           skipped: %s" % (target, reason), True)]
    rows = []
    for name, command in steps(target, words):
        rows.append(run(target + ": " + name, command))
        if name == "build" and not rows[-1][1]:
            break
    return rows


def main(argv: "list[str]") -> int:
    """0 where all that was tried went well and something was tried."""
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--target", action="append", choices=TARGETS)
    options, words = parser.parse_known_args(argv)
    os.environ.setdefault("BEVREPRO_DATA", str(CHECKOUT / ".openmmlab"))
    rows = [row for target in options.target or TARGETS for row in test(target, words)]
    tested = any("tests inside" in line for line, _ in rows)
    if tested:
        pytest = (sys.executable, "-m", "pytest", "-m", "openmmlab", *OUTSIDE, *words)
        rows.append(run("tests from outside, --target", pytest, (0, NO_TESTS)))
    print("\n" + "\n".join(line for line, _ in rows))
    return 0 if tested and all(well for _, well in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
