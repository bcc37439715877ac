"""What a user names by ``module:Class``: agents, teachers, students, feature networks."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fusion_gym.cli import UserError, parse_settings

FORM = re.compile(r"([^\W\d][\w.]*):([^\W\d][\w.]*)(?::(\w+=[^:]*))?(?::(.+))?")
_BETWEEN = re.compile(r",(?=\w+=)")


class ClassError(ValueError):
    """A class that cannot be found or made; the message is one sentence."""


@dataclass(frozen=True)
class Named:
    """``module:Class``, ``module:Class:width=32,depth=2``, ``module:Class:FILE`` or all of it.

    Attributes:
        module: Name of the module, importable here; the working folder counts.
        name: Of a class, or of whatever makes the object.
        arguments: What it is made with, of YAML's types.
        file: The rest.
    """

    module: str
    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    file: str = ""

    @classmethod
    def parse(cls, text: str) -> Named | None:
        """Reads a text; None where it is of another form.

        Raises:
            ClassError: If the arguments are not of the form key=value.
        """
        found = FORM.fullmatch(text)
        if found is None:
            return None
        module, name, given, file = found.groups()
        try:
            arguments = parse_settings(_BETWEEN.split(given) if given else (), f"{module}:{name}:")
        except UserError as error:
            raise ClassError(str(error)) from error
        return cls(module, name, arguments, file or "")

    @property
    def label(self) -> str:
        """``module:Class``."""
        return f"{self.module}:{self.name}"

    def find(self, kind: str) -> Any:
        """Imports the module and gives what it has of the name.

        Args:
            kind: What it is to be, for messages.

        Raises:
            ClassError: If there is no such module, it fails, or it has nothing of this name.
        """
        _look_here()
        try:
            found = importlib.import_module(self.module)
            for part in self.name.split("."):
                found = getattr(found, part)
        except (Exception, SystemExit) as error:  # importing runs code
            raise ClassError(
                f"There is no {kind} {self.label!r}: {said(error)}; give module:Class, importable from here."
            ) from error
        return found

    def source(self) -> Path | None:
        """The file of the module, without importing it; None where there is none."""
        _look_here()
        try:
            spec = importlib.util.find_spec(self.module)
        except (Exception, SystemExit):  # a package around it is imported
            return None
        return None if spec is None or spec.origin is None or not spec.has_location else Path(spec.origin)

    def make(self, kind: str) -> Any:
        """Makes the object from its arguments.

        Args:
            kind: What it is to be, for messages.

        Raises:
            ClassError: If it cannot be found or made.
        """
        found = self.find(kind)
        try:
            return found(**self.arguments)
        except (Exception, SystemExit) as error:
            given = ", ".join(f"{name}={value}" for name, value in self.arguments.items())
            how = f"with {given}" if given else "without arguments"
            raise ClassError(f"The {kind} {self.label!r} cannot be made {how}: {said(error)}.") from error


def _look_here() -> None:
    """Has modules found in the working folder; for good, for processes that are started take over the path."""
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)


def said(error: BaseException) -> str:
    """What an error says, on one line and not at length; torch ends its errors with what matters."""
    try:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    except Exception:  # its class is anyone's too
        lines = []
    text = lines[-1] if len(lines) > 1 and lines[0].startswith(("The following operation failed", "Traceback")) else ""
    text = (text or " ".join(lines)).rstrip(".")
    return f"{type(error).__name__}{': ' * bool(text)}{text if len(text) <= 200 else text[:200] + '…'}"
