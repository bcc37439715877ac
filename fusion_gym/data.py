"""Pairs of infrared and visible images: found in folders as public sets ship them, split, cropped, cached."""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fusion_gym.files import atomic_path, make_folder
from fusion_gym.images import SUFFIXES, luminance, read_image
from fusion_gym.sources import Reader
from fusion_gym.synthetic import generate_scenes
from fusion_gym.text import Notice

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
        split: Name of the split whose folder they are in; empty where there is none.
    """

    name: str
    ir: Path
    vi: Path
    split: str = ""


@dataclass(frozen=True, eq=False)
class ImagePair:
    """Two images of one scene.

    Attributes:
        name: Name for reports, unlike that of any other pair that was loaded with it: the file's name, with the split,
            the set or both in front where files have equal names.
        ir: Infrared, uint8 (H, W).
        vi: Visible luminance, uint8 (H, W).
        visible: The visible image in colour, uint8 (H, W, 3) BGR, or the file to read it from.
        place: Name of the set and of the split, each empty where there is none.
    """

    name: str
    ir: np.ndarray
    vi: np.ndarray
    visible: np.ndarray | Path
    place: tuple[str, str] = ("", "")

    @property
    def file(self) -> str:
        """The file's name alone."""
        return self.name.rpartition("/")[2]

    def names(self) -> list[str]:
        """Names by file, by split, by set, and by both: the last one tells it apart from all others."""
        group, split = self.place
        places = ((), (split,), (group,), (group, split))
        return ["/".join(filter(None, (*place, self.file))) for place in places]

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


def natural(name: str | Path) -> tuple[list[str | int], str]:
    """A key to sort names by as people do, ``2.png`` before ``10.png``."""
    parts = re.split(r"(\d+)", os.path.basename(name))
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], os.fspath(name)


def images_in(folder: str | Path) -> dict[str, Path]:
    """The image files of a folder by their names without suffix, in the order of their numbers.

    Hidden files, such as those that a Mac leaves beside every file on foreign disks, are no images.

    Raises:
        DataError: If there is no such folder, or two images have one name.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"The folder {folder} does not exist.")
    found: dict[str, Path] = {}
    for file in sorted(folder.iterdir(), key=natural):
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and not file.is_dir():
            if file.stem in found:
                raise DataError(f"{folder} holds {found[file.stem].name} and {file.name}; remove or rename one.")
            found[file.stem] = file
    return found


def short_names(folders: Sequence[str | Path]) -> list[str]:
    """Names for folders: the last parts of their paths, as few as tell them apart.

    Raises:
        DataError: If a folder is given twice.
    """
    parts = [Path(os.path.realpath(folder)).parts for folder in folders]
    if len(set(parts)) < len(parts):
        raise DataError(f"A folder is given twice: {', '.join(map(str, folders))}.")
    count = 1
    while len({part[-count:] for part in parts}) < len(parts):
        count += 1
    return ["/".join(part[-count:]) for part in parts]


def few(names: Sequence[str], count: int = 3) -> str:
    """Some names in words: the first ones, and how many more there are."""
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")


def pair_folders(ir: str | Path, vi: str | Path, split: str = "") -> list[Pair]:
    """Pairs the files of two folders by their names without suffix.

    Args:
        ir: Folder of infrared images.
        vi: Folder of visible images.
        split: Name of the split that they are.

    Raises:
        DataError: If a folder is missing or empty, holds two images of one name, or a file has no partner.
    """
    ir, vi = Path(ir), Path(vi)
    infrared, visible = images_in(ir), images_in(vi)
    if not infrared and not visible:
        raise DataError(f"{ir} and {vi} hold no images; put PNG, JPEG, BMP or TIFF files there.")
    for here, there, folder in ((infrared, visible, vi), (visible, infrared, ir)):
        missing = [file.name for stem, file in here.items() if stem not in there]
        if missing:
            raise DataError(
                f"{ir} has {len(infrared)} images, {vi} {len(visible)}; missing in {folder.name}: {few(missing)}. "
                "Give each infrared image a visible one of the same name."
            )
    return [Pair(file.name, file, visible[stem], split) for stem, file in infrared.items()]


def _two_folders(root: Path) -> tuple[Path, Path] | None:
    folders: dict[str, list[Path]] = {}
    for entry in sorted(root.iterdir()):
        if entry.is_dir():
            folders.setdefault(entry.name.lower(), []).append(entry)
    for layout in LAYOUTS:
        found = [folders.get(name, []) for name in layout]
        twice = next((same for same in found if len(same) > 1), None)
        if twice and all(found):
            raise DataError(f"{root} holds {twice[0].name} and {twice[1].name}; remove or rename one.")
        if all(found):
            return found[0][0], found[1][0]
    return None


def find_pairs(root: str | Path, split: str | None = None) -> list[Pair]:
    """Finds the pairs in a folder by its layout.

    Known are ``ir`` + ``vi`` (or ``Vis``), ``infrared`` + ``visible``, RoadScene's ``cropinfrared`` +
    ``crop_LR_visible``, each at the top, below ``<split>/``, or above it (``infrared/train``).

    Args:
        root: The folder.
        split: One of "train", "val", "test"; None takes the folder as one set.

    Returns:
        The pairs in the order of their names' numbers; an empty list where the folder has no such split.

    Raises:
        DataError: If the folder does not exist or is of no known layout.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"The data folder {root} does not exist.")
    if split is not None and (root / split).is_dir():
        return [replace(pair, split=split) for pair in find_pairs(root / split)]
    found = _two_folders(root)
    if found is None:
        if split is not None and any((root / other).is_dir() for other in SPLITS):
            return []
        raise DataError(f"{root} has no folders ir/ and vi/ (or infrared/ and visible/); name its two folders so.")
    ir, vi = found
    if split is not None:
        return pair_folders(ir / split, vi / split, split) if (ir / split).is_dir() else []
    nested = [name for name in SPLITS if (ir / name).is_dir()]
    if nested and not images_in(ir):
        return [pair for name in nested for pair in pair_folders(ir / name, vi / name, name)]
    return pair_folders(ir, vi)


def load_pairs(pairs: Sequence[Pair], ir_range: tuple[int, int] | None = None) -> list[ImagePair]:
    """Reads pairs of files; what their owner should know of them is a `fusion_gym.text.Notice`.

    Args:
        pairs: The files.
        ir_range: Counts of 16-bit infrared images that become black and white; None takes the full range.

    Raises:
        DataError: If the two images of a pair differ in size.
        fusion_gym.images.ImageError: If an image cannot be read or is too small.
    """
    reader = Reader(ir_range)
    loaded = _read_pairs(pairs, reader)
    _warn(reader)
    return loaded


def _read_pairs(pairs: Sequence[Pair], reader: Reader) -> list[ImagePair]:
    loaded = []
    for pair in pairs:
        ir, vi = reader.infrared(pair.ir), luminance(reader.visible(pair.vi))
        if ir.shape != vi.shape:
            raise DataError(
                f"{pair.ir} is {ir.shape[1]}x{ir.shape[0]}, {pair.vi} {vi.shape[1]}x{vi.shape[0]} pixels; "
                "register and scale them to one size."
            )
        loaded.append(ImagePair(pair.name, ir, vi, pair.vi, ("", pair.split)))
    return loaded


def _warn(reader: Reader) -> None:
    if multiprocessing.parent_process() is None:  # workers read what the main process has read
        for sentence in reader.remarks():
            warnings.warn(sentence, Notice, stacklevel=3)


def sets_of(data: str) -> list[str]:
    """The sets that a text names, joined by commas; a folder that exists may have commas in its name.

    Raises:
        DataError: If it names none.
    """
    parts, found = data.split(","), []
    while parts:
        count = next((n for n in range(len(parts), 1, -1) if os.path.isdir(",".join(parts[:n]).strip())), 1)
        found.append(",".join(parts[:count]).strip())
        del parts[:count]
    if not any(found):
        raise DataError("The data is empty; give a folder of pairs or 'synthetic'.")
    return list(filter(None, found))


def load_splits(data: str, ir_range: tuple[int, int] | None = None) -> Splits:
    """Loads the three splits of one or more sets; what their owner should know of them is a `fusion_gym.text.Notice`.

    A folder with ``train``, ``val``, ``test`` is taken as it is; without ``val`` every sixth training pair is held
    out, without ``test`` the validation pairs are reported on. A folder with test pairs only serves reports. A
    plain folder of pairs is cut into blocks of 70, 10 and 20 per cent in the order of the names' numbers, for
    neighbours are often alike.

    Args:
        data: "synthetic", "synthetic-small", a folder, or several of these joined by commas.
        ir_range: Counts of 16-bit infrared images that become black and white; None takes the full range.

    Raises:
        DataError: If something is missing or does not fit.
    """
    names, reader = sets_of(data), Reader(ir_range)
    parts = [_load_one(name, reader, group) for name, group in zip(names, short_names(names), strict=True)]
    _warn(reader)
    return _told_apart(Splits(*([pair for part in parts for pair in getattr(part, name)] for name in SPLITS)))


def _load_one(data: str, reader: Reader, group: str) -> Splits:
    if data in SYNTHETIC:
        side, counts = SYNTHETIC[data]
        made = (synthetic_pairs(count, side, seed) for seed, count in enumerate(counts))
        return Splits(*([replace(pair, place=(group, "")) for pair in part] for part in made))
    root = Path(data)

    def load(pairs: Sequence[Pair]) -> list[ImagePair]:
        return [replace(pair, place=(group, pair.place[1])) for pair in _read_pairs(pairs, reader)]

    named = {name: find_pairs(root, name) for name in SPLITS}
    if any(named.values()):
        train, val, test = (load(named[name]) for name in SPLITS)
        if train and not val:
            val, train = train[5::6], [pair for index, pair in enumerate(train) if index % 6 != 5]
        return Splits(train, val, test or val)
    found = find_pairs(root)
    if len(found) < 3:
        raise DataError(f"{root} has {len(found)} pairs; at least 3 are needed to train, select and test.")
    pairs = load(found)
    first = max(1, min(round(0.7 * len(pairs)), len(pairs) - 2))
    second = max(first + 1, min(round(0.8 * len(pairs)), len(pairs) - 1))
    return Splits(pairs[:first], pairs[first:second], pairs[second:])


def _told_apart(splits: Splits) -> Splits:
    """The splits with names that no two pairs share, not even but for their suffixes; as short as they can be."""
    pairs = list({id(pair): pair for part in (splits.train, splits.val, splits.test) for pair in part}.values())
    for which in range(4):
        names = [pair.names()[which] for pair in pairs]
        if len({os.path.splitext(name)[0] for name in names}) == len(pairs):
            break
    known = {id(pair): replace(pair, name=name) for pair, name in zip(pairs, names, strict=True)}
    return Splits(*([known[id(pair)] for pair in getattr(splits, name)] for name in SPLITS))


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


def check_sides(pairs: Sequence[ImagePair], side: int, setting: str) -> None:
    """Checks that pairs are large enough for what is to be cut out of them.

    Args:
        pairs: The pairs.
        side: Side of a cut, in pixels.
        setting: Which setting of the environment says so.

    Raises:
        DataError: If one is too small.
    """
    small = [pair for pair in pairs if min(pair.ir.shape) < side]
    if small:
        height, width = small[0].ir.shape
        raise DataError(
            f"The pair {small[0].name} is {width}x{height} pixels, and {len(small)} of {len(pairs)} have sides of less "
            f"than {setting}={side}; lower {setting}, scale them up, or leave them out."
        )


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


def fingerprint(pairs: Iterable[ImagePair]) -> str:
    """SHA-256 over the sizes and pixels of pairs."""
    digest = hashlib.sha256()
    for pair in pairs:
        digest.update(f"{pair.ir.shape}".encode())
        digest.update(np.ascontiguousarray(pair.ir).tobytes())
        digest.update(np.ascontiguousarray(pair.vi).tobytes())
    return digest.hexdigest()


def cache_dir() -> Path | None:
    """Folder for what is computed once: ``$FUSION_GYM_CACHE``, or ``~/.cache/fusion_gym``; None without a home."""
    try:
        return Path(os.environ.get("FUSION_GYM_CACHE") or "~/.cache/fusion_gym").expanduser()
    except RuntimeError:  # neither HOME nor an entry for the user
        return None


def cached_array(key: str, make: Callable[[], np.ndarray]) -> np.ndarray:
    """An array from the cache, made and stored where it is not there yet, or not as it was stored.

    Args:
        key: Name of the array; it must change with whatever the array depends on.
        make: Computes the array.

    Returns:
        The array, read-only. It is read, not mapped: whatever becomes of the file later is no matter. Where there is
        no cache it is made every time.
    """
    folder = cache_dir()
    array = None if folder is None else _stored(folder / f"{key}.npy", key)
    if array is None:
        array = np.ascontiguousarray(make())
        if folder is not None:
            _store(folder / f"{key}.npy", key, array)
    array = array.view()
    array.flags.writeable = False
    return array


def _store(path: Path, key: str, array: np.ndarray) -> None:
    with contextlib.suppress(OSError):  # the cache may be read-only, full, or a file
        make_folder(path.parent)
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.lib.format.write_array(file, array, allow_pickle=False)
            file.write(_seal(key, array))


def _stored(path: Path, key: str) -> np.ndarray | None:
    try:
        with open(path, "rb") as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
            return array if file.read() == _seal(key, array) else None
    except Exception:  # absent; or damaged, for which NumPy has many classes of errors
        return None


def _seal(key: str, array: np.ndarray) -> bytes:
    """SHA-256 over all that an array is, which stands behind it in its file."""
    digest = hashlib.sha256(f"{key} {array.dtype.str} {array.shape}".encode())
    digest.update(array.data)
    return digest.digest()
