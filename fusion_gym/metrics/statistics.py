"""Metrics from sums over all pixels: contrast, sharpness, correlation and error."""

from __future__ import annotations

import torch
from torch import Tensor

from fusion_gym.metrics.batch import Batch

FLAT = 1e-6  # a variance below this (a standard deviation of 0.001 levels) counts as that of a constant image
PSNR_LIMIT = 100.0


def root(values: Tensor) -> Tensor:
    """Square root of values from 0 on, whose gradient at 0 is 0 instead of infinite."""
    if not (torch.is_grad_enabled() and values.requires_grad):
        return values.sqrt()
    positive = values > 0
    return torch.where(positive, torch.where(positive, values, 1.0).sqrt(), 0.0)


def _over_pixels(values: Tensor) -> Tensor:
    """Mean over the pixels of each image; that of none is 0."""
    return values.mean((-2, -1)) if values.shape[-1] and values.shape[-2] else values.sum((-2, -1))


def centred(batch: Batch) -> Tensor:
    """The images minus their means."""
    return batch.pixels - batch.pixels.mean((-2, -1), keepdim=True)


def variance(batch: Batch) -> Tensor:
    """Variance of each image over its pixels, (N, C)."""
    return batch.of(centred).square().mean((-2, -1))


def standard_deviation(fused: Batch, sources: Batch) -> Tensor:
    """SD, (N,)."""
    return root(fused.of(variance)[:, 0])


def spatial_frequency(fused: Batch, sources: Batch) -> Tensor:
    """SF, (N,)."""
    x = fused.pixels
    across, down = x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]
    return root(_over_pixels(across.square()) + _over_pixels(down.square()))[:, 0]


def average_gradient(fused: Batch, sources: Batch) -> Tensor:
    """AG, (N,)."""
    down, across = (_differences(fused.pixels, axis) for axis in (-2, -1))
    return root((across.square() + down.square()) / 2).mean((-3, -2, -1))


def _differences(x: Tensor, axis: int) -> Tensor:
    """Central differences along an axis, one-sided at the border; 0 where the axis has one pixel."""
    if x.shape[axis] == 1:
        return torch.zeros_like(x)
    return torch.gradient(x, dim=axis)[0]


def correlation(fused: Batch, sources: Batch) -> Tensor:
    """CC for each source, (N, 2)."""
    covariance = (fused.of(centred) * sources.of(centred)).mean((-2, -1))
    return covariance * (fused.of(variance).clamp_min(FLAT) * sources.of(variance).clamp_min(FLAT)).rsqrt()


def correlation_of_differences(fused: Batch, sources: Batch) -> Tensor:
    """SCD for each source, (N, 2): how the fused image without the other source correlates with this one."""
    rest = fused.of(centred) - sources.of(centred).flip(1)
    covariance = (rest * sources.of(centred)).mean((-2, -1))
    spread = rest.square().mean((-2, -1))
    return covariance * (spread.clamp_min(FLAT) * sources.of(variance).clamp_min(FLAT)).rsqrt()


def squared_error(fused: Batch, sources: Batch) -> Tensor:
    """MSE for each source, (N, 2)."""
    return (fused.pixels - sources.pixels).square().mean((-2, -1))


def _decibels(ratio: Tensor) -> Tensor:
    limit = 10 ** (PSNR_LIMIT / 10)
    return 10 * ratio.clamp(1 / limit, limit).log10()


def peak_ratios(fused: Batch, sources: Batch) -> Tensor:
    """PSNR for each source, (N, 2)."""
    return _decibels(255**2 / squared_error(fused, sources))


def peak_ratio(fused: Batch, sources: Batch) -> Tensor:
    """PSNR from the mean error to both sources, (N,)."""
    return _decibels(255**2 / squared_error(fused, sources).mean(1))


def peak_ratio_own(fused: Batch, sources: Batch) -> Tensor:
    """PSNR whose peak is the fused image's own maximum, (N,)."""
    return _decibels(fused.pixels.amax((1, 2, 3)).square() / squared_error(fused, sources).mean(1))
