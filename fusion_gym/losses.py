"""Losses of the student's training: pure batched functions that return one value per sample, (N,).

The targets that depend on the sources (or on the teacher's output) only are computed once, by `self_targets`
and `sobel`, and may be kept beside the patches.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

SSIM_WINDOW = 7
_C1, _C2 = 0.01**2, 0.03**2


def sobel(image: Tensor) -> Tensor:
    """Sobel gradients, horizontal and vertical, an eighth of the usual gain: (N, 1, H, W) to (N, 2, H-2, W-2)."""
    rows = image[..., :-2, :] + 2 * image[..., 1:-1, :] + image[..., 2:, :]
    columns = image[..., :-2] + 2 * image[..., 1:-1] + image[..., 2:]
    horizontal = rows[..., 2:] - rows[..., :-2]
    vertical = columns[..., 2:, :] - columns[..., :-2, :]
    return torch.cat((horizontal, vertical), dim=1) / 8


def _box(image: Tensor) -> Tensor:
    return F.avg_pool2d(image, SSIM_WINDOW, stride=1)


def _moments(image: Tensor) -> tuple[Tensor, Tensor]:
    """Local mean and variance, over windows that lie inside the image."""
    mean, square = _box(torch.cat((image, image * image), dim=1)).split(image.shape[1], dim=1)
    return mean, (square - mean * mean).clamp_min(0)


@dataclass(frozen=True)
class SelfTargets:
    """What the self-learning loss compares with; depends on the clean sources only.

    Attributes:
        sources: Infrared and visible, (N, 2, H, W).
        intensity: The brighter of the two at each pixel, (N, 1, H, W) (as in SeAFusion and its successors).
        gradient: The stronger of the two Sobel gradients at each pixel, (N, 2, H-2, W-2).
        mean: Local means of the sources, (N, 2, H-6, W-6).
        variance: Local variances of the sources, same shape.
    """

    sources: Tensor
    intensity: Tensor
    gradient: Tensor
    mean: Tensor
    variance: Tensor


def self_targets(ir: Tensor, vi: Tensor) -> SelfTargets:
    """Computes what the self-learning loss needs of clean sources, (N, 1, H, W) in [0, 1] each."""
    gi, gv = sobel(ir), sobel(vi)
    stronger = gi.square().sum(1, keepdim=True) > gv.square().sum(1, keepdim=True)
    sources = torch.cat((ir, vi), dim=1)
    mean, variance = _moments(sources)
    return SelfTargets(sources, torch.maximum(ir, vi), torch.where(stronger, gi, gv), mean, variance)


def self_loss(fused: Tensor, targets: SelfTargets) -> Tensor:
    """The unsupervised fusion loss: intensity, gradient and structure.

    ``mean|F - max(I, V)| + 5 mean|∇F - ∇max| + 1 - (SSIM(F, I) + SSIM(F, V)) / 2``, with SSIM over 7×7 boxes.

    Args:
        fused: The student's output, (N, 1, H, W).
        targets: From `self_targets` of the clean sources.

    Returns:
        Loss per sample, (N,), zero at best.
    """
    intensity = (fused - targets.intensity).abs().mean((1, 2, 3))
    gradient = (sobel(fused) - targets.gradient).abs().mean((1, 2, 3))
    count = 2 * fused.shape[1]
    maps = _box(torch.cat((fused, fused * fused, fused * targets.sources), dim=1))
    mean, square, cross = maps[:, :1], maps[:, 1:2], maps[:, 2 : 2 + count]
    variance = square - mean * mean
    covariance = cross - mean * targets.mean
    ssim = ((2 * mean * targets.mean + _C1) * (2 * covariance + _C2)) / (
        (mean * mean + targets.mean.square() + _C1) * (variance + targets.variance + _C2)
    )
    return intensity + 5 * gradient + 1 - ssim.mean((1, 2, 3))


def guide_loss(fused: Tensor, teacher: Tensor, teacher_gradient: Tensor) -> Tensor:
    """The guidance loss: ``4 mean|F - T| + 10 mean|∇F - ∇T|``.

    The weights bring it to the size of `self_loss`, so that the guidance strength is a fair mixture.

    Args:
        fused: The student's output, (N, 1, H, W).
        teacher: The teacher's output on the clean pair, same shape.
        teacher_gradient: ``sobel(teacher)``.

    Returns:
        Loss per sample, (N,).
    """
    return 4 * (fused - teacher).abs().mean((1, 2, 3)) + 10 * (sobel(fused) - teacher_gradient).abs().mean((1, 2, 3))
