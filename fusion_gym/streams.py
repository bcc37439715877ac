"""Standard streams that may be absent, closed, full or gone: none of it is worth the end of a computation."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO, cast


class _Aside:
    """A stream for what is said beside the result, bars and notices: what it does not take is lost."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def standing() -> Iterator[None]:
    """Within the block there are standard streams, and standard error takes whatever is written to it.

    A program that is started without them would take the next file that it opens for one of them.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    before = sys.stdout, sys.stderr
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        sys.stdout = before[0] or nowhere
        sys.stderr = cast(TextIO, _Aside(before[1] or nowhere))
        try:
            yield
        finally:
            sys.stdout, sys.stderr = before
            try:
                if sys.stderr is not None:
                    sys.stderr.flush()
            except (OSError, ValueError):  # Python would try again at its end, and fail
                lead_to_nowhere(sys.stderr)


def lead_to_nowhere(stream: Any) -> None:
    """Has all that a stream still holds, and all that it is given, vanish."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
