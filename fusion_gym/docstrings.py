"""Docstrings with tables: a class's own, filled in from the tables that also drive its spaces."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import TypeVar

_T = TypeVar("_T", bound=type)


def numbered(rows: Iterable[Iterable[object]]) -> str:
    """Rows of a Markdown table, each with its number in front, indented as the body of a section."""
    return "\n    ".join(f"| {i} | " + " | ".join(map(str, row)) + " |" for i, row in enumerate(rows))


def filled(**values: object) -> Callable[[_T], _T]:
    """A decorator that puts values in the places ``{name}`` of a class's docstring."""

    def fill(cls: _T) -> _T:
        if cls.__doc__:  # python -OO leaves none
            cls.__doc__ = inspect.cleandoc(cls.__doc__).format(**values)
        return cls

    return fill
