"""Folders of runs: each belongs to one process at a time, from the moment that it is made."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from fusion_gym.cli import UserError
from fusion_gym.files import make_folder

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]
    import msvcrt

LOCK = ".lock"


class Busy(UserError):
    """A folder in which another process is at work."""


def is_free(folder: Path) -> bool:
    """Whether a folder is new or empty; hidden files, such as the lock that a killed process left, do not count."""
    if not folder.is_dir():
        return not (folder.exists() or folder.is_symlink())
    return all(path.name.startswith(".") for path in folder.iterdir())


def unused(folder: Path) -> Path:
    """The folder itself, if it is new or empty.

    Raises:
        UserError: If something is in it, or it is a file.
        Busy: If another process is at work in it.
    """
    if not is_free(folder):
        if _is_held(folder / LOCK):
            raise _busy(folder)
        raise UserError(f"{folder} is in use; give --resume {folder} to continue it, or another --out.")
    return folder


def free_folder(base: Path) -> Path:
    """``base``, or the first of ``base-2``, ``base-3``, ... that is not in use."""
    return next(folder for folder in _numbered(base) if is_free(folder))


def _numbered(base: Path) -> Iterator[Path]:
    yield base
    yield from (base.with_name(f"{base.name}-{number}") for number in itertools.count(2))


@contextlib.contextmanager
def claimed(folder: Path, numbered: bool = False) -> Iterator[Path]:
    """Makes the folder of a new run, and holds it as `held` does.

    Args:
        folder: The folder.
        numbered: Whether ``folder-2``, ``folder-3``, ... may be taken in its place.

    Yields:
        The folder, which is empty and this process's.

    Raises:
        UserError: If something is in the folder, or another process has it.
    """
    for candidate in _numbered(folder) if numbered else (folder,):
        with contextlib.ExitStack() as stack:
            try:
                unused(candidate)
            except UserError:
                if not numbered:
                    raise
                continue
            make_folder(candidate)
            try:
                stack.enter_context(held(candidate))
                unused(candidate)  # another process may have run there, and ended, in the meantime
            except UserError:
                if not numbered:
                    raise
                continue
            yield candidate
            return


def of_run(resume: Path | None, out: Path | None, usual: Path) -> contextlib.AbstractContextManager[Path]:
    """A run's folder, held: that of the run to ``resume``, else a new ``out``, else ``usual`` or a numbered one."""
    return claimed(out or usual, numbered=out is None) if resume is None else held(resume)


@contextlib.contextmanager
def held(folder: Path) -> Iterator[Path]:
    """Keeps other processes from running in a folder, and gives it.

    The hold is a lock on a file there, which ends with the process however it ends. Where the file system has no
    locks, nothing is kept.

    Raises:
        Busy: If another process has the folder.
        UserError: If the folder cannot be written.
    """
    path = folder / LOCK
    file = _open(path)
    try:
        while True:
            if not _lock(file):
                raise _busy(folder)
            if _is(file, path):
                break
            file.close()  # its holder ended and removed it between our opening and our locking
            file = _open(path)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=file.close)  # a child that outlives its parent must not hold on
        try:
            yield folder
        finally:
            with contextlib.suppress(OSError):  # Windows removes no open file
                path.unlink()
    finally:
        file.close()


def _busy(folder: Path) -> Busy:
    return Busy(f"{folder} is in use by a run that is in progress; wait for its end, or give another --out.")


def _is_held(path: Path) -> bool:
    try:
        with open(path, "r+b") as file:
            return not _lock(file)
    except OSError:
        return False


def _open(path: Path) -> IO[bytes]:
    try:
        return open(path, "ab")
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}; give a folder that can.") from error


def _lock(file: IO[bytes]) -> bool:
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _is(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
