"""The objective under automatic differentiation, from the metrics themselves: the plain twin of `fusion_gym.closed`.

Nothing is kept between calls. An oracle for the tests, and the other side of ``bench_env.py update``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fusion_gym.metrics import Sources, amplified_excess, evaluate_per_source, invented_excess
from fusion_gym.objective import STATISTICS, loss_of, worth_of

BINS = 64


def soft_entropies(fused: Tensor, source: Tensor) -> tuple[Tensor, Tensor]:
    """Entropy of the fused image and its mutual information with a source, (N,), over linearly interpolated bins."""
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


def measure(fused: Tensor, ir: Tensor, vi: Tensor) -> dict[str, Tensor]:
    """What `fusion_gym.closed.measure` gives."""
    sources = Sources(ir, vi)
    values = evaluate_per_source(fused, sources, ("SSIM", "VIF", "Qabf", "SCD", *STATISTICS))
    entropy, with_ir = soft_entropies(fused, ir)
    _, with_vi = soft_entropies(fused, vi)
    values["information"] = torch.stack((entropy, with_ir, with_vi), dim=1)
    excess = {"invented_excess": invented_excess(fused, sources), "amplified_excess": amplified_excess(fused, sources)}
    return {**values, **excess}


def metric_loss(fused: Tensor, ir: Tensor, vi: Tensor) -> Tensor:
    """What `fusion_gym.objective.metric_loss` gives."""
    with torch.no_grad():
        brighter = measure(torch.maximum(ir, vi), ir, vi)
        alone = torch.stack((*(brighter[name] for name in STATISTICS), brighter["information"][:, 0]), dim=1)
        floor = torch.cat((brighter["SSIM"], alone), dim=1)
    return loss_of(worth_of(measure(fused, ir, vi), floor))
