"""The objective made of the fusion metrics themselves, in differentiable form.

What the built-in teacher is trained by, and what a student can learn by itself from (``self_loss="metrics"``): what a
fused image keeps of both sources (SSIM, VIF, Qabf, SCD, MI) and what it shows by itself (EN, SD, SF, AG), the latter
relative to the brighter source and capped, so that neither noise nor tone-mapping is worth more than the sources are;
less what it invents, for none of these sees halos, dark corners and blotches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fusion_gym.metrics import INVENTED, Sources, evaluate_per_source, invented_excess

BINS = 64
SIMILARITY = ("SSIM", "VIF", "Qabf", "SCD")
STATISTICS = ("SD", "SF", "AG")


@dataclass(frozen=True)
class Goal:
    """What one metric is worth.

    Attributes:
        weight: Gain of the objective for one unit of the metric (of its logarithm for SD, SF and AG), and loss for each
            hundredth of `fusion_gym.metrics.invented_excess`.
        cap: Lead over the brighter source at each pixel above which more is worth nothing; infinite for no cap.
    """

    weight: float
    cap: float = math.inf


# Weights by how densely public methods stand in each metric on public test pairs; what is far from them counts less.
GOALS: dict[str, Goal] = {
    "SSIM": Goal(380.0, 0.04),
    "VIF": Goal(60.0),
    "Qabf": Goal(120.0),
    "SCD": Goal(65.0),
    "MI": Goal(50.0),
    "EN": Goal(90.0, 0.45),
    "SD": Goal(70.0, 0.30),
    "SF": Goal(60.0, 0.32),
    "AG": Goal(60.0, 0.38),
    INVENTED: Goal(40.0),  # a sixth to an eighth of what was invented is left, at less than 1 % of all other worth
}


def soft_entropies(fused: Tensor, source: Tensor) -> tuple[Tensor, Tensor]:
    """Entropy of the fused image and its mutual information with a source, over `BINS` linearly interpolated bins.

    Args:
        fused: (N, 1, H, W) in [0, 1]; differentiable.
        source: Same shape and range.

    Returns:
        Entropy and mutual information, (N,) each, in bits.
    """
    count = fused.shape[0]
    at = fused.flatten(1) * (BINS - 1)
    low = at.detach().floor().clamp(0, BINS - 2)
    share = at - low
    column = (source.flatten(1) * (BINS - 1)).round().long()
    joint = fused.new_zeros(count, BINS * BINS)
    for step, weight in ((0, 1 - share), (1, share)):
        joint = joint.scatter_add(1, (low.long() + step) * BINS + column, weight)
    joint = (joint / at.shape[1]).view(count, BINS, BINS)
    rows, columns = joint.sum(2), joint.sum(1)
    entropy = _entropy(rows)
    return entropy, entropy + _entropy(columns) - _entropy(joint.flatten(1))


def _entropy(probability: Tensor) -> Tensor:
    return -(probability * torch.log2(probability.clamp_min(1e-9))).sum(1)


def _capped(value: Tensor, cap: float, softness: float = 0.05) -> Tensor:
    """The value below the cap, levelling off smoothly around it."""
    return cap - softness * F.softplus((cap - value) / softness)


def objective(fused: Tensor, ir: Tensor, vi: Tensor, goals: Mapping[str, Goal] = GOALS) -> dict[str, Tensor]:
    """Worth of fused images by metric, (N,) each; their sum is to be maximised.

    Metrics that relate to the sources count half by their sum and half by twice the smaller one, so that serving
    one source only does not pay.

    Args:
        fused: (N, 1, H, W) in [0, 1].
        ir: Infrared, same shape and range.
        vi: Visible luminance, same shape and range.
        goals: What each metric is worth.
    """
    sources = Sources(ir, vi)
    values = evaluate_per_source(fused, sources, (*SIMILARITY, *STATISTICS))
    brighter = torch.maximum(ir, vi)
    with torch.no_grad():
        floor = evaluate_per_source(brighter, sources, ("SSIM", *STATISTICS))
        plain_entropy, _ = soft_entropies(brighter, ir)
    entropy, with_ir = soft_entropies(fused, ir)
    _, with_vi = soft_entropies(fused, vi)
    lead = (values["SSIM"] - floor["SSIM"]).sum(1)
    worth = {"SSIM": goals["SSIM"].weight * _capped(lead, goals["SSIM"].cap, softness=0.01)}
    worth["SCD"] = goals["SCD"].weight * values["SCD"].sum(1)
    for name in ("VIF", "Qabf"):
        worth[name] = goals[name].weight * (0.5 * values[name].sum(1) + values[name].amin(1))
    worth["MI"] = goals["MI"].weight * (with_ir + with_vi)
    worth["EN"] = goals["EN"].weight * _capped(entropy - plain_entropy, goals["EN"].cap)
    for name in STATISTICS:
        relative = torch.log((values[name] + 1) / (floor[name] + 1))
        worth[name] = goals[name].weight * _capped(relative, goals[name].cap)
    worth[INVENTED] = -goals[INVENTED].weight * 100 * invented_excess(fused, sources)
    return worth


def loss_of(worth: Mapping[str, Tensor], goals: Mapping[str, Goal] = GOALS) -> Tensor:
    """What `objective` gives as a loss per sample, (N,): 1 minus all worth, relative to the sum of the weights."""
    return 1 - torch.stack(list(worth.values())).sum(0) / sum(goal.weight for goal in goals.values())


def metric_loss(fused: Tensor, ir: Tensor, vi: Tensor) -> Tensor:
    """The objective with `GOALS` as a loss per sample, (N,).

    Args:
        fused: (N, 1, H, W) in [0, 1]; differentiable.
        ir: Infrared, same shape and range.
        vi: Visible luminance, same shape and range.
    """
    return loss_of(objective(fused, ir, vi))
