"""Amplified detail: grain, grids and rims that are stronger than anything in the sources, at the finest scale."""

from __future__ import annotations

from torch import Tensor

from fusion_gym.metrics.batch import Batch, centred
from fusion_gym.metrics.invention import smoothed

FINE, AROUND = 1.0, 3.0  # pixels, sigmas: of what detail is finer than, and of the neighbourhood it is measured in
FACTOR = 1.5  # how much stronger than in both sources it must be
FLOOR = 3.0  # levels, below which nothing is seen


def detail(batch: Batch) -> Tensor:
    """Mean square of the fine detail around each pixel, levels squared, (N, C, H, W)."""
    images = batch.of(centred)
    return smoothed((images - smoothed(images, sigma=FINE)).square(), sigma=AROUND)


def bound(sources: Batch) -> Tensor:
    """The mean square above which detail is amplified, (N, 1, H, W)."""
    return (FACTOR**2 * sources.of(detail).amax(1, keepdim=True)).clamp_min_(FLOOR**2)


def amplified(fused: Batch, sources: Batch) -> Tensor:
    """Share of the pixels whose detail is amplified, (N,)."""
    limit = sources.of(bound)
    return (fused.of(detail).detach() > limit).to(limit.dtype).mean((1, 2, 3))
