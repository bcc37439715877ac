"""Invented structure: halos, dark corners and blotches, at a scale that no other metric looks at."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from fusion_gym.metrics.batch import Batch, centred, ordinary, root
from fusion_gym.metrics.gradients import sobel
from fusion_gym.metrics.windows import gaussian

SIGMA = 8.0  # pixels
FACTOR = 3.0  # how much steeper than both sources a place must be
FLOOR = 0.75  # levels per pixel below which nothing is seen
MARGIN = 0.8  # of the bound: where `excess` begins, so that what is trained by it ends on the safe side
BLOCK = 64  # rows of the smoothing in one product: enough for a fast one, few enough to leave out the zeros


@lru_cache(maxsize=64)
def smoothing(length: int, dtype: torch.dtype, device: torch.device, sigma: float = SIGMA) -> Tensor:
    """The Gaussian along an axis as a matrix, (length, length); beyond its ends the axis is mirrored."""
    with ordinary():
        reach = int(4 * sigma)
        offsets = torch.arange(-reach, reach + 1)
        index = (torch.arange(length)[:, None] + offsets) % (2 * length)
        index = torch.minimum(index, 2 * length - 1 - index)
        weights = torch.tensor(gaussian(len(offsets), sigma), dtype=torch.float64).expand(length, -1)
        matrix = torch.zeros(length, length, dtype=torch.float64).scatter_add_(1, index, weights)
        return matrix.to(device, dtype)


def _smooth(x: Tensor, axis: int, transposed: bool, sigma: float) -> Tensor:
    length, reach = x.shape[axis], int(4 * sigma)
    matrix = smoothing(length, x.dtype, x.device, sigma)
    matrix = matrix.mT if transposed else matrix
    parts = []
    for start in range(0, length, BLOCK):
        end = min(start + BLOCK, length)
        low, high = max(0, start - reach), min(length, end + reach)
        block, part = matrix[start:end, low:high], x.narrow(axis, low, high - low)
        parts.append(block @ part if axis == -2 else part @ block.mT)
    return torch.cat(parts, axis) if len(parts) > 1 else parts[0]


def smoothed(x: Tensor, transposed: bool = False, sigma: float = SIGMA) -> Tensor:
    """Images without what is finer than sigma; beyond the border, mirrored. Or the transpose of this linear map."""
    return _smooth(_smooth(x, -2, transposed, sigma), -1, transposed, sigma)


def smooth(batch: Batch) -> Batch:
    """The images without their means and without what is finer than `SIGMA`; beyond the border, mirrored."""
    return batch.like(smoothed(batch.of(centred)))


def coarse_gradient(batch: Batch) -> Tensor:
    """Strength of the coarse gradient, levels per pixel, (N, C, H, W)."""
    across, down = sobel(batch.of(smooth), "replicate")
    return root(across.square().addcmul_(down, down)) / 8


def bound(sources: Batch) -> Tensor:
    """The coarse gradient above which structure is invented, (N, 1, H, W)."""
    return (FACTOR * sources.of(coarse_gradient).amax(1, keepdim=True)).clamp_min_(FLOOR)


def invented(fused: Batch, sources: Batch) -> Tensor:
    """Share of the pixels whose structure is invented, (N,)."""
    limit = sources.of(bound)
    return (fused.of(coarse_gradient).detach() > limit).to(limit.dtype).mean((1, 2, 3))


def excess(fused: Batch, sources: Batch) -> Tensor:
    """By how much structure is invented, in units of its bound, mean over the pixels, (N,): to be trained by.

    It begins at `MARGIN` of the bound and grows in proportion, so that its slope tells where less would do.
    """
    return (fused.of(coarse_gradient) / sources.of(bound) - MARGIN).relu().mean((1, 2, 3))
