"""What a pattern cannot do without: where it is missing, the pattern need not be tried.

A pattern is read as what stands side by side in it. It needs words, which can be looked up before a line is
cleaned, and parts of words, which are in every text that it matches. A word counts where the pattern itself
shows that it stands alone: between blanks, digits, signs or `\\b`. At the pattern's own ends only the row's
`words` count, because nothing shows what follows there. Words are as `sieve.words_in` gives them: lower-case
letters and "_", nothing else.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from typing import NamedTuple

FOREIGN = "é"  # the word that stands for anything that is not ASCII
_QUANTIFIER = re.compile(r"(?:[*?]|\+|\{(\d*)(?:,\d*)?\})[?+]?")
_QUANTIFIED = frozenset("*?+{")
_CLASS = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]")
_OPENING = re.compile(r"\((?:\?(?:[:=!]|<[=!]))?")
_LETTERS = re.compile(r"[a-z_]+")
_ANY_LETTER = re.compile(r"[A-Za-z_]")

AnyOf = frozenset[str]


@dataclass(frozen=True)
class Needs:
    """Of each set one member is there: as a word of its own, as a part of the text in lower case."""

    words: tuple[AnyOf, ...]
    parts: tuple[AnyOf, ...]


class Edge(IntEnum):
    """Whether a word ends where it meets its neighbour."""

    NO = 0  # letters may follow
    OPEN = 1  # the end of the pattern
    YES = 2


class Atom(NamedTuple):
    """One character, a group, or anything else of which only its ends matter."""

    char: str = ""
    branches: "tuple[tuple[Atom, ...], ...]" = ()
    edge: Edge = Edge.NO
    optional: bool = False


@cache
def needs(pattern: str, words: tuple[str, ...]) -> Needs:
    """What every match of the pattern holds; `words` are those of its row."""
    branches, _ = _branches(pattern, 0)
    return Needs(
        tuple(_of_branches(branches, Edge.OPEN, Edge.OPEN, frozenset(words))),
        tuple(_of_branches(branches, Edge.OPEN, Edge.OPEN, None)),
    )


def _branches(pattern: str, at: int) -> tuple[tuple[tuple[Atom, ...], ...], int]:
    """The alternatives from there to the end or to the closing bracket, and where that is."""
    branches: list[tuple[Atom, ...]] = []
    atoms: list[Atom] = []
    while at < len(pattern) and pattern[at] != ")":
        if pattern[at] == "|":
            branches.append(tuple(atoms))
            atoms, at = [], at + 1
            continue
        found, at = _atom(pattern, at)
        if pattern[at : at + 1] in _QUANTIFIED and (quantifier := _QUANTIFIER.match(pattern, at)):
            at = quantifier.end()
            found = [_repeated(each, quantifier) for each in found]
        atoms += found
    return (*branches, tuple(atoms)), at


def _repeated(atom: Atom, quantifier: "re.Match[str]") -> Atom:
    optional = quantifier[0][0] in "*?" or quantifier[1] in ("", "0")
    if not optional and not atom.branches and _letter(atom.char):
        return Atom()  # "a+" ends in any number of them
    return Atom(branches=((atom,),), optional=optional)


def _atom(pattern: str, at: int) -> tuple[list[Atom], int]:
    """What stands there, nothing for what takes no room; and where the next begins."""
    char = pattern[at]
    if char == "(":
        inner = _OPENING.match(pattern, at)
        branches, end = _branches(pattern, inner.end() if inner else at + 1)
        looks = inner is not None and inner[0][-1] in "=!"
        return ([] if looks else [Atom(branches=branches)]), end + 1
    if char == "[":
        found = _CLASS.match(pattern, at)
        inside = found[0] if found else pattern[at:]
        return [Atom(edge=_class_edge(inside))], at + len(inside)
    if char == "\\":
        code = pattern[at + 1]
        if code.isalnum():
            return [Atom(edge=Edge.YES if code in "bsdWnt" else Edge.NO)], at + 2
        return [Atom(char=code)], at + 2
    if char in "^$":
        return [Atom(edge=Edge.YES)], at + 1
    return [Atom() if char in ".…" else Atom(char=char.lower())], at + 1


def _class_edge(inside: str) -> Edge:
    plain = re.sub(r"\\[sdWnt]", "", inside)
    letters = inside.startswith("[^") or "\\w" in inside or "\\S" in inside or _letter(plain)
    return Edge.NO if letters or not plain.isascii() else Edge.YES


def _letter(text: str) -> bool:
    return _ANY_LETTER.search(text) is not None


def _of_branches(
    branches: Sequence[Sequence[Atom]], before: Edge, after: Edge, known: AnyOf | None
) -> list[AnyOf]:
    """Words where those known in the row are given, else parts."""
    each = [list(_of_atoms(branch, before, after, known)) for branch in branches]
    if len(each) == 1:
        return each[0]
    if not all(each):
        return []
    # One of the alternatives is there, so one member of its most telling set is.
    return [frozenset[str]().union(*(min(sets, key=_commonness) for sets in each))]


def _commonness(any_of: AnyOf) -> tuple[int, int]:
    return len(any_of), -min(map(len, any_of))


def _of_atoms(atoms: Sequence[Atom], before: Edge, after: Edge, known: AnyOf | None) -> Iterator[AnyOf]:
    at = 0
    while at < len(atoms):
        end = at
        while end < len(atoms) and atoms[end].char:
            end += 1
        end = max(end, at + 1)
        if atoms[at].char or (atoms[at].branches and not atoms[at].optional):
            edges = (Edge.NO, Edge.NO)
            if known is not None:
                edges = _edge(atoms[:at][::-1], before, -1), _edge(atoms[end:], after, 1)
            if atoms[at].char:
                yield from _read("".join(atom.char for atom in atoms[at:end]), *edges, known)
            else:
                yield from _of_branches(atoms[at].branches, *edges, known)
        at = end


def _read(text: str, before: Edge, after: Edge, known: AnyOf | None) -> Iterator[AnyOf]:
    if known is None:
        yield from (frozenset((part,)) for part in text.split())
        return
    for word in _LETTERS.finditer(text):
        edge = min(
            Edge.YES if word.start() else before,
            Edge.YES if word.end() < len(text) else after,
        )
        if edge is Edge.YES or (edge is Edge.OPEN and word[0] in known):
            yield frozenset((word[0],))
    if not text.isascii():
        yield frozenset((FOREIGN,))


def _edge(atoms: Sequence[Atom], outside: Edge, step: int) -> Edge:
    """How the atoms begin; `step` -1: they are given from their end backwards."""
    for index, atom in enumerate(atoms):
        if atom.char:
            return Edge.NO if _letter(atom.char) else Edge.YES
        if not atom.branches:
            return atom.edge
        rest = atoms[index + 1 :]
        following = _edge(rest, outside, step)
        inner = min(_edge(branch[::step], following, step) for branch in atom.branches)
        return min(inner, following) if atom.optional else inner
    return outside
