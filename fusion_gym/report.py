"""Judging fusion functions on test pairs: a table of metrics by method and a contact sheet in colour."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch

from fusion_gym.data import DataError, ImagePair
from fusion_gym.images import restore_colour
from fusion_gym.metrics import ARTEFACTS, METRICS, REPORTED, Sources, evaluate
from fusion_gym.opencv import cv2
from fusion_gym.tensors import unit

Outputs = Mapping[str, Sequence[np.ndarray]]  # method → uint8 (H, W) for each pair
Track = Callable[[Iterable[int]], Iterable[int]]
VANISHING = 1e-9  # size of a metric that is nothing but rounding


def check_pairs(pairs: Sequence[ImagePair], data: str) -> None:
    """Checks that pairs can be reported on, before the work whose result is to be reported.

    Args:
        pairs: The pairs.
        data: Where they come from, for messages.

    Raises:
        DataError: If there are none, or one is too small for a metric.
    """
    if not pairs:
        raise DataError(f"{data} has no test pairs; give data with a test split.")
    name = max((*REPORTED, *ARTEFACTS), key=lambda metric: METRICS[metric].min_side)
    least = METRICS[name].min_side
    small = [pair for pair in pairs if min(pair.ir.shape) < least]
    if small:
        size = f"{small[0].ir.shape[1]}x{small[0].ir.shape[0]}"
        raise DataError(
            f"{data}: the test pair {small[0].name} is {size} pixels, and {len(small)} of {len(pairs)} test pairs have "
            f"sides of less than {least}, which {name} needs; leave them out, or scale them up."
        )


def share(value: float, whole: float) -> float:
    """What part of ``whole`` a value is: 1 where both vanish, as on black images; NaN where only the whole does."""
    if abs(whole) < VANISHING:
        return 1.0 if abs(value) < VANISHING else math.nan
    return value / whole


def score_outputs(
    outputs: Outputs, pairs: Sequence[ImagePair], convention: str = "cddfuse", track: Track = iter
) -> dict[str, dict[str, dict[str, float]]]:
    """Scores the 8-bit results of several methods on the same pairs.

    Args:
        outputs: Fused images by method.
        pairs: The pairs that they were fused from.
        convention: As in `fusion_gym.metrics.evaluate`.
        track: Wraps the loop over pairs, for a progress bar.

    Returns:
        Metric values by method and pair name.

    Raises:
        ValueError: If two pairs have one name.
    """
    if len({pair.name for pair in pairs}) < len(pairs):
        raise ValueError("Two pairs have one name; load them together, which tells them apart.")
    table: dict[str, dict[str, dict[str, float]]] = {method: {} for method in outputs}
    with torch.no_grad():
        for index in track(range(len(pairs))):
            pair = pairs[index]
            sources = Sources(unit(pair.ir)[None, None], unit(pair.vi)[None, None])
            for method, images in outputs.items():
                fused = unit(images[index])[None, None]
                values = evaluate(fused, sources, REPORTED, convention=convention)
                values |= evaluate(fused, sources, ARTEFACTS)
                table[method][pair.name] = {name: float(value) for name, value in values.items()}
    return table


def means(table: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Mean over the pairs of what `score_outputs` gave, by method and metric."""
    return {
        method: {name: float(np.mean([row[name] for row in rows.values()])) for name in (*REPORTED, *ARTEFACTS)}
        for method, rows in table.items()
    }


def baselines(pairs: Sequence[ImagePair]) -> dict[str, list[np.ndarray]]:
    """What every method has to beat: mean (halves round up) and maximum of the sources, uint8."""
    return {
        "mean": [((p.ir.astype(np.uint16) + p.vi + 1) // 2).astype(np.uint8) for p in pairs],
        "max": [np.maximum(p.ir, p.vi) for p in pairs],
    }


def spread(pairs: Sequence[ImagePair], count: int = 6) -> list[ImagePair]:
    """Some pairs, spread evenly."""
    return [pairs[index] for index in _spread(len(pairs), count)]


def _spread(length: int, count: int) -> np.ndarray:
    return np.unique(np.linspace(0, length - 1, min(count, length)).round().astype(int))


def sheet_rows(outputs: Outputs, pairs: Sequence[ImagePair], count: int = 6) -> list[dict[str, np.ndarray]]:
    """Rows of a contact sheet: sources and methods for some pairs, spread evenly, RGB where the visible has colour."""
    rows = []
    for index in _spread(len(pairs), count):
        pair = pairs[index]
        colour = pair.colour()
        row: dict[str, np.ndarray] = {"infrared": pair.ir, "visible": _rgb(colour)}
        for method, images in outputs.items():
            fused = images[index]
            row[method] = _rgb(restore_colour(fused, colour)) if colour.ndim == 3 else fused
        rows.append(row)
    return rows


def _rgb(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if image.ndim == 3 else image
