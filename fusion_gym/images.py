"""Reading and writing images of 8 or 16 bit, with one clear sentence where that is impossible."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fusion_gym.files import atomic_write
from fusion_gym.headers import is_cut, other_format, pointer_at, read_header
from fusion_gym.opencv import cv2

MAX_PIXELS = 2**26
MAX_BYTES = 2**30  # of a file
MIN_SIDE = 16
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
DEEP_SUFFIXES = (".png", ".tif", ".tiff")  # formats that hold 16 bit
_STANDARD_ERROR = threading.Lock()  # of the whole process


class ImageError(ValueError):
    """An image that cannot be read, used or written; the message is one sentence that names the file."""


def _content(path: str | Path) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror}.") from error
    if len(data) > MAX_BYTES:
        raise ImageError(f"{path} has more than {MAX_BYTES:,} bytes, which is more than is read: scale it down.")
    return data


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Leads to nowhere what OpenCV, libpng and libjpeg write to standard error by themselves."""
    with _STANDARD_ERROR:
        try:
            kept = os.dup(2)
        except OSError:  # there is none
            yield
            return
        try:
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def read_file(path: str | Path, min_side: int = MIN_SIDE) -> tuple[np.ndarray, int]:
    """Reads a PNG, JPEG, BMP or TIFF file, and how many pages it has, of which the first is taken.

    An alpha channel is ignored, EXIF orientation is respected, and zero is black also in TIFF files where it stands
    for white.

    Args:
        path: The file.
        min_side: Smallest width and height, in pixels.

    Returns:
        uint8 or uint16, (H, W) for a gray image, (H, W, 3) in OpenCV's BGR order for a colour one; and the pages.

    Raises:
        ImageError: If the file cannot be read, is no image of these formats, or is too small or too large.
    """
    data = _content(path)
    header = read_header(data)
    image = None
    if header is None:  # no decoder sees it: what others than these formats claim is not known beforehand
        pointer = pointer_at(path)
        if pointer:
            raise ImageError(pointer)
        other = other_format(data)
        if other is not None:
            raise ImageError(f"{path} is {other} file, whatever its name says; convert it to PNG, JPEG, BMP or TIFF.")
    elif header.width * header.height > MAX_PIXELS:
        claim = f"{header.width}x{header.height}"
        raise ImageError(f"{path} claims {claim} pixels; at most {MAX_PIXELS:,} are read: scale it down.")
    elif not is_cut(data):
        try:
            # ANYCOLOR | ANYDEPTH keeps gray gray and 16 bit whole, drops alpha and applies EXIF orientation.
            with _quiet():
                image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
        except cv2.error:
            image = None
    if header is None or image is None or image.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"{path} is not a readable 8- or 16-bit PNG, JPEG, BMP or TIFF image; replace or remove it.")
    if min(image.shape[:2]) < min_side:
        shape = f"{image.shape[1]}x{image.shape[0]}"
        raise ImageError(f"{path} is {shape} pixels; at least {min_side}x{min_side} are needed: remove it.")
    if image.dtype == np.uint16 and header.black is not None:  # OpenCV turns 8 bit only
        image = np.uint16(header.black) - image
    return image, header.pages


def read_image(path: str | Path, min_side: int = MIN_SIDE, keep_depth: bool = False) -> np.ndarray:
    """Reads an image file as `read_file` does.

    Args:
        path: The file.
        min_side: Smallest width and height, in pixels.
        keep_depth: Whether 16-bit values stay as they are; else they are scaled to 8 bit by their full range.

    Returns:
        uint8 (or uint16 where it is kept), (H, W) for a gray image, (H, W, 3) in OpenCV's BGR order for a colour one.

    Raises:
        ImageError: If the file cannot be read, is no image, or is too small or too large.
    """
    image, _ = read_file(path, min_side)
    return image if keep_depth else to_8_bit(image)


def to_8_bit(image: np.ndarray) -> np.ndarray:
    """The image in uint8: 16-bit values are scaled by their full range, halves rounded up."""
    return image if image.dtype == np.uint8 else ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)


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
    try:
        with _quiet():
            ok, data = cv2.imencode(path.suffix, image)
    except cv2.error:
        ok = False
    if not ok:
        size = f"{image.shape[1]}x{image.shape[0]}"
        raise ImageError(f"{path} cannot hold {size} pixels in its format; use another suffix, such as .png.")
    atomic_write(path, data.tobytes())
