"""Configurations: a YAML file, checked by pydantic against dataclasses, whose types and defaults are the schema.

A mistake is one line with the file, the dotted key and what was expected there.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import types
import typing
from collections.abc import Mapping, Sequence
from os import environ
from pathlib import Path
from string import Template
from typing import Annotated, Any, TypeVar, cast, dataclass_transform

import yaml
from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass

from .deprecated import current_config
from .errors import InputError, as_input_error

T = TypeVar("T")

WORDS = {"yes": True, "on": True, "no": False, "off": False}  # of YAML 1.1
NUMBER = re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
# what a type is called, by pydantic's kind of error
EXPECTED = {
    "string": "a string",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "path": "a path",
    "list": "a list",
    "tuple": "a list",
    "dict": "keys and values",
    "dataclass": "keys and values",
    "finite_number": "a finite number",
}
BOUNDS = {
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than": "less than {lt:g}",
    "less_than_equal": "at most {le:g}",
    "too_long": "at most {max_length} values",
    "too_short": "at least {min_length} values",
}


def as_options(value: Any) -> Any:
    """Free options, in which the words `yes`, `no`, `on` and `off` are true and false."""
    if isinstance(value, dict):
        return {key: as_options(item) for key, item in value.items()}
    return WORDS.get(value.lower(), value) if isinstance(value, str) else value


Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Options = Annotated[dict[str, Any], BeforeValidator(as_options)]
Flag = Annotated[bool, BeforeValidator(as_options)]


@dataclass_transform(field_specifiers=(dataclasses.field, dataclasses.Field))
def schema(cls: type[T]) -> type[T]:
    """A dataclass that refuses unknown fields and values of another type in one line, made from YAML or in Python.

    A `ValueError` that its `__post_init__` raises is a mistake too.
    """
    made = pydantic_dataclass(cls, config=ConfigDict(extra="forbid"))
    check = made.__init__

    names = [field.name for field in dataclasses.fields(made)]

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807  it takes the place of the class's own
        kwargs = dict(zip(names, args, strict=False)) | kwargs
        try:
            check(self, **kwargs)
        except ValidationError as error:
            raise InputError(explained(error, cls, kwargs)) from error

    made.__init__ = __init__  # type: ignore[method-assign,misc]
    return cast(type[T], made)


def load(cls: type[T], path: str | Path, overrides: Sequence[str] = (), section: str | None = None) -> T:
    """The configuration in a YAML file, as an instance of the dataclass `cls`.

    Scalars are those of YAML 1.2: `7e-2` is a number and `no` a word. In all strings `$NAME` and a leading `~` are expanded,
    `$$` is a dollar. A relative path starts at the current folder.

    Args:
        overrides: entries `dotted.key=VALUE` or `list.0.key=VALUE` that replace what the file says; the value is YAML too.
        section: the key whose value is meant; the rest of the file is not looked at.

    Raises:
        InputError: the file cannot be read, a key is unknown, missing or twice there, or a value is of a wrong type.
    """
    path = Path(path).expanduser()
    with as_input_error(f"no configuration at {path}: {{reason}}", OSError, UnicodeDecodeError):
        tree = current_config(parse(path.read_text("utf-8"), str(path)))
    for entry in overrides:
        put(tree, entry)
    tree = current_config(tree)
    if section is not None and section not in tree:
        raise InputError(f"{path}: {section}: missing, expected keys and values")
    try:
        given = expanded(tree[section] if section else tree, section or "")
        return cast(T, convert(cls, given, section or ""))
    except ValueError as error:  # an `InputError` too
        raise InputError(f"{path}: {error}") from error


def convert(kind: Any, value: Any, key: str = "") -> Any:
    """A value out of YAML as a type.

    Raises:
        InputError: it is not of that type; the line begins with the key, or the key inside it, that is wrong.
    """
    try:
        return TypeAdapter(kind).validate_json(json.dumps(value, default=str), strict=True)
    except ValidationError as error:
        raise InputError(explained(error, kind, value, key)) from error


class Loader(yaml.SafeLoader):
    """YAML 1.2's scalars, and a key that is there twice is refused, of which PyYAML silently takes the last."""

    yaml_implicit_resolvers: typing.ClassVar[dict[str, Any]] = {}  # in place of YAML 1.1's, in which no is false

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for at, key in enumerate(keys):
            if key in keys[:at]:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is there twice", node.start_mark)
        return super().construct_mapping(node, deep)


for tag, pattern, first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?\d+", list("-+0123456789")),
    ("float", NUMBER.pattern, list("-+.0123456789")),
    ("merge", r"<<", ["<"]),
):
    Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(rf"(?:{pattern})\Z"), first)
Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(loader.construct_scalar(node)))


def parse(text: str, name: str) -> dict[str, Any]:
    """YAML -> keys and values; an `InputError` if it is not YAML, not a mapping, or has a key twice."""
    try:
        tree = yaml.load(text, Loader)
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{name}{line}: not YAML: {getattr(error, 'problem', None) or error}") from error
    tree = {} if tree is None else tree
    if not isinstance(tree, dict):
        raise InputError(f"{name}: expected keys and values, got {shown(tree)}")
    return tree


def put(tree: dict[str, Any], entry: str) -> None:
    """Puts an override `dotted.key=VALUE` into a tree; numbers, `streams.0.batch` or `streams[0].batch`, reach into lists.

    Raises:
        InputError: it is not of that form, or leads through something that holds nothing by that name.
    """
    key, equals, text = entry.partition("=")
    if not equals or not key:
        raise InputError(f"{entry!r}: write KEY=VALUE, such as frames=4 or streams.0.batch=64")
    value = parse(f"value: {text}", entry)["value"]
    place: Any = tree
    way = re.sub(r"\[(\d+)\]", r".\1", key).split(".")
    for at, name in enumerate(way):
        here = ".".join(way[:at])
        name_or_number: Any = name
        if isinstance(place, list):
            if not name.isdecimal() or int(name) >= len(place):
                raise InputError(f"{entry!r}: {here} is a list of {len(place)}: give a number from 0 to {len(place) - 1}")
            name_or_number = int(name)
        elif not isinstance(place, dict):
            raise InputError(f"{entry!r}: {here} holds a value, not keys")
        if at == len(way) - 1:
            place[name_or_number] = value
        elif isinstance(place, dict):
            place = place.setdefault(name, {})
        else:
            place = place[name_or_number]


def expanded(value: Any, key: str = "") -> Any:
    """The value with `$NAME` and `~` replaced in all its strings; one that thereby becomes a number is a number.

    Raises:
        ValueError: a variable is not set.
    """
    if isinstance(value, dict):
        return {name: expanded(item, joined(key, name)) for name, item in value.items()}
    if isinstance(value, list):
        return [expanded(item, f"{key}[{i}]") for i, item in enumerate(value)]
    if not isinstance(value, str) or not (value.startswith("~") or "$" in value):
        return value
    try:
        text = Template(value).substitute(environ)
    except KeyError as error:
        raise ValueError(f"{key}: {value} names a variable that is not set: {error.args[0]}") from error
    except ValueError as error:
        raise ValueError(f"{key}: {value}: write $NAME for a variable, $$ for a dollar") from error
    if NUMBER.fullmatch(text):
        return yaml.load(text, Loader)
    return str(Path(text).expanduser()) if text.startswith("~") else text


def explained(error: ValidationError, cls: type, given: Any, section: str = "") -> str:
    """The first mistake of a validation: its dotted key, what was expected, and what was there."""
    found = [(key_of(given, e["loc"], e["type"]), e) for e in error.errors(include_url=False)]
    # a union gives an error for each of its types; the one inside a mapping says most
    same = [(key, e) for key, e in found if key[: len(found[0][0])] == found[0][0]]
    key, first = max(same, key=lambda entry: len(entry[0]))
    where = section
    for part in key:
        where = f"{where}[{part}]" if isinstance(part, int) else joined(where, part)
    if first["type"] == "value_error":
        problem = str(first["ctx"]["error"])
    elif first["type"] == "missing":
        problem = "missing"
    elif first["type"] == "unexpected_keyword_argument":
        names = fields_at(cls, key[:-1])
        problem = f"unknown key{near(key[-1], names) or ': the keys here are ' + ', '.join(names)}"
    else:
        wanted = dict.fromkeys(expectation(e) for k, e in found if k == key)
        choices = re.findall(r"'([^']*)'", " ".join(wanted))
        problem = f"expected {' or '.join(wanted)}, got {shown(first['input'])}{near(first['input'], choices)}"
    return f"{where}: {problem}" if where else problem


def key_of(given: Any, loc: Sequence[int | str], kind: str) -> tuple[int | str, ...]:
    """Where an error is, without the names of a union's types, which pydantic puts among the keys."""
    key: list[int | str] = []
    for at, part in enumerate(loc):
        places = given if isinstance(given, Mapping) else range(len(given)) if isinstance(given, list | tuple) else ()
        if part in places:
            given = given[part]
        elif kind != "missing" or at < len(loc) - 1:
            continue
        key.append(part)
    return tuple(key)


def expectation(error: Any) -> str:
    """What pydantic wanted, in plain words."""
    kind, context = error["type"], error.get("ctx", {})
    if kind in BOUNDS:
        return BOUNDS[kind].format(**context)
    name = EXPECTED.get(re.sub(r"_(type|parsing|from_float|exact).*", "", kind))
    return name or error["msg"].removeprefix("Input should be ")


def fields_at(kind: Any, key: Sequence[int | str]) -> list[str]:
    """The fields of the dataclass that a key leads to."""
    for part in key:
        kind = typing.get_type_hints(kind)[str(part)] if dataclasses.is_dataclass(kind) else typing.get_args(kind)[-1]
        if isinstance(kind, types.UnionType):
            kind = next(k for k in typing.get_args(kind) if dataclasses.is_dataclass(k) or typing.get_args(k))
    return [field.name for field in dataclasses.fields(kind)]


def joined(key: str, name: Any) -> str:
    return f"{key}.{name}" if key else str(name)


def near(value: Any, choices: Sequence[str]) -> str:
    found = difflib.get_close_matches(str(value), choices, 1)
    return f", did you mean {found[0]}?" if found else ""


def shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return "keys and values"
    if isinstance(value, list | tuple):
        return "a list"
    return "nothing" if value is None else repr(value) if isinstance(value, str) else str(value).lower()


def to_dict(config: Any) -> Any:
    """A configuration as plain values that YAML and JSON can hold and `load` takes, paths as strings."""
    return as_read(TypeAdapter(type(config)).dump_python(config, mode="json", warnings=False))


def as_read(value: Any) -> Any:
    """The value with every dollar doubled, so that reading it expands nothing."""
    if isinstance(value, dict):
        return {key: as_read(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_read(item) for item in value]
    return value.replace("$", "$$") if isinstance(value, str) else value
