"""CPU seconds and memory of `bevrepro doctor --from-log` on logs of 24 MB that are hard to read.

    python benchmarks/log_speed.py [--out FILE] [--label after] [--only NAME]

Every log is made here, one failure in the middle, another at the end. The whole process is measured, its
start and the look at the machine included. Prints JSON; with --out, what other labels measured is kept.
"""

import argparse
import itertools
import json
import os
import platform
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bevrepro.doctor.logs.failures import known_failures  # noqa: E402

SIZE_B = 24_000_000
LIMIT_S = 2.0
MIDDLE = b"OSError: [Errno 107] Transport endpoint is not connected: 'mnt/nuscenes/samples'\n"
END = b"ImportError: libGL.so.1: cannot open shared object file: No such file or directory\n"
IDS = {"middle_found": "FUSE-STALE", "end_found": "ABI-LIBGL"}
LETTERS = "abcdefghijklmnopqrstuvwxyz"
LOSSES = ("loss_cls", "loss_bbox", "d0.loss_cls", "d1.loss_cls", "grad_norm")
# Each is one step away from a pattern that is costly to give up on.
NEAR = """\
grad_norm: nan7 loss_x memory
can_bus zer0s scene vehicle_info
CUDA_HOME x NoneTyp
mASE: 0.700 scale_err 0.71 orient_er 1.4
no space left on devices28
libcudart.so.11.0: cannot open shred
does not match exactl unexpected key in source
SemLock posix_fallocat shm No space
WorkNCCL(x) timed oot
published paper reference 0.
Watchdog caught collective timeou
undefined symbo
GLIBCXX_3.4. not fond
RuntimeError: CUDA out of memor
FileNotFoundError: No such file or director
test.py line 3, in main assert
Epoch [1][2/3
size mismatch for
No module named mmcv
exit code 7 signal
killed -
data_root=/mnt/
""".splitlines()
REFUSED = (
    "tests/test_oom.py::test_{} RuntimeError: CUDA out of memory PASSED",
    "Q: Illegal instruction {}",
    "- Fix: no space left on device {}",
    "if you see {} undefined symbol: _ZN3c10",
    "Requirement already satisfied: Pillow==9.5 {} from /home/x/.local/lib/python3.8/site-packages/torch",
    "nohup: ignoring SIGHUP {}",
    "Could not load dynamic library libcudart.so.11.0: cannot open shared object file {}",
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, help="add the figures to this JSON file")
    parser.add_argument("--label", default="now", help="what the figures are called there")
    parser.add_argument("--only", choices=LOGS, help="one log")
    parser.add_argument("--write", type=Path, metavar="FILE", help="with --only: write that log, no more")
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout that is measured")
    args = parser.parse_args()
    if args.write:
        args.write.write_bytes(LOGS[args.only]())
        return
    figures = {name: measure(name, args.root) for name in LOGS if args.only in (None, name)}
    report = {
        "date": str(date.today()),
        "python": platform.python_version(),
        "cpu": cpu(),
        "load": round(os.getloadavg()[1], 1),  # of other programs, too: they cost caches
        "logs": figures,
    }
    print(json.dumps(report, indent=1))
    if args.out:
        known = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else {}
        text = json.dumps({**known, "limit_cpu_s": LIMIT_S, args.label: report}, indent=1) + "\n"
        args.out.write_text(text, encoding="utf-8")


def cpu() -> str:
    """The processor's name, as the kernel gives it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor()


def measure(name: str, root: Path = ROOT) -> dict[str, Any]:
    """One run of the command line: CPU of the process and its children, its largest memory, what it found."""
    with tempfile.TemporaryDirectory() as folder:
        log, out = Path(folder) / "made.log", Path(folder) / "out.json"
        # Made by another process: a child's largest memory is never less than its parent's.
        subprocess.run([sys.executable, __file__, "--only", name, "--write", str(log)], check=True)
        with out.open("w") as file:
            command = [sys.executable, "-m", "bevrepro", "doctor", "--from-log", str(log), "--json"]
            child = subprocess.Popen(command, cwd=root, stdout=file)
            _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        found = [each["id"] for each in json.loads(out.read_text(encoding="utf-8"))["failures"]]
        size_b = log.stat().st_size
    return {
        "bytes": size_b,
        "cpu_s": round(used.ru_utime + used.ru_stime, 2),
        "rss_mib": used.ru_maxrss // 1024,
        **{key: id in found for key, id in IDS.items()},
        "found": len(found),
    }


def filled(lines: Iterator[str], size_b: int = SIZE_B) -> bytes:
    """The lines as they are, up to the size, and the failures."""
    parts, length, middle = [], 0, False
    for line in lines:
        parts.append(line.encode())
        length += len(parts[-1])
        if not middle and length >= size_b / 2:
            middle, parts = True, [*parts, b"\n", MIDDLE]
        if length >= size_b:
            break
    return b"".join([*parts, b"\n", END])


def gibberish(seed: int) -> Iterator[str]:
    """Words of eight letters without end."""
    number = random.Random(seed)
    while True:
        yield from ("".join(number.choices(LETTERS, k=8)) for _ in range(1000))


def nothing() -> Iterator[str]:
    """What the process costs without a log."""
    return iter(())


def training() -> Iterator[str]:
    """A long training: lines that differ in their numbers alone."""
    number = random.Random(0)
    for step in range(50, 10**8, 50):
        losses = ", ".join(f"{name}: {number.random():.4f}" for name in LOSSES)
        clock = f"2022-08-30 20:{step // 60 % 60:02d}:{step % 60:02d},004"
        yield f"{clock} - mmdet - INFO - Epoch [{step // 3517 + 1}][{step % 3517}/3517]\tlr: 1e-4, {losses}\n"


def distinct() -> Iterator[str]:
    """No line like another: nothing to leave out because it repeats."""
    words = gibberish(1)
    while True:
        yield " ".join(next(words) for _ in range(10)) + "\n"


def short() -> Iterator[str]:
    """The same in lines of 18 letters."""
    words = gibberish(2)
    while True:
        yield f"{next(words)} {next(words)}\n"


def tiny() -> Iterator[str]:
    """Dots, one a line, and nothing."""
    return itertools.cycle([".\n", "\n"])


def known_words() -> list[str]:
    """ASCII words by which failures are known."""
    return sorted({word for failure in known_failures() for word in failure.words if word.isascii()})


def alarming() -> Iterator[str]:
    """No line like another, each with three words that failures use."""
    number, known, words = random.Random(3), known_words(), gibberish(3)
    while True:
        told = " ".join(number.choices(known, k=3))
        yield " ".join(next(words) for _ in range(6)) + f" {told}\n"


def near() -> Iterator[str]:
    """No line like another, each almost a failure that is costly to look for."""
    number, words = random.Random(4), gibberish(4)
    while True:
        yield f"{next(words)} {number.choice(NEAR)} {next(words)}\n"


def sparse() -> Iterator[str]:
    """Quiet lines, and every now and then almost a failure."""
    number, words = random.Random(10), gibberish(10)
    while True:
        told = number.choice(NEAR) if number.random() < 0.03 else next(words)
        yield " ".join(next(words) for _ in range(8)) + f" {told}\n"


def refused() -> Iterator[str]:
    """Each line holds a failure's text and is none: advice, a passed test, a list of changes."""
    number, words = random.Random(5), gibberish(5)
    while True:
        yield number.choice(REFUSED).format(next(words)) + "\n"


def shuffled() -> Iterator[str]:
    """The words of the patterns themselves, three patterns a line, in any order."""
    number, words = random.Random(6), gibberish(6)
    patterns = [each for row in known_failures() for rule in row.matchers for each in (*rule.any, *rule.all)]
    plain = [re.sub("[^A-Za-z_]", " ", each) for each in patterns]
    while True:
        told = " ".join(number.choices(plain, k=3)).split()
        number.shuffle(told)
        yield f"{next(words)} {' '.join(told[:12])}\n"


def ranks() -> Iterator[str]:
    """Failure words behind timestamps, ranks and names of loggers."""
    number, known, words = random.Random(7), known_words(), gibberish(7)
    for step in range(10**8):
        clock = f"2024-01-{step % 28 + 1:02d} {step % 24:02d}:{step % 60:02d}:17,{step % 1000:03d}"
        told = f"{next(words)} {number.choice(known)} {number.choice(known)} {next(words)}"
        yield f"[rank{step % 8}]: {clock} - mmdet - WARNING - {told}\n"


def coloured() -> Iterator[str]:
    """The same with colours."""
    return (line.replace("WARNING", "\x1b[33mWARNING\x1b[0m") for line in ranks())


def progress() -> Iterator[str]:
    """One line of progress bars rewritten by carriage returns, each with words of its own."""
    words = gibberish(8)
    for step in range(10**8):
        bar = "█" * (step % 20)
        yield f"\r{step % 100:3d}%|{bar}| {step}/900000 [01:02<03:04, {next(words)} memory error]"


def one_line() -> Iterator[str]:
    """No line end at all before the failure."""
    return (line.replace("\n", " ") for line in alarming())


def megabytes() -> Iterator[str]:
    """Lines of a megabyte."""
    ends = itertools.cycle([" "] * 9999 + ["\n"])
    return (line.replace("\n", next(ends)) for line in alarming())


def chinese() -> Iterator[str]:
    """No line like another, each with Chinese words that failures use."""
    number, words = random.Random(9), gibberish(9)
    known = sorted({word for failure in known_failures() for word in failure.words if not word.isascii()})
    while True:
        yield f"错误{next(words)}：{number.choice(known)}与{number.choice(known)} {next(words)} 请检查\n"


def gbk() -> bytes:
    """The same in the Chinese Windows encoding."""
    return filled(chinese()).decode().encode("gb18030")


def utf16() -> bytes:
    """Failure words as PowerShell writes them."""
    return filled(alarming(), SIZE_B // 2).decode().encode("utf-16")


def _text(lines: Callable[[], Iterator[str]]) -> Callable[[], bytes]:
    return lambda: filled(lines())


LINES = (
    nothing, training, distinct, short, tiny, alarming, near, sparse, refused, shuffled, ranks, coloured,
    progress, one_line, megabytes, chinese,
)  # fmt: skip
LOGS: dict[str, Callable[[], bytes]] = {each.__name__: _text(each) for each in LINES}
LOGS |= {"gbk": gbk, "utf16": utf16}

if __name__ == "__main__":
    main()
