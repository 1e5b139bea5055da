"""`python -m bevformer.gpu_tests FILE...`: the tests marked gpu in those files, in several processes at once.

Most of their time is Triton's, which compiles each kernel on one processor; pytest itself and its packages
are all that is needed.  Exit code 1 where one failed, or none passed.
"""

import collections
import os
import re
import subprocess
import sys
import tempfile
import time
from typing import IO, Callable, Counter, Dict, List, Sequence, Tuple

import torch

from .gpu_warm import cpus, processes

PYTEST = (sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider")
COUNTED = re.compile(r"(\d+) (passed|failed|skipped|errors?|xfailed|xpassed)\b")
TAIL = 1500  # characters of a group that failed
Group = Tuple["subprocess.Popen[bytes]", IO[bytes]]


def main(argv: Sequence[str]) -> int:
    tests, words = collected(argv)
    if not tests:
        print(words[-TAIL:])
        print("no test marked gpu was collected")
        return 1
    on_gpu = torch.cuda.is_available()
    memory_gib = torch.cuda.get_device_properties(0).total_memory / 2**30 if on_gpu else 8.0
    count = processes(len(tests), cpus(), memory_gib / 2)  # a test may take more than a kernel
    return ran([tests[place::count] for place in range(count)], lambda text: print(text, flush=True))


def collected(files: Sequence[str]) -> Tuple[List[str], str]:
    """The names of the tests, and what pytest said.  No names where a file cannot be read."""
    done = subprocess.run(
        [*PYTEST, "--collect-only", *files], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    words = done.stdout.decode("utf-8", "replace")
    names = [line for line in words.splitlines() if "::" in line and line.split("::")[0].endswith(".py")]
    return (names if done.returncode == 0 else []), words


def ran(groups: Sequence[Sequence[str]], tell: Callable[[str], None]) -> int:
    """Each group in a process; tells of each as it ends, and the sum last."""
    running = [started(group, max(1, cpus() // len(groups))) for group in groups]
    total: Counter[str] = collections.Counter()
    failed = False
    while running:
        time.sleep(0.05)
        for each in [each for each in running if each[0].poll() is not None]:
            running.remove(each)
            words, code = said(each)
            total.update(counts(words))
            failed = failed or code != 0
            tell(words[-TAIL:] if code else words.strip().splitlines()[-1])
    order = ("failed", "errors", "passed", "skipped", "xfailed", "xpassed")
    tell(", ".join("%d %s" % (total[name], name) for name in order if total[name]) or "nothing has run")
    return 1 if failed or not total["passed"] else 0


def started(tests: Sequence[str], threads: int) -> Group:
    output = tempfile.TemporaryFile()
    environment = dict(os.environ, OMP_NUM_THREADS=str(threads))
    child = subprocess.Popen([*PYTEST, *tests], stdout=output, stderr=subprocess.STDOUT, env=environment)
    return child, output


def said(group: Group) -> Tuple[str, int]:
    child, output = group
    with output:
        output.seek(0)
        return output.read().decode("utf-8", "replace"), child.returncode


def counts(words: str) -> Dict[str, int]:
    """{"passed": 3} of pytest's last line."""
    last = (words.strip().splitlines() or [""])[-1]
    return {{"error": "errors"}.get(name, name): int(number) for number, name in COUNTED.findall(last)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
