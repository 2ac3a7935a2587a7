"""Dataclasses from what JSON holds, checked against their annotations."""

import math
from collections.abc import Mapping
from dataclasses import MISSING, fields
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")


@cache
def hints(cls: Any) -> dict[str, Any]:
    """A class's annotations, evaluated."""
    return get_type_hints(cls)


def build(cls: type[T], data: Any, where: str = "result") -> T:
    """An instance of a dataclass, whose fields are plain data, tuples or dataclasses themselves.

    Args:
        cls: the dataclass.
        data: a dict with a value for each of its fields that has no default.
        where: how messages call it.

    Raises:
        ValueError: a field is missing, unknown or of another type; the message says where.
    """
    if not isinstance(data, dict):
        raise ValueError(f"{where} must be an object, got {_short(data)}")
    types = hints(cls)  # type: ignore[arg-type]
    for name in data:
        if name not in types:
            raise ValueError(f"{where} has an unknown field {name!r}")
    values = {}
    for field in fields(cls):  # type: ignore[arg-type]
        if field.name in data:
            values[field.name] = _value(
                types[field.name], data[field.name], f"{where}.{field.name}"
            )
        elif field.default is MISSING:
            raise ValueError(f"{where} lacks the field {field.name!r}")
    return cls(**values)


def _value(kind: Any, data: Any, where: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is UnionType:  # X | None
        if data is None and NoneType in arguments:
            return None
        return _value(next(a for a in arguments if a is not NoneType), data, where)
    if origin is tuple:
        if not isinstance(data, list):
            raise ValueError(f"{where} must be a list, got {_short(data)}")
        return tuple(_value(arguments[0], each, f"{where}[{i}]") for i, each in enumerate(data))
    if origin is Mapping:
        if not isinstance(data, dict):
            raise ValueError(f"{where} must be an object, got {_short(data)}")
        return {key: _value(arguments[1], each, f"{where}.{key}") for key, each in data.items()}
    if kind is Any:  # an option's value: lists were tuples
        return _tuples(data)
    if kind is float:
        if isinstance(data, bool) or not isinstance(data, (int, float)) or not math.isfinite(data):
            raise ValueError(f"{where} must be a finite number, got {_short(data)}")
        return float(data)
    if kind in (int, bool, str):
        if type(data) is not kind:
            raise ValueError(f"{where} must be of type {kind.__name__}, got {_short(data)}")
        return data
    return build(kind, data, where)


def _tuples(data: Any) -> Any:
    return tuple(map(_tuples, data)) if isinstance(data, list) else data


def _short(data: Any) -> str:
    text = repr(data)
    return text if len(text) <= 40 else f"{text[:37]}..."
