"""Pickles of plain data only: builtins and NumPy.  A pickle can name any function; all others are refused.

Prepared files come from other people, so they are read as data and never as a program.
"""

import _codecs
import io
import pickle
from typing import Any, Callable, Dict, Tuple

import numpy as np

from bevformer.errors import DataError

# What the unpickler raises for damaged bytes, besides its own error.
DAMAGE = (EOFError, ValueError, LookupError, TypeError, AttributeError, OverflowError, MemoryError)

_reconstruct = np.empty(0).__reduce__()[0]
_scalar = np.float64(0).__reduce__()[0]


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """How protocol 2 (mmcv's default) stores bytes; other codecs are not needed for that."""
    if encoding not in ("latin1", "latin-1"):
        raise _Refused("codec %r" % encoding)
    return _codecs.encode(text, "latin1")  # type: ignore[return-value]


def _frombuffer(buffer: Any, dtype: Any, shape: Any, order: str) -> np.ndarray:
    """How protocol 5 stores arrays; NumPy's own helper moved between releases."""
    return np.frombuffer(buffer, dtype=dtype).reshape(shape, order=order)  # type: ignore[call-overload]


class _Array:
    """What stands for numpy.ndarray: an argument of `_reconstruct`, nothing that could be called."""


def _empty(kind: Any, shape: Any, code: Any) -> np.ndarray:
    """How protocols 2 to 4 begin an array; its state, which follows, has to bring all of its bytes."""
    if kind is not _ARRAY or tuple(shape) != (0,):
        raise _Refused("an array of %r" % (shape,))
    return _reconstruct(np.ndarray, (0,), code)


def _listed(kind: Callable[..., Any]) -> Callable[..., Any]:
    """`kind` of what the file spells out: set(range(10**11)) is a few bytes there and all memory here."""

    def make(*args: Any) -> Any:
        if any(not isinstance(arg, (list, tuple, bytes, str)) for arg in args):
            raise _Refused("%s of something that is not in the file" % kind.__name__)
        return kind(*args)

    return make


_ARRAY = _Array()


def _allowed() -> Dict[Tuple[str, str], Any]:
    names: Dict[Tuple[str, str], Any] = {
        ("_codecs", "encode"): _encode,
        ("numpy", "ndarray"): _ARRAY,
        ("numpy", "dtype"): np.dtype,
        ("collections", "OrderedDict"): dict,
    }
    for core in ("numpy.core", "numpy._core"):  # the second is NumPy 2's name
        names[core + ".multiarray", "_reconstruct"] = _empty
        names[core + ".multiarray", "scalar"] = _scalar
        names[core + ".numeric", "_frombuffer"] = _frombuffer
    kinds: Dict[str, Callable[..., Any]] = {one.__name__: one for one in (complex, slice, range)}
    kinds.update((one.__name__, _listed(one)) for one in (set, frozenset, bytearray))
    for name, kind in kinds.items():
        names["builtins", name] = names["__builtin__", name] = kind
    return names


_ALLOWED = _allowed()


class _Refused(pickle.UnpicklingError):
    """Something that is neither a builtin nor NumPy; the message is its name."""


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise _Refused("%s.%s" % (module, name)) from None

    def persistent_load(self, pid: Any) -> Any:
        raise _Refused("a persistent id")


def loads(data: bytes, name: str) -> Any:
    """The object in `data`; `name` is the file for the message.

    Raises DataError for anything but builtins and NumPy, and for bytes that are no whole pickle.
    """
    try:
        return _PlainUnpickler(io.BytesIO(data)).load()
    except _Refused as error:
        raise DataError(
            "%s holds more than plain data: %s" % (name, error),
            "A pickle that names anything but builtins and NumPy could run a program, so it is not read.",
            "Make the file with `bevrepro data prepare`.",
        ) from error
    except (pickle.UnpicklingError,) + DAMAGE as error:
        raise _broken(name, str(error) or type(error).__name__) from error


def _broken(name: str, what: str) -> DataError:
    return DataError(
        "%s is not a whole pickle: %s" % (name, what),
        "It was cut, or is a file of another kind.",
        "Make it again with `bevrepro data prepare`, or copy it again.",
    )
