"""Whether a stretch of a log tells a failure: its lines cleaned, put together and compared with patterns."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from bevrepro.doctor.logs.failures import Failure, Matcher, compiled
from bevrepro.doctor.logs.needs import Needs, needs
from bevrepro.doctor.logs.normalise import clean, shown
from bevrepro.doctor.logs.sieve import FULL_LINE, words_in

LONGEST_QUOTE = 400
# What is only quoted on a line, up to the match: a comment (no prompt `~# `, no BuildKit `#12 3.4`), a hit of
# grep in a text, a commit of `git log --oneline`, a compiler's warning, a test that did as expected.
_QUOTED = re.compile(
    r"(?:^|(?<=\s))#+ "
    r"|^\S+\.(?:md|rst|txt|html|ipynb)[:-]\d+[:-]"
    r"|^(?=[0-9a-f]*[a-f])(?=[0-9a-f]*\d)[0-9a-f]{7,10} (?!\S*:\d)"
    r"|: warning: |: warning #\d+-D: "
    r"|^\S+::\S+ (?:PASSED|SKIPPED|XFAIL|XPASS)\b"
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

    @cached_property
    def lower(self) -> str:
        """In lower case."""
        return self.text.lower()


class Stretch:
    """Consecutive lines around words of failures, cleaned when they are first asked for."""

    def __init__(self, lines: Sequence[bytes], numbers: Sequence[int]) -> None:
        self.raw = lines
        self.numbers = numbers
        self.size = sum(map(len, lines))

    @cached_property
    def words(self) -> frozenset[str] | None:
        """Of all lines, lower-case; None where they cannot be told."""
        return words_in(self.raw)

    @cached_property
    def lines(self) -> list[str]:
        """Messages, without what stands around them."""
        return [clean(line) for line in self.raw]

    @cached_property
    def plain(self) -> Text:
        """As it stands."""
        return _put_together(self.lines, [False] * len(self.lines), False)

    @cached_property
    def joined(self) -> Text:
        """With wrapped lines put together."""
        wide = [len(shown(line).rstrip()) >= FULL_LINE for line in self.raw]
        wrapped = [here and bool(after) for here, after in zip(wide, [*self.lines[1:], ""])]
        return _put_together(self.lines, wrapped, True)


def _put_together(lines: list[str], wrapped: list[bool], joined: bool) -> Text:
    pieces, starts, length = [], [], 0
    for line, glued in zip(lines, wrapped):
        starts.append(length)
        pieces.append(line if glued or not line else line + "\n")  # blank lines count for nothing
        length += len(pieces[-1])
    return Text("".join(pieces), tuple(starts), joined)


@dataclass(frozen=True)
class Pattern:
    """One regular expression and what it cannot do without."""

    pattern: str
    needs: Needs

    def possible(self, words: frozenset[str] | None) -> bool:
        """Whether the words are there, as far as they are known."""
        if words is not None:
            for each in self.needs.words:  # a loop: all() with a generator takes three times as long
                if each.isdisjoint(words):
                    return False
        return True

    def to_try(self, text: Text) -> bool:
        """Whether the parts are there."""
        for parts in self.needs.parts:
            for part in parts:
                if part in text.lower:
                    break
            else:
                return False
        return True

    def compiled(self, text: Text) -> re.Pattern[str]:
        """For this text."""
        return compiled(self.pattern, text.joined)


@dataclass(frozen=True)
class Rule:
    """A matcher of a failure with its patterns."""

    failure: Failure
    matcher: Matcher
    all: tuple[Pattern, ...]
    any: tuple[Pattern, ...]

    def possible(self, words: frozenset[str] | None) -> bool:
        """Whether the words that it cannot do without are there, as far as they are known."""
        if not all(each.possible(words) for each in self.all):
            return False
        return not self.any or any(each.possible(words) for each in self.any)

    def match(self, stretch: Stretch) -> tuple[Hit | None, int]:
        """Where it holds, in the text as it stands or else as it was before a terminal wrapped it.

        And the number of characters that patterns were tried on.
        """
        # What is in the text as it stands is in the joined one, too.
        to_try = [each for each in (*self.all, *self.any) if each.to_try(stretch.joined)]
        tried = len(stretch.joined.text)
        for text in (stretch.plain, stretch.joined) if to_try else ():
            tried += len(text.text) * len(to_try)
            span = self._span(text, to_try)
            if span is not None:
                return _hit(self.failure, self.matcher, stretch, text.starts, span), tried
        return None, tried

    def _span(self, text: Text, to_try: list[Pattern]) -> tuple[int, int] | None:
        spans = []
        for each in self.all:
            match = each.compiled(text).search(text.text) if each in to_try else None
            if match is None:
                return None
            spans.append(match.span())
        none = self.matcher.none
        if self.any:
            firsts = (_first(each, text, none) for each in self.any if each in to_try)
            return min((span for span in firsts if span), default=None)
        span = min(spans)
        return None if _refused(text, span, none) else span


def rules(failure: Failure) -> tuple[Rule, ...]:
    """How the failure is told."""

    def read(patterns: tuple[str, ...]) -> tuple[Pattern, ...]:
        return tuple(Pattern(each, needs(each, failure.words)) for each in patterns)

    return tuple(Rule(failure, each, read(each.all), read(each.any)) for each in failure.matchers)


def _first(pattern: Pattern, text: Text, none: tuple[str, ...]) -> tuple[int, int] | None:
    for match in pattern.compiled(text).finditer(text.text):
        if not _refused(text, match.span(), none):
            return match.span()
    return None


def _refused(text: Text, span: tuple[int, int], none: tuple[str, ...]) -> bool:
    """Whether it is a comment, or a look-alike's pattern matches in its lines or their direct neighbours."""
    whole = text.text
    line = whole.rfind("\n", 0, span[0]) + 1
    if _QUOTED.search(whole[line : span[0] + 1]):
        return True
    if not none:
        return False
    low = whole.rfind("\n", 0, max(0, whole.rfind("\n", 0, span[0]))) + 1
    high = whole.find("\n", whole.find("\n", span[1]) + 1)
    near = whole[low : high if high > 0 else len(whole)]
    return any(compiled(each, text.joined).search(near) for each in none)


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
