"""Find the known failures in a log, in one pass, bounded memory and bounded time.

Regular expressions are tried around lines that hold a word by which a failure is known, and only those
patterns that find there whatever else they need. A log may be so noisy that this is everywhere. Then failures
for which too much was tried in vain are left out of noisy blocks, until the last lines are looked at again.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import BinaryIO

from bevrepro.doctor.logs.failures import Failure
from bevrepro.doctor.logs.match import Hit, Rule, Stretch, rules
from bevrepro.doctor.logs.outcome import overcome
from bevrepro.doctor.logs.read import Block, blocks
from bevrepro.doctor.logs.sieve import Sieve

BEFORE, AFTER = 8, 14  # lines of context around a line that holds a word
LONGEST_STRETCH = 40  # lines
LONGEST_B = 8000  # of the lines with words, and of the context on either side
TAIL, TAIL_B = 10_000, 1 << 20  # lines and bytes that are looked at once more
HITS_AT_MOST = 3  # per failure; the first counts, the others are for rules that ask for more
# Characters that may be tried in vain: by one failure, as long as all together spent more than theirs.
PATIENCE, PATIENCE_OF_ALL = 50_000, 12_000_000
REST = 20_000  # characters of patience that a quiet block gives back


def scan(stream: BinaryIO, failures: Sequence[Failure]) -> tuple[Hit, ...]:
    """Every failure found, with its first places."""
    return _Scan(failures).run(blocks(stream))


class _Scan:
    def __init__(self, failures: Sequence[Failure]) -> None:
        self.failures = failures
        self.rules: dict[int, tuple[Rule, ...]] = {}
        self.hits: dict[int, list[Hit]] = {}
        self.spent: Counter[int] = Counter()
        self.spent_by_all = 0
        self.known_by: dict[bytes, set[int]] = {}
        for row, failure in enumerate(failures):
            for word in failure.words:
                self.known_by.setdefault(word.encode(), set()).add(row)
        self.sieve = Sieve(self.known_by)
        self.wanted = set(range(len(failures)))  # rows of failures that are looked for
        self.tired: set[int] = set()  # those that are not, for the time being

    def run(self, blocks: Iterator[Block]) -> tuple[Hit, ...]:
        lines: list[bytes] = []
        numbers: list[int] = []
        start = 0  # lines before it were looked at and only serve as context
        tail = Block([], [])
        for block in blocks:
            lines += block.lines
            numbers += block.numbers
            end = max(start, len(lines) - AFTER)
            self._look(lines, numbers, start, end)
            tail = _last(tail, block)
            keep = max(0, end - BEFORE)
            lines, numbers, start = lines[keep:], numbers[keep:], end - keep
        self._look(lines, numbers, start, len(lines))
        self._look_again(tail)
        hits = (hit for hits in self.hits.values() for hit in hits)
        return overcome(hits, tail.lines, tail.numbers)

    def _look(self, lines: list[bytes], numbers: list[int], start: int, end: int) -> None:
        before = self.wanted.copy()
        sifted = self.sieve.sift(lines[start:end])
        if not sifted.noisy:
            self.spent.subtract(dict.fromkeys(self.tired, REST))
            self.wanted |= self.tired
            self.tired = set()
        places = [(start + index, words) for index, words in sifted.lines]
        self._try_at(_neighbours(places, lines), lines, numbers)
        if self.wanted != before:
            self.sieve.look_for(self._words(self.wanted | self.tired), self._words(self.wanted))

    def _look_again(self, tail: Block) -> None:
        """From the last lines backwards, for what noisy blocks were spared."""
        self.wanted, self.tired = self.tired, set()
        self.spent.clear()
        sifted = Sieve(self._words(self.wanted)).sift(tail.lines)
        places = [*_neighbours(sifted.lines, tail.lines)]
        self._try_at(reversed(places), tail.lines, tail.numbers)

    def _words(self, rows: Iterable[int]) -> set[bytes]:
        return {word.encode() for row in rows for word in self.failures[row].words}

    def _try_at(
        self, places: Iterable[tuple[set[bytes], int, int]], lines: Sequence[bytes], numbers: Sequence[int]
    ) -> None:
        for words, first, last in places:
            low = first - _short(reversed(lines[max(0, first - BEFORE) : first]))
            high = last + 1 + _short(lines[last + 1 : last + 1 + AFTER])
            stretch = Stretch(lines[low:high], numbers[low:high])
            for row in sorted(self.wanted & set[int]().union(*map(self.known_by.__getitem__, words))):
                self._try(stretch, row)

    def _try(self, stretch: Stretch, row: int) -> None:
        if row not in self.rules:
            self.rules[row] = rules(self.failures[row])
        spent = stretch.size // 20  # looking up the words
        for rule in self.rules[row]:
            if rule.possible(stretch.words):
                hit, tried = rule.match(stretch)
                spent += tried
                if hit:
                    self.hits.setdefault(row, []).append(hit)
        self.spent[row] += spent
        self.spent_by_all += spent
        if len(self.hits.get(row, ())) >= HITS_AT_MOST:
            self.wanted.discard(row)
        elif self.spent[row] > PATIENCE and self.spent_by_all > PATIENCE_OF_ALL:
            self.wanted.discard(row)
            self.tired.add(row)


def _last(before: Block, block: Block) -> Block:
    lines = [*before.lines, *block.lines[-TAIL:]][-TAIL:]
    count = sum(size < TAIL_B for size in accumulate(map(len, reversed(lines))))
    return Block(lines[-count:], [*before.numbers, *block.numbers[-TAIL:]][-count:])


def _short(lines: Iterable[bytes]) -> int:
    """How many of the lines serve as context."""
    return sum(size < LONGEST_B for size in accumulate(map(len, lines)))


def _neighbours(
    found: Iterable[tuple[int, list[bytes]]], lines: Sequence[bytes]
) -> Iterator[tuple[set[bytes], int, int]]:
    """Neighbouring lines put together: their words, the first and the last index."""
    words: set[bytes] = set()
    first = last = size = 0
    for index, here in found:
        if words and (index - last > AFTER or index - first > LONGEST_STRETCH or size > LONGEST_B):
            yield words, first, last
            words = set()
        if not words:
            first, size = index, 0
        last = index
        size += len(lines[index])
        words.update(here)
    if words:
        yield words, first, last
