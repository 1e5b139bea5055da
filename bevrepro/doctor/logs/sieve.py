"""The lines of a log that are worth looking at: new ones that hold a word by which a failure is known.

Most lines of a long log repeat each other apart from their numbers: a line whose letters were seen before is
dropped. Blocks are searched as a whole wherever Python can do that at the speed of C; only lines with a word
are looked at one by one.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from bevrepro.doctor.logs.needs import FOREIGN

FULL_LINE = 40  # bytes; a shorter line was not wrapped by a terminal
SEEN_AT_MOST = 200_000
REMEMBERED_OF_NOISE = 2000  # lines of a block: enough of those that repeat each other
MANY_LINES = 20_000  # of a block: they are shorter than a terminal is wide
MANY_WORDS = 500  # of a block: the log is noisy there
PREFIX_WORDS = 4  # "[rank0]: mmdet - ERROR -": as many may stand before the rest of a word that was cut
NUMBERS_MATTER = frozenset(b"mase maoe mave map nds scene_num scene trailer construction_vehicle".split())
LINE_END = b"\x00"  # a word of its own; logs lose theirs when they are read
# Left out where lines are compared: numbers, addresses and digests differ from line to line.
_HEX = b"0123456789abcdef"
_LETTERS = bytes(
    code if code in (10, 95) or (code < 128 and chr(code).isalpha()) else 32 for code in range(256)
)
_LETTERS_AND_FOREIGN = _LETTERS[:128] + bytes(range(128, 256))
_CONTROLS = bytes({*range(32)} - set(b"\t\n\r\x1b\x08"))  # hardly any in a text of whatever encoding
_ASCII = bytes(code for code in range(128) if code != 10)


@dataclass(frozen=True)
class Sifted:
    """The index of every line that was let through, in order, and the words it holds, in UTF-8.

    `noisy`: there were too many for all words to be looked at.
    """

    lines: Iterable[tuple[int, list[bytes]]]
    noisy: bool


class Sieve:
    """Lets through what is new and may tell a failure; remembers what it saw."""

    def __init__(self, words: Iterable[bytes]) -> None:
        self._seen: set[int] = set()
        self.look_for(words, words)

    def look_for(self, words: Iterable[bytes], in_noise: Iterable[bytes]) -> None:
        """Let lines with these words through from now on, in noisy blocks those with some of them."""
        self._quiet, self._noisy = _Words(words), _Words(in_noise)

    def sift(self, lines: Sequence[bytes]) -> Sifted:
        """What is let through of a block."""
        lower = b"\n".join(lines).lower()
        keys = list(map(hash, lower.translate(_LETTERS_AND_FOREIGN, _HEX).split(b"\n")))
        new = [index for index, key in enumerate(keys) if key and key not in self._seen]  # 0: an empty line
        letters = lower.translate(_LETTERS).split(b"\n") if new else []
        foreign = None if lower.isascii() or _is_binary(lower) else _Foreign(lower)
        every = b" \x00 ".join([b"", *[letters[index] for index in new], b""]).split()
        kept = list(filter(self._quiet.kept.__contains__, every))
        many = len(kept) - len(new) + (foreign.count(self._quiet) if foreign else 0)
        if noisy := many > MANY_WORDS:
            kept = list(filter(self._noisy.kept.__contains__, kept))
        self._remember([keys[index] for index in (new[:REMEMBERED_OF_NOISE] if noisy else new)])
        words = self._noisy if noisy else self._quiet
        found = self._by_line(kept, new, keys, words)
        more = [] if noisy or len(new) > MANY_LINES else [_across(letters, new, words)]
        more += [foreign.by_line(new, words)] if foreign else []
        for words_by_index in more:
            for index, here in words_by_index.items():
                found.setdefault(index, []).extend(here)
        return Sifted(sorted(found.items()) if any(more) else found.items(), noisy)

    def _remember(self, keys: list[int]) -> None:
        if len(self._seen) > SEEN_AT_MOST:
            self._seen.clear()
        self._seen.update(keys)

    def _by_line(
        self, kept: list[bytes], new: list[int], keys: list[int], words: "_Words"
    ) -> dict[int, list[bytes]]:
        lines = b" ".join(kept).split(LINE_END)[1:-1]
        found = {index: line.split() for index, line in zip(new, lines) if line != b" "}
        if NUMBERS_MATTER.isdisjoint(kept):
            return found
        for index, here in found.items():
            if not NUMBERS_MATTER.isdisjoint(here):
                self._seen.discard(keys[index])
                found[index] = [word for word in here if word in words.ascii]
        return {index: here for index, here in found.items() if here}


class _Words:
    def __init__(self, words: Iterable[bytes]) -> None:
        words = frozenset(words)
        self.ascii = frozenset(word for word in words if word.isascii())
        self.kept = self.ascii | NUMBERS_MATTER | {LINE_END}
        self.beginnings = frozenset(word[:end] for word in self.ascii for end in range(1, len(word)))
        # Chinese has no blanks between words: these may be parts of one.
        self.utf8 = {word: word for word in words - self.ascii}
        self.any_encoding = self.utf8 | {word.decode().encode("gb18030").lower(): word for word in self.utf8}


def _across(letters: list[bytes], new: list[int], words: _Words) -> dict[int, list[bytes]]:
    """By index of the line, words that the terminal cut at its end."""
    found = {}
    for index in new:
        if len(letters[index]) < FULL_LINE or index + 1 == len(letters):
            continue
        last = letters[index].rsplit(None, 1)[-1:]
        if last and last[0] in words.beginnings:
            rests = letters[index + 1].split(None, PREFIX_WORDS)[:PREFIX_WORDS]
            if here := [last[0] + rest for rest in rests if last[0] + rest in words.ascii]:
                found[index] = here
    return found


class _Foreign:
    """What is not ASCII in a block."""

    def __init__(self, lower: bytes) -> None:
        self.utf8 = _is_utf8(lower)
        # Without what stands around it, Chinese in UTF-8 is found faster. A word that this puts together from
        # two halves costs a look at its line, no more.
        self.text = lower.translate(None, _ASCII) if self.utf8 else lower

    def count(self, words: _Words) -> int:
        """How many words there are."""
        return sum(self.text.count(part) for part, _ in self._parts(words))

    def by_line(self, new: list[int], words: _Words) -> dict[int, list[bytes]]:
        """Words by index of the line."""
        starts = [0, *accumulate(len(line) + 1 for line in self.text.split(b"\n"))]
        found: dict[int, list[bytes]] = {}
        for part, word in self._parts(words):
            at = self.text.find(part)
            while at >= 0:
                index = bisect_right(starts, at) - 1
                found.setdefault(index, []).append(word)
                at = self.text.find(part, starts[index + 1])
        return {index: found[index] for index in new if index in found} if found else found

    def _parts(self, words: _Words) -> Iterable[tuple[bytes, bytes]]:
        return (words.utf8 if self.utf8 else words.any_encoding).items()


def words_in(lines: Sequence[bytes]) -> frozenset[str] | None:
    """All words of the lines, those cut at the end of a line too; None where the encoding hides them."""
    text = b"\n".join(lines).lower()
    if not text.isascii() and not _is_utf8(text):
        return None
    letters = text.translate(_LETTERS).decode("ascii")
    words = {*letters.split(), *(() if text.isascii() else (FOREIGN,))}
    each = letters.split("\n")
    for line, after in zip(each, each[1:]):
        if len(line) >= FULL_LINE and (last := line.rsplit(None, 1)[-1:]):
            words.update(last[0] + rest for rest in after.split(None, PREFIX_WORDS)[:PREFIX_WORDS])
    return frozenset(words)


def _is_binary(text: bytes) -> bool:
    return len(text.translate(None, _CONTROLS)) < len(text) * 0.95


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
