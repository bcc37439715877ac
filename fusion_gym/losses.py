"""Losses of the student's training: pure batched functions that return one value per sample, (N,).

The targets that depend on the sources (or on the teacher's output) only come from `self_targets` and `sobel`. Each
loss computes its gradient in closed form along with its value: the windows are sums of shifted images, and so is
their transpose, which is several times cheaper than pooling under automatic differentiation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

SSIM_WINDOW = 7  # `_box_sum` is written for this size
FEATURE_WEIGHT = 5.0  # of `feature_loss` and `hint_loss`
_C1, _C2 = 0.01**2, 0.03**2
_TIE = 4.5 / (8 * 255) ** 2  # 8-bit gradients are often equally strong; above rounding and between two 8-bit steps


def sobel(image: Tensor) -> Tensor:
    """Sobel gradients, horizontal and vertical, an eighth of the usual gain: (N, 1, H, W) to (N, 2, H-2, W-2)."""
    return torch.cat((_horizontal(image), _vertical(image)), dim=1)


def _horizontal(image: Tensor) -> Tensor:
    pairs = image[..., :-1, :] + image[..., 1:, :]
    rows = pairs[..., :-1, :] + pairs[..., 1:, :]
    return (rows[..., 2:] - rows[..., :-2]) / 8


def _vertical(image: Tensor) -> Tensor:
    pairs = image[..., :-1] + image[..., 1:]
    columns = pairs[..., :-1] + pairs[..., 1:]
    return (columns[..., 2:, :] - columns[..., :-2, :]) / 8


def _sobel_transposed(gradient: Tensor) -> Tensor:
    """The transpose of `sobel` as a linear map: (N, 2, H-2, W-2) to (N, 1, H, W)."""
    horizontal, vertical = F.pad(gradient, (2, 2, 2, 2)).split(1, dim=1)
    return -(_horizontal(horizontal) + _vertical(vertical))


def _box_sum(image: Tensor) -> Tensor:
    """Sums over 7×7 windows that lie inside the image, by doubling: 1, 2, 4, then 4 + 2 + 1 of each row and column."""
    two = image[..., :-1, :] + image[..., 1:, :]
    four = two[..., :-2, :] + two[..., 2:, :]
    image = four[..., :-3, :] + (two[..., 4:-1, :] + image[..., 6:, :])
    two = image[..., :-1] + image[..., 1:]
    four = two[..., :-2] + two[..., 2:]
    return four[..., :-3] + (two[..., 4:-1] + image[..., 6:])


def box(image: Tensor) -> Tensor:
    """Means over the 7×7 windows that lie inside the image, (..., H, W) to (..., H-6, W-6)."""
    return _box_sum(image) / SSIM_WINDOW**2


def box_transposed(maps: Tensor) -> Tensor:
    """The transpose of `box` as a linear map: (..., H-6, W-6) to (..., H, W)."""
    reach = SSIM_WINDOW - 1
    return box(F.pad(maps, (reach, reach, reach, reach)))


@dataclass(frozen=True)
class SelfTargets:
    """What the self-learning loss compares with; depends on the clean sources only.

    Attributes:
        sources: Infrared and visible, (N, 2, H, W).
        intensity: The brighter of the two at each pixel, (N, 1, H, W) (as in SeAFusion and its successors).
        gradient: The stronger of the two Sobel gradients at each pixel, the visible one where they are equally
            strong, (N, 2, H-2, W-2).
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
    stronger = gi.square().sum(1, keepdim=True) > gv.square().sum(1, keepdim=True) + _TIE
    sources = torch.cat((ir, vi), dim=1)
    mean, square = box(torch.cat((sources, sources * sources), dim=1)).split(2, dim=1)
    variance = (square - mean * mean).clamp_min(0)
    return SelfTargets(sources, torch.maximum(ir, vi), torch.where(stronger, gi, gv), mean, variance)


class _Attach(torch.autograd.Function):
    """Gives a loss, (N,), the gradient in ``fused`` that was computed with it, (N, 1, H, W)."""

    @staticmethod
    def forward(ctx: Any, fused: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return outer.view(-1, 1, 1, 1) * gradient, None, None


def _absolute(difference: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """``weight · mean|difference|`` per sample, and its gradient in the difference."""
    size = difference[0].numel()
    return difference.abs().flatten(1).sum(1) * (weight / size), difference.sign() * (weight / size)


def _follow(fused: Tensor, intensity: Tensor, gradient: Tensor, weights: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """``w0 mean|F - intensity| + w1 mean|∇F - gradient|`` per sample, and its gradient in F."""
    loss, slope = _absolute(fused - intensity, weights[0])
    edge_loss, edge_slope = _absolute(sobel(fused) - gradient, weights[1])
    return loss + edge_loss, slope + _sobel_transposed(edge_slope)


def _ssim(fused: Tensor, targets: SelfTargets) -> tuple[Tensor, Tensor]:
    """Mean SSIM with the two sources per sample, and its gradient in F.

    With window averages m = ⟨F⟩, q = ⟨F²⟩ and c = ⟨F S⟩, SSIM is a rational function of m, q and c in each window;
    its gradient in F is the transposed average of the derivatives in the three, times 1, 2F and S.
    """
    sources, mu = targets.sources, targets.mean
    maps = box(torch.cat((fused, fused * fused, fused * sources), dim=1))
    mean, square, cross = maps.split((1, 1, 2), dim=1)
    mean2 = mean * mean
    product = mean * mu
    light_above, light_below = 2 * product + _C1, mean2 + mu * mu + _C1
    detail_above, detail_below = 2 * (cross - product) + _C2, (square - mean2) + targets.variance + _C2
    inverse = 1 / (light_below * detail_below)
    ratio = light_above * inverse  # half of SSIM's derivative in c
    ssim = ratio * detail_above
    in_mean = 2 * inverse * (mu * (detail_above - light_above) - mean * ssim * (detail_below - light_below))
    in_square = ssim / detail_below
    slopes = torch.cat((in_mean.sum(1, True), -in_square.sum(1, True), 2 * ratio), dim=1)
    in_mean, in_square, in_cross = box_transposed(slopes).split((1, 1, 2), dim=1)
    gradient = in_mean + 2 * fused * in_square + (sources * in_cross).sum(1, True)
    return ssim.mean((1, 2, 3)), gradient / ssim[0].numel()


def self_loss(fused: Tensor, targets: SelfTargets) -> Tensor:
    """The unsupervised fusion loss: intensity, gradient and structure.

    ``mean|F - max(I, V)| + 5 mean|∇F - ∇max| + 1 - (SSIM(F, I) + SSIM(F, V)) / 2``, with SSIM over 7×7 boxes.

    Args:
        fused: The student's output, (N, 1, H, W).
        targets: From `self_targets` of the clean sources.

    Returns:
        Loss per sample, (N,), zero at best; differentiable once, in ``fused``.
    """
    image = fused.detach()
    loss, slope = _follow(image, targets.intensity, targets.gradient, (1, 5))
    ssim, ssim_slope = _ssim(image, targets)
    return _Attach.apply(fused, loss + 1 - ssim, slope - ssim_slope)


def by_pixels(fused: Tensor, teacher: Tensor) -> Tensor:
    """`guide_loss` of the student's and the teacher's fused images, (N, 1, H, W): loss per sample, (N,)."""
    return guide_loss(fused, teacher, sobel(teacher))


def feature_loss(fused: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """The squared distance of features, relative to the teacher's: ``w mean over layers of Σ(f - t)² / Σt²``.

    So that the layers count alike, and the loss is of the size of `guide_loss` for students in training.

    Args:
        fused: Features of the student's output, (N, ...) each.
        teacher: Those of the teacher's, of the same shapes.

    Returns:
        Loss per sample, (N,); differentiable in ``fused``.
    """
    shares = [
        (ours - theirs).square().flatten(1).sum(1) / theirs.square().flatten(1).sum(1).clamp_min(1e-6)
        for ours, theirs in zip(fused, teacher, strict=True)
    ]
    return FEATURE_WEIGHT * torch.stack(shares).mean(0)


def hint_loss(student: Sequence[Tensor], teacher: Sequence[Tensor], sizes: Sequence[float]) -> Tensor:
    """The mean squared distance of a student's and a teacher's features: ``w mean over layers of mean (f - t)² / z``.

    Hints of FitNets, arXiv:1412.6550. z is the same for every sample: features of a flat patch may all be zero.

    Args:
        student: Features of what the student sees, (N, ...) each.
        teacher: The teacher's, of the clean pairs, of the same shapes.
        sizes: z of each layer, the usual mean square of the teacher's features, so that the layers count alike.

    Returns:
        Loss per sample, (N,); differentiable in ``student``.
    """
    distances = [
        (ours - theirs).square().flatten(1).mean(1) / size
        for ours, theirs, size in zip(student, teacher, sizes, strict=True)
    ]
    return FEATURE_WEIGHT * torch.stack(distances).mean(0)


def guide_loss(fused: Tensor, teacher: Tensor, teacher_gradient: Tensor) -> Tensor:
    """The guidance loss: ``4 mean|F - T| + 10 mean|∇F - ∇T|``.

    The weights bring it to the size of `self_loss`, so that the guidance strength is a fair mixture.

    Args:
        fused: The student's output, (N, 1, H, W).
        teacher: The teacher's output on the clean pair, same shape.
        teacher_gradient: ``sobel(teacher)``.

    Returns:
        Loss per sample, (N,); differentiable once, in ``fused``.
    """
    return _Attach.apply(fused, *_follow(fused.detach(), teacher, teacher_gradient, (4, 10)))
