"""Checks folders of pairs before hours are spent on them: ``fusion-gym check-data FOLDER ...``."""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from fusion_gym.cli import Parser, guard
from fusion_gym.data import SPLITS, DataError, Pair, few, find_pairs
from fusion_gym.images import ImageError, luminance, to_8_bit
from fusion_gym.opencv import cv2
from fusion_gym.sources import Reader
from fusion_gym.text import plain, say

FAR = 3.0  # pixels of shift from which on a pair is named
NEAR = 1 / 8  # of the shorter side; what agrees farther off agrees by chance
SURE = 0.06  # response of the phase correlation below which nothing is said of a shift


@dataclass
class Findings:
    """What was found in a folder.

    Attributes:
        pairs: Number of pairs by split.
        sizes: How many pairs have which size.
        depths: How many images have which depth in bits.
        broken: What cannot be used, a sentence each.
        shifts: Estimated shift in pixels by pair, where it can be told.
        places: Names and splits of the pairs by the content of an image.
        remarks: What else their owner should know, a sentence each.
    """

    pairs: Counter[str] = field(default_factory=Counter)
    sizes: Counter[str] = field(default_factory=Counter)
    depths: Counter[int] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    shifts: dict[str, float] = field(default_factory=dict)
    places: dict[str, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))
    remarks: list[str] = field(default_factory=list)

    @property
    def twice(self) -> list[list[tuple[str, str]]]:
        """Places of each image that stands in several."""
        return [places for places in self.places.values() if len(places) > 1]

    @property
    def leaks(self) -> list[list[tuple[str, str]]]:
        """Those that stand in several splits."""
        return [places for places in self.twice if len({split for _, split in places}) > 1]


def shift(ir: np.ndarray, vi: np.ndarray) -> float | None:
    """How far two images are shifted against each other, by phase correlation of their edges.

    Args:
        ir: Infrared, uint8 (H, W).
        vi: Visible luminance, uint8 (H, W).

    Returns:
        The distance in pixels; None where the edges do not agree well enough to tell.
    """
    edges = []
    for image in (ir, vi):
        smooth = cv2.GaussianBlur(image.astype(np.float64), (0, 0), 2)
        gradient = np.hypot(cv2.Sobel(smooth, cv2.CV_64F, 1, 0), cv2.Sobel(smooth, cv2.CV_64F, 0, 1))
        edges.append(gradient - gradient.mean())
    window = cv2.createHanningWindow(ir.shape[::-1], cv2.CV_64F)
    (x, y), response = cv2.phaseCorrelate(edges[0], edges[1], window)
    near = np.hypot(x, y) <= min(ir.shape) * NEAR
    return float(np.hypot(x, y)) if near and response > SURE else None


def all_pairs(root: Path) -> Iterator[Pair]:
    """The pairs of a folder, split by split, or as one set.

    Raises:
        fusion_gym.data.DataError: If it has no known layout, or files without partners.
    """
    named = [pair for name in SPLITS for pair in find_pairs(root, name)]
    yield from named or find_pairs(root)


def check(root: Path, progress: bool = False) -> Findings:
    """Reads every pair of a folder.

    Raises:
        fusion_gym.data.DataError: If the folder has no known layout, or files without partners.
    """
    found, reader = Findings(), Reader(keep_depth=True)
    for pair in tqdm(
        list(all_pairs(root)), desc=f"check {plain(root.name)}", unit="pair", dynamic_ncols=True, disable=not progress
    ):
        found.pairs[pair.split or "all"] += 1
        try:
            ir, vi = reader.infrared(pair.ir), reader.visible(pair.vi)
        except ImageError as error:
            found.broken.append(str(error))
            continue
        if ir.shape[:2] != vi.shape[:2]:
            sizes = " and ".join(f"{image.shape[1]}x{image.shape[0]}" for image in (ir, vi))
            found.broken.append(f"{pair.ir} and {pair.vi} are {sizes} pixels; register and scale them to one size.")
            continue
        found.sizes[f"{ir.shape[1]}x{ir.shape[0]}"] += 1
        name = f"{pair.split}/{pair.name}".lstrip("/")
        for kind, image in (("infrared", ir), ("visible", vi)):
            found.depths[8 * image.itemsize] += 1
            digest = hashlib.sha256(f"{kind} {image.shape} {image.dtype}".encode() + image.tobytes()).hexdigest()
            found.places[digest].append((name, pair.split))
        moved = shift(*(luminance(to_8_bit(image)) for image in (ir, vi)))
        if moved is not None:
            found.shifts[name] = moved
    found.remarks = reader.remarks()
    return found


def report(root: Path, found: Findings) -> list[str]:
    """What was found, in lines."""

    def counts(counter: Counter[str] | Counter[int], most: int = 4) -> str:
        shown = ", ".join(f"{name} ({count})" for name, count in counter.most_common(most))
        return shown + (f" and {len(counter) - most} more" if len(counter) > most else "")

    lines = [
        f"{root}: {sum(found.pairs.values())} pairs, {counts(found.pairs)}.",
        f"  sizes: {counts(found.sizes)}; bits of an image: {counts(found.depths)}.",
        *(f"  unusable: {sentence}" for sentence in found.broken),
        *(f"  to know: {sentence}" for sentence in found.remarks),
    ]
    if found.shifts:
        far = [name for name, pixels in found.shifts.items() if pixels >= FAR]
        pixels = list(found.shifts.values())
        what = f"  shift, where it can be told ({len(pixels)} pairs): median {np.median(pixels):.1f} pixels"
        lines.append(f"{what}, {max(pixels):.1f} at most" + (f"; look at {few(far)}." if far else "."))
    else:
        lines.append("  shift: the edges of no pair agree well enough to tell.")
    for places in found.leaks:
        lines.append(f"  one image in several splits: {few([name for name, _ in places])}.")
    within = len(found.twice) - len(found.leaks)
    if within:
        lines.append(f"  {within} images stand more than once in a split.")
    return lines


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = Parser(prog="fusion-gym check-data", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="data as --data takes it")
    parser.add_argument("--progress", action=argparse.BooleanOptionalAction, default=True, help="progress bars")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    """Does what the command line asks.

    Raises:
        SystemExit: With 1 where a training would fail, or its test be worth nothing.
    """
    bad = False
    for root in args.folders:
        try:
            found = check(root, args.progress)
        except DataError as error:
            say(f"{root}: {error}")
            bad = True
            continue
        say(*report(root, found))
        bad = bad or bool(found.broken or found.leaks)
    say("Something has to be mended first." if bad else "Nothing stands in the way of a training.")
    if bad:
        raise SystemExit(1)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; a user's mistake gives one sentence and exit code 2."""
    return guard("check-data", lambda: run(parse(argv)), "Stopped.")


if __name__ == "__main__":
    sys.exit(main())
