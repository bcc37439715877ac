"""Differences between neighbouring pixels, and the two metrics of sharpness."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from fusion_gym.metrics.batch import Batch, ordinary, root


def differences(batch: Batch, mode: str) -> tuple[Tensor, Tensor]:
    """What lies before each pixel minus what lies after it.

    Args:
        batch: The images.
        mode: How they go on beyond the border, as in `torch.nn.functional.pad`.

    Returns:
        Left minus right, (N, C, H + 2, W), and above minus below, (N, C, H, W + 2), with the rows and the columns
        beyond the border.
    """
    x = F.pad(batch.pixels, (1, 1, 1, 1), mode=mode)
    return x[..., :-2] - x[..., 2:], x[..., :-2, :] - x[..., 2:, :]


def sobel(batch: Batch, mode: str) -> tuple[Tensor, Tensor]:
    """Sobel gradients, horizontal and vertical, (N, C, H, W) each."""
    across, down = batch.of(differences, mode)
    across = across[..., 1:, :] + across[..., :-1, :]
    down = down[..., 1:] + down[..., :-1]
    return across[..., 1:, :] + across[..., :-1, :], down[..., 1:] + down[..., :-1]


def average_gradient(fused: Batch, sources: Batch) -> Tensor:
    """AG, (N,)."""
    across, down = fused.of(differences, "replicate")
    across, down = across[..., 1:-1, :], down[..., 1:-1]
    wide, high = (halves(length, across.dtype, across.device) for length in (across.shape[-1], down.shape[-2]))
    across, down = across * wide, down * high[:, None]
    return root(torch.addcmul(across.square(), down, down)).mean((-3, -2, -1)) / 2**0.5


@lru_cache(maxsize=64)
def halves(length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Turns differences over two pixels into gradients: halves them, save at the border, where they span one."""
    with ordinary():
        weights = torch.full((length,), 0.5, dtype=dtype, device=device)
        weights[0] = weights[-1] = 1.0
        return weights


def spatial_frequency(fused: Batch, sources: Batch) -> Tensor:
    """SF, (N,)."""
    x = fused.pixels
    across, down = x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]
    squares = [step.square().sum((-3, -2, -1)) / max(1, step[0].numel()) for step in (across, down)]
    return root(squares[0] + squares[1])
