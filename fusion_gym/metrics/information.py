"""Metrics from the histograms of 8-bit levels, in bits; their gradient is zero."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from fusion_gym.metrics.batch import Batch, ordinary

LEVELS = 256
PAIRS = LEVELS**2


def levels(batch: Batch) -> Tensor:
    """The grey levels, int64 (N, C, H·W) from 0 to 255; halves go up."""
    return (batch.pixels.detach() + 0.5).clamp_(0, LEVELS - 1).long().flatten(2)


@lru_cache(maxsize=16)
def _offsets(images: int, channels: int, device: torch.device) -> Tensor:
    """Where the levels of each image begin, (N, C, 1), for counting all images at once."""
    with ordinary():
        return torch.arange(images * channels, device=device).view(images, channels, 1) * LEVELS


def _own_levels(batch: Batch) -> Tensor:
    """The grey levels, int64 (N · C · H·W,), numbered on from image to image."""
    codes = batch.of(levels)
    return (codes + _offsets(codes.shape[0], codes.shape[1], codes.device)).flatten()


def _counts(codes: Tensor, kinds: int, most: int) -> Tensor:
    """How often each code occurs, (kinds,): int64 codes, (M,), no more than ``most`` of each kind."""
    dtype = torch.int16 if most < 2**15 else torch.int32  # the smaller, the less memory to clear
    ones = torch.ones_like(codes, dtype=dtype)  # a single 1 that is expanded is added more slowly
    return torch.zeros(kinds, dtype=dtype, device=codes.device).scatter_add_(0, codes, ones)


@lru_cache(maxsize=16)
def _logs(most: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Binary logarithms of the whole numbers up to ``most``; 0 for 0."""
    with ordinary():
        return torch.arange(most + 1, device=device).clamp_min_(1).to(dtype).log2()


def _log(counts: Tensor, most: int, batch: Batch) -> Tensor:
    """Binary logarithms of counts up to ``most``, 0 for 0, in the precision of a batch."""
    logs = _logs(most, batch.pixels.dtype, counts.device)
    return logs.index_select(0, counts.flatten()).view(counts.shape)


def histogram(batch: Batch) -> Tensor:
    """Share of each level, (N, C, 256)."""
    *shape, pixels = batch.of(levels).shape
    counts = _counts(batch.of(_own_levels), math.prod(shape) * LEVELS, pixels)
    return counts.view(*shape, LEVELS).to(batch.pixels.dtype) / pixels


def entropies(batch: Batch) -> Tensor:
    """Entropy of each image, (N, C)."""
    shares = batch.of(histogram)
    return -torch.special.xlogy(shares, shares).sum(-1) / math.log(2)


def entropy(fused: Batch, sources: Batch) -> Tensor:
    """EN, (N,)."""
    return fused.of(entropies)[:, 0]


def cross_entropy(fused: Batch, sources: Batch) -> Tensor:
    """CE of each source's histogram relative to the fused one's, (N, 2), over the levels that both have."""
    wanted, present = sources.of(histogram), fused.of(histogram)
    both = (wanted > 0) & (present > 0)
    ratio = torch.where(both, wanted / torch.where(both, present, 1.0), 1.0)
    return (wanted * ratio.log2()).sum(-1)


def _by_table(batch: Batch) -> bool:
    """Whether the images have more pixels than there are pairs of levels."""
    return batch.of(levels).shape[-1] > PAIRS


def _first_codes(sources: Batch) -> tuple[Tensor, int]:
    """The sources' part of the codes of pairs of levels, int64 (N, 2, H·W), and the number of all codes.

    In small images only levels that occur have codes, so that there are few: each level of each image its own.
    """
    shape = sources.of(levels).shape
    if _by_table(sources):
        offsets = _offsets(*shape[:2], sources.pixels.device) * LEVELS
        return torch.add(offsets, sources.of(levels), alpha=LEVELS), math.prod(shape[:2]) * PAIRS
    ranks = (sources.of(histogram) > 0).flatten().cumsum(0)
    first = ((ranks - 1) * LEVELS).index_select(0, sources.of(_own_levels))
    return first.view(shape), int(ranks[-1]) * LEVELS


def mutual_information(fused: Batch, sources: Batch) -> Tensor:
    """MI with each source, (N, 2).

    The joint entropy is log n minus the pixels' mean of the logarithm of how many pixels share their pair of levels:
    looked up for each pixel, or, where these are fewer, for each of the 256² pairs, whose table has the histograms in
    its margins.
    """
    first, kinds = sources.of(_first_codes)
    *shape, pixels = first.shape
    codes = (first + fused.of(levels)).flatten()
    counts = _counts(codes, kinds, pixels)
    if _by_table(fused):
        pairs = counts.view(*shape, LEVELS, LEVELS)
        tables = (pairs.flatten(2), pairs.sum(-1), pairs.sum(-2))
        both, source, own = ((table * _log(table, pixels, fused)).sum(-1) for table in tables)
        return (math.log2(pixels) + (both - source - own) / pixels).clamp_min(0)
    shared = _log(counts.index_select(0, codes).int(), pixels, fused).view(*shape, pixels)
    joint = math.log2(pixels) - shared.mean(-1)
    return (fused.of(entropies) + sources.of(entropies) - joint).clamp_min(0)


def normalised_mutual_information(fused: Batch, sources: Batch) -> Tensor:
    """NMI with each source, (N, 2); 1 where both images are constant."""
    total = fused.of(entropies) + sources.of(entropies)
    shared = 2 * mutual_information(fused, sources)
    return torch.where(total > 0, (shared / torch.where(total > 0, total, 1.0)).clamp_max(1), 1.0)
