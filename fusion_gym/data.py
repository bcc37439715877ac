"""Pairs of infrared and visible images: found in folders as public sets ship them, split, cropped, cached."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fusion_gym.files import atomic_path
from fusion_gym.images import SUFFIXES, luminance, read_gray, read_image
from fusion_gym.synthetic import generate_scenes

# Names of the two folders, infrared and visible, as public sets ship them; compared without regard to case.
LAYOUTS = (
    ("ir", "vi"),
    ("ir", "vis"),
    ("infrared", "visible"),
    ("cropinfrared", "crop_lr_visible"),
    ("thermal", "visible"),
)
SPLITS = ("train", "val", "test")
SYNTHETIC = {"synthetic": (256, (64, 12, 16)), "synthetic-small": (96, (16, 4, 4))}  # side; train, val, test


class DataError(ValueError):
    """Data that cannot be used; the message is one sentence that says what to do."""


@dataclass(frozen=True)
class Pair:
    """Two files of one scene.

    Attributes:
        name: File name of the infrared image.
        ir: Infrared file.
        vi: Visible file.
    """

    name: str
    ir: Path
    vi: Path


@dataclass(frozen=True, eq=False)
class ImagePair:
    """Two images of one scene.

    Attributes:
        name: Name for reports.
        ir: Infrared, uint8 (H, W).
        vi: Visible luminance, uint8 (H, W).
        visible: The visible image in colour, uint8 (H, W, 3) BGR, or the file to read it from.
    """

    name: str
    ir: np.ndarray
    vi: np.ndarray
    visible: np.ndarray | Path

    def colour(self) -> np.ndarray:
        """The visible image as it was shot: uint8 (H, W, 3) BGR, or (H, W) where it is gray."""
        return read_image(self.visible) if isinstance(self.visible, Path) else self.visible


@dataclass(frozen=True)
class Splits:
    """Pairs to learn from, to select by, and to report on.

    Attributes:
        train: Training pairs.
        val: Validation pairs: the reward's probe and every selection.
        test: Pairs for the final report only.
    """

    train: list[ImagePair]
    val: list[ImagePair]
    test: list[ImagePair]


def _images(folder: Path) -> dict[str, Path]:
    return {file.stem: file for file in sorted(folder.iterdir()) if file.suffix.lower() in SUFFIXES}


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def pair_folders(ir: str | Path, vi: str | Path) -> list[Pair]:
    """Pairs the files of two folders by their names without suffix.

    Raises:
        DataError: If a folder is missing or empty, or a file has no partner.
    """
    ir, vi = Path(ir), Path(vi)
    for folder in (ir, vi):
        if not folder.is_dir():
            raise DataError(f"The folder {folder} does not exist.")
    infrared, visible = _images(ir), _images(vi)
    if not infrared and not visible:
        raise DataError(f"{ir} and {vi} hold no images; put PNG, JPEG, BMP or TIFF files there.")
    for here, there, folder in ((infrared, visible, vi), (visible, infrared, ir)):
        missing = [file.name for stem, file in here.items() if stem not in there]
        if missing:
            raise DataError(
                f"{ir} has {len(infrared)} images, {vi} {len(visible)}; missing in {folder.name}: {_few(missing)}. "
                "Give each infrared image a visible one of the same name."
            )
    return [Pair(file.name, file, visible[stem]) for stem, file in infrared.items()]


def _two_folders(root: Path) -> tuple[Path, Path] | None:
    folders = {entry.name.lower(): entry for entry in sorted(root.iterdir()) if entry.is_dir()}
    for ir, vi in LAYOUTS:
        if ir in folders and vi in folders:
            return folders[ir], folders[vi]
    return None


def find_pairs(root: str | Path, split: str | None = None) -> list[Pair]:
    """Finds the pairs in a folder by its layout.

    Known are ``ir`` + ``vi`` (or ``Vis``), ``infrared`` + ``visible``, RoadScene's ``cropinfrared`` +
    ``crop_LR_visible``, each at the top, below ``<split>/``, or above it (``infrared/train``).

    Args:
        root: The folder.
        split: One of "train", "val", "test"; None takes the folder as one set.

    Returns:
        The pairs, sorted by name; an empty list where the folder has no such split.

    Raises:
        DataError: If the folder does not exist or is of no known layout.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"The data folder {root} does not exist.")
    if split is not None and (root / split).is_dir():
        return find_pairs(root / split)
    found = _two_folders(root)
    if found is None:
        if split is not None and any((root / other).is_dir() for other in SPLITS):
            return []
        raise DataError(f"{root} has no folders ir/ and vi/ (or infrared/ and visible/); name its two folders so.")
    ir, vi = found
    if split is not None:
        return pair_folders(ir / split, vi / split) if (ir / split).is_dir() else []
    nested = [name for name in SPLITS if (ir / name).is_dir()]
    if nested and not _images(ir):
        return [pair for name in nested for pair in pair_folders(ir / name, vi / name)]
    return pair_folders(ir, vi)


def load_pairs(pairs: Sequence[Pair]) -> list[ImagePair]:
    """Reads pairs of files.

    Raises:
        DataError: If the two images of a pair differ in size.
        fusion_gym.images.ImageError: If an image cannot be read or is too small.
    """
    loaded = []
    for pair in pairs:
        ir, vi = read_gray(pair.ir), luminance(read_image(pair.vi))
        if ir.shape != vi.shape:
            raise DataError(
                f"{pair.ir} is {ir.shape[1]}x{ir.shape[0]}, {pair.vi} {vi.shape[1]}x{vi.shape[0]} pixels; "
                "register and scale them to one size."
            )
        loaded.append(ImagePair(pair.name, ir, vi, pair.vi))
    return loaded


def load_splits(data: str) -> Splits:
    """Loads the three splits of one or more sets.

    A folder with ``train``, ``val``, ``test`` is taken as it is; without ``val`` every sixth training pair is held
    out, without ``test`` the validation pairs are reported on. A folder with test pairs only serves reports. A
    plain folder of pairs is cut into blocks of 70, 10 and 20 per cent by name, for neighbours are often alike.

    Args:
        data: "synthetic", "synthetic-small", a folder, or several of these joined by commas.

    Raises:
        DataError: If something is missing or does not fit.
    """
    parts = [_load_one(part.strip()) for part in data.split(",") if part.strip()]
    if not parts:
        raise DataError("The data is empty; give a folder of pairs or 'synthetic'.")
    return Splits(*([pair for part in parts for pair in getattr(part, name)] for name in SPLITS))


def _load_one(data: str) -> Splits:
    if data in SYNTHETIC:
        side, counts = SYNTHETIC[data]
        return Splits(*(synthetic_pairs(count, side, seed) for seed, count in enumerate(counts)))
    root = Path(data)
    named = {name: find_pairs(root, name) for name in SPLITS}
    if any(named.values()):
        train, val, test = (load_pairs(named[name]) for name in SPLITS)
        if train and not val:
            val, train = train[5::6], [pair for index, pair in enumerate(train) if index % 6 != 5]
        return Splits(train, val, test or val)
    pairs = load_pairs(find_pairs(root))
    if len(pairs) < 3:
        raise DataError(f"{root} has {len(pairs)} pairs; at least 3 are needed to train, select and test.")
    first, second = max(1, round(0.7 * len(pairs))), max(2, round(0.8 * len(pairs)))
    return Splits(pairs[:first], pairs[first:second], pairs[second:])


def synthetic_pairs(count: int, side: int, seed: int) -> list[ImagePair]:
    """Procedural pairs, square, from the cache where they have been generated before."""
    stack = cached_array(f"synthetic-v1-{count}-{side}-{seed}", lambda: generate_scenes(count, side, seed))
    return [
        ImagePair(
            f"scene_{seed}_{index:03d}.png",
            scene[..., 0],
            luminance(np.ascontiguousarray(scene[..., 1:])),
            scene[..., 1:],
        )
        for index, scene in enumerate(np.array(stack))
    ]


def patch_bank(stacks: Sequence[np.ndarray], size: int) -> np.ndarray:
    """Cuts images into patches on a regular grid that covers each image, overlapping as little as possible.

    Args:
        stacks: uint8 (C, H, W) each.
        size: Side of the patches.

    Returns:
        uint8 (M, C, size, size).

    Raises:
        DataError: If an image is smaller than a patch.
    """
    patches = []
    for index, stack in enumerate(stacks):
        height, width = stack.shape[1:]
        if min(height, width) < size:
            raise DataError(f"Image {index} is {width}x{height}, smaller than patches of {size}; lower patch_size.")
        rows, columns = (np.linspace(0, side - size, -(-side // size)).round().astype(int) for side in (height, width))
        patches += [stack[:, y : y + size, x : x + size] for y in rows for x in columns]
    if not patches:
        raise DataError("There are no training pairs; give data with a train split.")
    return np.stack(patches)


def probe_crops(stacks: Sequence[np.ndarray], size: int, count: int) -> np.ndarray:
    """Crops for the probe: images spread evenly over the set, from each the part with the most detail.

    Args:
        stacks: uint8 (C, H, W) each; the first two channels are the sources.
        size: Side of the crops.
        count: Number of crops; an image may give several.

    Returns:
        uint8 (count, C, size, size).

    Raises:
        DataError: If there are no images or one is smaller than a crop.
    """
    if not stacks:
        raise DataError("There are no validation pairs; give data with a val split or more pairs.")
    chosen = np.linspace(0, len(stacks) - 1, count).round().astype(int)
    crops = []
    for position, index in enumerate(chosen):
        windows = patch_bank([stacks[index]], size)
        detail = np.abs(np.diff(windows[:, :2].astype(np.int16), axis=3)).mean((1, 2, 3))
        rank = int((chosen[:position] == index).sum()) % len(windows)
        crops.append(windows[np.argsort(-detail, kind="stable")[rank]])
    return np.stack(crops)


def fingerprint(pairs: Sequence[ImagePair]) -> str:
    """SHA-256 over the names, sizes and pixels of pairs."""
    digest = hashlib.sha256()
    for pair in pairs:
        digest.update(f"{pair.name}/{pair.ir.shape}".encode())
        digest.update(np.ascontiguousarray(pair.ir).tobytes())
        digest.update(np.ascontiguousarray(pair.vi).tobytes())
    return digest.hexdigest()


def cache_dir() -> Path:
    """Folder for what is computed once: ``$FUSION_GYM_CACHE``, or ``~/.cache/fusion_gym``."""
    return Path(os.environ.get("FUSION_GYM_CACHE") or Path.home() / ".cache" / "fusion_gym")


def cached_array(key: str, make: Callable[[], np.ndarray]) -> np.ndarray:
    """An array from the cache, made and stored where it is not there yet.

    Args:
        key: Name of the array; it must change with whatever the array depends on.
        make: Computes the array.

    Returns:
        The array, mapped read-only from its file so that processes share the memory; where the cache cannot be
        written, the array itself.
    """
    path = cache_dir() / f"{key}.npy"
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        pass  # absent or damaged: made anew
    array = make()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            np.save(temporary, array)
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError:
        return array
