"""SSIM: structural similarity over local windows."""

from __future__ import annotations

from torch import Tensor

from fusion_gym.metrics.batch import Batch
from fusion_gym.metrics.windows import box, slide

WINDOW = 7
_SAMPLE = WINDOW**2 / (WINDOW**2 - 1)  # the covariance's divisor is the number of pixels minus one


def _shifted(batch: Batch) -> Tensor:
    """The images about the middle of the scale, where squares lose least in float32."""
    return batch.pixels - 127.5


def _moments(batch: Batch) -> tuple[Tensor, Tensor]:
    """Local means (of the shifted images) and local variances, (N, C, H-6, W-6) each."""
    x = batch.of(_shifted)
    mean = slide(x, box(WINDOW))
    return mean, (slide(x * x, box(WINDOW)) - mean * mean).clamp_min(0) * _SAMPLE


def similarity(fused: Batch, sources: Batch, data_range: float = 255.0) -> Tensor:
    """SSIM to each source, (N, 2).

    Args:
        fused: Fused images.
        sources: Their sources.
        data_range: Scales the constants that steady the quotients; 255 is the range of the values.
    """
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    mean, variance = fused.of(_moments)
    source_mean, source_variance = sources.of(_moments)
    product = slide(fused.of(_shifted) * sources.of(_shifted), box(WINDOW))
    covariance = (product - mean * source_mean) * _SAMPLE
    mean, source_mean = mean + 127.5, source_mean + 127.5
    luminance = (2 * mean * source_mean + c1) / (mean * mean + source_mean * source_mean + c1)
    contrast = (2 * covariance + c2) / (variance + source_variance + c2)
    return (luminance * contrast).mean((-2, -1))


def similarity_range_2(fused: Batch, sources: Batch) -> Tensor:
    """SSIM with the data range 2, (N, 2)."""
    return similarity(fused, sources, 2.0)
