"""VIF: visual information fidelity in the pixel domain, over four scales."""

from __future__ import annotations

import torch
from torch import Tensor

from fusion_gym.metrics.batch import Batch
from fusion_gym.metrics.windows import gaussian, slide

SIZES = (17, 9, 5, 3)  # the window's side at each scale; its sigma is a fifth of it
NOISE = 2.0  # variance of the visual noise on the scale from 0 to 255
_EPSILON = 1e-10


def _window(scale: int) -> tuple[float, ...]:
    return gaussian(SIZES[scale], SIZES[scale] / 5)


def _scaled(batch: Batch, scale: int) -> Tensor:
    """The images at a scale: smoothed and halved from the one before."""
    if scale == 0:
        return batch.pixels - batch.pixels.detach().mean((-2, -1), keepdim=True)
    return slide(batch.of(_scaled, scale - 1), _window(scale), stride=2)


def _moments(batch: Batch, scale: int) -> tuple[Tensor, Tensor]:
    """Local means and variances at a scale."""
    x = batch.of(_scaled, scale)
    mean = slide(x, _window(scale))
    return mean, (slide(x * x, _window(scale)) - mean * mean).clamp_min(0)


def _inverse_variance(batch: Batch, scale: int) -> Tensor:
    """One over the local variance, 0 where there is none."""
    variance = batch.of(_moments, scale)[1]
    return torch.where(variance < _EPSILON, 0.0, 1 / (variance + _EPSILON))


def _information(batch: Batch) -> Tensor:
    """What the eye can learn from the images themselves, in nats times two, (N, C)."""
    return torch.stack(
        [(batch.of(_moments, scale)[1] / NOISE).log1p().sum((-2, -1)) for scale in range(len(SIZES))]
    ).sum(0)


def fidelity(fused: Batch, sources: Batch) -> Tensor:
    """VIF for each source as the reference, (N, 2)."""
    kept = torch.zeros_like(sources.of(_information))
    for scale in range(len(SIZES)):
        mean, variance = fused.of(_moments, scale)
        product = slide(fused.of(_scaled, scale) * sources.of(_scaled, scale), _window(scale))
        covariance = (product - mean * sources.of(_moments, scale)[0]).clamp_min(0)
        explained = covariance * covariance * sources.of(_inverse_variance, scale)
        unexplained = (variance - explained).clamp_min(_EPSILON)
        kept = kept + (explained / (unexplained + NOISE)).log1p().sum((-2, -1))
    information = sources.of(_information)
    return torch.where(information > 0, kept / information.clamp_min(_EPSILON), 1.0)
