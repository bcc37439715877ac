"""SSIM and MS-SSIM: structural similarity over local windows, at one scale and at five."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fusion_gym.metrics.batch import Batch, centred, means
from fusion_gym.metrics.windows import Window, box, gaussian, moments, slide

WINDOW = 7
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
SCALE_WINDOW = 11
_K1, _K2 = 0.01, 0.03
_SAMPLE = WINDOW**2 / (WINDOW**2 - 1)  # the divisor of the covariance is the number of pixels minus one


def _source_terms(sources: Batch, window: Window, c1: float, c2: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Local means of the centred sources and of the sources, and what they add to the two denominators."""
    offset, variance = moments(sources.of(centred), window)
    mean = offset + sources.of(means)
    return offset, mean, mean * mean + c1, variance + c2


def _terms(fused: Batch, sources: Batch, window: Window, c1: float, c2: float) -> tuple[Tensor, ...]:
    """Numerators and denominators, luminance first, of half the two quotients at each place."""
    source_offset, source_mean, square, spread = sources.of(_source_terms, window, c1, c2)
    offset, variance = moments(fused.of(centred), window)
    covariance = slide(fused.of(centred) * sources.of(centred), window).addcmul_(offset, source_offset, value=-1)
    mean = offset + fused.of(means)
    return (mean * source_mean).add_(c1 / 2), square + mean * mean, covariance.add_(c2 / 2), spread + variance


def similarity(fused: Batch, sources: Batch, data_range: float = 255.0) -> Tensor:
    """SSIM to each source, (N, 2).

    Args:
        fused: Fused images.
        sources: Their sources.
        data_range: Scales the constants that steady the quotients; 255 is the range of the values.
    """
    # The divisor of the sample's covariances is taken out of the second quotient: it remains beside c2.
    c1, c2 = (_K1 * data_range) ** 2, (_K2 * data_range) ** 2 / _SAMPLE
    products, squares, covariance, variances = _terms(fused, sources, box(WINDOW), c1, c2)
    return 4 * ((products * covariance) / (squares * variances)).mean((-2, -1))


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
        mean = quality.mean((-2, -1))
        # A negative similarity counts as 0; the floor keeps the gradient of the power finite.
        result = result * torch.where(mean > 0, mean.clamp_min(1e-12) ** weight, 0.0)
    return result
