"""The fusion score that the reward is made of: a mean of capped metric ratios to a reference fusion.

Metrics of fused images mislead one by one: statistics of the fused image alone (EN, SD, SF, AG) are won by noise
and tone-mapping, sums over the two sources (MI, SCD, VIF, Qabf, SSIM) by copying one of them. So both groups
count, what relates to the two sources is balanced by a harmonic mean, and every ratio is capped.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fusion_gym.metrics import Sources, evaluate_per_source

SCORE_WEIGHTS: dict[str, float] = {
    "EN": 0.5,
    "SD": 0.75,
    "SF": 0.75,
    "AG": 0.75,
    "MI": 0.75,
    "SCD": 0.75,
    "VIF": 1.5,
    "Qabf": 1.5,
    "SSIM": 1.25,
}
CAP = 1.1


def balanced(values: Tensor) -> Tensor:
    """Harmonic mean over the two sources, (N, 2) to (N,); a value that is not positive gives 0.

    A metric of the fused image alone, (N,), passes unchanged.
    """
    if values.dim() == 1:
        return values
    a, b = values.clamp_min(0).unbind(1)
    return 2 * a * b / (a + b).clamp_min(1e-12)


def measure(fused: Tensor, sources: Sources, weights: Mapping[str, float] = SCORE_WEIGHTS) -> dict[str, Tensor]:
    """The balanced value of every metric that counts.

    Args:
        fused: Fused images, (N, 1, H, W) in [0, 1].
        sources: Their sources.
        weights: The metrics that count, by name.

    Returns:
        Value per image, (N,), by metric.
    """
    values = evaluate_per_source(fused, sources, tuple(weights))
    return {name: balanced(value) for name, value in values.items()}


def ratios(values: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each metric relative to the reference's, (N,), capped to [0, `CAP`]."""
    return {name: (value / reference[name].clamp_min(1e-3)).clamp(0, CAP) for name, value in values.items()}


def score(relative: Mapping[str, Tensor], weights: Mapping[str, float] = SCORE_WEIGHTS) -> Tensor:
    """Weighted mean of the ratios per image, (N,) in [0, `CAP`]; the reference itself scores 1."""
    total = sum(weights.values())
    return torch.stack([weights[name] * relative[name] for name in weights]).sum(0) / total
