"""Scoring folders of fused images, made by any program, against folders of their sources."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fusion_gym.data import DataError, few, images_in, natural, short_names
from fusion_gym.images import luminance
from fusion_gym.metrics.batch import Sources
from fusion_gym.metrics.evaluation import available, check_names, evaluate
from fusion_gym.metrics.table import METRICS
from fusion_gym.sources import Reader
from fusion_gym.tensors import unit

Values = dict[str, dict[str, float]]  # file name → metric → value
Track = Callable[[Sequence[str]], Iterable[str]]


def _some_images(folder: Path) -> dict[str, Path]:
    """The image files of a folder by their names without suffix; refuses an empty folder."""
    found = images_in(folder)
    if not found:
        raise DataError(f"{folder} holds no images; put PNG, JPEG, BMP or TIFF files there.")
    return found


def leftovers(ir: Mapping[str, Path], vi: Mapping[str, Path], fused: Mapping[str, Mapping[str, Path]]) -> list[str]:
    """Says which files are not scored and why, a sentence for each reason."""
    sources = ir.keys() & vi.keys()
    reasons = {
        "infrared images without a visible one": [ir[stem].name for stem in ir if stem not in vi],
        "visible images without an infrared one": [vi[stem].name for stem in vi if stem not in ir],
    }
    for name, files in fused.items():
        reasons[f"images of {name} without a pair of sources"] = [
            files[stem].name for stem in files if stem not in sources
        ]
        absent = (ir[stem].name for stem in sources if stem not in files)
        reasons[f"pairs without an image in {name}"] = sorted(absent, key=natural)
    return [f"Not scored: {len(names)} {reason}: {few(names, 5)}." for reason, names in reasons.items() if names]


def _tensor(image: np.ndarray, device: torch.device) -> Tensor:
    return unit(luminance(image), device, torch.float64)[None, None]


def score_folders(
    ir: Path,
    vi: Path,
    fused: Sequence[Path],
    names: Sequence[str] | None = None,
    convention: str = "fusiongym",
    device: str = "cpu",
    track: Track = iter,
    ir_range: tuple[int, int] | None = None,
) -> tuple[dict[str, Values], list[str]]:
    """Scores every fused image that has both sources of the same name, on luminance, in float64.

    Args:
        ir: Folder of infrared images.
        vi: Folder of visible images.
        fused: Folders of fused images, one for each method.
        names: Metrics; None takes all that the convention has.
        convention: As in `evaluate`.
        device: Where to compute.
        track: Wraps the loop over the pairs, for a progress bar.
        ir_range: Counts of 16-bit infrared images that become black and white; None takes the full range.

    Returns:
        The values by short name of the folder, file name and metric; and sentences about files that are not scored, or
        whose owner should know something about them.

    Raises:
        DataError: If a folder is missing or empty, nothing fits together, or images differ in size.
        fusion_gym.images.ImageError: If an image cannot be read.
        ValueError: If a metric is unknown, or an image is too small for one.
    """
    chosen = available(convention) if names is None else tuple(names)
    check_names(chosen, convention)
    infrared, visible, reader = _some_images(ir), _some_images(vi), Reader(ir_range)
    methods = dict(zip(short_names(fused), map(_some_images, fused), strict=True))
    paired = [stem for stem in infrared if stem in visible]
    for name, files in methods.items():
        if not files.keys() & set(paired):
            raise DataError(f"No image in {name} has the name of a pair in {ir} and {vi}; give them the same names.")
    scores: dict[str, Values] = {name: {} for name in methods}
    with torch.inference_mode():
        for stem in track([stem for stem in paired if any(stem in files for files in methods.values())]):
            read = reader.infrared(infrared[stem]), reader.visible(visible[stem])
            pair = [_tensor(image, torch.device(device)) for image in read]
            _check_size(visible[stem], pair[1], infrared[stem], pair[0])
            sources = Sources(*pair)
            for name, files in methods.items():
                if stem in files:
                    image = _tensor(reader.fused(files[stem]), torch.device(device))
                    _check_size(files[stem], image, infrared[stem], pair[0])
                    values = evaluate(image, sources, chosen, convention)
                    scores[name][files[stem].name] = {metric: float(value) for metric, value in values.items()}
    return scores, [*leftovers(infrared, visible, methods), *reader.remarks()]


def _check_size(file: Path, image: Tensor, other: Path, wanted: Tensor) -> None:
    if image.shape != wanted.shape:
        size, needed = ("x".join(map(str, reversed(each.shape[2:]))) for each in (image, wanted))
        raise DataError(f"{file} is {size} pixels, {other} is {needed}; scale them to one size.")


def summarise(values: Values) -> tuple[dict[str, float], dict[str, float]]:
    """Mean and standard deviation (divided by their number) over the images, by metric."""
    metrics = next(iter(values.values()))
    columns = {metric: np.array([row[metric] for row in values.values()]) for metric in metrics}
    return (
        {metric: float(column.mean()) for metric, column in columns.items()},
        {metric: float(column.std()) for metric, column in columns.items()},
    )


def common(scores: Mapping[str, Values]) -> dict[str, Values]:
    """The scores of those images that all methods have (by name without suffix)."""
    shared = set.intersection(*({Path(file).stem for file in values} for values in scores.values()))
    return {
        name: {file: row for file, row in values.items() if Path(file).stem in shared}
        for name, values in scores.items()
    }


def ranks(means: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Rank of each method by each metric, 1 for the best; equal ones share the mean of their ranks."""
    result: dict[str, dict[str, float]] = {name: {} for name in means}
    for metric in next(iter(means.values())):
        sign = -1 if METRICS[metric].higher_is_better else 1
        values = np.array([sign * row[metric] for row in means.values()])
        for name, value in zip(means, values, strict=True):
            result[name][metric] = float((values < value).sum() + ((values == value).sum() + 1) / 2)
    return result
