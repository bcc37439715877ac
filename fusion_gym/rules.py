"""Fusion by fixed rules, without learning: what every network has to beat.

Each rule takes infrared and visible luminance, (N, 1, H, W) in [0, 1] of any height and width, and gives the same
shape and range. `RULES` names them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fusion_gym.tensors import Fuse

PYRAMID_LEVELS = 5
BASE_SIZE = 31  # window of the mean that parts base and detail
BASE_FILTER = (45, 0.3)  # radius and regularisation of the guided filters, as in the paper
DETAIL_FILTER = (7, 1e-6)


def mean(ir: Tensor, vi: Tensor) -> Tensor:
    """Mean of the sources."""
    return (ir + vi) / 2


def poor(ir: Tensor, vi: Tensor) -> Tensor:
    """The mean, blurred and flattened: a teacher that should not be followed."""
    blurred = F.avg_pool2d(F.pad((ir + vi) / 2, (2, 2, 2, 2), mode="replicate"), 5, stride=1)
    return 0.5 + 0.6 * (blurred - 0.5)


def _mirrored(x: Tensor, dim: int, radius: int, repeat_edge: bool) -> Tensor:
    """Pads one dimension by mirroring as often as it takes, so that a radius may exceed the image."""
    size = x.shape[dim]
    index = torch.arange(-radius, size + radius, device=x.device)
    period = max(1, 2 * size if repeat_edge else 2 * size - 2)
    index = index % period
    return x.index_select(dim, torch.minimum(index, 2 * size - (1 if repeat_edge else 2) - index).clamp_min(0))


def _filtered(x: Tensor, taps: Tensor, stride: int = 1) -> Tensor:
    """Separable filter with a mirrored border that does not repeat the edge."""
    radius = len(taps) // 2
    taps = taps.to(x)
    x = F.conv2d(_mirrored(x, 2, radius, False), taps.view(1, 1, -1, 1), stride=(stride, 1))
    return F.conv2d(_mirrored(x, 3, radius, False), taps.view(1, 1, 1, -1), stride=(1, stride))


_BINOMIAL = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], dtype=torch.float32, device="cpu") / 16


def _doubled(x: Tensor, dim: int, size: int) -> Tensor:
    """Upsampling of one dimension by the binomial filter, as OpenCV's pyrUp: mirrored before, repeated after."""
    length = x.shape[dim]
    before = x.narrow(dim, min(1, length - 1), 1)
    padded = torch.cat((before, x, x.narrow(dim, length - 1, 1)), dim)
    left, here, right = (padded.narrow(dim, start, length) for start in range(3))
    both = torch.stack(((left + 6 * here + right) / 8, (here + right) / 2), dim + 1)
    return both.flatten(dim, dim + 1).narrow(dim, 0, size)


def _expanded(x: Tensor, like: Tensor) -> Tensor:
    return _doubled(_doubled(x, 2, like.shape[2]), 3, like.shape[3])


def _pyramid(image: Tensor) -> tuple[list[Tensor], Tensor]:
    details = []
    for _ in range(PYRAMID_LEVELS):
        smaller = _filtered(image, _BINOMIAL, stride=2)
        details.append(image - _expanded(smaller, image))
        image = smaller
    return details, image


def laplacian(ir: Tensor, vi: Tensor) -> Tensor:
    """Laplacian pyramid of five levels: the larger coefficient by magnitude, the mean of the bases.

    Burt and Adelson, "The Laplacian pyramid as a compact image code", 1983.
    """
    (details_ir, base_ir), (details_vi, base_vi) = _pyramid(ir), _pyramid(vi)
    fused = (base_ir + base_vi) / 2
    for a, b in zip(reversed(details_ir), reversed(details_vi), strict=True):
        fused = _expanded(fused, a) + torch.where(a.abs() >= b.abs(), a, b)
    return fused.clamp(0.0, 1.0)


def _box(x: Tensor, radius: int) -> Tensor:
    """Mean over a square window of side 2 · radius + 1, by running sums in double precision."""
    for dim in (2, 3):
        sums = _mirrored(x, dim, radius, True).double().cumsum(dim)
        sums = torch.cat((torch.zeros_like(sums.narrow(dim, 0, 1)), sums), dim)
        size, side = x.shape[dim], 2 * radius + 1
        x = (sums.narrow(dim, side, size) - sums.narrow(dim, 0, size)) / side
    return x


def _guided_filter(guide: Tensor, target: Tensor, radius: int, epsilon: float) -> Tensor:
    """He et al., "Guided image filtering", 2013: a local linear function of the guide that fits the target."""
    mean_guide, mean_target = _box(guide, radius), _box(target, radius)
    covariance = _box(guide * target, radius) - mean_guide * mean_target
    variance = _box(guide * guide, radius) - mean_guide * mean_guide
    slope = covariance / (variance + epsilon)
    return _box(slope, radius) * guide + _box(mean_target - slope * mean_guide, radius)


def _saliency(image: Tensor) -> Tensor:
    kernel = image.new_tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]]).view(1, 1, 3, 3)
    padded = _mirrored(_mirrored(image, 2, 1, False), 3, 1, False)
    taps = torch.exp(-(torch.arange(-5.0, 6.0, dtype=torch.float32) ** 2) / (2 * 5.0**2))
    return _filtered(F.conv2d(padded, kernel).abs(), taps / taps.sum())


def guided(ir: Tensor, vi: Tensor) -> Tensor:
    """Base and detail, each weighted by a saliency map that a guided filter has aligned with its source.

    Li, Kang and Hu, "Image fusion with guided filtering", 2013.
    """
    kind = ir.dtype
    ir, vi = ir.double(), vi.double()
    wins = (_saliency(ir) > _saliency(vi)).double()
    base_ir, base_vi = _box(ir, BASE_SIZE // 2), _box(vi, BASE_SIZE // 2)
    fused = torch.zeros_like(ir)
    for a, b, (radius, epsilon) in (
        (base_ir, base_vi, BASE_FILTER),
        (ir - base_ir, vi - base_vi, DETAIL_FILTER),
    ):
        weight_a = _guided_filter(ir, wins, radius, epsilon)
        weight_b = _guided_filter(vi, 1 - wins, radius, epsilon)
        fused += (weight_a * a + weight_b * b) / (weight_a + weight_b)
    return fused.clamp(0.0, 1.0).to(kind)


RULES: dict[str, Fuse] = {
    "rule:mean": mean,
    "rule:max": torch.maximum,
    "rule:laplacian": laplacian,
    "rule:guided": guided,
    "rule:poor": poor,
}

# What cutting an image into tiles must respect, in pixels: from how far a pixel has an effect, and where tiles start.
_PYRAMID_REACH = 4 * 2**PYRAMID_LEVELS  # each level's filters, down and up, reach two of its cells
_GUIDED_REACH = BASE_SIZE // 2 + 6 + 2 * BASE_FILTER[0]  # base, saliency, both means of the guided filter
TILING: dict[str, tuple[int, int]] = {
    "rule:mean": (0, 1),
    "rule:max": (0, 1),
    "rule:laplacian": (_PYRAMID_REACH, 2**PYRAMID_LEVELS),
    "rule:guided": (_GUIDED_REACH, 1),
    "rule:poor": (2, 1),
}
