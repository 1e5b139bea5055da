"""Reads the same files through every reader, in turns, and consumes each byte of each the same way.

In every round the readers come in another order and see the same names; a ratio is the median of the rounds'
ratios, so that a load from outside that lasts longer than a round weighs on all alike.
"""

import gc
import os
import random
import statistics
import time
from typing import Any, Callable, Dict, Iterable, List, Sequence, Tuple

import numpy as np

from .bench_readers import Places, Read, Reader
from .store import open_store

Rates = Dict[str, List[Tuple[float, float]]]  # reader -> per round (wall s, own CPU s) per file
CONSUMED = "numpy sum of all bytes as 64-bit words, by every reader alike"


def consume(data: Any) -> int:
    """Touch every byte."""
    words = len(data) // 8
    return int(np.frombuffer(data, np.uint64, words).sum()) + sum(bytes(data[words * 8 :]))


def _timed(read: Read, names: Sequence[str]) -> Tuple[float, float]:
    before_s, before_cpu_s = time.perf_counter(), time.process_time()
    for name in names:
        consume(read(name))
    wall_s, cpu_s = time.perf_counter() - before_s, time.process_time() - before_cpu_s
    return wall_s / len(names), cpu_s / len(names)


def warm(
    readers: List[Reader], names: List[str], rounds: int, seed: int, on_round: Callable[[int], None]
) -> Rates:
    """`X` reads files that this opening of X has not read before; `X, again` the same ones once more."""
    rng, rates, start = random.Random(seed), {}, 0  # type: random.Random, Rates, int
    names = rng.sample(names, len(names))
    for number in range(rounds):
        chosen = [names[(start + i) % len(names)] for i in range(min(300, len(names)))]
        start += len(chosen)
        for reader in rng.sample(readers, len(readers)):
            read, mine = reader.open(), chosen[: reader.files_per_round]
            rates.setdefault(reader.name, []).append(_timed(read, mine))
            if reader.again:
                rates.setdefault(reader.name + ", again", []).append(_timed(read, mine))
        on_round(number + 1)
    return rates


def cold(readers: List[Reader], names: List[str], places: Places, rounds: int, seed: int) -> Rates:
    """The same after the files were dropped from the page cache."""
    rng, rates = random.Random(seed), {}  # type: random.Random, Rates
    for _ in range(rounds):
        for reader in [one for one in readers if one.cold]:
            chosen = rng.sample(names, min(60, len(names)))
            read = reader.open()
            gc.collect()  # a page that is still mapped stays
            _drop(_sources(places, chosen))
            rates.setdefault(reader.name, []).append(_timed(read, chosen))
    return rates


def _sources(places: Places, names: Sequence[str]) -> Iterable[str]:
    archives = [path for path in (places.tar, places.tgz) if path]
    return archives + [os.path.join(places.folder, name) for name in names if places.folder]


def _drop(paths: Iterable[str]) -> None:
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)


def heat(places: Places, names: Sequence[str], seed: int, in_order: bool = False) -> None:
    """Everything into the page cache, as reading brings it there: first out of it, then from the disk, each
    file whole and in random order, or the archives from their beginning to their end.

    The pieces that the cache is made of are as large as the reads that filled it (or the writes: what was
    just written is faster or slower by half), and decide what reading from it costs.
    """
    gc.collect()  # a page that is still mapped stays
    _drop(_sources(places, names))
    chosen = list(names) if in_order else random.Random(seed).sample(list(names), len(names))
    for path in filter(None, (places.folder, None if in_order else places.tar)):
        read = open_store([path]).read
        for name in chosen:
            read(name)
    for path in filter(None, (places.tar if in_order else None, places.tgz)):
        with open(path, "rb", buffering=0) as file:
            while file.read(1 << 20):
                pass


def table(rates: Rates, base: str) -> Dict[str, Dict[str, Any]]:
    """Per reader: files/s, its own CPU per file, and how many times the rate of `base`."""
    found = {}
    for name, rounds in rates.items():
        walls = [wall for wall, _ in rounds]
        row: Dict[str, Any] = {
            "files_per_s": round(1 / statistics.median(walls), 1),
            "own_cpu_us_per_file": round(statistics.median(cpu for _, cpu in rounds) * 1e6, 1),
        }
        if base in rates:
            row["times_" + base] = ratio(rates, name, base)
        found[name] = row
    return found


def ratio(rates: Rates, name: str, base: str) -> float:
    """Median over the rounds of base's time by name's."""
    return round(statistics.median(b[0] / a[0] for a, b in zip(rates[name], rates[base])), 2)
