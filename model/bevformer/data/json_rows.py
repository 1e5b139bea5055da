"""Rows of a big JSON table, one block of the file after another: memory does not grow with the table.

    wanted = [Field("filename"), Field("is_key_frame", FLAG)]
    for rows in row_batches(store, "v1.0-trainval/sample_data.json", wanted):
        for filename, is_key_frame in rows:     # "samples/...", "true" or "false"

Rows come in the order of the file as tuples of the wanted fields: TEXT as the string itself, the other kinds
as their JSON text, so that a caller who keeps few rows converts few (`columns`).  What is accepted is what
`json` accepts: a row laid out (key order, white space, kinds of values) as an earlier one is read with a
regular expression learned from that one, every other row with `json` itself.
"""

import codecs
import json
import re
from dataclasses import dataclass
from operator import itemgetter
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    Iterator,
    List,
    NoReturn,
    Optional,
    Pattern,
    Sequence,
    Tuple,
    Union,
)

import numpy as np

from bevformer.errors import DataError

from .store import Store

TEXT, FLAG, INT, NUMBERS = "text", "flag", "integer", "numbers"
BLOCK_BYTES = 4 << 20
MAX_ROW = 16 << 20  # characters; a row of the real tables has some hundred
MAX_LAYOUTS = 64  # an expression costs as much as some ten rows
DO = "Download the metadata archive again and compare its checksum."

Raw = Tuple[str, ...]
Column = Union[List[str], np.ndarray]

_GAP = re.compile(r"[ \t\n\r]*")
_COMMA = re.compile(r"[ \t\n\r]*,[ \t\n\r]*")
_KEY = re.compile(r'"([^"\\\x00-\x1f]*)"([ \t\n\r]*:[ \t\n\r]*)')
_PLAIN = r"[ !#-\[\]-~]*"  # ASCII without escapes: what else there is goes the slow way
_STRING = '"%s"' % _PLAIN
_NUMBER = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
_SCALAR = "(?:%s|%s|true|false|null)" % (_STRING, _NUMBER)
_LIST = r"\[[ \t\n\r]*(?:%s(?:[ \t\n\r]*,[ \t\n\r]*%s)*[ \t\n\r]*)?\]" % (_SCALAR, _SCALAR)
_LOOSE = r"[-+0-9.eE \t\n\r]*"  # of a wanted number, which `columns` parses as JSON


@dataclass(frozen=True)
class Field:
    """A wanted field.  `width`: how many numbers NUMBERS has."""

    name: str
    kind: str = TEXT
    width: int = 0


def row_batches(store: Store, path: str, fields: Sequence[Field]) -> Iterator[List[Raw]]:
    """Batches of tuples, one tuple a row.  DataError names the table and the row that is cut or broken."""
    return rows_of_text(path, fields, text_blocks(store, path))


def rows_of_text(path: str, fields: Sequence[Field], text: Iterable[str]) -> Iterator[List[Raw]]:
    """As `row_batches`, of a table that passes by in pieces; `path` is for the messages."""
    return _Reader(path, fields).batches(text)


def text_blocks(store: Store, path: str, block_bytes: int = BLOCK_BYTES) -> Iterator[str]:
    """The file's text in pieces.  DataError where it is missing or not UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")("surrogatepass")
    try:
        for block in _byte_blocks(store, path, block_bytes):
            yield decoder.decode(block)
        yield decoder.decode(b"", True)
    except UnicodeDecodeError as error:
        raise DataError(
            "%s is not valid JSON: %s" % (path, error), "It was probably cut while it was copied.", DO
        ) from error


def _byte_blocks(store: Store, path: str, block_bytes: int) -> Iterator[bytes]:
    local = store.local_path(path)
    if local is None:
        data = store.view(path)
        for at in range(0, len(data), block_bytes):
            yield bytes(data[at : at + block_bytes])
        return
    try:
        with open(local, "rb", buffering=0) as file:
            yield from iter(lambda: file.read(block_bytes), b"")
    except OSError:
        store.read(path)  # says it as the store says it
        raise


class _Reader:
    """One pass over one table."""

    def __init__(self, path: str, fields: Sequence[Field]) -> None:
        self.path = path
        self.fields = tuple(fields)
        self.read = 0  # rows before the batch at hand
        self.last = ""  # token of the row before
        self._decode = json.JSONDecoder().raw_decode
        self._layout: Optional[_Layout] = None
        self._to_learn = MAX_LAYOUTS

    def batches(self, blocks: Iterable[str]) -> Iterator[List[Raw]]:
        source = _Buffer(blocks)
        self._open(source)
        finished = False
        while not finished:
            rows: List[Raw] = []
            while not finished and not rows:
                self._fast(source, rows)
                finished = self._slow(source, rows)
            self.read += len(rows)
            yield rows
        if source.gap() is not None:
            self._broken(source, "after its last row it goes on with %r" % source.text[source.at :][:20])

    def _open(self, source: "_Buffer") -> None:
        if source.gap() != "[":
            raise DataError(
                "%s is not a list of rows" % self.path,
                "It begins with %r." % source.text[source.at :][:20],
                DO,
            )
        source.at += 1
        if source.gap() == "]":  # an empty list has no row for `_slow`
            source.empty = True

    def _fast(self, source: "_Buffer", rows: List[Raw]) -> None:
        """All rows from here on that look like the one the pattern was learned from."""
        if self._layout is None:
            return
        match = self._layout.pattern.scanner(source.text, source.at).match  # type: ignore[attr-defined]
        before, last = len(rows), None
        for last in iter(match, None):
            rows.append(last.groups())
        if last is not None:
            source.at = last.end()
            if self._layout.pick is not None:
                rows[before:] = map(self._layout.pick, rows[before:])

    def _slow(self, source: "_Buffer", rows: List[Raw]) -> bool:
        """One row with `json`, and what follows it; True after the last one."""
        if source.empty:
            source.at += 1
            return True
        row, start, end = self._decoded(source, rows)
        if not isinstance(row, dict):
            raise DataError("%s is not a list of rows" % self.path, "One of them is %.60r." % (row,), DO)
        rows.append(self._raw(row))
        text = source.text[start:end]
        source.at = end
        follows = source.gap()
        if follows == ",":
            comma = source.at
            source.at += 1
            source.gap()
            gap = source.text[comma + 1 : source.at] if source.at > comma else ""
            self._learn(text + "," + gap)
            return False
        if follows == "]":
            source.at += 1
            return True
        self.last = str(row.get("token", "?"))
        self._broken(source, "it is cut" if follows is None else "%r follows" % follows)

    def _learn(self, text: str) -> None:
        """From a row and the comma after it, unless its layout is known or there are too many of them."""
        if self._to_learn == 0 or self._layout and self._layout.pattern.fullmatch(text):
            return
        self._to_learn -= 1
        self._layout = _learned(text, self.fields, self._decode) or self._layout

    def _decoded(self, source: "_Buffer", rows: List[Raw]) -> Tuple[Any, int, int]:
        while True:
            source.gap()
            try:
                row, end = self._decode(source.text, source.at)
                return row, source.at, end
            except (ValueError, RecursionError) as error:
                # Within the last part it may be only the block that ends here.
                at = getattr(error, "pos", source.at)
                inside = len(source.text) - at > 64 and "Unterminated" not in str(error)
                if inside or len(source.text) - source.at > MAX_ROW or not source.more():
                    self.read += len(rows)
                    self.last = self._token_of(rows) or self.last
                    cut = not inside and len(source.text) - source.at <= MAX_ROW
                    self._broken(source, "it is cut: %s" % error if cut else str(error))

    def _token_of(self, rows: List[Raw]) -> str:
        names = [field.name for field in self.fields]
        return rows[-1][names.index("token")] if rows and "token" in names else ""

    def _broken(self, source: "_Buffer", what: str) -> NoReturn:
        after = " (after the one with token %s)" % self.last if self.last else ""
        raise DataError(
            "%s is not valid JSON at row %d%s: %s" % (self.path, self.read, after, what),
            "It was probably cut while it was copied.",
            DO,
        )

    def _raw(self, row: Dict[str, Any]) -> Raw:
        return tuple(self._raw_value(row, field) for field in self.fields)

    def _raw_value(self, row: Dict[str, Any], field: Field) -> str:
        if field.name not in row:
            raise DataError("%s: row %s has no %s" % (self.path, row.get("token", "?"), field.name), do=DO)
        value = row[field.name]
        text = _as_raw(value, field)
        if text is None:
            raise misfit(self.path, str(row.get("token", "?")), field, value)
        return text


class _Buffer:
    """The part of the text at hand: `text[at:]` is not read yet."""

    def __init__(self, blocks: Iterable[str]) -> None:
        self._blocks = iter(blocks)
        self.text = ""
        self.at = 0
        self.empty = False

    def more(self) -> bool:
        """Append the next block; False at the end of the file."""
        for block in self._blocks:
            if block:
                self.text = self.text[self.at :] + block
                self.at = 0
                return True
        return False

    def gap(self) -> Optional[str]:
        """Move over white space; the character there, None at the end."""
        while True:
            self.at = _GAP.match(self.text, self.at).end()  # type: ignore[union-attr]
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return None


@dataclass(frozen=True)
class _Layout:
    """What a row and the comma after it look like.  `pick` brings the groups into the order of the fields."""

    pattern: Pattern[str]
    pick: Optional[Callable[[Raw], Raw]]


def _as_raw(value: Any, field: Field) -> Optional[str]:
    """As the fast way gives it; None for a value of another kind."""
    if field.kind == TEXT:
        return value if isinstance(value, str) else None
    if field.kind == FLAG:
        return json.dumps(value) if isinstance(value, bool) else None
    if field.kind == INT:
        whole = isinstance(value, int) or isinstance(value, float) and value.is_integer()
        return str(int(value)) if whole and not isinstance(value, bool) else None
    fits = isinstance(value, list) and len(value) == field.width
    return json.dumps(value)[1:-1] if fits and all(type(one) in (int, float) for one in value) else None


def misfit(path: str, token: str, field: Field, value: Any) -> DataError:
    wanted = "%d numbers" % field.width if field.kind == NUMBERS else "a " + field.kind
    if field.kind == INT:
        wanted = "an integer of 64 bits"
    return DataError(
        "%s: row %s: %s is %.60r, not %s" % (path, token, field.name, value, wanted),
        "The table was changed or damaged.",
        DO,
    )


def _learned(text: str, fields: Sequence[Field], decode: Any) -> Optional["_Layout"]:
    """The layout of the row at the start of `text` and of the comma after it; None where too unusual."""
    wanted = {field.name: field for field in fields}
    parts, order = ["{"], []  # type: List[str], List[str]
    at = 1
    while True:
        start = _GAP.match(text, at).end()  # type: ignore[union-attr]
        key = _KEY.match(text, start)
        if key is None or key.group(1) in order:
            return None
        value, value_end = decode(text, key.end())
        part = _part(value, wanted.get(key.group(1)), text[key.end() : value_end])
        if part is None:
            return None
        order.append(key.group(1))
        comma = _COMMA.match(text, value_end)
        parts += [text[at:start], key.group(), part]
        if comma is None:
            return _layout([*parts, text[value_end:]], [name for name in order if name in wanted], fields)
        at = comma.end()
        parts.append(comma.group())


def _layout(parts: List[str], order: List[str], fields: Sequence[Field]) -> "_Layout":
    """`parts`: text as it stands and expressions; each third after the brace is an expression."""
    pattern = "".join(part if i % 4 == 3 else re.escape(part) for i, part in enumerate(parts))
    turned = order != [field.name for field in fields]
    pick = itemgetter(*[order.index(field.name) for field in fields]) if turned else None
    return _Layout(re.compile(pattern), pick)


def _part(value: Any, field: Optional[Field], text: str) -> Optional[str]:
    """The expression for a value like this one, a group where it is wanted."""
    if field is not None:
        if field.kind == TEXT:
            return '"(%s)"' % _PLAIN if isinstance(value, str) else None
        if field.kind == FLAG:
            return "(true|false)" if isinstance(value, bool) else None
        if field.kind == INT:
            return "(-?[0-9]+)" if type(value) is int else None
        return r"\[(%s)\]" % ",".join([_LOOSE] * field.width) if isinstance(value, list) else None
    if isinstance(value, str):
        return _STRING
    if isinstance(value, bool) or value is None:
        return "(?:true|false|null)"
    if isinstance(value, (int, float)):
        return _NUMBER if text[0] in "-0123456789" else None
    flat = isinstance(value, list) and not any(isinstance(one, (list, dict)) for one in value)
    return _LIST if flat else None


def columns(path: str, fields: Sequence[Field], rows: Sequence[Raw]) -> Dict[str, Column]:
    """Rows of `row_batches` -> field name: list of str (TEXT), bool, int64 or (N, width) float64 array.

    DataError names the row and the field of a number that is none, not finite or does not fit 64 bits.
    """
    lists: Sequence[Sequence[str]] = list(zip(*rows)) if rows else [[] for _ in fields]
    try:
        return {field.name: _column(field, raw) for field, raw in zip(fields, lists)}
    except (ValueError, OverflowError):
        names = [field.name for field in fields]
        for row in rows:
            for field, raw_value in zip(fields, row):
                try:
                    _column(field, [raw_value])
                except (ValueError, OverflowError):
                    token = row[names.index("token")] if "token" in names else "?"
                    raise misfit(path, token, field, raw_value) from None
        raise


def _column(field: Field, raw: Sequence[str]) -> Column:
    if field.kind == TEXT:
        return list(raw)
    if field.kind == FLAG:
        return np.array([one == "true" for one in raw], dtype=bool)
    numbers = json.loads("[" + ",".join(raw) + "]")
    if field.kind == INT:
        if len(numbers) != len(raw) or not set(map(type, numbers)) <= {int}:
            raise ValueError("not integers")
        return np.array(numbers, dtype=np.int64)
    found = np.array(numbers, dtype=np.float64).reshape(len(raw), field.width)
    if not np.isfinite(found).all():
        raise ValueError("not finite")
    return found
