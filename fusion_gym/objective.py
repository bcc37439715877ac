"""The objective made of the fusion metrics themselves, in differentiable form.

What the built-in teacher is trained by, and what a student can learn by itself from (``self_loss="metrics"``): what a
fused image keeps of both sources (SSIM, VIF, Qabf, SCD, MI) and what it shows by itself (EN, SD, SF, AG), the latter
relative to the brighter source and capped, so that neither noise nor tone-mapping is worth more than the sources are;
less what it invents and amplifies, for none of these sees halos, dark corners and blotches, or grids on soft edges.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fusion_gym.closed import Known, know, measure
from fusion_gym.metrics import AMPLIFIED, INVENTED
from fusion_gym.modes import settled

STATISTICS = ("SD", "SF", "AG")


@dataclass(frozen=True)
class Goal:
    """What one metric is worth.

    Attributes:
        weight: Gain of the objective for one unit of the metric (of its logarithm for SD, SF and AG), and loss for each
            hundredth of `fusion_gym.metrics.invented_excess` and `amplified_excess`.
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
    AMPLIFIED: Goal(20.0),
}


CAPPED = ("SSIM", "EN", *STATISTICS)  # in the order of the columns of `_capped`


def _capped(leads: Tensor, goals: Mapping[str, Goal]) -> Tensor:
    """Leads below their caps, (N, len(CAPPED)), levelling off smoothly around them."""
    caps = leads.new_tensor([goals[name].cap for name in CAPPED])
    softness = leads.new_tensor([0.01, *[0.05] * (len(CAPPED) - 1)])
    return caps - softness * F.softplus((caps - leads) / softness)


class Kept(NamedTuple):
    """What the objective needs of sources; from `keep`.

    Attributes:
        known: What depends on the sources alone.
        floor: What fused images are to be better in: SSIM (two columns), SD, SF, AG and EN of the brighter source at
            each pixel, (N, 6).
    """

    known: Known
    floor: Tensor


@torch.no_grad()
def keep(ir: Tensor, vi: Tensor) -> Kept:
    """Computes what the objective needs of sources, (N, 1, H, W) in [0, 1] each.

    Raises:
        ValueError: If they are too small for a metric.
    """
    known = know(ir, vi)
    values = measure(torch.maximum(ir, vi), known, ("SSIM", *STATISTICS, "information"))
    columns = (values["SSIM"], *(values[name][:, None] for name in STATISTICS), values["information"][:, :1])
    return Kept(known, torch.cat(columns, dim=1))


def worth_of(values: Mapping[str, Tensor], floor: Tensor, goals: Mapping[str, Goal] = GOALS) -> dict[str, Tensor]:
    """`objective` from the measures of fused images, and the floor that `keep` gives of their sources."""
    entropy, shared = values["information"].split((1, 2), dim=1)
    statistics = torch.stack([values[name] for name in STATISTICS], dim=1)
    structure = (values["SSIM"] - floor[:, :2]).sum(1, keepdim=True)
    leads = torch.cat((structure, entropy - floor[:, 5:], ((statistics + 1) / (floor[:, 2:5] + 1)).log()), dim=1)
    similar = torch.stack((values["VIF"], values["Qabf"]), dim=1)
    balanced = 0.5 * similar.sum(2) + similar.amin(2)
    sums = torch.stack((values["SCD"], shared), dim=1).sum(2)
    excess = -100 * torch.stack((values["invented_excess"], values["amplified_excess"]), dim=1)
    worth = torch.cat((_capped(leads, goals), balanced, sums, excess), dim=1)
    names = (*CAPPED, "VIF", "Qabf", "SCD", "MI", INVENTED, AMPLIFIED)
    weights = worth.new_tensor([goals[name].weight for name in names])
    return dict(zip(names, (weights * worth).unbind(1), strict=True))


@settled()
def objective(
    fused: Tensor, ir: Tensor, vi: Tensor, goals: Mapping[str, Goal] = GOALS, kept: Kept | tuple[()] = ()
) -> dict[str, Tensor]:
    """Worth of fused images by metric, (N,) each; their sum is to be maximised.

    Metrics that relate to the sources count half by their sum and half by twice the smaller one, so that serving
    one source only does not pay.

    Args:
        fused: (N, 1, H, W) in [0, 1]; differentiable once.
        ir: Infrared, same shape and range.
        vi: Visible luminance, same shape and range.
        goals: What each metric is worth.
        kept: From `keep` of the sources, where it is at hand.

    Raises:
        ValueError: If the images are too small for a metric.
    """
    known, floor = kept if kept else keep(ir, vi)
    return worth_of(measure(fused, known), floor, goals)


def loss_of(worth: Mapping[str, Tensor], goals: Mapping[str, Goal] = GOALS) -> Tensor:
    """What `objective` gives as a loss per sample, (N,): 1 minus all worth, relative to the sum of the weights."""
    return 1 - torch.stack(list(worth.values())).sum(0) / sum(goal.weight for goal in goals.values())


def metric_loss(fused: Tensor, ir: Tensor, vi: Tensor, kept: Kept | tuple[()] = ()) -> Tensor:
    """The objective with `GOALS` as a loss per sample, (N,).

    Args:
        fused: (N, 1, H, W) in [0, 1]; differentiable once.
        ir: Infrared, same shape and range.
        vi: Visible luminance, same shape and range.
        kept: From `keep` of the sources, where it is at hand.
    """
    return loss_of(objective(fused, ir, vi, kept=kept))
