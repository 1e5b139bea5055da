"""How long `bevrepro env build` and `env verify` take beside pip, from warm caches; do two builds agree?

    python benchmarks/env_build.py [--target cpu] [--runs 3] [--out FILE]

Ours and pip's runs alternate, so that a busy machine slows both. pip gets the same interpreter, locks, hashes
and places to look. Ours counts everything from the command to its end: packages, self-test, digest, receipt;
`packages` is the part that pip does. Prints JSON with every run, not only the best.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bevrepro.env import interpreter, plan, receipt, target, wheels  # noqa: E402


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--target", default="cpu")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write the figures there as well")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="env-build-") as scratch:
        figures = measure(args.target, args.runs, Path(scratch))
    text = json.dumps(figures, indent=1) + "\n"
    print(text, end="")
    if args.out:
        args.out.write_text(text, encoding="utf-8")


def measure(name: str, runs: int, scratch: Path) -> dict[str, Any]:
    """All figures. The first run of both only warms the caches."""
    wanted = target.load(name)
    python = interpreter.find_python(wanted.python)
    locks, unhashed = plan.read_locks(wanted, python)
    lock = scratch / "lock.txt"
    lock.write_text(wheels.requirement_lines(locks.pins.values()))
    ours, pips = [], []
    for number in range(runs + 1):
        mine = build(name, scratch / "env")
        mine["verify_s"] = timed(
            [sys.executable, "-m", "bevrepro", "env", "verify", "--prefix", scratch / "env"]
        )
        other = pip(python.path, lock, scratch / "pip", compiles=True)
        other["without_bytecode_s"] = pip(python.path, lock, scratch / "pip", compiles=False)["seconds"]
        if number:
            ours.append(mine)
            pips.append(other)
    best, best_pip = (min(run["seconds"] for run in runs_of) for runs_of in (ours, pips))
    packages = min(run["packages_s"] for run in ours)
    return {
        "target": name,
        "packages": len(locks.pins),
        "unhashed": list(unhashed),
        "machine": f"{os.cpu_count()} cores, {platform.platform()}, Python {python.version}",
        "date": time.strftime("%Y-%m-%d"),
        "build": ours,
        "pip": pips,
        "best_build_s": best,
        "best_pip_s": best_pip,
        "pip_over_build": round(best_pip / best, 2),
        "pip_over_packages": round(best_pip / packages, 2),
        "best_verify_s": min(run["verify_s"] for run in ours),
        "digests_equal": len({run["digest"] for run in ours}) == 1,
    }


def build(name: str, prefix: Path) -> dict[str, Any]:
    """A build at the same prefix, after the one before was removed."""
    command = [sys.executable, "-m", "bevrepro", "env"]
    if prefix.exists():
        run([*command, "remove", "--target", name, "--prefix", prefix])
    load = os.getloadavg()[0]
    seconds = timed([*command, "build", "--target", name, "--prefix", prefix])
    told = receipt.read_receipt(prefix)
    steps = {str(step["name"]): float(step["seconds"]) for step in told.steps}
    return {
        "seconds": seconds,
        "packages_s": round(steps["venv"] + steps["wheels"], 2),
        "selftest_s": round(steps["selftest"], 2),
        "load_before": round(load, 1),
        "digest": told.digest,
    }


def pip(python: str, lock: Path, folder: Path, compiles: bool) -> dict[str, Any]:
    """A virtual environment and everything in it by that interpreter's own pip."""
    shutil.rmtree(folder, ignore_errors=True)
    load = os.getloadavg()[0]
    started_s = time.monotonic()
    run([python, "-I", "-m", "venv", folder])
    words = ["install", "--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:", "-r", lock]
    words += [] if compiles else ["--no-compile"]
    run([folder / "bin/python", "-I", "-m", "pip", "--disable-pip-version-check", *words])
    seconds = round(time.monotonic() - started_s, 2)
    shutil.rmtree(folder)
    return {"seconds": seconds, "load_before": round(load, 1)}


def timed(argv: list[Any]) -> float:
    """Wall seconds of a command that has to succeed."""
    started_s = time.monotonic()
    run(argv)
    return round(time.monotonic() - started_s, 2)


def run(argv: list[Any]) -> None:
    done = subprocess.run([str(word) for word in argv], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{argv}: {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")


if __name__ == "__main__":
    main()
