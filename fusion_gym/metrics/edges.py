"""Qabf: how much of the sources' edges the fused image preserves, in strength and orientation."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from fusion_gym.metrics.batch import Batch
from fusion_gym.metrics.statistics import root

# Gain, slope and centre of the two sigmoids (Xydeas and Petrovic 2000).
STRENGTH = (0.9994, 15.0, 0.5)
ORIENTATION = (0.9879, 22.0, 0.8)


def _sobel(batch: Batch, mode: str) -> tuple[Tensor, Tensor]:
    """Strength and orientation of the edges, (N, C, H, W) each; beyond the border the images go on as ``mode`` says."""
    x = F.pad(batch.pixels, (1, 1, 1, 1), mode=mode)
    rows = x[..., :-2, :] + 2 * x[..., 1:-1, :] + x[..., 2:, :]
    columns = x[..., :-2] + 2 * x[..., 1:-1] + x[..., 2:]
    across = rows[..., :-2] - rows[..., 2:]  # from right to left, as a convolution does
    down = columns[..., 2:, :] - columns[..., :-2, :]
    vertical = across == 0
    angle = torch.where(vertical, math.pi / 2, (down / torch.where(vertical, 1.0, across)).atan())
    return root(across * across + down * down), angle


def _sigmoid(values: Tensor, shape: tuple[float, float, float]) -> Tensor:
    gain, slope, centre = shape
    return gain * (slope * (values - centre)).sigmoid()


def _preserved(ratio: Tensor, aligned: Tensor) -> Tensor:
    return _sigmoid(ratio, STRENGTH) * _sigmoid(aligned, ORIENTATION)


def _transfer(fused: Batch, sources: Batch) -> tuple[Tensor, Tensor]:
    """Sum of preserved edge strength and of edge strength for each source, (N, 2) each."""
    strength, angle = fused.of(_sobel, "replicate")
    wanted, orientation = sources.of(_sobel, "replicate")
    larger = torch.maximum(strength, wanted)
    ratio = torch.where(larger > 0, torch.minimum(strength, wanted) / torch.where(larger > 0, larger, 1.0), 1.0)
    aligned = ((orientation - angle).abs() * (2 / math.pi) - 1).abs()
    preserved = _preserved(ratio, aligned)
    return (preserved * wanted).sum((-2, -1)), wanted.sum((-2, -1))


def _quotient(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, part / torch.where(whole > 0, whole, 1.0), 0.0)


def edge_transfers(fused: Batch, sources: Batch) -> Tensor:
    """Qabf for each source by itself, (N, 2)."""
    return _quotient(*fused.of(_transfer, sources))


def edge_transfer(fused: Batch, sources: Batch) -> Tensor:
    """Qabf, (N,): both sources weighed together."""
    preserved, wanted = fused.of(_transfer, sources)
    return _quotient(preserved.sum(1), wanted.sum(1))


def edge_transfer_evaluator(fused: Batch, sources: Batch) -> Tensor:
    """Qabf as the public evaluator computes it, (N,): see its entry in the table for what differs."""
    strength, angle = fused.of(_sobel, "constant")
    wanted, orientation = sources.of(_sobel, "constant")
    ratio = torch.minimum(strength, wanted) / torch.maximum(strength, wanted)
    ratio = torch.where(strength == wanted, strength, ratio)
    preserved = _preserved(ratio, 1 - (orientation - angle).abs() * (2 / math.pi))
    return _quotient((preserved * wanted).sum((1, 2, 3)), wanted.sum((1, 2, 3)))
