"""How well the doctor reads logs: recall and precision of the root cause over tests/logs, and its speed.

    python benchmarks/log_recognition.py [--out FILE] [--no-speed]

Prints JSON. A log counts for recall where it has a root cause: is the first explanation it? For precision
where there was any explanation: is the first one right? Healthy logs have no root; any explanation of one
flags it. Of the part kept aside only counts are printed: no names, no contents.
"""

import argparse
import io
import json
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bevrepro.doctor.logs.failures import known_failures  # noqa: E402
from bevrepro.doctor.logs.match import scan  # noqa: E402
from bevrepro.doctor.logs.rank import rank  # noqa: E402
from bevrepro.facts import tomllib  # noqa: E402

LOGS = ROOT / "tests" / "logs"
SPLITS = ("dev", "heldout")
SPEED_B = 24_000_000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the figures there as well")
    parser.add_argument("--no-speed", action="store_true")
    args = parser.parse_args()
    figures: dict[str, Any] = {split: measure(split) for split in SPLITS}
    if not args.no_speed:
        figures["speed"] = {name: seconds(make()) for name, make in SPEED_LOGS.items()}
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


def seconds(data: bytes) -> dict[str, Any]:
    """CPU seconds for one log, the table and the patterns already loaded or not."""
    start = time.process_time()
    found = recognise(io.BytesIO(data))
    return {"bytes": len(data), "cpu_s": round(time.process_time() - start, 2), "found": found[:3]}


def training(size_b: int = SPEED_B) -> bytes:
    """A long training that ends for lack of GPU memory."""
    return _filled(
        size_b, _training_lines(), b"RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB\n"
    )


def distinct(size_b: int = SPEED_B) -> bytes:
    """No line like another: the worst case for leaving out what repeats."""
    return _filled(size_b, _distinct_lines(), b"OSError: [Errno 28] No space left on device\n")


def alarming(size_b: int = SPEED_B) -> bytes:
    """Lines without two alike, each with words that failures use."""
    return _filled(size_b, _alarming_lines(), b"ImportError: libGL.so.1: cannot open shared object file\n")


def progress(size_b: int = SPEED_B) -> bytes:
    """One line of progress bars rewritten by carriage returns."""
    bars = (
        b"\r%3d%%|%s| %d/900000 [01:02<03:04, 5.1it/s]" % (i % 100, b"#" * (i % 20), i) for i in range(10**7)
    )
    return _filled(size_b, bars, b"\nKilled\n")


def _filled(size_b: int, lines: Iterator[bytes], end: bytes) -> bytes:
    parts, length = [], 0
    for line in lines:
        parts.append(line)
        length += len(line)
        if length >= size_b:
            break
    return b"".join([*parts, end])


def _training_lines() -> Iterator[bytes]:
    number = random.Random(0)
    for step in range(50, 10**8, 50):
        losses = b", ".join(b"d%d.loss_cls: %.4f" % (layer, number.random()) for layer in range(5))
        minute, second, epoch, batch = step // 60 % 60, step % 60, step // 3517 + 1, step % 3517
        yield b"2022-08-30 20:%02d:%02d,004 - mmdet - INFO - " % (minute, second)
        yield b"Epoch [%d][%d/3517]\tlr: %.3e, %s\n" % (epoch, batch, number.random(), losses)


def _distinct_lines() -> Iterator[bytes]:
    number = random.Random(1)
    letters = "abcdefghijklmnopqrstuvwxyz"
    while True:
        words = ("".join(number.choices(letters, k=8)) for _ in range(10))
        yield (" ".join(words) + "\n").encode()


def _alarming_lines() -> Iterator[bytes]:
    number = random.Random(2)
    known = sorted({word for failure in known_failures() for word in failure.words if word.isascii()})
    for line in _distinct_lines():
        yield line[:60] + " ".join(number.choices(known, k=3)).encode() + b"\n"


SPEED_LOGS = {"training": training, "distinct": distinct, "alarming": alarming, "progress": progress}

if __name__ == "__main__":
    main()
