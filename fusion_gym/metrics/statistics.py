"""Metrics from sums over all pixels: contrast, correlation and error."""

from __future__ import annotations

from torch import Tensor

from fusion_gym.metrics.batch import Batch, centred, root

FLAT = 1e-6  # a variance below this (a standard deviation of 0.001 levels) counts as that of a constant image
PSNR_LIMIT = 100.0


def variance(batch: Batch) -> Tensor:
    """Variance of each image over its pixels, (N, C)."""
    return batch.of(centred).square().mean((-2, -1))


def standard_deviation(fused: Batch, sources: Batch) -> Tensor:
    """SD, (N,)."""
    return root(fused.of(variance)[:, 0])


def _quotient(covariance: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Correlation from a covariance and two variances."""
    return covariance * (first.clamp_min(FLAT) * second.clamp_min(FLAT)).rsqrt()


def correlation(fused: Batch, sources: Batch) -> Tensor:
    """CC for each source, (N, 2)."""
    covariance = (fused.of(centred) * sources.of(centred)).mean((-2, -1))
    return _quotient(covariance, fused.of(variance), sources.of(variance))


def correlation_of_differences(fused: Batch, sources: Batch) -> Tensor:
    """SCD for each source, (N, 2): how the fused image without the other source correlates with this one."""
    source = sources.of(centred)
    rest = fused.of(centred) - source.flip(1)
    return _quotient((rest * source).mean((-2, -1)), rest.square().mean((-2, -1)), sources.of(variance))


def squared_error(fused: Batch, sources: Batch) -> Tensor:
    """MSE for each source, (N, 2)."""
    return (fused.pixels - sources.pixels).square().mean((-2, -1))


def _decibels(peak: float | Tensor, error: Tensor) -> Tensor:
    """PSNR, within ± `PSNR_LIMIT`."""
    limit = 10 ** (PSNR_LIMIT / 10)
    return 10 * (peak**2 / error.clamp_min(255**2 / limit)).clamp_min(1 / limit).log10()


def peak_ratios(fused: Batch, sources: Batch) -> Tensor:
    """PSNR for each source, (N, 2)."""
    return _decibels(255.0, fused.of(squared_error, sources))


def peak_ratio(fused: Batch, sources: Batch) -> Tensor:
    """PSNR from the mean error to both sources, (N,)."""
    return _decibels(255.0, fused.of(squared_error, sources).mean(1))


def peak_ratio_evaluator(fused: Batch, sources: Batch) -> Tensor:
    """PSNR whose peak is the fused image's own maximum, (N,)."""
    return _decibels(fused.pixels.amax((1, 2, 3)), fused.of(squared_error, sources).mean(1))
