"""What the first bytes of an image file say about it, read before a decoder may believe them."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_POINTER = b"version https://git-lfs"  # what Git LFS leaves in place of a file that was not fetched
_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")  # those left out have no segment; some stand in the pixels
_MOST_ENTRIES, _MOST_PAGES = 4096, 65536  # of a TIFF directory, and of the directories that are counted
_TIFF_TYPES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_SUBFILE, _WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC = 254, 256, 257, 258, 262
_MIN_IS_WHITE = 0
_NO_PAGE = 1 | 4  # kinds of TIFF directories: a smaller copy of another, a mask
_OTHERS = {  # formats that OpenCV may know, and what they begin with
    b"RIFF....WEBP": "a WebP",
    b"GIF8": "a GIF",
    b"....ftypavi[fs]": "an AVIF",
    b"....ftyp(heic|heix|mif1|msf1)": "a HEIC",
    b"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51": "a JPEG 2000",
    b"....JXL |\xff\x0a": "a JPEG XL",
    b"P[1-7fF]\\s": "a PNM or PFM",
    b"#\\?(RGBE|RADIANCE)": "a Radiance",
    b"\x76\x2f\x31\x01": "an OpenEXR",
    b"\x59\xa6\x6a\x95": "a Sun raster",
}


def pointer_at(path: str | Path) -> str:
    """A sentence about what Git LFS leaves in place of a file that was not fetched; empty where it is none of it."""
    try:
        with open(path, "rb") as file:
            found = file.read(len(_POINTER)) == _POINTER
    except OSError:
        return ""
    return f"{path} is a pointer of Git LFS, not the file itself; get that by: git lfs pull." if found else ""


@dataclass(frozen=True)
class Header:
    """What a PNG, JPEG, BMP or TIFF file claims.

    Attributes:
        width: In pixels.
        height: In pixels.
        pages: Pages of a TIFF file, frames of an animated PNG; smaller copies and masks are not counted.
        black: The 16-bit value that stands for black where 0 stands for white, as in some TIFF files; else None.
    """

    width: int
    height: int
    pages: int = 1
    black: int | None = None


def read_header(data: bytes) -> Header | None:
    """The header of a PNG, JPEG, BMP or TIFF file; None where it is of another format or damaged."""
    try:
        if data[:8] == b"\x89PNG\r\n\x1a\n":
            return _png(data)
        if data[:2] == b"BM":
            return _bmp(data)
        if data[:3] == b"\xff\xd8\xff":
            return _jpeg(data)
        if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return _tiff(data)
    except (struct.error, IndexError, KeyError):
        pass
    return None


def other_format(data: bytes) -> str | None:
    """The name, with its article, of another image format that the data begin as."""
    return next((name for start, name in _OTHERS.items() if re.match(start, data, re.DOTALL)), None)


def is_cut(data: bytes) -> bool:
    """Whether a JPEG file ends before its picture does, which OpenCV before 5 fills up with gray."""
    return data[:2] == b"\xff\xd8" and all(marker != 0xD9 for marker, _ in _jpeg_markers(data))


def _png(data: bytes) -> Header | None:
    if data[12:16] != b"IHDR":
        return None
    width, height = struct.unpack(">II", data[16:24])
    animation = data.find(b"acTL", 33, data.find(b"IDAT", 33) + 1 or None)
    frames = struct.unpack(">I", data[animation + 4 : animation + 8])[0] if animation > 0 else 1
    return Header(width, height, max(1, frames))


def _bmp(data: bytes) -> Header:
    (size,) = struct.unpack("<I", data[14:18])
    width, height = struct.unpack("<HH", data[18:22]) if size == 12 else struct.unpack("<ii", data[18:26])
    return Header(abs(width), abs(height))


def _jpeg_markers(data: bytes) -> Iterator[tuple[int, int]]:
    """The markers that begin a segment or end the picture, and the positions behind them."""
    at = 2
    while found := _JPEG_MARKER.search(data, at):
        at = found.end()
        yield data[at - 1], at
        at += int.from_bytes(data[at : at + 2], "big")  # a segment's length


def _jpeg(data: bytes) -> Header | None:
    for marker, at in _jpeg_markers(data):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a frame header
            height, width = struct.unpack(">HH", data[at + 3 : at + 7])
            return Header(width, height)
    return None


def _tiff(data: bytes) -> Header:
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    (start,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    first, at = _tiff_directory(data, start, order, big)
    pages, seen = 1, {0, start}
    while at not in seen and pages < _MOST_PAGES:
        seen.add(at)
        try:
            page, at = _tiff_directory(data, at, order, big)
        except struct.error:
            break
        pages += not page.get(_SUBFILE, 0) & _NO_PAGE
    bits = min(16, first.get(_BITS, 1))  # OpenCV shifts 10 to 14 bits up to 16
    black = (2**bits - 1) << (16 - bits) if first.get(_PHOTOMETRIC) == _MIN_IS_WHITE else None
    return Header(first[_WIDTH], first[_HEIGHT], pages, black)


def _tiff_directory(data: bytes, at: int, order: str, big: bool) -> tuple[dict[int, int], int]:
    """First values of the tags that matter, and the place of the next directory; BigTIFF has longer fields."""
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, at)
    at, entry, inline = (at + 8, 20, 8) if big else (at + 2, 12, 4)
    values: dict[int, int] = {}
    for where in range(at, at + entry * min(count, _MOST_ENTRIES), entry):
        tag, kind = struct.unpack_from(order + "HH", data, where)
        if tag not in (_SUBFILE, _WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC) or kind not in _TIFF_TYPES:
            continue
        number, place = struct.unpack_from(order + ("QQ" if big else "II"), data, where + 4)
        size = struct.calcsize(_TIFF_TYPES[kind])
        if number * size <= inline:
            place = where + entry - inline
        (value,) = struct.unpack_from(order + _TIFF_TYPES[kind], data, place)
        values[tag] = max(value, values.get(tag, 0))  # whichever of two a decoder takes
    (following,) = struct.unpack_from(order + ("Q" if big else "I"), data, at + entry * count)
    return values, following
