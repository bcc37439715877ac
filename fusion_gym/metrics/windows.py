"""Windows that slide over images: separable, as products with banded matrices, which are fast on any device."""

from __future__ import annotations

import math
from functools import cache, lru_cache

import torch
from torch import Tensor

BLOCK = 24  # places of the window in one product: wide enough for a fast product, narrow enough for few zeros


@cache
def gaussian(size: int, sigma: float) -> tuple[float, ...]:
    """Weights of a Gaussian window in one dimension; they sum to 1."""
    weights = [math.exp(-((i - (size - 1) / 2) ** 2) / (2 * sigma**2)) for i in range(size)]
    return tuple(weight / sum(weights) for weight in weights)


def box(size: int) -> tuple[float, ...]:
    """Weights of a uniform window in one dimension."""
    return (1 / size,) * size


@lru_cache(maxsize=256)
def _band(places: int, weights: tuple[float, ...], stride: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The matrix, (places, pixels), that has the window in every row, each ``stride`` further to the right."""
    matrix = torch.zeros(places, (places - 1) * stride + len(weights), dtype=torch.float64)
    for row in range(places):
        matrix[row, row * stride : row * stride + len(weights)] = torch.tensor(weights, dtype=torch.float64)
    return matrix.to(dtype).to(device)


def _slide_down(images: Tensor, weights: tuple[float, ...], stride: int) -> Tensor:
    places = (images.shape[-2] - len(weights)) // stride + 1
    block = -(-places // -(-places // BLOCK))  # blocks of nearly equal size
    parts = []
    for start in range(0, places, block):
        band = _band(min(block, places - start), weights, stride, images.dtype, images.device)
        parts.append(band @ images.narrow(-2, start * stride, band.shape[1]))
    return torch.cat(parts, dim=-2) if len(parts) > 1 else parts[0]


def slide(images: Tensor, weights: tuple[float, ...], stride: int = 1) -> Tensor:
    """Weighted means over all windows that lie inside the images.

    Args:
        images: (N, C, H, W), at least as large as the window.
        weights: The window in one dimension, of length K; in two it is the outer product with itself.
        stride: Keeps every ``stride``-th place, from the first one.

    Returns:
        (N, C, (H - K) // stride + 1, (W - K) // stride + 1).
    """
    return _slide_down(_slide_down(images, weights, stride).mT, weights, stride).mT
