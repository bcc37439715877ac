"""Metrics from the histograms of 8-bit levels, in bits; their gradient is zero."""

from __future__ import annotations

import torch
from torch import Tensor

from fusion_gym.metrics.batch import Batch

LEVELS = 256


def levels(batch: Batch) -> Tensor:
    """The grey levels, int64 (N, C, H·W) from 0 to 255."""
    return batch.pixels.detach().round().clamp(0, LEVELS - 1).long().flatten(2)


def _counts(codes: Tensor, kinds: int) -> Tensor:
    """How often each code occurs in each image: (N, C, H·W) to (N, C, kinds)."""
    images = codes.shape[0] * codes.shape[1]
    offsets = torch.arange(images, device=codes.device).view(*codes.shape[:2], 1) * kinds
    return torch.bincount((codes + offsets).flatten(), minlength=images * kinds).view(*codes.shape[:2], kinds)


def histogram(batch: Batch) -> Tensor:
    """Share of each level, (N, C, 256)."""
    codes = batch.of(levels)
    return _counts(codes, LEVELS).to(batch.pixels.dtype) / codes.shape[-1]


def _bits(shares: Tensor) -> Tensor:
    """Entropy over the last axis."""
    return -torch.special.xlogy(shares, shares).sum(-1) / torch.log(torch.tensor(2.0, dtype=shares.dtype))


def entropies(batch: Batch) -> Tensor:
    """Entropy of each image, (N, C)."""
    return _bits(batch.of(histogram))


def entropy(fused: Batch, sources: Batch) -> Tensor:
    """EN, (N,)."""
    return fused.of(entropies)[:, 0]


def mutual_information(fused: Batch, sources: Batch) -> Tensor:
    """MI with each source, (N, 2)."""
    codes = sources.of(levels) * LEVELS + fused.of(levels)
    joint = _counts(codes, LEVELS**2).to(fused.pixels.dtype) / codes.shape[-1]
    return (fused.of(entropies) + sources.of(entropies) - _bits(joint)).clamp_min(0)
