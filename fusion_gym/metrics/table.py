"""The table of metrics and their evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from fusion_gym.metrics import edges, fidelity, information, statistics, structure
from fusion_gym.metrics.batch import Batch, Sources, check_images, quantised

CONVENTIONS = ("fusiongym", "cddfuse")
Measure = Callable[[Batch, Batch], Tensor]


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        title: Its full name.
        higher_is_better: Its direction.
        values: One value per image, (N,), or one for each source, (N, 2).
        joint: One value per image; None takes the mean over the sources of `values`.
        cddfuse: The public evaluator's value, from 8-bit levels; None where it has none.
    """

    title: str
    higher_is_better: bool
    values: Measure
    joint: Measure | None = None
    cddfuse: Measure | None = None

    def evaluate(self, fused: Batch, sources: Batch) -> Tensor:
        """The value per image, (N,)."""
        if self.joint is not None:
            return self.joint(fused, sources)
        values = self.values(fused, sources)
        return values if values.dim() == 1 else values.mean(1)


def _total(values: Measure, factor: float = 1.0) -> Measure:
    return lambda fused, sources: values(fused, sources).sum(1) * factor


METRICS: dict[str, Metric] = {
    "EN": Metric("entropy", True, information.entropy, cddfuse=information.entropy),
    "SD": Metric("standard deviation", True, statistics.standard_deviation, cddfuse=statistics.standard_deviation),
    "SF": Metric("spatial frequency", True, statistics.spatial_frequency, cddfuse=statistics.spatial_frequency),
    "AG": Metric("average gradient", True, statistics.average_gradient, cddfuse=statistics.average_gradient),
    "MI": Metric(
        "mutual information",
        True,
        information.mutual_information,
        cddfuse=_total(information.mutual_information, math.log(2)),
    ),
    "CC": Metric("correlation coefficient", True, statistics.correlation, cddfuse=_total(statistics.correlation, 0.5)),
    "SCD": Metric(
        "sum of the correlations of differences",
        True,
        statistics.correlation_of_differences,
        cddfuse=_total(statistics.correlation_of_differences),
    ),
    "PSNR": Metric(
        "peak signal-to-noise ratio",
        True,
        statistics.peak_ratios,
        statistics.peak_ratio,
        statistics.peak_ratio_own,
    ),
    "MSE": Metric("mean squared error", False, statistics.squared_error, cddfuse=_total(statistics.squared_error, 0.5)),
    "SSIM": Metric("structural similarity", True, structure.similarity, cddfuse=_total(structure.similarity)),
    "VIF": Metric("visual information fidelity", True, fidelity.fidelity, cddfuse=_total(fidelity.fidelity)),
    "Qabf": Metric(
        "edge transfer", True, edges.edge_transfers, edges.edge_transfer, cddfuse=edges.edge_transfer_evaluator
    ),
}


def _fused_batch(fused: Tensor, sources: Sources) -> Batch:
    check_images("fused", fused)
    pixels = sources.pixels
    if (len(fused), *fused.shape[2:]) != (len(pixels), *pixels.shape[2:]) or fused.device != pixels.device:
        raise ValueError(
            f"fused is {tuple(fused.shape)} on {fused.device}, its sources are "
            f"{(len(pixels), 1, *pixels.shape[2:])} on {pixels.device}; give one fused image for each pair."
        )
    return Batch(fused * 255)


def _selected(names: Sequence[str] | None, known: Sequence[str], what: str) -> Sequence[str]:
    if names is None:
        return known
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"{what} {unknown[0]!r} is not known; choose among {', '.join(known)}.")
    return names


def evaluate(
    fused: Tensor, sources: Sources, names: Sequence[str] | None = None, convention: str = "fusiongym"
) -> dict[str, Tensor]:
    """One value per fused image and metric.

    Args:
        fused: Fused images, (N, 1, H, W) float in [0, 1].
        sources: Their sources.
        names: Metrics of `METRICS`; None takes all that the convention has.
        convention: "fusiongym", or "cddfuse" for the numbers of the public evaluator (sums over the two sources).

    Returns:
        Values, (N,), by name, in the order of the names.

    Raises:
        ValueError: If a name or the convention is unknown, or the images do not fit.
    """
    _selected([convention], CONVENTIONS, "convention")
    batch = _fused_batch(fused, sources)
    if convention == "fusiongym":
        chosen = _selected(names, tuple(METRICS), "metric")
        return {name: METRICS[name].evaluate(batch, sources) for name in chosen}
    offered = {name: metric.cddfuse for name, metric in METRICS.items() if metric.cddfuse is not None}
    chosen = _selected(names, tuple(offered), "metric")
    levels, source_levels = batch.of(quantised), sources.of(quantised)
    return {name: offered[name](levels, source_levels) for name in chosen}


def evaluate_per_source(fused: Tensor, sources: Sources, names: Sequence[str] | None = None) -> dict[str, Tensor]:
    """The values in the own convention, separately for each source where a metric relates to the sources.

    Args:
        fused: Fused images, (N, 1, H, W) float in [0, 1].
        sources: Their sources.
        names: Metrics of `METRICS`; None takes all.

    Returns:
        By name: (N, 2), infrared and visible, or (N,) where a metric is of the fused image alone.

    Raises:
        ValueError: If a name is unknown, or the images do not fit.
    """
    batch = _fused_batch(fused, sources)
    chosen = _selected(names, tuple(METRICS), "metric")
    return {name: METRICS[name].values(batch, sources) for name in chosen}
