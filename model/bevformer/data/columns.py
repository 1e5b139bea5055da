"""Columns of text: many strings as one run of bytes, and rows found by their tokens.

A million Python strings take 80 MB more than their letters; as bytes and offsets they can be shared, mapped
and sorted.
"""

from typing import Dict, Iterable, List, Sequence

import numpy as np

from bevformer.errors import DataError

MAX_TOKEN = 256  # bytes; nuScenes' have 32


class Strings:
    """Strings by position: `data[offsets[i]:offsets[i + 1]]` is the UTF-8 of the i-th."""

    def __init__(self, offsets: np.ndarray, data: np.ndarray) -> None:
        self.offsets = offsets
        self.data = data

    @classmethod
    def of(cls, strings: Sequence[str]) -> "Strings":
        parts = [one.encode("utf-8", "surrogatepass") for one in strings]
        offsets = np.zeros(len(parts) + 1, dtype=np.int64)
        np.cumsum([len(part) for part in parts], out=offsets[1:])
        return cls(offsets, np.frombuffer(b"".join(parts), dtype=np.uint8))

    @classmethod
    def joined(cls, parts: Sequence["Strings"]) -> "Strings":
        """One after another."""
        offsets = [np.zeros(1, dtype=np.int64)]
        end = 0
        for part in parts:
            offsets.append(part.offsets[1:] + (end - part.offsets[0]))
            end = int(offsets[-1][-1]) if len(part) else end
        data = [part.data[part.offsets[0] : part.offsets[-1]] for part in parts]
        return cls(np.concatenate(offsets), np.concatenate([np.zeros(0, np.uint8), *data]))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> str:
        start, end = self.offsets[index], self.offsets[index + 1]
        return self.data[start:end].tobytes().decode("utf-8", "surrogatepass")

    def part(self, start: int, end: int) -> List[str]:
        """Those from `start` to before `end`."""
        ends = self.offsets[start : end + 1].tolist()
        raw = self.data[ends[0] : ends[-1]].tobytes()
        text = raw.decode("utf-8", "surrogatepass")
        if len(text) == len(raw):  # ASCII: bytes and characters are the same
            return [text[one - ends[0] : other - ends[0]] for one, other in zip(ends, ends[1:])]
        pieces = (raw[one - ends[0] : other - ends[0]] for one, other in zip(ends, ends[1:]))
        return [piece.decode("utf-8", "surrogatepass") for piece in pieces]

    def tolist(self) -> List[str]:
        """All of them."""
        return self.part(0, len(self))


def token_column(tokens: Sequence[str], where: str) -> np.ndarray:
    """(N,) bytes of one width.  DataError for a token that is too long or has a NUL, which would be lost."""
    for token in tokens:
        if len(token) > MAX_TOKEN // 4 and len(token.encode("utf-8", "surrogatepass")) > MAX_TOKEN:
            raise DataError("%s: the token %.40r... is too long" % (where, token))
    if "\0" in "".join(tokens):
        raise DataError("%s: a token holds the character NUL" % where)
    try:
        return np.array(tokens, dtype="S") if len(tokens) else np.zeros(0, dtype="S1")
    except UnicodeEncodeError:
        return np.array([token.encode("utf-8", "surrogatepass") for token in tokens], dtype="S")


def as_text(token: bytes) -> str:
    """An element of `token_column`."""
    return bytes(token).decode("utf-8", "surrogatepass")


class TokenIndex:
    """Position of every token.  DataError, naming `where`, when one is there twice."""

    def __init__(self, tokens: np.ndarray, where: str) -> None:
        self._tokens = _padded(tokens, tokens.dtype.itemsize)
        mixed = _mixed(self._tokens)
        self._order = np.argsort(mixed, kind="stable")
        self._mixed = mixed[self._order]
        alike = bool((self._mixed[1:] == self._mixed[:-1]).any())
        # Different tokens of one mixed number do not happen by chance, but can be made: then a dict decides.
        self._by_bytes = {one: i for i, one in enumerate(self._tokens.tolist())} if alike else None
        if self._by_bytes is not None and len(self._by_bytes) < len(tokens):
            twice = next(one for i, one in enumerate(self._tokens.tolist()) if self._by_bytes[one] != i)
            raise DataError(
                "%s has two rows with token %s" % (where, as_text(twice)),
                "Other rows refer to it, and which is meant cannot be told.",
                "Download the metadata archive again and compare its checksum.",
            )

    def find(self, wanted: np.ndarray) -> np.ndarray:
        """(M,) int64 positions; -1 for a token that is not there."""
        if not len(self._tokens) or not len(wanted):
            return np.full(len(wanted), -1, dtype=np.int64)
        if self._by_bytes is not None:
            return np.array([self._by_bytes.get(one, -1) for one in wanted.tolist()], dtype=np.int64)
        cut = _padded(wanted, self._tokens.dtype.itemsize)  # a longer one is compared whole below
        at = np.searchsorted(self._mixed, _mixed(cut)).clip(max=len(self._mixed) - 1)
        found = self._order[at]
        return np.where(self._tokens[found] == wanted, found, -1)


def _padded(tokens: np.ndarray, width: int) -> np.ndarray:
    """As many bytes each as whole numbers of 64 bits need."""
    return np.ascontiguousarray(tokens.astype("S%d" % (-(-max(width, 1) // 8) * 8)))


def _mixed(tokens: np.ndarray) -> np.ndarray:
    """(N,) uint64, different for different tokens but for chance; a sort by it is a sort of numbers."""
    words = tokens.view(np.uint64).reshape(len(tokens), tokens.dtype.itemsize // 8)
    out = np.zeros(len(tokens), dtype=np.uint64)
    for word in words.T:
        out = (out ^ word) * np.uint64(0x9E3779B97F4A7C15)
        out ^= out >> np.uint64(29)
    return out


def native(array: np.ndarray) -> np.ndarray:
    """With NumPy's own instance of its type: what came through a pipe has another, and pickles otherwise."""
    return array.view(np.dtype(array.dtype.str))


def ends_of(lengths: Iterable[int]) -> np.ndarray:
    """(N + 1,) int64: where each of consecutive runs begins, and the end."""
    return np.concatenate([[0], np.cumsum(np.fromiter(lengths, dtype=np.int64))]).astype(np.int64)


class Growing:
    """Columns that grow by batches.  `empty`: an array of no rows for each, which says type and width."""

    def __init__(self, **empty: np.ndarray) -> None:
        self._parts = {name: [one] for name, one in empty.items()}

    def add(self, **parts: np.ndarray) -> None:
        for name, part in parts.items():
            empty = self._parts[name][0]
            self._parts[name].append(np.asarray(part).reshape((-1,) + empty.shape[1:]))

    def whole(self) -> Dict[str, np.ndarray]:
        """All of each; what was added is let go."""
        return {name: np.concatenate(self._parts.pop(name)) for name in list(self._parts)}


TOKENS = np.zeros(0, dtype="S1")
INTEGERS = np.zeros(0, dtype=np.int64)


def numbers(width: int) -> np.ndarray:
    return np.zeros((0, width))
