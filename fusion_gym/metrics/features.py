"""FMI: feature mutual information of small windows, on the pixels themselves."""

from __future__ import annotations

import torch
from torch import Tensor

from fusion_gym.metrics.batch import Batch, quantised

SIDE = 3
_PLACES = SIDE * SIDE


def _windows(batch: Batch) -> Tensor:
    """The pixels of each 3×3 window, column by column, (N, C, 9, places)."""
    x = batch.of(quantised).pixels
    rows, columns = x.shape[-2] - SIDE + 1, x.shape[-1] - SIDE + 1
    parts = [x[..., i : i + rows, j : j + columns].flatten(2) for j in range(SIDE) for i in range(SIDE)]
    return torch.stack(parts, dim=2)


def _densities(batch: Batch) -> Tensor:
    """Each window as a probability density over its nine places, (N, C, 9, places); uniform where it is flat."""
    x = batch.of(_windows)
    x = x - x.amin(2, keepdim=True)
    total = x.sum(2, keepdim=True)
    return torch.where(total > 0, x / torch.where(total > 0, total, 1.0), 1 / _PLACES)


def _entropies(batch: Batch) -> Tensor:
    """Entropy of the densities, (N, C, places), in nats."""
    return _nats(batch.of(_densities)).sum(2)


def _deviations(batch: Batch) -> Tensor:
    """Standard deviation of the place under each density, (N, C, places)."""
    density = batch.of(_densities)
    place = torch.arange(_PLACES, dtype=density.dtype, device=density.device)[:, None]
    mean = (density * place).sum(2, keepdim=True)
    return (density * (place - mean).square()).sum(2).sqrt()


def _nats(shares: Tensor) -> Tensor:
    return -torch.special.xlogy(shares, shares.abs())


def window_information(fused: Batch, sources: Batch) -> Tensor:
    """FMI with each source, (N, 2).

    The joint density of two windows is Nelsen's: a mixture of independence and of the Fréchet bound, with the weight
    that gives the windows' correlation. The lower bound, for negative correlations, is the upper one of a window in
    reverse order.
    """
    f, s = fused.of(_densities), sources.of(_densities)
    correlation, reverse = _correlation(f, s)
    s = torch.where(reverse, s.flip(2), s)
    up, across = f.cumsum(2), s.cumsum(2)
    spread = sum((torch.minimum(up[:, :, i : i + 1], across).sum(2) for i in range(_PLACES)), torch.zeros(()))
    spread = spread.to(f) - up.sum(2) * across.sum(2)
    weight = correlation * fused.of(_deviations) * sources.of(_deviations)
    weight = torch.where(spread > 1e-9, weight / spread.clamp_min(1e-9), 0.0)[:, :, None]
    joint, below = torch.zeros_like(weight[:, :, 0]), torch.zeros_like(across)
    for i in range(_PLACES):
        row = torch.minimum(up[:, :, i : i + 1], across)
        bound = (row - below).diff(dim=2, prepend=torch.zeros_like(weight))
        joint = joint + _nats(weight * bound + (1 - weight) * f[:, :, i : i + 1] * s).sum(2)
        below = row
    total = fused.of(_entropies) + sources.of(_entropies)
    shared = 2 * (total - joint) / torch.where(total > 0, total, 1.0)
    same = (fused.of(_windows) == sources.of(_windows)).all(2)
    return torch.where(same, 1.0, torch.where(total > 0, shared, 0.0)).mean(-1)


def _correlation(f: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """Size of Pearson's correlation of the densities, (N, 2, places), and where it is negative, (N, 2, 1, places)."""
    f, s = f - 1 / _PLACES, s - 1 / _PLACES
    shared = (f * s).sum(2)
    norm = f.square().sum(2) * s.square().sum(2)
    return shared.abs() * torch.where(norm > 0, norm, 1.0).rsqrt(), (shared < 0)[:, :, None]
