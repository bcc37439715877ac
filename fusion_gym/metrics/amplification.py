"""Amplified detail: grain, grids and rims that are stronger than anything in the sources, at the finest scale."""

from __future__ import annotations

from torch import Tensor

from fusion_gym.metrics.batch import Batch, centred, root
from fusion_gym.metrics.invention import smoothed

FINE, AROUND = 1.0, 3.0  # pixels, sigmas: of what detail is finer than, and of the neighbourhood it is measured in
FACTOR = 1.5  # how much stronger than in both sources it must be
FLOOR = 3.0  # levels, below which nothing is seen
MARGIN = 0.9  # of the bound, as an amplitude: where `excess` begins


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


def excess(fused: Batch, sources: Batch) -> Tensor:
    """What share of the detail's amplitude is beyond the bound, mean over the pixels, (N,): to be trained by.

    A share, for a single line of checks at the border can be twenty times as strong as its bound.
    """
    ratio = root(fused.of(detail) / sources.of(bound))
    return (1 - MARGIN / ratio.clamp_min(MARGIN)).mean((1, 2, 3))
