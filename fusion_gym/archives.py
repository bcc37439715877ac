"""Files of tensors, and archives whoever made them: looked into before they are unpacked, and no code of theirs is run.

A zip file of a megabyte can hold gigabytes. What it says of itself is checked first; what it really holds is read no
further than it says.
"""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any, BinaryIO

import torch

from fusion_gym.files import atomic_write
from fusion_gym.headers import pointer_at

MOST_TEXT = 2**23  # bytes of a member that is text or a pickle: what is made of it takes many times as much
FREE = 2**28  # bytes that the members may have together, however small the file
MOST_GROWTH = 4  # how many times the file's bytes they may have beyond that
MOST_MEMBERS = 10_000


class ArchiveError(ValueError):
    """A file that cannot be read, or should not be; the message is one sentence that names it."""


def check_file(path: str | Path) -> None:
    """Refuses a pointer of Git LFS, and an archive that would unpack to much more than it is.

    Raises:
        ArchiveError: If the file is one of them.
        OSError: If it cannot be read.
    """
    pointer = pointer_at(path)
    if pointer:
        raise ArchiveError(pointer)
    check_archive(path, str(path))


def check_archive(file: str | Path | bytes, name: str) -> None:
    """Refuses an archive that would unpack to much more than it is; what is no zip file is no matter here.

    Args:
        file: The file, or its content.
        name: What it is called in messages.

    Raises:
        ArchiveError: If its members are too many, or say that they are too large.
    """
    stream: BinaryIO | str | Path = io.BytesIO(file) if isinstance(file, bytes) else file
    size = len(file) if isinstance(file, bytes) else os.path.getsize(file)
    try:
        with zipfile.ZipFile(stream) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError):
        return
    total = sum(member.file_size for member in members)
    if len(members) > MOST_MEMBERS:
        raise ArchiveError(f"{name} holds {len(members)} members, more than are read; it is no file of ours.")
    if total > max(FREE, MOST_GROWTH * size):
        raise ArchiveError(f"{name} of {size:,} bytes would unpack to {total:,}, which is more than is read.")
    for member in members:
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ArchiveError(f"{name}: its {member.filename} is packed in a way that is not read; use deflate.")
        if member.filename.endswith((".pkl", ".json")) and member.file_size > MOST_TEXT:
            raise ArchiveError(
                f"{name}: its {member.filename} would unpack to {member.file_size:,} bytes; at most {MOST_TEXT:,} are "
                "read."
            )


def read_member(path: Path, name: str, most: int | None = None) -> bytes:
    """One member of a zip file.

    Args:
        path: The file.
        name: Name of the member.
        most: Bytes that it may have; None leaves it at what the file may unpack to.

    Raises:
        ArchiveError: If there is no such member, it is damaged, or it is larger.
    """
    try:
        check_file(path)
        with zipfile.ZipFile(path) as archive:
            claimed = archive.getinfo(name).file_size
            if most is not None and claimed > most:
                raise ArchiveError(f"{path}: its {name} would unpack to {claimed:,} bytes; at most {most:,} are read.")
            with archive.open(name) as member:
                return _read(member, claimed)
    except ArchiveError:
        raise
    except OSError as error:
        raise ArchiveError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (zipfile.BadZipFile, KeyError, EOFError, NotImplementedError, RuntimeError, zlib.error) as error:
        raise ArchiveError(f"{path} is damaged or was not saved by this program: it has no sound {name}.") from error


def _read(member: IO[bytes], claimed: int) -> bytes:
    """Piece by piece: zipfile's ``read()`` would unpack all that there is, whatever the header claims."""
    pieces = []
    while claimed > 0 and (piece := member.read(min(claimed, 2**20))):
        pieces.append(piece)
        claimed -= len(piece)
    member.read(1)  # at the end the checksum is compared
    return b"".join(pieces)


def read_tensors(file: str | Path | bytes, device: str = "cpu", name: str = "") -> Any:
    """Reads what `write_tensors` or ``torch.save`` wrote; only tensors and plain containers, no code.

    Args:
        file: The file, or its content.
        device: Where the tensors are to be.
        name: What it is called in messages, where its content is given.

    Raises:
        ArchiveError: If the file cannot be read, is damaged, or holds more than it should.
    """
    name = name or str(file)
    try:
        if isinstance(file, bytes):
            check_archive(file, name)
        else:
            check_file(file)
        return torch.load(io.BytesIO(file) if isinstance(file, bytes) else file, map_location=device, weights_only=True)
    except ArchiveError:
        raise
    except OSError as error:
        raise ArchiveError(f"{name} cannot be read: {error.strerror or error}.") from error
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise ArchiveError(f"There is not enough memory to read {name}.") from error
    except Exception as error:  # torch, zipfile and pickle raise many classes for the many kinds of damage
        raise ArchiveError(f"{name} is damaged, or no file of tensors (torch.save).") from error


def write_tensors(path: str | Path, content: Any) -> None:
    """Writes tensors and plain containers by ``torch.save``, whole or not at all.

    They are packed in memory: torch's own writer ends the process, or leaves half a file, where a disk is full.

    Raises:
        fusion_gym.files.FileError: If the file cannot be written.
    """
    stream = io.BytesIO()
    torch.save(content, stream)
    atomic_write(path, stream.getvalue())
