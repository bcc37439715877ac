"""MkDocs hook: the page on the environment is the environment's own docstring, so that there is one text only."""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any

_MARK = re.compile(r"^<!-- docstring of ([\w.]+) -->$", re.MULTILINE)


def markdown(docstring: str) -> str:
    """A docstring in Gymnasium's manner as Markdown: its sections' bodies are indented, a page's are not."""
    lines = (re.sub(r"^ {4}", "", line) for line in inspect.cleandoc(docstring).splitlines())
    return "\n".join(lines).replace("``", "`")


def on_page_markdown(text: str, **_: Any) -> str:
    """Puts docstrings in the places that are marked for them; called by MkDocs for every page."""

    def docstring(mark: re.Match[str]) -> str:
        module, _, name = mark[1].rpartition(".")
        return markdown(getattr(importlib.import_module(module), name).__doc__)

    return _MARK.sub(docstring, text)
