"""Stamps of files: whether what was read from them once in this process is still what they hold."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

DEEPEST = 4  # more than any layout of data has
Stamp = tuple[tuple[str, int, int, int, int], ...]


def stamp(paths: Iterable[Path]) -> Stamp:
    """Name, number, size and times of files, and of the files in folders; another one once any of them changes.

    Args:
        paths: Files and folders; what is not there counts for nothing.
    """
    found = []
    for path in paths:
        for file in (path, *files_in(path)):
            try:
                status = file.stat()
            except (OSError, ValueError):  # a name that no file can have
                continue
            found.append((str(file), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    return tuple(found)


def files_in(folder: Path) -> Iterator[Path]:
    """The files in a folder and `DEEPEST` folders below it, in the order of their names; each folder once."""
    seen = {os.path.realpath(folder)}
    for place, below, names in os.walk(folder, followlinks=True):
        deep = len(Path(place).relative_to(folder).parts) >= DEEPEST
        below[:] = [] if deep else sorted(below)
        for name in tuple(below):
            real = os.path.realpath(os.path.join(place, name))
            if real in seen:
                below.remove(name)
            seen.add(real)
        yield from (Path(place) / name for name in sorted(names))
