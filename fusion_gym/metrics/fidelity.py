"""VIF: visual information fidelity in the pixel domain, over four scales."""

from __future__ import annotations

import torch
from torch import Tensor

from fusion_gym.metrics.batch import Batch, centred
from fusion_gym.metrics.windows import Window, gaussian, inside, moments, slide, tiles

SIZES = (17, 9, 5, 3)  # the window's side at each scale; its sigma is a fifth of it
NOISE = 2.0  # variance of the visual noise on the scale from 0 to 255
_EPSILON = 1e-10


def _smaller(batch: Batch, window: Window) -> Batch:
    """The images at the next scale: smoothed by its window and halved."""
    return batch.like(slide(batch.of(centred), window, stride=2))


def _sums(values: Tensor, images: int) -> Tensor:
    """Sums over the tiles of each image: (C, all tiles, h, w) to (N, C)."""
    return values.sum((-2, -1)).unflatten(1, (images, -1)).sum(2).T


def _source_terms(sources: Batch, window: Window) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The sources' tiles, their local means, one over their local variances (0 where there is none), the information.

    The information is (N, 2), the others are as `tiles` gives them.
    """
    x = tiles(sources.pixels, len(window))
    mean, variance = moments(x, window)
    variance = variance * inside(sources.pixels, len(window))
    gain = (variance + _EPSILON).reciprocal_().masked_fill_(variance < _EPSILON, 0.0)
    return x, mean, gain, _sums((variance / NOISE).log1p_(), len(sources.pixels))


def fidelity(fused: Batch, sources: Batch) -> Tensor:
    """VIF for each source as the reference, (N, 2).

    With v the fused image's variance, e the part of it that the source explains and n the noise, a place keeps
    log(1 + e / (v - e + n)), which is -log(1 - e / (v + n)).
    """
    kept = information = torch.zeros_like(sources.pixels[..., 0, 0])
    for scale, size in enumerate(SIZES):
        window = gaussian(size, size / 5)
        if scale:
            fused, sources = fused.of(_smaller, window), sources.of(_smaller, window)
        source, source_mean, gain, available = sources.of(_source_terms, window)
        x = tiles(fused.pixels, size)
        mean, variance = moments(x, window)
        covariance = slide(x * source, window).addcmul_(mean, source_mean, value=-1).clamp_min_(0)
        explained = covariance.square().mul_(gain)
        explained = torch.minimum(explained, variance)  # no more than all of it, but for rounding
        kept = kept - _sums((explained * (-1 / (variance + NOISE))).log1p_(), len(fused.pixels))
        information = information + available
    return torch.where(information > 0, kept / information.clamp_min(_EPSILON), 1.0)
