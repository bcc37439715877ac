"""Qcv: errors that the eye can see, where the sources have edges."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fusion_gym.metrics.batch import Batch
from fusion_gym.metrics.edges import FLOOR, edges

REGION = 16  # side of the regions in pixels
SALIENCY = 5  # power of the edge strength that makes a region count


def contrast_sensitivity(height: int, width: int, like: Tensor) -> Tensor:
    """Mannos and Sakrison's filter on the frequencies of `torch.fft.rfft2`, (H, W // 2 + 1).

    A pixel is taken as a quarter of a cycle's sampling, as in the metric's public code: the highest frequency along
    an axis of n pixels is n / 8 cycles per degree.
    """
    options = {"dtype": like.dtype, "device": like.device}
    rows = torch.fft.fftfreq(height, 4 / height, **options)
    columns = torch.fft.rfftfreq(width, 4 / width, **options)
    radius = 0.144 * (rows[:, None].square() + columns.square()).sqrt()
    return 2.6 * (0.0192 + radius) * (-(radius**1.1)).exp()


def perceived(batch: Batch) -> Tensor:
    """The images as the eye weighs their frequencies, (N, C, H, W)."""
    height, width = batch.pixels.shape[-2:]
    spectrum = torch.fft.rfft2(batch.pixels) * contrast_sensitivity(height, width, batch.pixels)
    return torch.fft.irfft2(spectrum, s=(height, width))


def _region_means(images: Tensor) -> Tensor:
    """Means over the regions; those at the right and the lower border have the pixels that are left."""
    return F.avg_pool2d(images, REGION, ceil_mode=True, count_include_pad=False)


def saliency(sources: Batch) -> Tensor:
    """How much each region of each source counts, (N, 2, h, w)."""
    strength = sources.of(edges, "replicate", FLOOR)[0]
    pixels = F.avg_pool2d(F.pad(torch.ones_like(strength), _margins(strength)), REGION)
    return _region_means(strength**SALIENCY) * pixels


def _margins(images: Tensor) -> tuple[int, int, int, int]:
    return 0, -images.shape[-1] % REGION, 0, -images.shape[-2] % REGION


def visible_errors(fused: Batch, sources: Batch) -> Tensor:
    """Qcv for each source by itself, (N, 2)."""
    errors = _region_means((fused.of(perceived) - sources.of(perceived)).square())
    weights = sources.of(saliency)
    return (errors * weights).sum((-2, -1)) / weights.sum((-2, -1))


def visible_error(fused: Batch, sources: Batch) -> Tensor:
    """Qcv, (N,): both sources weighed together."""
    totals = sources.of(saliency).sum((-2, -1))
    return (fused.of(visible_errors, sources) * totals).sum(1) / totals.sum(1)
