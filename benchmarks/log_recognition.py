"""How well the doctor reads logs: recall and precision of the root cause over tests/logs.

    python benchmarks/log_recognition.py [--out FILE]

Prints JSON. A log counts for recall where it has a root cause: is the first explanation it? For precision
where there was any explanation: is the first one right? Healthy logs have no root; any explanation of one
flags it. Of the part kept aside only counts are printed: no names, no contents. How long a log takes:
log_speed.py.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any, BinaryIO

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bevrepro.doctor.logs.failures import known_failures  # noqa: E402
from bevrepro.doctor.logs.rank import rank  # noqa: E402
from bevrepro.doctor.logs.scan import scan  # noqa: E402
from bevrepro.facts import tomllib  # noqa: E402

LOGS = ROOT / "tests" / "logs"
SPLITS = ("dev", "heldout")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the figures there as well")
    args = parser.parse_args()
    figures: dict[str, Any] = {split: measure(split) for split in SPLITS}
    text = json.dumps(figures, indent=1) + "\n"
    print(text, end="")
    if args.out:
        args.out.write_text(text, encoding="utf-8")


def recognise(stream: BinaryIO) -> list[str]:
    """Ids in the order of the explanations."""
    return [each.hit.failure.id for each in rank(scan(stream, known_failures()))]


def labels(split: str) -> dict[str, dict[str, Any]]:
    """File name under tests/logs -> its label."""
    table = tomllib.loads((LOGS / "labels.toml").read_text(encoding="utf-8"))
    return {name: label for name, label in table.items() if name.startswith(f"{split}/")}


def measure(split: str) -> dict[str, Any]:
    """Counts and figures of one part of the set."""
    broken = told = right = healthy = flagged = 0
    for name, label in labels(split).items():
        with (LOGS / name).open("rb") as stream:
            first = next(iter(recognise(stream)), "")
        told += bool(first)
        broken += bool(label["root"])
        healthy += not label["root"]
        right += bool(first) and first == label["root"]
        flagged += bool(first) and not label["root"]
    return {
        "logs": broken + healthy,
        "broken": broken,
        "healthy": healthy,
        "root_right": right,
        "recall": round(right / broken, 4) if broken else None,
        "precision": round(right / told, 4) if told else None,
        "healthy_flagged": flagged,
    }


if __name__ == "__main__":
    main()
