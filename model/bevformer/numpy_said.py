"""What a pickle says of NumPy's dtypes, numbers and arrays, judged before NumPy sees any of it.

NumPy believes what a pickle tells it: a dtype whose flags or fields do not fit its code makes it follow
bytes of the file as addresses.  What is let through here is what NumPy itself writes, and nothing else.
"""

import re
from typing import Any, Tuple

_CODE = re.compile(r"b1|i[1248]|u[1248]|f(2|4|8|16)|c(8|16|32)|O[48]|[Mm]8|[SU](0|[1-9][0-9]{0,6})", re.ASCII)
_FLAGS = {"O": 63, "U": 8}  # numpy.dtype(code).flags, the same from 1.19 to 2.4; 0 for the others
_ORDERS = ("<", ">", "|", "=")
_UNITS = ("Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as", "generic")
MAX_AXES = 32  # of NumPy 1; 2 has 64, which no file of ours needs
MAX_EMPTY = 2**16  # items of no bytes: many of them cost nothing in the file


class Refused(Exception):
    """The file names, or does, something that is not on the list; the text says what."""


class DtypeSaid:
    """numpy.dtype.  `code`: `f8`, `U20`; `order`: `<`, `>` or `|`; `step`: `25s` of a date, else empty."""

    __slots__ = ("code", "itemsize", "order", "step")
    __hash__ = None  # type: ignore[assignment]  # so it is never the key of a dict

    def __init__(self, code: Any = None, align: Any = False, copy: Any = True) -> None:
        if type(code) is not str or not _CODE.fullmatch(code):
            raise Refused("a numpy.dtype of %.40r" % (code,))
        if not (isinstance(align, int) and isinstance(copy, int)):
            raise Refused("a numpy.dtype made in an unknown way")
        self.code, self.order, self.step = code, "=", ""
        self.itemsize = int(code[1:]) * (4 if code[0] == "U" else 1)

    def __setstate__(self, state: Any) -> None:
        """Raises Refused for anything but what numpy.dtype.__reduce__ writes for this code."""
        code, dates = self.code, self.code in ("M8", "m8")
        if type(state) is not tuple or len(state) != (9 if dates else 8):
            raise Refused("a forged numpy.dtype: %s in a form that NumPy does not write" % code)
        version, order, subarray, names, fields, size, alignment, flags = state[:8]
        sizes = (self.itemsize, 4 if code[0] == "U" else 1) if code[0] in "SU" else (-1, -1)
        if any(type(number) is not int for number in (version, size, alignment, flags)):
            raise Refused("a forged numpy.dtype: %s with sizes that are no numbers" % code)
        if version != (4 if dates else 3) or type(order) is not str or order not in _ORDERS:
            raise Refused("a forged numpy.dtype: %s of version %d" % (code, version))
        if not (subarray is names is fields is None):
            raise Refused("a forged numpy.dtype: %s with fields" % code)
        if (size, alignment) != sizes:
            raise Refused("a forged numpy.dtype: %s of %d bytes" % (code, size))
        if flags != _FLAGS.get(code[0], 0):
            raise Refused("a forged numpy.dtype: %s with the flags %d" % (code, flags))
        self.order, self.step = order, _step(state[8]) if dates else ""


def _step(metadata: Any) -> str:
    """`25s` of (None or {}, (b"s", 25, 1, 1)), which is how NumPy tells the unit of dates."""
    if type(metadata) is tuple and len(metadata) == 2 and metadata[0] in (None, {}):
        if type(metadata[1]) is tuple and len(metadata[1]) == 4:
            unit, many, parts, event = metadata[1]
            unit = unit.decode("latin1") if type(unit) is bytes else unit
            whole = all(type(number) is int for number in (many, parts, event))
            if unit in _UNITS and whole and parts == event == 1 and 1 <= many < 2**31:
                return "%d%s" % (many, unit) if unit != "generic" else unit
    raise Refused("a forged numpy.dtype: dates of the unit %.60r" % (metadata,))


def begun(kind: Any, ndarray: Any, shape: Any, code: Any) -> None:
    """How an array begins: `_reconstruct(ndarray, (0,), b"b")`.  Its state has to bring all of its bytes."""
    if kind != ndarray or shape != (0,) or code not in (b"b", "b"):
        raise Refused("an array of %.80r" % (shape,))


def array_said(state: Any) -> Tuple[Tuple[int, ...], DtypeSaid, bool, Any]:
    """Shape, dtype, whether it lies by column, and data (bytes, or a list of objects) of an array's state.

    Raises Refused where they contradict each other.
    """
    if type(state) is not tuple or len(state) != 5:
        raise Refused("a forged numpy.ndarray: in a form that NumPy does not write")
    version, shape, dtype, by_column, data = state
    if version != 1 or not isinstance(dtype, DtypeSaid) or not isinstance(by_column, int):
        raise Refused("a forged numpy.ndarray: in a form that NumPy does not write")
    count = count_of(shape)
    if dtype.code[0] == "O":
        if type(data) is not list or len(data) != count:
            raise Refused("a forged numpy.ndarray: objects that do not fill the shape %.80r" % (shape,))
        return shape, dtype, bool(by_column), data
    return shape, dtype, bool(by_column), bytes_said(dtype, count, data)


def count_of(shape: Any) -> int:
    """How many items an array of `shape` has.  Raises Refused for what is no shape."""
    if type(shape) is not tuple or len(shape) > MAX_AXES:
        raise Refused("a forged numpy.ndarray: of the shape %.80r" % (shape,))
    count, room = 1, 1
    for length in shape:
        if type(length) is not int or length < 0:
            raise Refused("a forged numpy.ndarray: of the shape %.80r" % (shape,))
        count *= length
        room *= length or 1
    if room > 2**40:  # NumPy multiplies an empty array's other axes too, and not always in numbers so long
        raise Refused("a forged numpy.ndarray: of the shape %.80r" % (shape,))
    return count


def bytes_said(dtype: DtypeSaid, count: int, data: Any) -> bytes:
    """The bytes of `count` items, which have to be exactly that many; Python 2's text as the bytes it was."""
    if type(data) is str:
        data = data.encode("latin1")
    if type(data) is not bytes or dtype.code[0] == "O":
        raise Refused("a forged numpy number or array: %s without its bytes" % dtype.code)
    if len(data) != count * dtype.itemsize or (count > MAX_EMPTY and not dtype.itemsize):
        raise Refused("a forged numpy number or array: %d of %s in %d bytes" % (count, dtype.code, len(data)))
    if dtype.code == "b1" and data.translate(None, b"\0\1"):
        raise Refused("a forged numpy array: true and false that are neither")  # NumPy counts on these
    if dtype.code[0] == "U":  # NumPy finds out only where the text is used; raises UnicodeDecodeError
        data.decode("utf-32-be" if dtype.order == ">" else "utf-32-le", "surrogatepass")
    return data
