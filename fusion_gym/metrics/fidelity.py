"""VIF: visual information fidelity in the pixel domain, over four scales."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from fusion_gym.metrics.batch import Batch
from fusion_gym.metrics.windows import Window, gaussian, halved, joint_moments, moments, totals

SIZES = (17, 9, 5, 3)  # the window's side at each scale; its sigma is a fifth of it
NOISE = 2.0  # variance of the visual noise on the scale from 0 to 255
EPSILON = 1e-10


def _smaller(batch: Batch, size: int, window: Window) -> Batch:
    """The images at the next scale, smoothed by its window and halved; size: the window's side at this scale."""
    return batch.like(halved(batch, size, window))


def _source_terms(sources: Batch, window: Window) -> tuple[Tensor, Tensor, Tensor]:
    """Local means, one over the local variances (0 where there is none), and the information, (N, 2)."""
    mean, variance = moments(sources, window)
    gain = F.threshold(variance, EPSILON, math.inf).reciprocal_()
    return mean, gain, totals((variance / NOISE).log1p_(), sources, len(window))


def fidelity(fused: Batch, sources: Batch) -> Tensor:
    """VIF for each source as the reference, (N, 2).

    With v the fused image's variance, e the part of it that the source explains and n the noise, a place keeps
    log(1 + e / (v - e + n)), which is -log(1 - e / (v + n)).
    """
    kept = information = sources.pixels.new_zeros(())
    for scale, size in enumerate(SIZES):
        window = gaussian(size, size / 5)
        if scale:
            fused, sources = (batch.of(_smaller, SIZES[scale - 1], window) for batch in (fused, sources))
        source_mean, gain, available = sources.of(_source_terms, window)
        _, variance, covariance = joint_moments(fused, sources, source_mean, window)
        explained = covariance.clamp_min_(0).square_().mul_(gain)
        explained = torch.minimum(explained, variance)  # no more than all of it, but for rounding
        kept = kept - totals(explained.div_(-NOISE - variance).log1p_(), fused, size)
        information = information + available
    return torch.where(information > 0, kept / information.clamp_min(EPSILON), 1.0)
