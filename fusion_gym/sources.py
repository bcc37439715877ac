"""Reading pairs of source files, and remembering what their owner should know about them."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fusion_gym.images import MIN_SIDE, luminance, read_file, to_8_bit
from fusion_gym.text import plain

_FEW = 65535 // 8  # levels that raw counts of a thermal camera span
_LOW = 2**14  # counts of 14 bit stay below
_COLOUR = 4  # mean difference of the channels, in 8-bit levels, that lossy gray images stay below


@dataclass
class _Files:
    """Some files that have something in common."""

    first: Path | None = None
    count: int = 0

    def add(self, path: Path) -> None:
        self.first = self.first or path
        self.count += 1

    def __str__(self) -> str:
        """The first file, and how many more there are."""
        more = f" and {self.count - 1} more" if self.count > 1 else ""
        return f"{plain(self.first)}{more}"


@dataclass
class _Counts(_Files):
    """Files of 16 bit that use few of the levels, and the counts of the first."""

    span: tuple[int, int] = (0, 0)


@dataclass
class Reader:
    """Reads infrared and visible files.

    Attributes:
        ir_range: Counts of 16-bit infrared images that become black and white; None takes the full range.
        min_side: Smallest width and height, in pixels.
        keep_depth: Whether 16-bit images stay so; else they become 8-bit ones.
    """

    ir_range: tuple[int, int] | None = None
    min_side: int = MIN_SIDE
    keep_depth: bool = False
    _pages: _Files = field(default_factory=_Files)
    _coloured: _Files = field(default_factory=_Files)
    _of_8_bit: _Files = field(default_factory=_Files)
    _of_16_bit: _Files = field(default_factory=_Files)
    _faint_ir: _Counts = field(default_factory=_Counts)
    _faint_vi: _Counts = field(default_factory=_Counts)

    def __post_init__(self) -> None:
        """Checks the range."""
        if self.ir_range is not None:
            self.ir_range = check_range(self.ir_range)

    def infrared(self, path: str | Path) -> np.ndarray:
        """An infrared image as gray levels, uint8 or uint16 (H, W).

        Raises:
            fusion_gym.images.ImageError: If the file cannot be read.
        """
        image = self._read(Path(path))
        if image.ndim == 3:
            spread = np.ptp(image, axis=2).mean() / (257 if image.dtype == np.uint16 else 1)
            if spread > _COLOUR:
                self._coloured.add(Path(path))
            image = luminance(image)
        if image.dtype == np.uint8:
            self._of_8_bit.add(Path(path))
            return image
        self._of_16_bit.add(Path(path))
        if self.ir_range is None:
            self._look(self._faint_ir, Path(path), image)
        else:
            low, high = self.ir_range
            image = np.rint((np.clip(image, low, high).astype(np.float32) - low) * (65535 / (high - low)))
            image = image.astype(np.uint16)
        return image if self.keep_depth else to_8_bit(image)

    def visible(self, path: str | Path) -> np.ndarray:
        """A visible image, uint8 or uint16, BGR (H, W, 3), or (H, W) where it is gray.

        Raises:
            fusion_gym.images.ImageError: If the file cannot be read.
        """
        image = self._read(Path(path))
        if image.dtype == np.uint16:
            self._look(self._faint_vi, Path(path), image)
        return image if self.keep_depth else to_8_bit(image)

    def fused(self, path: str | Path) -> np.ndarray:
        """A fused image, as `visible` reads it, in whatever range it has.

        Raises:
            fusion_gym.images.ImageError: If the file cannot be read.
        """
        image = self._read(Path(path))
        return image if self.keep_depth else to_8_bit(image)

    def _read(self, path: Path) -> np.ndarray:
        image, pages = read_file(path, self.min_side)
        if pages > 1:
            self._pages.add(path)
        return image

    def _look(self, faint: _Counts, path: Path, image: np.ndarray) -> None:
        low, high = int(image.min()), int(image.max())
        if high < _LOW or high - low < _FEW:
            faint.span = faint.span if faint.count else (low, high)
            faint.add(path)

    def remarks(self) -> list[str]:
        """What should be known about the files that were read: a sentence for each matter, however many files."""
        said = []
        if self._pages.count:
            said.append(f"{self._pages}: of several pages or frames in a file the first is used, the others are not.")
        if self._coloured.count:
            said.append(
                f"{self._coloured}: the infrared is in colour, and its luminance is used, which is not heat where the "
                "colours are a palette's; give gray images."
            )
        if self._of_8_bit.count and self._of_16_bit.count:
            said.append(
                f"Some infrared images have 8 bit ({self._of_8_bit}), some 16 ({self._of_16_bit}), each scaled by its "
                "own full range; give all in one depth."
            )
        if self.ir_range is not None and self._of_8_bit.count:
            said.append(f"The infrared range has no effect on images of 8 bit: {self._of_8_bit}.")
        elif self.ir_range is not None and not self._of_16_bit.count:
            said.append("The infrared range has no effect, for no infrared image of 16 bit was read.")
        if self._faint_ir.count:
            low, high = self._faint_ir.span
            said.append(
                f"{self._faint_ir}: the infrared uses the counts {low} to {high} only; --ir-range (ir_range) shows "
                "them from black to white."
            )
        if self._faint_vi.count:
            low, high = self._faint_vi.span
            said.append(
                f"{self._faint_vi}: the visible image uses the values {low} to {high} of 16 bit only, and is dark or "
                "flat; scale it to the full range."
            )
        return said


def add_range(parser: argparse.ArgumentParser) -> None:
    """Adds the option of the commands that read infrared images."""
    parser.add_argument(
        "--ir-range",
        type=int,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="counts of a 16-bit infrared shown black and white",
    )


def check_range(given: object) -> tuple[int, int]:
    """Checks counts that are to become black and white.

    Raises:
        ValueError: If they are not two whole numbers that rise within 0 to 65535.
    """
    values = tuple(given) if isinstance(given, (list, tuple)) else (given,)
    whole = all(isinstance(value, (int, np.integer)) and not isinstance(value, bool) for value in values)
    if len(values) != 2 or not whole or not 0 <= values[0] < values[1] <= 65535:
        shown = " ".join(map(str, values))
        raise ValueError(f"--ir-range (ir_range) {shown}: the counts of black and white must rise within 0 to 65535.")
    return int(values[0]), int(values[1])
