"""Windows that slide over images, and the moments in them."""

from __future__ import annotations

import math
from functools import cache, lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from fusion_gym.metrics.batch import ordinary

Window = tuple[float, ...]  # weights in one dimension; in two, a window is their outer product
LARGE = 2**16  # pixels from which on tiles are convolved
TILE = 80  # most places of a window along the side of a tile
BLOCK = 40  # places of the window in one product: wide enough for a fast product, narrow enough for few zeros


@cache
def gaussian(size: int, sigma: float) -> Window:
    """Weights of a Gaussian window in one dimension; they sum to 1."""
    weights = [math.exp(-((i - (size - 1) / 2) ** 2) / (2 * sigma**2)) for i in range(size)]
    return tuple(weight / sum(weights) for weight in weights)


def box(size: int) -> Window:
    """Weights of a uniform window in one dimension."""
    return (1 / size,) * size


def _sums(x: Tensor, size: int, axis: int) -> Tensor:
    """Sums of ``size`` neighbours along an axis, from sums of 2, 4, 8, ... of them."""
    places = x.shape[axis] - size + 1
    width, start = 1, 0
    total: Tensor | None = None
    while width <= size:
        if size & width:
            part = x.narrow(axis, start, places)
            total = part if total is None else total + part
            start += width
        width *= 2
        if width <= size:
            x = x.narrow(axis, width // 2, x.shape[axis] - width // 2) + x.narrow(axis, 0, x.shape[axis] - width // 2)
    assert total is not None
    return total


@lru_cache(maxsize=256)
def _band(places: int, weights: Window, stride: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The matrix, (places, pixels), that has the window in every row, each ``stride`` further to the right."""
    with ordinary():
        matrix = torch.zeros(places, (places - 1) * stride + len(weights), dtype=torch.float64)
        for row in range(places):
            matrix[row, row * stride : row * stride + len(weights)] = torch.tensor(weights, dtype=torch.float64)
        return matrix.to(dtype).to(device)


@lru_cache(maxsize=64)
def _taps(weights: Window) -> Tensor:
    with ordinary():
        return torch.tensor(weights)


def _convolves(images: Tensor) -> bool:
    """Whether the processor's convolution of each channel by itself is at hand, and worth its fixed cost.

    It is oneDNN's, for float32; elsewhere products with banded matrices are fast and exact.
    """
    fits = images.dtype == torch.float32 and images.device.type == "cpu" and torch.backends.mkldnn.is_available()
    return fits and images.numel() // images.shape[1] >= LARGE


def _slide_down(images: Tensor, weights: Window, stride: int) -> Tensor:
    places = (images.shape[1] - len(weights)) // stride + 1
    block = -(-places // -(-places // BLOCK))  # blocks of nearly equal size
    parts = []
    for start in range(0, places, block):
        band = _band(min(block, places - start), weights, stride, images.dtype, images.device)
        parts.append(torch.bmm(band.expand(len(images), -1, -1), images.narrow(1, start * stride, band.shape[1])))
    return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]


def slide(images: Tensor, weights: Window, stride: int = 1) -> Tensor:
    """Weighted means over all windows that lie inside the images.

    Args:
        images: (N, C, H, W), at least as large as the window. Images in the channels-last format are convolved channel
            by channel.
        weights: The window, of length K.
        stride: Keeps every ``stride``-th place, from the first one.

    Returns:
        (N, C, (H - K) // stride + 1, (W - K) // stride + 1).
    """
    channels = images.shape[1]
    if not images.is_contiguous() and images.is_contiguous(memory_format=torch.channels_last):
        taps = _taps(weights).to(images).expand(channels, 1, 1, -1)
        across = F.conv2d(images, taps, stride=(1, stride), groups=channels)
        return F.conv2d(across, taps.mT, stride=(stride, 1), groups=channels)
    if stride == 1 and len(set(weights)) == 1:
        return _sums(_sums(images, len(weights), -1), len(weights), -2) / len(weights) ** 2
    down = _slide_down(images.flatten(0, 1), weights, stride)
    return _slide_down(down.mT, weights, stride).mT.unflatten(0, images.shape[:2])


def _cut(length: int, size: int) -> tuple[int, int]:
    """Into how many tiles an axis is cut, and the places of the window in each."""
    places = length - size + 1
    count = -(-places // TILE)
    return count, -(-places // count)


def tiles(images: Tensor, size: int) -> Tensor:
    """Cuts images into tiles, each less its mean, such that each place of a window lies in one tile.

    The moments of tiles lose less to rounding than those of images, whose mean may be far from a pixel's
    neighbourhood, and many small images convolve faster than a few large ones.

    Args:
        images: (N, C, H, W).
        size: Side of the window.

    Returns:
        (C, N · tiles of an image, h, w), in the memory format that `slide` is fastest in. The last tiles may be
        filled up: see `inside`.
    """
    convolved = _convolves(images)
    (rows, high), (columns, wide) = (_cut(length, size) for length in images.shape[-2:])
    missing = [
        count * places + size - 1 - length
        for count, places, length in ((columns, wide, images.shape[-1]), (rows, high, images.shape[-2]))
    ]
    if any(missing):
        images = F.pad(images, (0, missing[0], 0, missing[1]), mode="replicate")
    cut = images.unfold(2, high + size - 1, high).unfold(3, wide + size - 1, wide).transpose(0, 1).flatten(1, 3)
    cut = cut.contiguous(memory_format=torch.channels_last if convolved else torch.contiguous_format)
    return cut - cut.detach().mean((-2, -1), keepdim=True)


def inside(images: Tensor, size: int) -> Tensor:
    """Where the tiles' places are places of the window in the images: 1 there, 0 beyond; (1, all tiles, h, w)."""
    (rows, high), (columns, wide) = (_cut(length, size) for length in images.shape[-2:])
    mask = images.new_zeros(rows * high, columns * wide)
    mask[: images.shape[-2] - size + 1, : images.shape[-1] - size + 1] = 1
    mask = mask.unfold(0, high, high).unfold(1, wide, wide).flatten(0, 1)
    return mask.repeat(len(images), 1, 1)[None]


def moments(images: Tensor, window: Window) -> tuple[Tensor, Tensor]:
    """Local means and variances, (N, C, h, w) each, of images (N, C, H, W) whose mean is about 0."""
    mean = slide(images, window)
    return mean, (slide(images * images, window) - mean * mean).clamp_min_(0)
