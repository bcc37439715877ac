"""Settings as frozen dataclasses: checked by their types, read from and written to YAML, options of a command.

What a setting is called, its type, its default and what its class's docstring says of it are stated once, in the
dataclass; the command line and the check of files follow from that.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import math
import re
import types
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass
from pathlib import Path
from typing import Any, TypeVar

from fusion_gym.cli import UserError, check_keys, parse_settings, read_yaml, to_yaml

CONFIG = "config.yml"  # of a run, in its folder
_NAMES = {int: "a whole number", float: "a finite number", str: "text", bool: "true or false", type(None): "null"}
_ENTRY = re.compile(r"^    (\w+): (.*(?:\n {5,}.*)*)", re.M)
S = TypeVar("S", bound="Settings")


class _Unfit(Exception):
    """A value that is not of its type; holds the place within the setting, the value and what is wanted."""


def fit(value: Any, kind: Any, name: str, where: str = "") -> Any:
    """A value as its type has it: lists become tuples, whole numbers become floats where those are wanted.

    Args:
        value: The value, of YAML's or JSON's types.
        kind: The type: int, float, str, bool, None, Any, a union, a tuple, a sequence or a mapping of such.
        name: The setting's name, for messages.
        where: The file that it stands in, for messages.

    Raises:
        UserError: If the value, or one within it, is of another type or not finite.
    """
    try:
        return _fit(value, kind, name)
    except _Unfit as error:
        place, found, wanted = error.args
        shown = "null" if found is None else repr(found)
        shown = shown if len(shown) <= 80 else f"{shown[:80]}…"
        raise UserError(f"{where}{': ' if where else ''}{place}={shown} is not allowed; give {wanted}.") from error


def _fit(value: Any, kind: Any, place: str) -> Any:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _fit_one_of(value, inner, place, kind)
    if origin is tuple or (inspect.isclass(origin) and issubclass(origin, Sequence)):
        if not isinstance(value, (list, tuple)):
            raise _Unfit(place, value, _name(kind))
        kinds = inner if origin is tuple and inner[-1] is not Ellipsis else (inner[0],) * len(value)
        if len(kinds) != len(value):
            raise _Unfit(place, value, _name(kind))
        return tuple(_fit(item, one, f"{place}[{at}]") for at, (item, one) in enumerate(zip(value, kinds, strict=True)))
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping) or not all(isinstance(key, inner[0]) for key in value):
            raise _Unfit(place, value, _name(kind))
        return {key: _fit(item, inner[1], f"{place}.{key}") for key, item in value.items()}
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is int and number and math.isfinite(value) and value == int(value):
        return int(value)
    if kind is float and number and math.isfinite(value):
        return float(value)
    if kind not in (int, float) and isinstance(value, kind):
        return value
    raise _Unfit(place, value, _name(kind))


def _fit_one_of(value: Any, kinds: Sequence[Any], place: str, whole: Any) -> Any:
    deepest = _Unfit(place, value, _name(whole))
    for kind in kinds:
        try:
            return _fit(value, kind, place)
        except _Unfit as error:
            if len(error.args[0]) > len(deepest.args[0]):
                deepest = error
    raise deepest


def _name(kind: Any) -> str:
    """What a type is called in messages."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_name, inner))
    if origin is None:
        return _NAMES.get(kind, getattr(kind, "__name__", str(kind)))
    if issubclass(origin, Mapping):
        return "a mapping of names to values"
    if origin is tuple and inner[-1] is not Ellipsis:
        return f"a list of {len(inner)}: {', '.join(map(_name, inner))}"
    return f"a list, each {_name(inner[0])}"


def check_arguments(function: Any, given: Mapping[str, Any], where: str) -> None:
    """Checks arguments that a user gives against a function's annotations.

    Raises:
        UserError: If one is of another type; arguments without an annotation are left to the function.
    """
    try:
        hints = typing.get_type_hints(function)
    except (NameError, TypeError):  # annotations that are no types here
        return
    for name in given.keys() & hints.keys():
        fit(given[name], hints[name], name, where)


def option(default: Any = MISSING, *flags: str, **how: Any) -> Any:
    """A field of a `Settings` class with more to say about its option.

    Args:
        default: The field's default.
        flags: The option's names, if not the field's own.
        how: Further arguments of argparse's ``add_argument``; ``shown``, the default in words.
    """
    return dataclasses.field(default=default, metadata={"flags": flags, **how})


def hidden(default: Any = MISSING) -> Any:
    """A field of a `Settings` class that has no option."""
    return dataclasses.field(default=default, metadata={"hidden": True})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of a command; a value of another type than its field's is refused."""

    def __post_init__(self) -> None:
        """Checks the types of all fields, and keeps the values as their types have them."""
        for name, kind in _kinds(type(self)).items():
            object.__setattr__(self, name, fit(getattr(self, name), kind, name))

    @classmethod
    def check(cls, content: Mapping[Any, Any], where: str | Path) -> dict[str, Any]:
        """Some of the settings, as a file has them.

        Args:
            content: What the file holds.
            where: The file, for messages.

        Raises:
            UserError: If a setting is unknown or of a wrong type.
        """
        kinds = _kinds(cls)
        check_keys(content, kinds, f"setting (in {where})")
        return {name: fit(value, kinds[name], name, str(where)) for name, value in content.items()}

    @classmethod
    def read(cls: type[S], path: Path) -> S:
        """All settings, from a file that `to_yaml` made.

        Raises:
            UserError: If one is missing, unknown or not allowed.
        """
        content = cls.check(read_yaml(path), path)
        missing = [name for name in _kinds(cls) if name not in content]
        if missing:
            raise UserError(f"{path} lacks {missing[0]}; start anew with another --out.")
        try:
            return cls(**content)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error

    def as_dict(self) -> dict[str, Any]:
        """The settings in YAML's types, by name."""
        return {name: _plain(getattr(self, name)) for name in _kinds(type(self))}

    def to_yaml(self) -> str:
        """The settings as the text of a file."""
        return to_yaml(self.as_dict())


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _kinds(cls: type[Settings]) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def _docs(cls: type) -> dict[str, str]:
    """What the docstrings of a class and its bases say of its attributes."""
    found: dict[str, str] = {}
    for one in reversed(cls.__mro__):
        _, _, section = inspect.cleandoc(one.__doc__ or "").partition("Attributes:\n")
        found |= {name: " ".join(text.split()) for name, text in _ENTRY.findall(section)}
    return found


def add_options(parser: Any, cls: type[Settings]) -> None:
    """Adds an option for each field; those that are not given are absent from the parsed namespace.

    Args:
        parser: A parser, or a group of one.
        cls: The settings.
    """
    docs = _docs(cls)
    for field in _fields(cls):
        how = {key: value for key, value in field.metadata.items() if key not in ("flags", "shown")}
        shown = field.metadata.get("shown", "" if field.default in (MISSING, None, ()) else field.default)
        text = docs.get(field.name, "").rstrip(".")
        text = text[:1].lower() + text[1:] + (f" (default: {shown})" if shown != "" else "")
        flags = field.metadata.get("flags") or (f"--{field.name.replace('_', '-')}",)
        kind = _kinds(cls)[field.name]
        how = {**_of_type(kind), **how}
        parser.add_argument(*flags, dest=field.name, default=argparse.SUPPRESS, help=text.replace("%", "%%"), **how)


def _fields(cls: type[Settings]) -> Iterator[Field[Any]]:
    return (field for field in dataclasses.fields(cls) if not field.metadata.get("hidden"))


def _of_type(kind: Any) -> dict[str, Any]:
    """How argparse reads a type."""
    inner = typing.get_args(kind)
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return _of_type(next(one for one in inner if one is not type(None)))
    origin = typing.get_origin(kind)
    if origin is tuple:
        return {"type": inner[0], "nargs": "*" if inner[-1] is Ellipsis else len(inner)}
    if origin is not None:
        return {"nargs": "+", "action": "extend", "metavar": "KEY=VALUE"}
    return {"action": "store_true"} if kind is bool else {"type": kind}


def flag(cls: type[Settings], name: str) -> str:
    """The option of a field, or of another option's destination, as users write it."""
    flags = next((field.metadata.get("flags") for field in _fields(cls) if field.name == name), None)
    return (flags or (f"--{name.replace('_', '-')}",))[-1]


def given(cls: type[Settings], args: argparse.Namespace) -> dict[str, Any]:
    """The settings that the command line has, by field; items of the form ``key=value`` become mappings.

    Raises:
        UserError: If such an item cannot be read.
    """
    found = {field.name: getattr(args, field.name) for field in _fields(cls) if hasattr(args, field.name)}
    return {
        name: parse_settings(value, flag(cls, name)) if _of_type(_kinds(cls)[name]).get("metavar") else value
        for name, value in found.items()
    }


def refuse(
    cls: type[Settings], parser: argparse.ArgumentParser, args: argparse.Namespace, but: Collection[str], why: str
) -> None:
    """Refuses every option that was given, but for some.

    Args:
        cls: The settings that options of the parser were made from.
        parser: The parser.
        args: What it read.
        but: Destinations of the options that are taken.
        why: How the sentence that begins with the options' names goes on, after "not for".

    Raises:
        UserError: If there is one.
    """
    names = [
        flag(cls, name) for name, value in vars(args).items() if name not in but and value != parser.get_default(name)
    ]
    if names:
        verb = "is" if len(names) == 1 else "are"
        raise UserError(f"{', '.join(names)} {verb} not for {why}")


def earlier_run(folder: Path) -> Path:
    """The configuration of an earlier run.

    Raises:
        UserError: If the folder has none.
    """
    if not (folder / CONFIG).is_file():
        raise UserError(f"{folder} has no {CONFIG}; give --resume the folder of an earlier run.")
    return folder / CONFIG


def differences(first: Mapping[str, Any], second: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Where two sets of settings differ, nested ones too: name, and the value in each."""
    for name in dict.fromkeys((*first, *second)):
        one, other = first.get(name), second.get(name)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from differences(one, other, f"{place}{name}.")
        elif one != other:
            yield f"{place}{name}", one, other


def check_same(config: Path, settings: Mapping[str, Any], state: Path, earlier: Mapping[str, Any]) -> None:
    """Checks that a configuration is the one that a saved state was made under.

    Args:
        config: The configuration's file, for messages.
        settings: What it says.
        state: The state's file, for messages.
        earlier: The configuration that the state holds.

    Raises:
        UserError: If they differ; names the first setting that does.
    """
    for name, now, then in differences(settings, earlier):
        raise UserError(
            f"{config} says {name}: {now}, but {state.name} was made with {name}: {then}; put it back, or start anew "
            "with another --out."
        )
