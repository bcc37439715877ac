"""Text that is safe to show: names of files can hold whatever a terminal or a spreadsheet would act on."""

from __future__ import annotations

import codecs
import contextlib
import sys
import unicodedata
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

_ERRORS = "fusion_gym.alike"
_ALIKE = dict(zip("−–—‑×·•↓↑→←’‘“”°≤≥≈", "----x.*v^><''\"\"o<>~", strict=True)) | {"…": "...", "±": "+-", "√": "sqrt"}


class Notice(UserWarning):
    """Something that the user should know, though nothing is wrong; one sentence."""


def plain(text: object) -> str:
    r"""The text with whatever is no printable character escaped, as in ``\x1b[31m``.

    Control characters, marks that turn the direction of writing, and bytes of names that are no UTF-8 are escaped; the
    letters of all languages stay.
    """
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in str(text))


def say(*lines: object, error: bool = False) -> None:
    """Prints lines in plain text, whatever the names in them.

    Args:
        lines: The lines.
        error: Whether they go to standard error.
    """
    print(*map(plain, lines), sep="\n", file=sys.stderr if error else sys.stdout)


def show_table(title: str, table: Table) -> None:
    """Prints a table in its full width, so that no figure is cut, also where the terminal is narrower or there is none.

    Args:
        title: A line of its own above the table, which rich would break at the table's width.
        table: The table; names in it stand as they are.
    """
    from rich.console import Console  # loaded only where there is a table

    console = Console(markup=False, emoji=False, highlight=False)
    console.width = max(console.width, console.measure(table, options=console.options.update(max_width=10_000)).maximum)
    say(title)
    console.print(table)


def _alike(error: UnicodeError) -> tuple[str, int]:
    """What stands for characters that a code page lacks; an error handler of `codecs`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_ascii, error.object[error.start : error.end])), error.end


def _ascii(char: str) -> str:
    if char in _ALIKE:
        return _ALIKE[char]
    name = unicodedata.name(char, "")
    if name.startswith("GREEK") and " LETTER " in name:
        letter = name.split(" LETTER ")[1].partition(" WITH ")[0].title()
        return letter if "CAPITAL" in name else letter.lower()
    plain_ones = unicodedata.normalize("NFKD", char).encode("ascii", "ignore").decode("ascii")
    return plain_ones or char.encode("ascii", "backslashreplace").decode("ascii")


codecs.register_error(_ERRORS, _alike)


@contextlib.contextmanager
def encodable() -> Iterator[None]:
    """Within the block standard output and error take any text, whatever their code page.

    What the code page lacks is shown by a character like it, or escaped. An ``errors`` of the user's own, as in
    ``PYTHONIOENCODING=ascii:replace``, stays.
    """
    changed = []
    for stream, usual in ((sys.stdout, "strict"), (sys.stderr, "backslashreplace")):
        if getattr(stream, "errors", None) in (usual, "strict", "surrogateescape") and hasattr(stream, "reconfigure"):
            changed.append((stream, stream.errors))
            stream.reconfigure(errors=_ERRORS)
    try:
        yield
    finally:
        for stream, errors in changed:
            with contextlib.suppress(OSError, ValueError):  # it is closed, or cannot be flushed
                stream.reconfigure(errors=errors)
