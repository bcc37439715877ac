"""Evaluating fused images against their sources."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from fusion_gym.metrics import amplification, invention
from fusion_gym.metrics.batch import Batch, Sources, check_images, quantised
from fusion_gym.metrics.table import METRICS, Measure
from fusion_gym.modes import settled

CONVENTIONS = ("fusiongym", "cddfuse")


def available(convention: str = "fusiongym") -> tuple[str, ...]:
    """Names of the metrics that a convention has.

    Raises:
        ValueError: If the convention is unknown.
    """
    if convention not in CONVENTIONS:
        raise ValueError(f"There is no convention {convention!r}; choose among {', '.join(CONVENTIONS)}.")
    if convention == "cddfuse":
        return tuple(name for name, metric in METRICS.items() if metric.cddfuse is not None)
    return tuple(name for name, metric in METRICS.items() if metric.unasked)


def check_names(names: Iterable[str], convention: str = "fusiongym") -> None:
    """Checks that a convention has the metrics.

    Raises:
        ValueError: If it lacks one.
    """
    known = METRICS if convention == "fusiongym" else available(convention)
    for name in names:
        if name not in known:
            where = f" in the convention {convention!r}" if name in METRICS else ""
            raise ValueError(f"There is no metric {name!r}{where}; choose among {', '.join(known)}.")


def _check(fused: Tensor, sources: Sources, names: Sequence[str]) -> None:
    check_images("fused", fused)
    pixels = sources.pixels
    if (len(fused), *fused.shape[2:]) != (len(pixels), *pixels.shape[2:]) or fused.device != pixels.device:
        raise ValueError(
            f"fused is {tuple(fused.shape)} on {fused.device}, its sources are "
            f"{(len(pixels), 1, *pixels.shape[2:])} on {pixels.device}; give one fused image for each pair."
        )
    check_size(fused, names)


def check_size(fused: Tensor, names: Iterable[str]) -> None:
    """Checks that images, (N, 1, H, W), are large enough for metrics.

    Raises:
        ValueError: If they are not.
    """
    side = min(fused.shape[2:])
    for name in names:
        if side < METRICS[name].min_side:
            least = METRICS[name].min_side
            raise ValueError(
                f"{name} needs images of at least {least}x{least} pixels, these are {fused.shape[3]}x{fused.shape[2]}; "
                f"leave {name} out or give larger images."
            )


def _values(
    fused: Tensor, sources: Sources, measures: Mapping[str, Measure | None], levels: bool = False
) -> dict[str, Tensor]:
    """Calls measures on fused images; without a gradient, in the mode that costs torch the least."""
    tracked = torch.is_grad_enabled() and fused.requires_grad
    with nullcontext() if tracked else torch.inference_mode():
        images: Batch = Batch(fused * 255)
        known: Batch = sources
        if levels:
            images, known = images.of(quantised), sources.of(quantised)
        values = {name: measure(images, known) for name, measure in measures.items() if measure is not None}
    return values if tracked else {name: value.clone() for name, value in values.items()}  # ordinary tensors again


@settled()
def evaluate(
    fused: Tensor, sources: Sources, names: Sequence[str] | None = None, convention: str = "fusiongym"
) -> dict[str, Tensor]:
    """One value per fused image and metric.

    Values are differentiable in the fused images, save those that are defined on 8-bit levels (EN, CE, MI, NMI, FMI,
    and all of the "cddfuse" convention) and the share of invented structure, which counts pixels.

    Args:
        fused: Fused images, (N, 1, H, W) float in [0, 1].
        sources: Their sources.
        names: Metrics of `METRICS`; None takes all that the convention has.
        convention: "fusiongym" as documented in `METRICS`; or "cddfuse", the numbers of the public evaluator of
            CDDFuse, whose SSIM, VIF, MI and SCD are sums over the two sources and whose MI is in nats.

    Returns:
        Values, (N,), by name, in the order of the names. They are finite where the images are.

    Raises:
        ValueError: If a name or the convention is unknown, or the images do not fit or are too small for a metric.
    """
    chosen = available(convention) if names is None else tuple(names)
    check_names(chosen, convention)
    _check(fused, sources, chosen)
    if convention == "cddfuse":
        return _values(fused, sources, {name: METRICS[name].cddfuse for name in chosen}, levels=True)
    return _values(fused, sources, {name: METRICS[name].evaluate for name in chosen})


@settled()
def evaluate_per_source(fused: Tensor, sources: Sources, names: Sequence[str] | None = None) -> dict[str, Tensor]:
    """The values in the own convention, separately for each source where a metric relates to the sources.

    Args:
        fused: Fused images, (N, 1, H, W) float in [0, 1].
        sources: Their sources.
        names: Metrics of `METRICS`; None takes all that the own convention has.

    Returns:
        By name: (N, 2), infrared and visible, or (N,) where a metric is of the fused image alone.

    Raises:
        ValueError: If a name is unknown, or the images do not fit or are too small for a metric.
    """
    chosen = available() if names is None else tuple(names)
    check_names(chosen)
    _check(fused, sources, chosen)
    return _values(fused, sources, {name: METRICS[name].values for name in chosen})


def invented_structure(fused: Tensor, ir: Tensor, vi: Tensor) -> Tensor:
    """Share of the pixels whose coarse structure is in neither source: the metric "invented", less is better.

    Args:
        fused: Fused images, (N, 1, H, W) float in [0, 1], of any size.
        ir: Infrared, the same shape and range.
        vi: Visible luminance, the same shape and range.

    Returns:
        Shares, (N,), from 0 to 1; without a gradient.

    Raises:
        ValueError: If the images do not fit.
    """
    return evaluate(fused, Sources(ir, vi), ("invented",))["invented"]


@settled()
def invented_excess(fused: Tensor, sources: Sources) -> Tensor:
    """By how much coarse structure is invented, to be trained by: the differentiable companion of "invented".

    The mean over the pixels of the part of |∇F| beyond 0.8 times the bound above which structure counts as invented,
    relative to that bound; ∇ as in `METRICS`.

    Args:
        fused: Fused images, (N, 1, H, W) float in [0, 1]; differentiable.
        sources: Their sources.

    Returns:
        (N,), 0 where nothing is near the bound.

    Raises:
        ValueError: If the images do not fit.
    """
    _check(fused, sources, ())
    return _values(fused, sources, {"excess": invention.excess})["excess"]


@settled()
def amplified_excess(fused: Tensor, sources: Sources) -> Tensor:
    """By how much fine detail is amplified, to be trained by: the differentiable companion of "amplified".

    The mean over the pixels of the part of the detail's strength beyond 0.9 times the bound above which it counts as
    amplified, relative to that strength; detail as in `METRICS`.

    Args:
        fused: Fused images, (N, 1, H, W) float in [0, 1]; differentiable.
        sources: Their sources.

    Returns:
        (N,), 0 where nothing is near the bound.

    Raises:
        ValueError: If the images do not fit.
    """
    _check(fused, sources, ())
    return _values(fused, sources, {"excess": amplification.excess})["excess"]
