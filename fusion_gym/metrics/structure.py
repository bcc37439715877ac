"""SSIM and MS-SSIM: structural similarity over local windows, at one scale and at five."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fusion_gym.metrics.batch import Batch, centred, means, product
from fusion_gym.metrics.windows import box, gaussian, slide

WINDOW = 7
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
SCALE_WINDOW = 11
_K1, _K2 = 0.01, 0.03
_SAMPLE = WINDOW**2 / (WINDOW**2 - 1)  # the divisor of the covariance is the number of pixels minus one

Window = tuple[float, ...]


def _moments(batch: Batch, window: Window) -> tuple[Tensor, Tensor, Tensor]:
    """Local means of the centred images and of the images, and local variances."""
    x = batch.of(centred)
    mean = slide(x, window)
    return mean, mean + batch.of(means), (slide(x * x, window) - mean * mean).clamp_min(0)


def _terms(fused: Batch, sources: Batch, window: Window, sample: float, data_range: float) -> tuple[Tensor, Tensor]:
    """The luminance term and the term of contrast and structure at each place."""
    c1, c2 = (_K1 * data_range) ** 2, (_K2 * data_range) ** 2
    offset, mean, variance = fused.of(_moments, window)
    source_offset, source_mean, source_variance = sources.of(_moments, window)
    covariance = torch.addcmul(slide(fused.of(product, sources), window), offset, source_offset, value=-1)
    luminance = (2 * mean * source_mean + c1) / (mean * mean + (source_mean * source_mean + c1))
    # The sample's divisor is taken out of both sides of the quotient.
    structure = (2 * covariance + c2 / sample) / (variance + (source_variance + c2 / sample))
    return luminance, structure


def similarity(fused: Batch, sources: Batch, data_range: float = 255.0) -> Tensor:
    """SSIM to each source, (N, 2).

    Args:
        fused: Fused images.
        sources: Their sources.
        data_range: Scales the constants that steady the quotients; 255 is the range of the values.
    """
    luminance, structure = _terms(fused, sources, box(WINDOW), _SAMPLE, data_range)
    return (luminance * structure).mean((-2, -1))


def similarity_range_2(fused: Batch, sources: Batch) -> Tensor:
    """SSIM with the data range 2, (N, 2); in float64, for its constants drown in the rounding of float32."""
    return similarity(fused.of(_double), sources.of(_double), 2.0).to(fused.pixels.dtype)


def _double(batch: Batch) -> Batch:
    return Batch(batch.pixels.double())


def _halved(batch: Batch) -> Batch:
    return Batch(F.avg_pool2d(batch.pixels, 2))


def multi_scale_similarity(fused: Batch, sources: Batch) -> Tensor:
    """MS-SSIM to each source, (N, 2)."""
    window = gaussian(SCALE_WINDOW, 1.5)
    result = torch.ones_like(sources.pixels[..., 0, 0])
    for scale, weight in enumerate(SCALE_WEIGHTS):
        if scale:
            fused, sources = fused.of(_halved), sources.of(_halved)
        luminance, structure = _terms(fused, sources, window, 1.0, 255.0)
        last = scale == len(SCALE_WEIGHTS) - 1
        mean = (luminance * structure if last else structure).mean((-2, -1))
        # A negative similarity counts as 0; the floor keeps the gradient of the power finite.
        result = result * torch.where(mean > 0, mean.clamp_min(1e-12) ** weight, 0.0)
    return result
