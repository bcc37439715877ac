"""Windows that slide over images, and the moments in them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from fusion_gym.metrics.batch import Batch, centred, means, ordinary

Window = tuple[float, ...]  # weights in one dimension; in two, a window is their outer product
Cut = tuple[int, int, int]  # number of tiles, their distance and their length along an axis
LONG = 128  # most places of a window along an axis that is not cut
PARTS = 4  # tiles along an axis that is: 4 × 4 are as many as a wide register has float32 numbers, and overlap little
LARGE = 2**15  # pixels from which on tiles are convolved
BLOCK = 40  # places of the window in one product: wide enough for a fast product, narrow enough for few zeros


@cache
def gaussian(size: int, sigma: float) -> Window:
    """Weights of a Gaussian window in one dimension; they sum to 1."""
    weights = [math.exp(-((i - (size - 1) / 2) ** 2) / (2 * sigma**2)) for i in range(size)]
    return tuple(weight / sum(weights) for weight in weights)


def box(size: int) -> Window:
    """Weights of a uniform window in one dimension."""
    return (1 / size,) * size


@lru_cache(maxsize=256)
def _band(places: int, pixels: int, weights: Window, stride: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The matrix, (places, pixels), that has the window in every row, each ``stride`` further to the right."""
    with ordinary():
        matrix = torch.zeros(places, pixels, dtype=torch.float64)
        for row in range(places):
            matrix[row, row * stride : row * stride + len(weights)] = torch.tensor(weights, dtype=torch.float64)
        return matrix.to(dtype).to(device)


def _blocks(
    pixels: int, weights: Window, stride: int, dtype: torch.dtype, device: torch.device
) -> Iterator[tuple[int, int, Tensor]]:
    """The places along an axis of some pixels, cut up: the first place and pixel of a block, and its band."""
    places = (pixels - len(weights)) // stride + 1
    block = -(-places // max(1, round(places / BLOCK)))  # blocks of nearly equal size
    for start in range(0, places, block):
        end = min(start + block, places)
        last = pixels if end == places else (end - 1) * stride + len(weights)
        yield start, start * stride, _band(end - start, last - start * stride, weights, stride, dtype, device)


def _slide_along(axis: int, images: Tensor, weights: Window, stride: int) -> Tensor:
    parts = []
    for _, first, band in _blocks(images.shape[axis], weights, stride, images.dtype, images.device):
        part = images.narrow(axis, first, band.shape[1])
        parts.append(band @ part if axis == -2 else part @ band.mT)
    return torch.cat(parts, axis) if len(parts) > 1 else parts[0]


def _unslide_along(axis: int, values: Tensor, weights: Window, stride: int, pixels: int) -> Tensor:
    result: Tensor | None = None
    for start, first, band in _blocks(pixels, weights, stride, values.dtype, values.device):
        part = values.narrow(axis, start, len(band))
        change = band.mT @ part if axis == -2 else part @ band
        if band.shape[1] == pixels:
            return change
        if result is None:
            shape = list(values.shape)
            shape[axis] = pixels
            result = values.new_zeros(shape)
        result.narrow(axis, first, band.shape[1]).add_(change)
    assert result is not None, "images are at least as large as the window"
    return result


@lru_cache(maxsize=64)
def _taps(weights: Window, channels: int) -> tuple[Tensor, Tensor]:
    """The window as a row and as a column for each channel."""
    with ordinary():
        rows = torch.tensor(weights).repeat(channels, 1, 1, 1)
        return rows, rows.mT.contiguous()


def _convolves(images: Tensor) -> bool:
    """Whether the processor's convolution of each channel by itself is at hand, and worth its fixed cost.

    It is oneDNN's, for float32; elsewhere products with banded matrices are fast and exact.
    """
    fits = images.dtype == torch.float32 and images.device.type == "cpu" and images.numel() // images.shape[1] >= LARGE
    return fits and torch.backends.mkldnn.is_available()


def slide(images: Tensor, weights: Window, stride: int = 1) -> Tensor:
    """Weighted means over all windows that lie inside the images.

    Args:
        images: (N, C, H, W), at least as large as the window; float32 in the channels-last format is convolved.
        weights: The window, of length K.
        stride: Keeps every ``stride``-th place, from the first one.

    Returns:
        (N, C, (H - K) // stride + 1, (W - K) // stride + 1).
    """
    convolved = images.dtype == torch.float32 and not images.is_contiguous()
    if convolved and images.is_contiguous(memory_format=torch.channels_last):
        channels = images.shape[1]
        row, column = _taps(weights, channels)
        return F.conv2d(
            F.conv2d(images, row, None, (1, stride), groups=channels), column, None, (stride, 1), groups=channels
        )
    return _slide_along(-1, _slide_along(-2, images, weights, stride), weights, stride)


def unslide(values: Tensor, weights: Window, size: Sequence[int], stride: int = 1) -> Tensor:
    """The transpose of `slide` as a linear map: what each pixel of images of a size is worth to the places.

    Args:
        values: (N, C, h, w), one for each place of the window.
        weights: The window.
        size: Height and width of the images, (H, W).
        stride: As in `slide`.

    Returns:
        (N, C, H, W).
    """
    return _unslide_along(-2, _unslide_along(-1, values, weights, stride, size[1]), weights, stride, size[0])


def _cut(length: int, size: int) -> Cut:
    """How an axis is cut so that each place of a window lies in one tile."""
    places = length - size + 1
    step = 2 * -(-places // (2 * PARTS))  # even: every second place of the image is every second one of a tile
    return (1, length, length) if places <= LONG else (PARTS, step, step + size - 1)


def _parts(images: Tensor, down: Cut, across: Cut) -> Tensor:
    """Cuts images up, (C, N · tiles of an image, h, w); the last tiles are filled up."""
    missing = [
        (count - 1) * step + extent - length
        for (count, step, extent), length in zip((down, across), images.shape[-2:], strict=True)
    ]
    if any(missing):
        images = F.pad(images, (0, missing[1], 0, missing[0]), mode="replicate")
    return images.unfold(2, down[2], down[1]).unfold(3, across[2], across[1]).transpose(0, 1).flatten(1, 3)


def _tiles(batch: Batch, down: Cut, across: Cut) -> tuple[Tensor, Tensor]:
    """The tiles less their means, (C, N · tiles of an image, h, w), and the means, as constants."""
    layout = torch.channels_last if _convolves(batch.pixels) else torch.contiguous_format
    if down[0] == across[0] == 1:
        offsets = batch.of(means).detach().T[..., None, None]
        return batch.of(centred).transpose(0, 1).contiguous(memory_format=layout), offsets
    images = _parts(batch.pixels, down, across).contiguous(memory_format=layout)
    offsets = images.detach().mean((-2, -1), keepdim=True)
    return images - offsets, offsets


def tiles(batch: Batch, size: int) -> tuple[Tensor, Tensor]:
    """Cuts images into tiles such that each place of a window lies in one tile.

    The moments of tiles without their means lose less to rounding than those of images, whose mean may be far from a
    pixel's neighbourhood; and many small images convolve faster than a few large ones.

    Args:
        batch: The images.
        size: Side of the window.

    Returns:
        The tiles less their means, (C, N · tiles of an image, h, w), in the memory format that `slide` is fastest in,
        and the means, (C, N · tiles of an image, 1, 1), as constants. The last tiles of an image may be filled up:
        `totals` leaves out what is beyond it. Small images are their only tile, whatever the window.
    """
    return batch.of(_tiles, *(_cut(length, size) for length in batch.pixels.shape[-2:]))


@lru_cache(maxsize=16)
def _inside(shape: torch.Size, size: int, dtype: torch.dtype, device: torch.device) -> Tensor | None:
    """Where the places of the tiles of images are inside: 1 there, 0 beyond; None where all are inside."""
    places = [length - size + 1 for length in shape[-2:]]
    counts, _, extents = zip(*(_cut(length, size) for length in shape[-2:]), strict=True)
    high, wide = (extent - size + 1 for extent in extents)
    if [high * counts[0], wide * counts[1]] == places:
        return None
    with ordinary():
        mask = torch.zeros(high * counts[0], wide * counts[1], dtype=dtype, device=device)
        mask[: places[0], : places[1]] = 1
        mask = mask.unfold(0, high, high).unfold(1, wide, wide).flatten(0, 1).repeat(shape[0], 1, 1)[None]
        return mask.contiguous(memory_format=torch.channels_last)


def totals(values: Tensor, batch: Batch, size: int) -> Tensor:
    """Sums over all places of each image, (N, C), of values at the places of the tiles, (C, all tiles, h, w)."""
    mask = _inside(batch.pixels.shape, size, values.dtype, values.device)
    values = values if mask is None else values * mask
    return values.unflatten(1, (len(batch.pixels), -1)).sum((2, 3, 4)).T


def halved(batch: Batch, size: int, window: Window) -> Tensor:
    """Weighted means over every second window, from the first one, that lies inside the images.

    Args:
        batch: The images.
        size: Side of the larger window whose `tiles` serve here too.
        window: Weights of the window.

    Returns:
        (N, C, (H - K) // 2 + 1, (W - K) // 2 + 1) for a window of length K.
    """
    down, across = (_cut(length, size) for length in batch.pixels.shape[-2:])
    x, offsets = batch.of(_tiles, down, across)
    local = slide(x, window, 2).add_(offsets).unflatten(1, (-1, down[0], across[0])).transpose(0, 1)
    high, wide = ((length - len(window)) // 2 + 1 for length in batch.pixels.shape[-2:])
    return _joined(_joined(local, down, high).transpose(-1, -2), across, wide).transpose(-1, -2)


def _joined(values: Tensor, cut: Cut, length: int) -> Tensor:
    """Joins values at every second place of tiles along an axis: (N, C, tiles, ..., h, w) to (N, C, ..., length, w)."""
    own = cut[1] // 2 if cut[0] > 1 else length
    ends = [own] * (cut[0] - 1) + [length - own * (cut[0] - 1)]
    parts = [values[:, :, tile, ..., :end, :] for tile, end in enumerate(ends)]
    return torch.cat(parts, -2) if len(parts) > 1 else parts[0]


def moments(batch: Batch, window: Window) -> tuple[Tensor, Tensor]:
    """Local means and variances of tiles without their means, (C, all tiles, h, w) each."""
    x, _ = tiles(batch, len(window))
    mean = slide(x, window)
    return mean, (slide(x * x, window) - mean * mean).clamp_min_(0)


def _products(fused: Batch, sources: Batch, down: Cut, across: Cut) -> tuple[Tensor, ...]:
    """Tiles of the fused images, their squares and their products with those of the sources, (4, all tiles, h, w).

    Those of large images come in two stacks, for one would not fit into the cache of a processor's core.
    """
    x, _ = fused.of(_tiles, down, across)
    crossed = x * sources.of(_tiles, down, across)[0]
    return (torch.cat((x, x * x, crossed)),) if down[0] == across[0] == 1 else (torch.cat((x, x * x)), crossed)


def joint_moments(fused: Batch, sources: Batch, source_mean: Tensor, window: Window) -> tuple[Tensor, Tensor, Tensor]:
    """Local means and variances of tiles of fused images, and their covariances with the sources.

    Args:
        fused: The fused images.
        sources: Their sources.
        source_mean: The sources' local means, from `moments`.
        window: Weights of the window.

    Returns:
        Means and variances, (1, all tiles, h, w), and covariances, (2, all tiles, h, w).
    """
    cuts = (_cut(length, len(window)) for length in fused.pixels.shape[-2:])
    local = [slide(stack, window) for stack in fused.of(_products, sources, *cuts)]
    mean, square, cross = local[0][:1], local[0][1:2], local[-1][-2:]
    variance = torch.addcmul(square, mean, mean, value=-1).clamp_min_(0)
    return mean, variance, torch.addcmul(cross, mean, source_mean, value=-1)
