"""Reading and writing images of 8 or 16 bit, with one clear sentence where that is impossible."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from fusion_gym.files import atomic_write

MAX_PIXELS = 2**26
MIN_SIDE = 16
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
DEEP_SUFFIXES = (".png", ".tif", ".tiff")  # formats that hold 16 bit
_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")  # those left out have no segment; some stand in the pixels


class ImageError(ValueError):
    """An image that cannot be read, used or written; the message is one sentence that names the file."""


def _claimed_size(data: bytes) -> tuple[int, int] | None:
    """Width and height that a PNG, BMP, JPEG or TIFF header claims; None where the header is of no known kind."""
    try:
        if data[:8] == b"\x89PNG\r\n\x1a\n":
            return struct.unpack(">II", data[16:24])
        if data[:2] == b"BM":
            width, height = struct.unpack("<ii", data[18:26])
            return abs(width), abs(height)
        if data[:2] == b"\xff\xd8":
            return _claimed_jpeg(data)
        if data[:4] in (b"II*\0", b"MM\0*"):
            return _claimed_tiff(data)
    except (struct.error, IndexError):
        return None
    return None


def _jpeg_markers(data: bytes) -> Iterator[tuple[int, int]]:
    """The markers that begin a segment or end the picture, and the positions behind them."""
    at = 2
    while found := _JPEG_MARKER.search(data, at):
        at = found.end()
        yield data[at - 1], at
        at += int.from_bytes(data[at : at + 2], "big")  # a segment's length


def _claimed_jpeg(data: bytes) -> tuple[int, int] | None:
    for marker, at in _jpeg_markers(data):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a frame header
            height, width = struct.unpack(">HH", data[at + 3 : at + 7])
            return width, height
    return None


def _claimed_tiff(data: bytes) -> tuple[int, int] | None:
    order = "<" if data[:2] == b"II" else ">"
    (at,) = struct.unpack(order + "I", data[4:8])
    (count,) = struct.unpack(order + "H", data[at : at + 2])
    size = {}
    for entry in range(min(count, 512)):
        where = at + 2 + 12 * entry
        tag, kind = struct.unpack(order + "HH", data[where : where + 4])
        if tag in (256, 257):  # ImageWidth, ImageLength
            (size[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, where + 8)
    return (size[256], size[257]) if len(size) == 2 else None


def _is_cut(data: bytes) -> bool:
    """Whether a JPEG file ends before its picture does, which OpenCV before 5 fills up with gray."""
    return data[:2] == b"\xff\xd8" and all(marker != 0xD9 for marker, _ in _jpeg_markers(data))


def read_image(path: str | Path, min_side: int = MIN_SIDE, keep_depth: bool = False) -> np.ndarray:
    """Reads a PNG, JPEG, BMP or TIFF file.

    An alpha channel is ignored, and EXIF orientation is respected.

    Args:
        path: The file.
        min_side: Smallest width and height, in pixels.
        keep_depth: Whether 16-bit values stay as they are; else they are scaled to 8 bit by their full range.

    Returns:
        uint8 (or uint16 where it is kept), (H, W) for a gray image, (H, W, 3) in OpenCV's BGR order for a colour one.

    Raises:
        ImageError: If the file cannot be read, is no image, or is too small or too large.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror}.") from error
    size = _claimed_size(data)
    if size is not None and size[0] * size[1] > MAX_PIXELS:
        raise ImageError(f"{path} claims {size[0]}x{size[1]} pixels; at most {MAX_PIXELS:,} are read: scale it down.")
    image = None
    if data and not _is_cut(data):
        try:
            # ANYCOLOR | ANYDEPTH keeps gray gray and 16 bit whole, drops alpha and applies EXIF orientation.
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
        except cv2.error:
            image = None
    if image is None or image.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"{path} is not a readable 8- or 16-bit PNG, JPEG, BMP or TIFF image; replace or remove it.")
    if min(image.shape[:2]) < min_side:
        shape = f"{image.shape[1]}x{image.shape[0]}"
        raise ImageError(f"{path} is {shape} pixels; at least {min_side}x{min_side} are needed: remove it.")
    if image.dtype == np.uint16 and not keep_depth:
        image = ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return image


def luminance(image: np.ndarray) -> np.ndarray:
    """Luminance of an image: (H, W) or BGR (H, W, 3) to (H, W) of the same dtype, the Y of OpenCV's YCrCb."""
    return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)


def read_gray(path: str | Path, min_side: int = MIN_SIDE) -> np.ndarray:
    """Luminance of an image file, uint8 (H, W); see `read_image`."""
    return luminance(read_image(path, min_side))


def restore_colour(fused: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """Puts the visible image's colour on a fused luminance.

    Args:
        fused: Luminance, (H, W); uint8, uint16, or float32 in [0, 1].
        visible: BGR, (H, W, 3) of the same dtype; a gray one gives the fused image as it is.

    Returns:
        BGR, (H, W, 3), or (H, W), of the same dtype.
    """
    if visible.ndim == 2:
        return fused
    chroma = cv2.cvtColor(visible, cv2.COLOR_BGR2YCrCb)
    chroma[..., 0] = fused
    return cv2.cvtColor(chroma, cv2.COLOR_YCrCb2BGR)


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Writes an image, (H, W) or BGR (H, W, 3), in the format of the suffix, whole or not at all.

    Args:
        path: The file.
        image: uint8, or uint16 for the formats of `DEEP_SUFFIXES`.

    Raises:
        ImageError: If the format is unknown or does not take such an image.
        fusion_gym.files.FileError: If the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ImageError(f"{path} has no known image suffix; use one of {', '.join(SUFFIXES)}.")
    if image.dtype == np.uint16 and path.suffix.lower() not in DEEP_SUFFIXES:
        raise ImageError(f"{path} cannot hold 16 bit; use one of {', '.join(DEEP_SUFFIXES)}, or 8 bit.")
    ok, data = cv2.imencode(path.suffix, image)
    if not ok:
        raise ImageError(f"{path} cannot be encoded from an array of shape {image.shape}.")
    atomic_write(path, data.tobytes())
