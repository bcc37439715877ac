"""Qabf and Nabf: edges of the sources that the fused image preserves, and edges that it invents."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fusion_gym.metrics.batch import Batch, root
from fusion_gym.metrics.gradients import sobel

# Gain, slope and centre of the two sigmoids (Xydeas and Petrovic 2000).
STRENGTH = (0.9994, 15.0, 0.5)
ORIENTATION = (0.9879, 22.0, 0.8)
GAIN = STRENGTH[0] * ORIENTATION[0]
# What is left of a perfectly preserved edge: no sigmoid reaches its gain.
LARGEST = math.prod(gain / (1 + math.exp(-slope * (1 - centre))) for gain, slope, centre in (STRENGTH, ORIENTATION))
# Added to squared strengths of 0 to 2e6: no edge is so weak that its orientation and its weight are undefined.
FLOOR = 1e-12


def edges(batch: Batch, mode: str, floor: float) -> tuple[Tensor, Tensor]:
    """Strength of the edges and their orientation from -1 to 1, in right angles; (N, C, H, W) each."""
    across, down = sobel(batch, mode)
    # atan2 with 1 is atan, and takes a fraction of its time on a processor.
    orientation = torch.atan2(_slope(across, down), across.new_ones(())).mul_(2 / math.pi)
    return root(across.square().addcmul_(down, down).add_(floor)), orientation


def _slope(across: Tensor, down: Tensor) -> Tensor:
    """``down / across``, and -inf where ``across`` is 0."""
    if torch.is_grad_enabled() and across.requires_grad:  # the gradient of a division by 0 is NaN
        upright = across == 0
        return torch.where(upright, -math.inf, down / torch.where(upright, 1.0, across))
    return (down / across).nan_to_num_(nan=-math.inf, posinf=-math.inf, neginf=-math.inf)


def _preserved(ratio: Tensor, aligned: Tensor) -> Tensor:
    """The product of the sigmoids of both terms, whose memory it takes; without their gains: see `GAIN`."""
    strength = ratio.mul_(STRENGTH[1]).sub_(STRENGTH[1] * STRENGTH[2]).sigmoid_()
    return strength * aligned.mul_(ORIENTATION[1]).sub_(ORIENTATION[1] * ORIENTATION[2]).sigmoid_()


def preservation(fused: Batch, sources: Batch) -> Tensor:
    """How well each edge of each source is preserved, (N, 2, H, W), in units of `GAIN`."""
    strength, orientation = fused.of(edges, "replicate", FLOOR)
    wanted, direction = sources.of(edges, "replicate", FLOOR)
    ratio = torch.minimum(strength, wanted).div_(torch.maximum(strength, wanted))
    aligned = (direction - orientation).abs_().sub_(1).abs_()
    return _preserved(ratio, aligned)


def _weights(sources: Batch) -> tuple[Tensor, Tensor]:
    """Strength of the sources' edges, (N, 2, H, W), and its sums, (N, 2)."""
    strength = sources.of(edges, "replicate", FLOOR)[0]
    return strength, strength.sum((-2, -1))


def edge_transfers(fused: Batch, sources: Batch) -> Tensor:
    """Qabf for each source by itself, (N, 2)."""
    weights, totals = sources.of(_weights)
    return GAIN * (preservation(fused, sources) * weights).sum((-2, -1)) / totals


def edge_transfer(fused: Batch, sources: Batch) -> Tensor:
    """Qabf, (N,): both sources weighed together."""
    totals = sources.of(_weights)[1]
    return (edge_transfers(fused, sources) * totals).sum(1) / totals.sum(1)


def edge_artefacts(fused: Batch, sources: Batch) -> Tensor:
    """Nabf for each source by itself, (N, 2)."""
    weights, totals = sources.of(_weights)
    invented = fused.of(edges, "replicate", FLOOR)[0] > weights.amax(1, keepdim=True)
    return ((1 - GAIN * preservation(fused, sources)) * weights * invented).sum((-2, -1)) / totals


def edge_artefact(fused: Batch, sources: Batch) -> Tensor:
    """Nabf, (N,): both sources weighed together."""
    totals = sources.of(_weights)[1]
    return (edge_artefacts(fused, sources) * totals).sum(1) / totals.sum(1)


def edge_transfer_evaluator(fused: Batch, sources: Batch) -> Tensor:
    """Qabf as the public evaluator has it, (N,): black borders, no wrap of angles, odd ratios of equal strengths."""
    strength, orientation = fused.of(edges, "constant", 0.0)
    wanted, direction = sources.of(edges, "constant", 0.0)
    ratio = torch.minimum(strength, wanted).div_(torch.maximum(strength, wanted).clamp_min_(FLOOR))
    equal = ratio.floor()  # 1 where the strengths are equal, else 0; comparisons and torch.where are slower
    ratio.addcmul_(equal, strength - 1)
    preserved = _preserved(ratio, (direction - orientation).abs_().neg_().add_(1)).mul_(wanted)
    total = wanted.sum((1, 2, 3))
    return torch.where(total > 0, GAIN * preserved.sum((1, 2, 3)) / total.clamp_min(FLOOR), 0.0)
