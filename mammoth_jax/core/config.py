"""YAML and dictionaries into frozen dataclasses, strictly; dotted command-line overrides; and back.

A configuration is a tree of frozen dataclasses.  ``decode`` accepts exactly the fields that the dataclass declares:
an unknown key or a value of the wrong type is an :class:`InputError` that gives the key's path and, for a misspelt
key, the nearest name.  A field whose type is a union of dataclasses is written with a ``type:`` key that holds the
class name.  Nothing here knows what a configuration means.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from mammoth_jax.core.errors import InputError

T = TypeVar("T")


def decode(cls: type[T], data: Any, path: str = "") -> T:
    """Builds ``cls`` from plain data (what a YAML or JSON parser returns).

    Raises:
      InputError: an unknown or missing key, a value of the wrong type, or a value that the dataclass itself refuses.
    """
    return _decode(cls, data, path)


def _decode(kind: Any, data: Any, path: str) -> Any:
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        return _decode_union(typing.get_args(kind), data, path)
    if origin is typing.Literal:
        if data not in typing.get_args(kind):
            raise InputError(f"{path or 'value'}: {data!r} is not one of {list(typing.get_args(kind))}")
        return data
    if origin is tuple:
        return _decode_tuple(typing.get_args(kind), data, path)
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(typing.cast(type, kind), data, path)
    return _decode_scalar(kind, data, path)


def _decode_dataclass(cls: type, data: Any, path: str) -> Any:
    if isinstance(data, cls):
        return data
    if not isinstance(data, Mapping):
        raise InputError(
            f"{path or cls.__name__}: expected a mapping with the fields of {cls.__name__}, got {data!r}"
        )
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    known = dict(data)
    if known.get("type") == cls.__name__ and "type" not in fields:
        known.pop("type")
    for key in known:
        if key not in fields:
            near = difflib.get_close_matches(str(key), list(fields), n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(sorted(fields))}"
            raise InputError(f"unknown key {_join(path, key)!r} in {cls.__name__}; {hint}")
    values = {key: _decode(hints[key], value, _join(path, key)) for key, value in known.items()}
    required = [
        name
        for name, f in fields.items()
        if f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
        and name not in values
    ]
    if required:
        raise InputError(f"{path or cls.__name__}: missing {', '.join(required)} of {cls.__name__}")
    try:
        return cls(**values)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{path or cls.__name__}: {error}") from error


def _decode_union(kinds: Sequence[Any], data: Any, path: str) -> Any:
    if data is None and type(None) in kinds:
        return None
    classes = {k.__name__: k for k in kinds if isinstance(k, type) and dataclasses.is_dataclass(k)}
    if len(classes) > 1 and isinstance(data, Mapping):
        name = data.get("type")
        if name not in classes:
            raise InputError(f"{_join(path, 'type')}: {name!r} is not one of {sorted(classes)}")
        return _decode_dataclass(classes[name], {k: v for k, v in data.items() if k != "type"}, path)
    rest = [k for k in kinds if k is not type(None)]
    errors = []
    for kind in rest:
        try:
            return _decode(kind, data, path)
        except InputError as error:
            errors.append(str(error))
    raise InputError(errors[0])


def _decode_tuple(kinds: Sequence[Any], data: Any, path: str) -> tuple:
    if not isinstance(data, (list, tuple)):
        raise InputError(f"{path}: expected a list, got {data!r}")
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        return tuple(_decode(kinds[0], item, f"{path}[{i}]") for i, item in enumerate(data))
    if len(kinds) != len(data):
        raise InputError(f"{path}: expected {len(kinds)} values, got {len(data)}: {data!r}")
    return tuple(
        _decode(kind, item, f"{path}[{i}]") for i, (kind, item) in enumerate(zip(kinds, data, strict=True))
    )


def _decode_scalar(kind: Any, data: Any, path: str) -> Any:
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if kind is float and isinstance(data, str):  # YAML reads 1e-5 as text
        try:
            return float(data)
        except ValueError:
            pass
    if kind is Any or (isinstance(data, kind) and not (kind is int and isinstance(data, bool))):
        return data
    raise InputError(f"{path or 'value'}: expected {getattr(kind, '__name__', kind)}, got {data!r}")


def encode(config: Any) -> Any:
    """The inverse of :func:`decode`: plain data that decodes to an equal configuration.  Every field is written."""
    return _encode(config, type(config))


def _encode(config: Any, kind: Any) -> Any:
    """``config`` as a field of type ``kind`` would be written: with its ``type:`` where that is a choice."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        hints = typing.get_type_hints(type(config))
        out = {f.name: _encode(getattr(config, f.name), hints[f.name]) for f in dataclasses.fields(config)}
        choices = [k for k in typing.get_args(kind) if dataclasses.is_dataclass(k)]
        return {"type": type(config).__name__, **out} if len(choices) > 1 else out
    if isinstance(config, (tuple, list)):
        kinds = typing.get_args(kind)
        each = kinds if len(kinds) == len(config) and Ellipsis not in kinds else kinds[:1] * len(config)
        each = each or (Any,) * len(config)
        return [_encode(item, of) for item, of in zip(config, each, strict=True)]
    return config


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the nested keys of ``changes`` put over it; lists, and choices of another ``type``, are replaced
    whole.
    """
    out = dict(base)
    for key, value in changes.items():
        old = out.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping) and not _other_type(old, value):
            out[key] = merge(old, value)
        else:
            out[key] = value
    return out


def _other_type(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    return "type" in old and "type" in new and old["type"] != new["type"]


def parse_overrides(arguments: Sequence[str]) -> dict[str, Any]:
    """``["--dit.num_layers", "4", "--vae.scaling_factor=0.3"]`` as a nested dictionary; values are read as YAML.

    Raises:
      InputError: a word that is not ``--key`` or an option without a value.
    """
    out: dict[str, Any] = {}
    words = list(arguments)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            raise InputError(f"unexpected argument {word!r}; overrides are written --key.key value")
        key, equals, text = word[2:].partition("=")
        if not equals:
            if not words:
                raise InputError(f"override {word!r} has no value; write {word} VALUE")
            text = words.pop(0)
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise InputError(f"override --{key}: {text!r} is not a YAML value") from error
        nested: Any = value
        for part in reversed(key.replace("-", "_").split(".")):
            nested = {part: nested}
        out = merge(out, nested)
    return out


def load_yaml(file: Path | str) -> dict[str, Any]:
    """Reads one YAML mapping.

    Raises:
      InputError: the file is missing, is not YAML, or is not a mapping.
    """
    path = Path(file)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read configuration {path}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected a mapping of keys to values, got {type(data).__name__}")
    return data


def dump_yaml(config: Any) -> str:
    """A configuration as YAML text that :func:`decode` reads back."""
    return yaml.safe_dump(encode(config), sort_keys=False, allow_unicode=True)


def describe(cls: type, prefix: str = "") -> list[tuple[str, str, str]]:
    """All overridable keys of a configuration class: (dotted key, type, default), for ``--help``."""
    rows: list[tuple[str, str, str]] = []
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        kind = hints[field.name]
        key = _join(prefix, field.name)
        nested = [
            k for k in (kind, *typing.get_args(kind)) if isinstance(k, type) and dataclasses.is_dataclass(k)
        ]
        if nested:
            for item in nested:
                rows.extend(describe(item, key))
            continue
        default = "" if field.default is dataclasses.MISSING else repr(field.default)
        rows.append(
            (key, getattr(kind, "__name__", str(kind)) if not typing.get_args(kind) else str(kind), default)
        )
    return rows


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)
