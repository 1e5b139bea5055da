"""Frozen dataclasses to plain JSON values and back, by their type annotations."""

import dataclasses
import types
from collections.abc import Mapping
from enum import Enum
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def to_json(value: Any) -> Any:
    """Dataclasses as dicts without their None fields, tuples as lists, enums as their values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = ((item.name, getattr(value, item.name)) for item in dataclasses.fields(value))
        return {name: to_json(content) for name, content in pairs if content is not None}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(name): to_json(content) for name, content in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_json(content) for content in value]
    return value


def from_json(kind: type[T], data: Any) -> T:
    """The value of type `kind` from `to_json`'s output; ValueError names the field that does not fit.

    Fields this version does not know are left out, so a record of a newer bevrepro can be replayed.
    """
    result: T = _read(kind, data, kind.__name__)
    return result


def _read(kind: Any, data: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _read_dataclass(kind, data, where)
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return None if data is None else _read(next(a for a in args if a is not type(None)), data, where)
    if origin is tuple:
        _expect(isinstance(data, list), "a list", data, where)
        return tuple(_read(args[0], item, f"{where}[{index}]") for index, item in enumerate(data))
    if origin is Mapping:
        _expect(isinstance(data, dict), "an object", data, where)
        return {name: _read(args[1], item, f"{where}.{name}") for name, item in data.items()}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(data)
    if kind is float and type(data) is int:
        return float(data)
    _expect(type(data) is kind, getattr(kind, "__name__", str(kind)), data, where)
    return data


def _read_dataclass(kind: Any, data: Any, where: str) -> Any:
    _expect(isinstance(data, dict), "an object", data, where)
    hints = get_type_hints(kind)
    known = {
        item.name: _read(hints[item.name], data[item.name], f"{where}.{item.name}")
        for item in dataclasses.fields(kind)
        if item.name in data
    }
    try:
        return kind(**known)
    except TypeError as error:
        raise ValueError(f"{where}: {error}") from error


def _expect(holds: bool, wanted: str, data: Any, where: str) -> None:
    if not holds:
        raise ValueError(f"{where}: expected {wanted}, found {data!r}"[:200])
