"""SSIM and MS-SSIM: structural similarity over local windows, at one scale and at five."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fusion_gym.metrics.batch import Batch
from fusion_gym.metrics.windows import Window, box, gaussian, joint_moments, moments, tiles, totals

WINDOW = 7
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
SCALE_WINDOW = 11
_K1, _K2 = 0.01, 0.03
_SAMPLE = WINDOW**2 / (WINDOW**2 - 1)  # the divisor of the covariance is the number of pixels minus one


def constants(data_range: float) -> tuple[float, float]:
    """What steadies the two quotients of SSIM; the second one for variances divided by the number of pixels.

    The divisor of the sample's covariances is taken out of the second quotient: it remains beside its constant.
    """
    return (_K1 * data_range) ** 2, (_K2 * data_range) ** 2 / _SAMPLE


def _source_terms(sources: Batch, window: Window, c1: float, c2: float) -> tuple[Tensor, ...]:
    """Local means of the sources without and with the means of the tiles, and what they add to the denominators."""
    offset, variance = moments(sources, window)
    mean = offset + tiles(sources, len(window))[1]
    return offset, mean, (mean * mean).add_(c1), variance.add_(c2)


def _terms(fused: Batch, sources: Batch, window: Window, c1: float, c2: float) -> tuple[Tensor, ...]:
    """Numerators and denominators, luminance first, of half the two quotients at each place of the tiles."""
    source_offset, source_mean, square, spread = sources.of(_source_terms, window, c1, c2)
    offset, variance, covariance = joint_moments(fused, sources, source_offset, window)
    mean = offset + tiles(fused, len(window))[1]
    return (
        (mean * source_mean).add_(c1 / 2),
        torch.addcmul(square, mean, mean),
        covariance.add_(c2 / 2),
        spread + variance,
    )


def _mean(values: Tensor, batch: Batch, size: int) -> Tensor:
    """Mean over the places of a window in each image, (N, 2)."""
    height, width = batch.pixels.shape[-2:]
    return totals(values, batch, size) / ((height - size + 1) * (width - size + 1))


def similarity(fused: Batch, sources: Batch, data_range: float = 255.0) -> Tensor:
    """SSIM to each source, (N, 2).

    Args:
        fused: Fused images.
        sources: Their sources.
        data_range: Scales the constants that steady the quotients; 255 is the range of the values.
    """
    c1, c2 = constants(data_range)
    products, squares, covariance, variances = _terms(fused, sources, box(WINDOW), c1, c2)
    return 4 * _mean(products.mul_(covariance).div_(squares.mul_(variances)), fused, WINDOW)


def similarity_range_2(fused: Batch, sources: Batch) -> Tensor:
    """SSIM with the data range 2, (N, 2); in float64, for its constants drown in the rounding of float32."""
    return similarity(fused.of(_double), sources.of(_double), 2.0).to(fused.pixels.dtype)


def _double(batch: Batch) -> Batch:
    return batch.like(batch.pixels.double())


def _halved(batch: Batch) -> Batch:
    return batch.like(F.avg_pool2d(batch.pixels, 2))


def multi_scale_similarity(fused: Batch, sources: Batch) -> Tensor:
    """MS-SSIM to each source, (N, 2)."""
    window = gaussian(SCALE_WINDOW, 1.5)
    c1, c2 = (_K1 * 255) ** 2, (_K2 * 255) ** 2
    result = torch.ones_like(sources.pixels[..., 0, 0])
    for scale, weight in enumerate(SCALE_WEIGHTS):
        if scale:
            fused, sources = fused.of(_halved), sources.of(_halved)
        products, squares, covariance, variances = _terms(fused, sources, window, c1, c2)
        quality = 2 * covariance / variances
        if scale == len(SCALE_WEIGHTS) - 1:
            quality = quality * (2 * products / squares)
        mean = _mean(quality, fused, SCALE_WINDOW)
        # A negative similarity counts as 0; the floor keeps the gradient of the power finite.
        result = result * torch.where(mean > 0, mean.clamp_min(1e-12) ** weight, 0.0)
    return result
