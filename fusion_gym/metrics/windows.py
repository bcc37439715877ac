"""Windows that slide over images, and the moments in them; as products with banded matrices, fast on any device."""

from __future__ import annotations

import math
from functools import cache, lru_cache

import torch
from torch import Tensor

from fusion_gym.metrics.batch import Batch, centred, ordinary

Window = tuple[float, ...]  # weights in one dimension; in two, a window is their outer product
BLOCK = 24  # places of the window in one product: wide enough for a fast product, narrow enough for few zeros


@cache
def gaussian(size: int, sigma: float) -> Window:
    """Weights of a Gaussian window in one dimension; they sum to 1."""
    weights = [math.exp(-((i - (size - 1) / 2) ** 2) / (2 * sigma**2)) for i in range(size)]
    return tuple(weight / sum(weights) for weight in weights)


def box(size: int) -> Window:
    """Weights of a uniform window in one dimension."""
    return (1 / size,) * size


@lru_cache(maxsize=256)
def _band(places: int, weights: Window, stride: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The matrix, (places, pixels), that has the window in every row, each ``stride`` further to the right."""
    with ordinary():
        matrix = torch.zeros(places, (places - 1) * stride + len(weights), dtype=torch.float64)
        for row in range(places):
            matrix[row, row * stride : row * stride + len(weights)] = torch.tensor(weights, dtype=torch.float64)
        return matrix.to(dtype).to(device)


def _slide_down(images: Tensor, weights: Window, stride: int) -> Tensor:
    places = (images.shape[1] - len(weights)) // stride + 1
    block = -(-places // -(-places // BLOCK))  # blocks of nearly equal size
    parts = []
    for start in range(0, places, block):
        band = _band(min(block, places - start), weights, stride, images.dtype, images.device)
        parts.append(band.expand(len(images), -1, -1) @ images.narrow(1, start * stride, band.shape[1]))
    return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]


def slide(images: Tensor, weights: Window, stride: int = 1) -> Tensor:
    """Weighted means over all windows that lie inside the images.

    Args:
        images: (N, C, H, W), at least as large as the window.
        weights: The window, of length K.
        stride: Keeps every ``stride``-th place, from the first one.

    Returns:
        (N, C, (H - K) // stride + 1, (W - K) // stride + 1).
    """
    down = _slide_down(images.flatten(0, 1), weights, stride)
    return _slide_down(down.mT, weights, stride).mT.unflatten(0, images.shape[:2])


def moments(batch: Batch, window: Window, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
    """Local means of the centred images and local variances.

    Args:
        batch: The images.
        window: Weights of the window.
        dtype: What to compute in; None takes the images' dtype, which is the results' in any case.
    """
    x = batch.of(centred).to(dtype or batch.pixels.dtype)
    mean = slide(x, window)
    variance = (slide(x * x, window) - mean * mean).clamp_min(0)
    return mean.to(batch.pixels.dtype), variance.to(batch.pixels.dtype)


def covariances(fused: Batch, sources: Batch, window: Window, mean: Tensor, source_mean: Tensor) -> Tensor:
    """Local covariances of the fused images and their sources, (N, 2, h, w), from the means that `moments` gives."""
    return slide(fused.of(centred) * sources.of(centred), window).addcmul_(mean, source_mean, value=-1)
