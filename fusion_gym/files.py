"""Writing files whole or not at all, with one clear sentence where that is impossible."""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import io
import json
import math
import os
import re
import secrets
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fusion_gym.text import plain

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_TEMPORARY = re.compile(r"\.[0-9a-f]{12}\.(?P<machine>[0-9a-f]{6})-(?P<pid>[0-9]{1,10})-(?P<one>[0-9a-f]{8}).*")
_LONG_AGO = 24 * 3600.0  # seconds
_in_use: set[str] = set()  # this process's temporaries
_next_sweep: dict[Path, float] = {}
_LONG = 16  # bytes of a suffix that says what a file is
_FORMULA = ("=", "+", "-", "@")  # how a spreadsheet's formula begins


class FileError(OSError):
    """A file that cannot be written; the message is one sentence that names it and the remedy."""


def _sentence(path: Path, error: OSError) -> str:
    code = error.errno
    if code in _FULL:
        return f"No space is left to write {path}; free some, or choose another place."
    if code in _FORBIDDEN:
        return f"{path} cannot be written, for {path.parent} is read-only for you; choose another place."
    return f"{path} cannot be written: {error.strerror or error}; choose another place."


def _mark(path: Path) -> str:
    """How the names of a file's temporaries begin: a digest, for the file's own name may be as long as names can be."""
    return f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:12]}."


def _place() -> str:
    """Which process a temporary is of: a digest of the machine's name, and the number."""
    machine = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:6]
    return f"{machine}-{os.getpid()}"


def _sweep(folder: Path) -> None:
    """Removes the temporaries that killed processes left in a folder.

    Of this machine's processes those that have ended, of other machines' those that nobody wrote to for a day. A large
    folder is looked through less often than it is written to.
    """
    begin = time.monotonic()
    if begin < _next_sweep.get(folder, 0.0):
        return
    machine = _place().partition("-")[0]
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            known = _TEMPORARY.fullmatch(entry.name)
            if known is None or known["one"] in _in_use:
                continue
            with contextlib.suppress(OSError):
                old = time.time() - entry.stat(follow_symlinks=False).st_mtime > _LONG_AGO
                if old or (known["machine"] == machine and not _lives(int(known["pid"]))):
                    os.unlink(entry.path)
    now = time.monotonic()
    _next_sweep[folder] = now + 10 * (now - begin)


def _lives(pid: int) -> bool:
    """Whether a process other than this one is there; what this one has is in `_in_use`."""
    if pid == os.getpid():
        return False
    if os.name == "nt":  # where signal 0 would end it
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _short_suffix(path: Path) -> str:
    return path.suffix if len(os.fsencode(path.suffix)) <= _LONG else ""


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary file that takes the place of ``path`` once the block has succeeded.

    Whatever the block raises, an earlier file of that name stays as it was and the temporary one is removed. The
    temporary file is in the same folder and has the same suffix, for writers that choose the format by it. Its name
    is hidden, short whatever the length of the file's, and begins alike for one file. What a killed process left in
    the folder is removed.

    Args:
        path: The file to write; its folder must exist. A symbolic link stays, its target is replaced.

    Yields:
        Path of the temporary file, which the block creates.

    Raises:
        FileError: If the file cannot be written.
    """
    path = Path(os.path.realpath(path))
    if not path.parent.is_dir():
        raise FileError(f"{path} cannot be written, for there is no folder {path.parent}; create it first.")
    if path.exists() and not path.is_file():
        raise FileError(f"{path} is a folder or a device; give the name of a file.")
    one = secrets.token_hex(4)
    temporary = path.with_name(f"{_mark(path)}{_place()}-{one}{_short_suffix(path)}")
    _in_use.add(one)
    _sweep(path.parent)
    try:
        yield temporary
        os.replace(temporary, path)
    except FileError:
        raise
    except OSError as error:
        raise FileError(_sentence(path, error)) from error
    finally:
        temporary.unlink(missing_ok=True)
        _in_use.discard(one)


def make_folder(path: str | Path) -> Path:
    """Makes a folder, and those above it, where they are not there yet.

    Raises:
        FileError: If that is impossible.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise FileError(f"{path} is a file or a broken link, not a folder; choose another place.") from error
    except OSError as error:
        raise FileError(_sentence(Path(path), error)) from error
    return Path(path)


def atomic_write(path: str | Path, content: str | bytes) -> None:
    r"""Writes text (UTF-8, line ends as given) or bytes to a file, whole or not at all.

    Bytes of file names that are no UTF-8 are written as ``\udcff``, which JSON and YAML read back as the same name.

    Raises:
        FileError: If the file cannot be written.
    """
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_csv(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes a table with a header line; the columns are all the rows' keys in order of appearance.

    Text is written as `fusion_gym.text.plain` shows it, and what a spreadsheet would take for a formula gets an
    apostrophe in front, as spreadsheets mark text.

    Raises:
        FileError: If the file cannot be written.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(_cell, columns))
    writer.writerows([_cell(row.get(key, "")) for key in columns] for row in rows)
    atomic_write(path, text.getvalue())


def _cell(value: Any) -> Any:
    if not isinstance(value, (str, Path)):
        return value
    shown = plain(value)
    return f"'{shown}" if shown.startswith(_FORMULA) and not _is_number(shown) else shown


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def write_json(path: str | Path, value: Any) -> None:
    """Writes nested dicts, lists and figures as JSON; NumPy values become plain ones, NaN and infinities null.

    Raises:
        FileError: If the file cannot be written.
    """
    atomic_write(path, json.dumps(_plain(value), indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # NumPy's arrays and scalars
        return _plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
