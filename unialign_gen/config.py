"""Configurations: a YAML file, checked against dataclasses, whose types and defaults are the schema.

A mistake is one line with the file, the dotted key and what was expected there.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin

from .errors import InputError

T = TypeVar("T")


class MismatchError(Exception):
    """A value that does not fit, with its dotted key; becomes an `InputError` that names the file."""

    def __init__(self, key: str, problem: str):
        super().__init__(problem)
        self.key, self.problem = key, problem


def load(cls: type[T], path: str | Path, overrides: Sequence[str] = (), section: str | None = None) -> T:
    """The configuration in a YAML file, as an instance of the dataclass `cls`.

    Types may be bool, int, float, str, Path, None, Any, Literal, dataclasses, and list, tuple, dict and unions of them.
    In paths `~` and `$NAME` are expanded; a relative path starts at the current folder. A `ValueError` that a
    `__post_init__` raises is a mistake at that key.

    Args:
        overrides: entries `dotted.key=VALUE` that replace what the file says; the value is YAML too.
        section: the key whose value is meant; the rest of the file is not looked at.

    Raises:
        InputError: the file cannot be read, a key is unknown, missing or twice there, or a value is of a wrong type.
    """
    path = Path(path).expanduser()
    try:
        tree = parse(path.read_text("utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"no configuration at {path}: {getattr(error, 'strerror', None) or error}") from error
    for entry in overrides:
        put(tree, entry)
    try:
        if section is not None and section not in tree:
            raise MismatchError(section, "missing, expected keys and values")
        return cast(T, convert(cls, tree[section] if section else tree, section or ""))
    except MismatchError as error:
        where = f"{path}: {error.key}" if error.key else str(path)
        raise InputError(f"{where}: {error.problem}") from error


def parse(text: str, name: str) -> dict[str, Any]:
    """YAML -> keys and values.

    Raises:
        InputError: it is not YAML, not a mapping, or has a key twice.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """Refuses a key that is there twice, of which PyYAML silently takes the last."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            for at, key in enumerate(keys):
                if key in keys[:at]:
                    raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is there twice", node.start_mark)
            return super().construct_mapping(node, deep)

    try:
        tree = yaml.load(text, Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{name}{line}: not YAML: {getattr(error, 'problem', None) or error}") from error
    tree = {} if tree is None else tree
    if not isinstance(tree, dict):
        raise InputError(f"{name}: expected keys and values, got {kind_of(tree)}")
    return tree


def put(tree: dict[str, Any], entry: str) -> None:
    """Puts an override `dotted.key=VALUE` into a tree.

    Raises:
        InputError: it is not of that form, or leads through something that is no mapping.
    """
    key, equals, text = entry.partition("=")
    if not equals or not key:
        raise InputError(f"{entry!r}: write KEY=VALUE, such as media.frames=4")
    value = parse(f"value: {text}", entry)["value"]
    *way, last = key.split(".")
    for name in way:
        tree = tree.setdefault(name, {})
        if not isinstance(tree, dict):
            raise InputError(f"{entry!r}: {name} holds a value, not keys")
    tree[last] = value


def convert(kind: Any, value: Any, key: str) -> Any:
    """A YAML value as a type.

    Raises:
        MismatchError: it is not of that type.
    """
    origin = get_origin(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        return convert_union(get_args(kind), value, key)
    if origin is Literal:
        choices = get_args(kind)
        if not any(type(c) is type(value) and c == value for c in choices):
            raise MismatchError(key, f"expected {one_of(choices)}, got {show(value)}{did_you_mean(value, choices)}")
        return value
    if dataclasses.is_dataclass(kind):
        return convert_dataclass(cast(type, kind), value, key)
    if origin in (list, tuple, Sequence):
        if not isinstance(value, list):
            raise MismatchError(key, f"expected a list, got {show(value)}")
        items = [convert(get_args(kind)[0], item, f"{key}[{i}]") for i, item in enumerate(value)]
        return tuple(items) if origin is tuple else items
    if origin in (dict, Mapping):
        if not isinstance(value, dict):
            raise MismatchError(key, f"expected keys and values, got {show(value)}")
        key_kind, value_kind = get_args(kind)
        return {convert(key_kind, name, key): convert(value_kind, item, joined(key, str(name))) for name, item in value.items()}
    return convert_plain(kind, value, key)


def convert_plain(kind: Any, value: Any, key: str) -> Any:
    if kind in (None, type(None)) and value is None:
        return None
    if kind is bool and isinstance(value, bool):
        return value
    if kind is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            return float(value)  # YAML 1.1 takes 1e-4 for a string
        except ValueError:
            pass
    if kind is str and isinstance(value, str):
        return value
    if kind is Path and isinstance(value, str):
        expanded = os.path.expandvars(value)
        if "$" in expanded:
            raise MismatchError(key, f"{value} names a variable that is not set")
        return Path(expanded).expanduser()
    raise MismatchError(key, f"expected {name_of(kind)}, got {show(value)}")


def convert_union(kinds: tuple[Any, ...], value: Any, key: str) -> Any:
    problems = []
    for kind in kinds:
        try:
            return convert(kind, value, key)
        except MismatchError as error:
            problems.append((kind, error))
    for kind, problem in problems:  # what is wrong inside a mapping says more than that none of the types fits
        if isinstance(value, dict) and (dataclasses.is_dataclass(kind) or get_origin(kind) is dict):
            raise problem
    wanted = [name_of(kind) for kind in kinds if kind is not type(None)]
    if len(wanted) == 1:
        raise problems[0][1]
    raise MismatchError(key, f"expected {' or '.join(wanted)}, got {show(value)}")


def convert_dataclass(cls: type, value: Any, key: str) -> Any:
    if not isinstance(value, dict):
        raise MismatchError(key, f"expected keys and values, got {show(value)}")
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    hints = typing.get_type_hints(cls)
    for name in value:
        if name not in fields:
            raise MismatchError(joined(key, str(name)), f"unknown key{did_you_mean(name, fields) or known(fields)}")
    for name, field in fields.items():
        needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if needed and name not in value:
            raise MismatchError(joined(key, name), f"missing, expected {name_of(hints[name])}")
    given = {name: convert(hints[name], item, joined(key, name)) for name, item in value.items()}
    try:
        return cls(**given)
    except ValueError as error:
        raise MismatchError(key, str(error)) from error


def joined(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def one_of(choices: Sequence[Any]) -> str:
    return " or ".join(show(c) for c in choices)


def known(names: Mapping[str, Any]) -> str:
    return f": the keys here are {', '.join(names)}"


def did_you_mean(value: Any, choices: Any) -> str:
    near = difflib.get_close_matches(str(value), [str(c) for c in choices], 1)
    return f", did you mean {near[0]}?" if near else ""


def show(value: Any) -> str:
    if isinstance(value, dict | list):
        return kind_of(value)
    return "nothing" if value is None else repr(value) if isinstance(value, str) else str(value).lower()


def kind_of(value: Any) -> str:
    return "keys and values" if isinstance(value, dict) else "a list" if isinstance(value, list) else f"{value!r}"


def name_of(kind: Any) -> str:
    """A type as a reader of the message would call it."""
    names = {str: "a string", int: "a whole number", float: "a number", bool: "true or false", Path: "a path", dict: "keys"}
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(name_of(k) for k in get_args(kind) if k is not type(None))
    if origin is Literal:
        return one_of(get_args(kind))
    if origin in (list, tuple, Sequence):
        return "a list"
    if dataclasses.is_dataclass(kind) or origin in (dict, Mapping):
        return "keys and values"
    return names.get(kind, getattr(kind, "__name__", str(kind)))


def to_dict(config: Any) -> Any:
    """A configuration as plain values that YAML and JSON can hold, paths as strings."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {f.name: to_dict(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, Mapping):
        return {str(k): to_dict(v) for k, v in config.items()}
    if isinstance(config, list | tuple):
        return [to_dict(v) for v in config]
    return str(config) if isinstance(config, Path) else config
