"""One check of what a command is to write against what it reads, made before anything is written."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from fusion_gym.cli import UserError
from fusion_gym.data import LAYOUTS, SPLITS, sets_of
from fusion_gym.images import SUFFIXES

_RESERVED = {*SPLITS, *(name for layout in LAYOUTS for name in layout)}  # names of folders that data are read from


def check_outputs(
    outputs: Iterable[Path | None],
    files: Iterable[str | Path] = (),
    folders: Iterable[str | Path] = (),
    data: Iterable[str] = (),
) -> None:
    """Refuses outputs that would replace an input, or that would be read as one the next time.

    Paths are the same where they lead to the same file, through whatever links.

    Args:
        outputs: Files and folders that are to be written; None for what is not asked for.
        files: Files that are read; what does not exist is no matter.
        folders: Folders whose images are read.
        data: What `fusion_gym.data.load_splits` takes.

    Raises:
        UserError: If an output is a source, would be an image among the sources or a folder that stands for a part of
            the data, or is to be written twice.
    """
    wanted = [path for path in outputs if path is not None]
    sources = {str(file) for file in files}
    used = set(map(_real, sources)) | set(filter(None, map(_inode, sources)))
    images = [_real(folder) for folder in folders]
    roots = {root for folder in images for root in _above(Path(folder))}
    roots |= {root for text in data for name in sets_of(text) for root in _below(Path(_real(name)))}
    seen: set[str] = set()
    for out in wanted:
        real = _real(out)
        if real in used or _inode(out) in used or (real in images and not os.path.isfile(real)):
            raise UserError(f"{out} is one of the sources; give another name or place.")
        if os.path.dirname(real) in images and Path(real).suffix.lower() in SUFFIXES:
            raise UserError(f"{out} would be an image among the sources in {out.parent}; give another place.")
        for place in (Path(real), *Path(real).parents):
            if place.name.casefold() in _RESERVED and place.parent in roots and not place.exists():
                raise UserError(f"{out} would be read as a part of the data in {place.parent}; give another place.")
        if real in seen:
            raise UserError(f"{out} is to be written twice; give each output a name of its own.")
        seen.add(real)


def _real(path: str | Path) -> str:
    return os.path.normcase(os.path.realpath(path))


def _inode(path: str | Path) -> tuple[int, int] | None:
    """What hard links, and names on file systems that ignore case, have in common."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _above(folder: Path) -> Iterator[Path]:
    """A folder of images, and those above it whose layout it is a part of."""
    yield folder
    while folder.name.casefold() in _RESERVED:
        folder = folder.parent
        yield folder


def _below(root: Path) -> Iterator[Path]:
    """A folder of data, and those in it that its layout is made of."""
    yield root
    if root.is_dir():
        for folder in root.iterdir():
            if folder.name.casefold() in _RESERVED and folder.is_dir():
                yield folder
