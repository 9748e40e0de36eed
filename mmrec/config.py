"""Frozen, checked configuration values, dotted-path overrides, and the hash that names them."""

import dataclasses
import difflib
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar, cast, dataclass_transform

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as checked_dataclass

T = TypeVar("T")

_RULES = ConfigDict(extra="forbid", strict=True)


@dataclass_transform(
    kw_only_default=True, frozen_default=True, field_specifiers=(dataclasses.field,)
)
def config(cls: type[T]) -> type[T]:
    """A frozen dataclass that checks every value and refuses unknown names."""
    return cast(type[T], checked_dataclass(frozen=True, kw_only=True, config=_RULES)(cls))


def override(cfg: T, changes: Mapping[str, Any]) -> T:
    """Copy `cfg` with dotted paths replaced and re-checked, e.g. `{"model.knn_k": 20}`.

    Raises:
        KeyError: the path names no field; the message says which name is near.
        pydantic.ValidationError: the value is of the wrong type or out of range.
    """
    for path, value in changes.items():
        cfg = _replace(cfg, path.split("."), value, path)
    return cfg


def _replace(cfg: Any, keys: list[str], value: Any, path: str) -> Any:
    key, *rest = keys
    names = [field.name for field in dataclasses.fields(cfg)]
    if key not in names:
        near = difflib.get_close_matches(key, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(names)}."
        raise KeyError(f"{path!r}: {type(cfg).__name__} has no {key!r}; {hint}")
    old = getattr(cfg, key)
    if rest and not dataclasses.is_dataclass(old):
        raise KeyError(f"{path!r}: {key!r} is a plain value and has no {'.'.join(rest)!r}")
    new = _replace(old, rest, value, path) if rest else as_tuple(value)
    return dataclasses.replace(cfg, **{key: new})


def as_tuple(value: Any) -> Any:
    """JSON has no tuples and configs hold no lists: every list becomes a tuple."""
    return tuple(map(as_tuple, value)) if isinstance(value, list) else value


def get(cfg: Any, path: str) -> Any:
    """The value at a dotted path, e.g. `get(run, "model.alpha")`; KeyError names what lacks."""
    for key in path.split("."):
        if not dataclasses.is_dataclass(cfg) or key not in {
            f.name for f in dataclasses.fields(cfg)
        }:
            raise KeyError(f"{path!r}: {type(cfg).__name__} has no {key!r}")
        cfg = getattr(cfg, key)
    return cfg


def changed(cfg: Any) -> dict[str, Any]:
    """The fields that differ from their defaults, nested, as JSON values; `""` holds the class.

    What is left out here is what a later release may add without renaming old trials.
    """
    values: dict[str, Any] = {"": type(cfg).__name__}
    for field in dataclasses.fields(cfg):
        value = getattr(cfg, field.name)
        if dataclasses.is_dataclass(value):
            values[field.name] = changed(value)
        elif value != _default(field):
            values[field.name] = canonical(value)
    return values


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def canonical(value: Any) -> Any:
    """`value` as JSON with one spelling per number: -0.0 is 0.0, NaN and infinities are refused."""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"a trial cannot be named by {value}: numbers must be finite")
        return value + 0.0
    if isinstance(value, Mapping):
        return {str(key): canonical(value[key]) for key in sorted(value)}
    if isinstance(value, tuple | list):
        return [canonical(item) for item in value]
    return value


def digest(value: Any, length: int = 16) -> str:
    """Hex digits that change when any part of a JSON-like value does; names trials and caches."""
    text = json.dumps(canonical(value), sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def differences(cfg: Any, base: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted path, value) of every field in which `cfg` differs from `base`.

    Where two nested configs are of different classes, the one path to the class itself is given.
    """
    for field in dataclasses.fields(cfg):
        path, value = f"{prefix}{field.name}", getattr(cfg, field.name)
        old = getattr(base, field.name)
        if dataclasses.is_dataclass(value) and type(value) is type(old):
            yield from differences(value, old, f"{path}.")
        elif value != old:
            yield path, value
