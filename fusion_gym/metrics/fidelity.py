"""VIF: visual information fidelity in the pixel domain, over four scales."""

from __future__ import annotations

import torch
from torch import Tensor

from fusion_gym.metrics.batch import Batch, centred, product
from fusion_gym.metrics.windows import gaussian, slide

SIZES = (17, 9, 5, 3)  # the window's side at each scale; its sigma is a fifth of it
NOISE = 2.0  # variance of the visual noise on the scale from 0 to 255
_EPSILON = 1e-10
Window = tuple[float, ...]


def _smaller(batch: Batch, window: Window) -> Batch:
    """The images at the next scale: smoothed by its window and halved."""
    return Batch(slide(batch.of(centred), window, stride=2))


def _moments(batch: Batch, window: Window) -> tuple[Tensor, Tensor]:
    """Local means and variances of the centred images."""
    return _mean_and_variance(batch.of(centred), window)


def _source_moments(batch: Batch, window: Window) -> tuple[Tensor, Tensor]:
    """As `_moments`, but computed in float64: the quotient by a small variance magnifies its rounding."""
    mean, variance = _mean_and_variance(batch.of(centred).double(), window)
    return mean.to(batch.pixels.dtype), variance.to(batch.pixels.dtype)


def _mean_and_variance(x: Tensor, window: Window) -> tuple[Tensor, Tensor]:
    mean = slide(x, window)
    return mean, (slide(x * x, window) - mean * mean).clamp_min(0)


def _gain(batch: Batch, window: Window) -> Tensor:
    """One over the sources' local variance, 0 where there is none."""
    variance = batch.of(_source_moments, window)[1]
    return torch.where(variance < _EPSILON, 0.0, 1 / (variance + _EPSILON))


def _capacity(batch: Batch, window: Window) -> Tensor:
    """One over the local variance with the visual noise."""
    return 1 / (batch.of(_moments, window)[1] + NOISE)


def _information(batch: Batch, window: Window) -> Tensor:
    """What the eye can learn from the images themselves, (N, C), in nats times two."""
    return (batch.of(_source_moments, window)[1] / NOISE).log1p().sum((-2, -1))


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
        mean, variance = fused.of(_moments, window)
        covariance = torch.addcmul(
            slide(fused.of(product, sources), window), mean, sources.of(_source_moments, window)[0], value=-1
        ).clamp_min(0)
        capacity = fused.of(_capacity, window)
        explained = covariance * covariance * sources.of(_gain, window) * capacity
        explained = torch.minimum(explained, variance * capacity)  # no more than all of it, but for rounding
        kept = kept - (-explained).log1p().sum((-2, -1))
        information = information + sources.of(_information, window)
    return torch.where(information > 0, kept / information.clamp_min(_EPSILON), 1.0)
