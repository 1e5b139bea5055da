"""Find the known failures in a log, in one pass and bounded memory.

Most lines of a long log repeat each other apart from their numbers: a line whose letters were seen before
is dropped. What is left is compared as a set of words with the words of all failures; only around lines
that hold one are regular expressions tried.
"""

import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import BinaryIO

from bevrepro.doctor.logs.failures import Failure, Matcher, compiled
from bevrepro.doctor.logs.normalise import Block, blocks, clean, shown

BEFORE, AFTER = 8, 14  # lines of context around a line that holds a word
LONGEST_STRETCH = 40  # lines
FULL_LINE = 40  # a shorter line was not wrapped by a terminal
SEEN_AT_MOST = 200_000
LONGEST_QUOTE = 400
HITS_AT_MOST = 3  # per failure; the first counts, the others are for rules that ask for more
PATIENCE = (
    40  # stretches without a match that one failure may try at the head of a log, and again at its tail
)
NUMBERS_MATTER = frozenset(b"mase maoe mave map nds scene_num scene trailer construction_vehicle".split())
_HEX = b"abcdef"  # left out where lines are compared: addresses and digests differ from line to line
_LETTERS = bytes(
    code if code in (10, 95) or (code < 128 and chr(code).isalpha()) else 32 for code in range(256)
)


@dataclass(frozen=True)
class Hit:
    """One failure at one place of the log."""

    failure: Failure
    matcher: Matcher
    numbers: tuple[int, ...]  # lines of the file, 1-based
    quoted: tuple[str, ...]  # as they can be shown


@dataclass(frozen=True)
class Text:
    """Lines put together; `starts[i]` is where line i begins. `joined`: without line ends where a terminal
    may have put them."""

    text: str
    starts: tuple[int, ...]
    joined: bool


class Stretch:
    """Consecutive lines around words of failures, cleaned when they are first asked for."""

    def __init__(self, lines: list[bytes], numbers: list[int]) -> None:
        self.raw = lines
        self.numbers = numbers

    @cached_property
    def lines(self) -> list[str]:
        """Messages, without what stands around them."""
        return [clean(line) for line in self.raw]

    @cached_property
    def texts(self) -> tuple[Text, Text]:
        """As it stands, and with wrapped lines put together."""
        wide = [len(shown(line).rstrip()) >= FULL_LINE for line in self.raw]
        wrapped = [here and bool(after) for here, after in zip(wide, [*self.lines[1:], ""])]
        return _put_together(self.lines, [False] * len(wide), False), _put_together(self.lines, wrapped, True)


def _put_together(lines: list[str], wrapped: list[bool], joined: bool) -> Text:
    pieces, starts, length = [], [], 0
    for line, glued in zip(lines, wrapped):
        starts.append(length)
        pieces.append(line if glued or not line else line + "\n")  # blank lines count for nothing
        length += len(pieces[-1])
    return Text("".join(pieces), tuple(starts), joined)


def scan(stream: BinaryIO, failures: Sequence[Failure]) -> tuple[Hit, ...]:
    """Every failure found, with its first places."""
    return _Scan(failures).run(blocks(stream))


class _Scan:
    def __init__(self, failures: Sequence[Failure]) -> None:
        self.words: dict[bytes, list[Failure]] = {}
        self.parts: dict[bytes, list[Failure]] = {}  # Chinese has no blanks between words
        for failure in failures:
            for word in failure.words:
                if word.isascii():
                    self.words.setdefault(word.encode(), []).append(failure)
                else:
                    for encoding in ("utf-8", "gb18030"):
                        self.parts.setdefault(word.encode(encoding), []).append(failure)
        self.seen: set[bytes] = set()
        self.hits: dict[str, list[Hit]] = {}
        self.tries: Counter[str] = Counter()
        self.later: dict[str, deque[Stretch]] = {}  # the newest that there was no patience left for

    def run(self, blocks: Iterator[Block]) -> tuple[Hit, ...]:
        lines: list[bytes] = []
        numbers: list[int] = []
        start = 0  # lines before it were looked at and only serve as context
        for block in blocks:
            lines += block.lines
            numbers += block.numbers
            end = max(start, len(lines) - AFTER)
            self._look(lines, numbers, start, end)
            keep = max(0, end - BEFORE)
            lines, numbers, start = lines[keep:], numbers[keep:], end - keep
        self._look(lines, numbers, start, len(lines))
        self._look_at_the_tail()
        return tuple(hit for hits in self.hits.values() for hit in hits)

    def _look(self, lines: list[bytes], numbers: list[int], start: int, end: int) -> None:
        for wanted, first, last in self._candidates(lines, start, end):
            low, high = max(0, first - BEFORE), min(len(lines), last + AFTER + 1)
            stretch = Stretch(lines[low:high], numbers[low:high])
            for failure in wanted.values():
                if self._is_open(failure):
                    self._try(stretch, failure)

    def _is_open(self, failure: Failure) -> bool:
        return len(self.hits.get(failure.id, ())) < HITS_AT_MOST

    def _candidates(
        self, lines: list[bytes], start: int, end: int
    ) -> Iterator[tuple[dict[str, Failure], int, int]]:
        """Neighbouring lines with words, put together: failures by id, first and last index."""
        wanted: dict[str, Failure] = {}
        first = last = start
        for index, failures in self._lines_with_words(lines, start, end):
            if wanted and (index - last > AFTER or index - first > LONGEST_STRETCH):
                yield wanted, first, last
                wanted = {}
            if not wanted:
                first = index
            last = index
            wanted.update((failure.id, failure) for failure in failures)
        if wanted:
            yield wanted, first, last

    def _lines_with_words(
        self, lines: list[bytes], start: int, end: int
    ) -> Iterator[tuple[int, Iterable[Failure]]]:
        lower = b"\n".join(lines[start:end]).lower()
        letters = lower.translate(_LETTERS).split(b"\n")
        # What tells a line from those before: its letters; where it is not ASCII, all of it.
        keys = lower.translate(_LETTERS, _HEX).split(b"\n")
        if not lower.isascii():
            keys = [key if raw.isascii() else raw for raw, key in zip(lower.split(b"\n"), keys)]
        novel = [index for index, key in enumerate(keys) if key not in self.seen]
        if len(self.seen) > SEEN_AT_MOST:
            self.seen.clear()
        found = self.words.keys() & set(b"\n".join([letters[index] for index in novel]).split())
        parts = () if lower.isascii() else tuple(part for part in self.parts if part in lower)
        for index in novel:
            here = letters[index].split()
            words = () if found.isdisjoint(here) else found.intersection(here)
            inside = tuple(part for part in parts if part in keys[index])
            across = self._across(letters, index, here) if len(novel) < 20_000 else ()
            if NUMBERS_MATTER.isdisjoint(here):
                self.seen.add(keys[index])
            if words or inside or across:
                yield (
                    start + index,
                    [
                        *(each for word in (*words, *across) for each in self.words[word]),
                        *(each for part in inside for each in self.parts[part]),
                    ],
                )

    def _across(self, letters: list[bytes], index: int, here: list[bytes]) -> tuple[bytes, ...]:
        """A word that the terminal cut at the end of the line."""
        if len(letters[index]) < FULL_LINE or index + 1 >= len(letters) or not here:
            return ()
        after = letters[index + 1].split(None, 1)
        word = here[-1] + after[0] if after else b""
        return (word,) if word in self.words else ()

    def _try(self, stretch: Stretch, failure: Failure) -> None:
        if self.tries[failure.id] >= PATIENCE:
            self.later.setdefault(failure.id, deque(maxlen=PATIENCE)).append(stretch)
            return
        self.tries[failure.id] += 1
        hits = [hit for matcher in failure.matchers if (hit := _match(failure, matcher, stretch))]
        if hits:
            self.hits.setdefault(failure.id, []).extend(hits)

    def _look_at_the_tail(self) -> None:
        by_id = {
            each.id: each for group in (self.words, self.parts) for known in group.values() for each in known
        }
        for id, stretches in self.later.items():
            self.tries[id] = 0
            for stretch in tuple(stretches):
                if self._is_open(by_id[id]):
                    self._try(stretch, by_id[id])


def _match(failure: Failure, matcher: Matcher, stretch: Stretch) -> Hit | None:
    for text in stretch.texts:
        span = _span(matcher, text.text, text.joined)
        if span is not None:
            return _hit(failure, matcher, stretch, text.starts, span)
    return None


def _span(matcher: Matcher, text: str, joined: bool) -> tuple[int, int] | None:
    spans = [match.span() for each in matcher.all if (match := compiled(each, joined).search(text))]
    if len(spans) < len(matcher.all):
        return None
    if matcher.any:
        firsts = [_first(compiled(each, joined), text, matcher.none, joined) for each in matcher.any]
        found = [span for span in firsts if span]
        return min(found) if found else None
    span = min(spans)
    return None if _refused(text, span, matcher.none, joined) else span


def _first(
    pattern: re.Pattern[str], text: str, none: tuple[str, ...], joined: bool
) -> tuple[int, int] | None:
    for match in pattern.finditer(text):
        if not _refused(text, match.span(), none, joined):
            return match.span()
    return None


def _refused(text: str, span: tuple[int, int], none: tuple[str, ...], joined: bool) -> bool:
    """Whether a look-alike's pattern matches in the lines of the match or its direct neighbours."""
    if not none:
        return False
    low = text.rfind("\n", 0, max(0, text.rfind("\n", 0, span[0]))) + 1
    high = text.find("\n", text.find("\n", span[1]) + 1)
    near = text[low : high if high > 0 else len(text)]
    return any(compiled(each, joined).search(near) for each in none)


def _hit(
    failure: Failure, matcher: Matcher, stretch: Stretch, starts: tuple[int, ...], span: tuple[int, int]
) -> Hit:
    chosen = [
        index
        for index, start in enumerate(starts)
        if start < span[1] and (starts[index + 1] if index + 1 < len(starts) else span[1] + 1) > span[0]
    ]
    told = [index for index in chosen if stretch.lines[index]] or [0]
    return Hit(
        failure,
        matcher,
        tuple(stretch.numbers[index] for index in told),
        tuple(stretch.lines[index][:LONGEST_QUOTE] for index in told),
    )
