"""Pickles of plain data only: builtins and NumPy.  A pickle can name any function; all others are refused.

Prepared files come from other people, so they are read as data and never as a program.  NumPy believes what
a pickle says of its dtypes and arrays, so stand-ins are told first (`numpy_said`), and are replaced at last.
"""

import _codecs
import io
import pickle
import threading
from functools import lru_cache
from typing import Any, Callable, Dict, List, Set, Tuple

import numpy as np

from bevformer.bounded import bounded
from bevformer.collecting import without_gc
from bevformer.errors import DataError
from bevformer.numpy_said import DtypeSaid, Refused, array_said, begun, bytes_said, count_of

# What the unpickler raises for damaged bytes, besides its own error.
DAMAGE = (
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    OverflowError,
    MemoryError,
    RuntimeError,
)
# A tuple that is a key is hashed, with those in it, on the stack, whose end is the end of the process.
TUPLES = (pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3)
HASH_B, STACK_B = 256, 2**20  # 57 were measured for each level (CPython 3.11)
LOOK_AHEAD_B = 2**17  # without it the unpickler asks for every few bytes of the older protocols

_reconstruct = np.empty(0).__reduce__()[0]


class _Dtype(DtypeSaid):
    """Stands for a numpy.dtype."""

    __slots__ = ()

    @property
    def real(self) -> np.dtype:
        return _dtype(self.code, self.order, self.step)


class _Array:
    """Stands for a numpy.ndarray, because the unpickler hands an array's state to the array itself."""

    __slots__ = ("filled_from", "real")
    __hash__ = None  # type: ignore[assignment]  # so it is never the key of a dict

    def __init__(self, kind: Any, shape: Any, code: Any) -> None:
        begun(kind, _NDARRAY, shape, code)
        self.filled_from: Any = None

    def __setstate__(self, state: Any) -> None:
        shape, dtype, by_column, data = array_said(state)
        self.real = _reconstruct(np.ndarray, (0,), b"b")
        if type(data) is list:  # of objects that may be stand-ins themselves
            self.filled_from = state
        else:
            real_dtype = _dtype(dtype.code, dtype.order, dtype.step)
            self.real.__setstate__((1, shape, real_dtype, by_column, data))

    def fill(self) -> None:
        """When all objects are real."""
        shape, dtype, by_column, data = array_said(self.filled_from)
        self.real.__setstate__((1, shape, np.dtype("O"), by_column, data))


class _Global:
    """A function that a pickle may call.  Changing it is refused."""

    __slots__ = ("_does", "_name")

    def __init__(self, name: str, does: Callable[..., Any]) -> None:
        self._name, self._does = name, does

    def __call__(self, *args: Any) -> Any:
        return self._does(*args)

    def __setstate__(self, state: Any) -> None:
        raise Refused("a change to %s" % self._name)


@lru_cache(maxsize=256)
def _dtype(code: str, order: str, step: str) -> np.dtype:
    dtype = np.dtype("%s[%s]" % (code, step) if step else code)
    return dtype.newbyteorder(order) if order in ("<", ">") else dtype  # type: ignore[arg-type]


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """How protocol 2 (mmcv's default) stores bytes; other codecs are not needed for that."""
    if encoding not in ("latin1", "latin-1"):
        raise Refused("codec %r" % encoding)
    return _codecs.encode(text, "latin1")  # type: ignore[return-value]


def _frombuffer(buffer: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    """How protocol 5 stores arrays; NumPy's own helper moved between releases."""
    if type(buffer) not in (bytes, bytearray, memoryview) or type(dtype) is not _Dtype:
        raise Refused("a forged numpy.ndarray: in a form that NumPy does not write")
    bytes_said(dtype, count_of(shape), bytes(buffer))
    return np.frombuffer(buffer, dtype=dtype.real).reshape(shape, order="F" if order == "F" else "C")


def _scalar(dtype: Any, data: Any = None) -> Any:
    if type(dtype) is not _Dtype:
        raise Refused("a forged numpy number: of no dtype")
    if not dtype.itemsize:  # the empty text
        return dtype.real.type(bytes_said(dtype, 1, data).decode() if dtype.code[0] == "U" else b"")
    return np.frombuffer(bytes_said(dtype, 1, data), dtype.real)[0]


def _of(kind: Callable[..., Any], *allowed: type) -> Callable[..., Any]:
    """`kind` of what the file spells out: set(range(10**11)) is a few bytes there and all memory here."""

    def make(*args: Any) -> Any:
        if any(not isinstance(arg, allowed) for arg in args):
            raise Refused("%s of something that is not in the file" % kind.__name__)
        return kind(*args)

    return make


_NDARRAY = _Global("numpy.ndarray", _of(np.ndarray, type(None)))  # an argument of `_reconstruct` alone


def _allowed() -> Dict[Tuple[str, str], Any]:
    calls: Dict[Tuple[str, str], Callable[..., Any]] = {("_codecs", "encode"): _encode}
    names: Dict[Tuple[str, str], Any] = {
        ("numpy", "ndarray"): _NDARRAY,
        ("numpy", "dtype"): _Dtype,
        ("collections", "OrderedDict"): dict,
    }
    for core in ("numpy.core", "numpy._core"):  # the second is NumPy 2's name
        names[core + ".multiarray", "_reconstruct"] = _Array
        calls[core + ".multiarray", "scalar"] = _scalar
        calls[core + ".numeric", "_frombuffer"] = _frombuffer
    for place in ("builtins", "__builtin__"):
        for kind in (set, frozenset, bytearray):
            calls[place, kind.__name__] = _of(kind, list, tuple, bytes, str)
        calls[place, "bytes"] = _of(bytes)  # b"" in protocol 2
        for kind in (complex, slice, range):
            calls[place, kind.__name__] = _of(kind, int, float, str, type(None))
    names.update((place, _Global(".".join(place), does)) for place, does in calls.items())
    return names


_ALLOWED = _allowed()


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise Refused("%s.%s" % (module, name)) from None

    def persistent_load(self, pid: Any) -> Any:
        raise Refused("a persistent id")


class _Resolver:
    """Puts NumPy's own in the place of every stand-in: in dicts and lists where they are, in tuples anew.

    Keeps lists of what is still to do, for a file can nest deeper than Python calls, and can hold itself.
    What cannot be hashed is no key and in no set, so neither are stand-ins.
    """

    def __init__(self) -> None:
        self._open: List[Any] = []  # dicts and lists
        self._seen: Set[int] = set()  # ids of dicts, lists and arrays; all of them live until the end
        self._tuples: Dict[int, Tuple[Any, Any]] = {}  # as read, and as they are to be
        self._of_objects: List[_Array] = []

    def resolve(self, whole: Any) -> Any:
        holder = [whole]
        self._open.append(holder)
        while self._open:
            each = self._open.pop()
            places: Any = each.items() if type(each) is dict else enumerate(each)
            for place, value in places:
                kind = type(value)
                if kind in _TOLD:
                    each[place] = self._real(value, kind)
        for array in self._of_objects:
            array.fill()
        return holder[0]

    def _real(self, value: Any, kind: type) -> Any:
        if kind is dict or kind is list:
            if id(value) not in self._seen:
                self._seen.add(id(value))
                self._open.append(value)
            return value
        if kind is _Array:
            if value.filled_from is not None and id(value) not in self._seen:
                self._seen.add(id(value))
                self._of_objects.append(value)
                self._real(value.filled_from[4], list)
            return value.real
        return value.real if kind is _Dtype else self._tuple(value)

    def _tuple(self, whole: Tuple[Any, ...]) -> Tuple[Any, ...]:
        """Innermost first; what holds no stand-in stays what it is."""
        waiting = [whole]
        while waiting:
            each = waiting[-1]
            inner = [one for one in each if type(one) is tuple and id(one) not in self._tuples]
            if inner and id(each) not in self._tuples:
                waiting.extend(inner)
                continue
            waiting.pop()
            if id(each) not in self._tuples:
                real = tuple([self._inside(one) for one in each])
                same = all(old is new for old, new in zip(each, real))
                self._tuples[id(each)] = each, each if same else real
        return self._tuples[id(whole)][1]

    def _inside(self, value: Any) -> Any:
        kind = type(value)
        if kind is tuple:
            return self._tuples[id(value)][1]
        return self._real(value, kind) if kind in _TOLD else value


_TOLD = frozenset((dict, list, tuple, _Array, _Dtype))


def loads(data: bytes, name: str) -> Any:
    """The object in `data`; `name` is the file for the message.

    Raises DataError for anything but builtins and NumPy, and for bytes that are no whole pickle.
    """
    try:
        with bounded(len(data)), without_gc():
            stream = io.BufferedReader(io.BytesIO(data), LOOK_AHEAD_B)  # type: ignore[arg-type]
            levels = sum(data.count(code) for code in TUPLES)  # there cannot be more in each other
            return _on_a_stack(levels * HASH_B, lambda: _Resolver().resolve(_PlainUnpickler(stream).load()))
    except Refused as error:
        raise DataError(
            "%s holds more than plain data: %s" % (name, error),
            "A pickle that names anything but builtins and NumPy could run a program, so it is not read.",
            "Make the file with `bevrepro data prepare`.",
        ) from error
    except (pickle.UnpicklingError,) + DAMAGE as error:
        raise _broken(name, str(error) or type(error).__name__) from error


def _on_a_stack(size_b: int, read: Callable[[], Any]) -> Any:
    """What `read` gives, called in a thread with that much stack; what is not used of it is never taken.

    Raises what `read` does, and RuntimeError where there is not that much.
    """
    done: List[Tuple[Any, Any]] = []

    def run() -> None:
        try:
            done.append((read(), None))
        except BaseException as error:  # raised below, where somebody waits for it
            done.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    before = threading.stack_size(STACK_B + size_b // STACK_B * STACK_B)
    try:
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    value, error = done[0]
    if error is not None:
        raise error
    return value


def _broken(name: str, what: str) -> DataError:
    return DataError(
        "%s is not a whole pickle: %s" % (name, what),
        "It was cut, or is a file of another kind.",
        "Make it again with `bevrepro data prepare`, or copy it again.",
    )
