"""Text that is safe to show: names of files can hold whatever a terminal or a spreadsheet would act on."""

from __future__ import annotations

import sys


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
