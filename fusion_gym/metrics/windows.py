"""Separable windows over the inside of images, as products with banded matrices."""

from __future__ import annotations

import math
from functools import cache, lru_cache

import torch
from torch import Tensor


@cache
def gaussian(size: int, sigma: float) -> tuple[float, ...]:
    """Weights of a Gaussian window in one dimension; they sum to 1."""
    weights = [math.exp(-((i - (size - 1) / 2) ** 2) / (2 * sigma**2)) for i in range(size)]
    return tuple(weight / sum(weights) for weight in weights)


def box(size: int) -> tuple[float, ...]:
    """Weights of a uniform window in one dimension."""
    return (1 / size,) * size


@lru_cache(maxsize=64)
def _band(length: int, weights: tuple[float, ...], stride: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The matrix, (length, outputs), that slides a window along an axis and keeps every ``stride``-th place."""
    starts = range(0, length - len(weights) + 1, stride)
    matrix = torch.zeros(length, len(starts), dtype=torch.float64)
    for column, start in enumerate(starts):
        matrix[start : start + len(weights), column] = torch.tensor(weights, dtype=torch.float64)
    return matrix.to(dtype).to(device)


def slide(images: Tensor, weights: tuple[float, ...], stride: int = 1) -> Tensor:
    """Weighted means over all windows that lie inside the images.

    Args:
        images: (N, C, H, W), at least as large as the window.
        weights: The window in one dimension, of length K; in two it is their outer product.
        stride: Keeps every ``stride``-th place, from the first one.

    Returns:
        (N, C, (H - K) // stride + 1, (W - K) // stride + 1).
    """
    height, width = images.shape[-2:]
    across = _band(width, weights, stride, images.dtype, images.device)
    down = _band(height, weights, stride, images.dtype, images.device)
    return down.T @ (images @ across)
