"""Metrics from sums over all pixels: contrast, correlation and error."""

from __future__ import annotations

from torch import Tensor

from fusion_gym.metrics.batch import Batch, centred, means, root

FLAT = 1e-6  # a variance below this (a standard deviation of 0.001 levels) counts as that of a constant image
PSNR_LIMIT = 100.0


def _variances(batch: Batch) -> Tensor:
    """Variance of each image over its pixels, (N, C)."""
    return batch.of(centred).square().mean((-2, -1))


def _covariances(fused: Batch, sources: Batch) -> Tensor:
    """Covariance with each source, (N, 2)."""
    return (fused.of(centred) * sources.of(centred)).mean((-2, -1))


def _source_covariance(sources: Batch) -> Tensor:
    """Covariance of the two sources, (N, 1)."""
    return sources.of(centred).prod(1, keepdim=True).mean((-2, -1))


def _difference_variances(fused: Batch, sources: Batch) -> Tensor:
    """Variance of the difference from each source, (N, 2)."""
    return (fused.of(centred) - sources.of(centred)).square().mean((-2, -1))


def _correlation(covariance: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Correlation from a covariance and two variances."""
    return covariance * (first.clamp_min(FLAT) * second.clamp_min(FLAT)).rsqrt()


def standard_deviation(fused: Batch, sources: Batch) -> Tensor:
    """SD, (N,)."""
    return root(fused.of(_variances)[:, 0])


def correlation(fused: Batch, sources: Batch) -> Tensor:
    """CC for each source, (N, 2)."""
    return _correlation(fused.of(_covariances, sources), fused.of(_variances), sources.of(_variances))


def correlation_of_differences(fused: Batch, sources: Batch) -> Tensor:
    """SCD for each source, (N, 2): how the fused image without the other source correlates with this one."""
    covariance = fused.of(_covariances, sources) - sources.of(_source_covariance)
    return _correlation(covariance, fused.of(_difference_variances, sources).flip(1), sources.of(_variances))


def squared_error(fused: Batch, sources: Batch) -> Tensor:
    """MSE for each source, (N, 2): of the parts without the means, and of the means."""
    error = fused.of(_difference_variances, sources) + (fused.of(means) - sources.of(means)).square()
    return error.clamp_max(255.0**2)  # which the two parts can exceed by rounding, where black meets white


def _decibels(peak: float | Tensor, error: Tensor) -> Tensor:
    """PSNR, within ± `PSNR_LIMIT`."""
    limit = 10 ** (PSNR_LIMIT / 10)
    return 10 * (peak**2 / error.clamp_min(255**2 / limit)).clamp_min(1 / limit).log10()


def peak_ratios(fused: Batch, sources: Batch) -> Tensor:
    """PSNR for each source, (N, 2)."""
    return _decibels(255.0, squared_error(fused, sources))


def peak_ratio(fused: Batch, sources: Batch) -> Tensor:
    """PSNR from the mean error to both sources, (N,)."""
    return _decibels(255.0, squared_error(fused, sources).mean(1))


def peak_ratio_evaluator(fused: Batch, sources: Batch) -> Tensor:
    """PSNR whose peak is the fused image's own maximum, (N,)."""
    return _decibels(fused.pixels.amax((1, 2, 3)), squared_error(fused, sources).mean(1))
