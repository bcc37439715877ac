"""The fusion score that the reward is made of: what fused images are worth beside a reference fusion of the same pairs.

Metrics of fused images mislead one by one: statistics of the fused image alone (EN, SD, SF, AG) are won by noise
and tone-mapping, sums over the two sources (MI, SCD, VIF, Qabf, SSIM) by copying one of them, and none sees structure
or grain that is in neither source. So all count, what relates to the two sources is balanced by a harmonic mean, and a
statistic that overshoots the reference's loses what it gained. What was fused from a damaged pair is held to the
clean sources, and to the reference's fusion of the clean pair itself: there detail that is too much is grain, and an
image that was cleaned must be worth more than one that was not.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fusion_gym.metrics import AMPLIFIED, ARTEFACTS, INVENTED, REPORTED, Sources, evaluate_per_source

STATISTICS: dict[str, float] = {"EN": 0.5, "SD": 0.75, "SF": 0.75, "AG": 0.75}
SIMILARITIES: dict[str, float] = {"MI": 0.75, "SCD": 0.75, "VIF": 1.5, "Qabf": 1.5, "SSIM": 1.25}
# Weight of each part of the score, of images that were fused from clean and from damaged pairs. With the reference's
# fusion of the clean pair at hand, detail is judged by its edges more than by how much of it there is.
CLEAN_PARTS: dict[str, float] = {**STATISTICS, **SIMILARITIES, INVENTED: 1.0, AMPLIFIED: 1.0}
FULL_REFERENCE: dict[str, float] = {"structure": 2.0, "edges": 2.0, "intensity": 3.5, "both": 5.0}
DAMAGED_PARTS: dict[str, float] = {**CLEAN_PARTS, "SF": 0.35, "AG": 0.35, **FULL_REFERENCE}

LEAST = 1e-3  # of a metric: what is less is not told apart
CAP = 1.1  # of a ratio to the reference's value
SLACK = 0.1  # by which a statistic may exceed the reference's without loss, on clean pairs
# Of the image, more than the reference's: such an image is worth nothing in this part.
WORTHLESS = {INVENTED: 0.05, AMPLIFIED: 0.2}
INTENSITY_ERROR = 0.1  # of full scale, mean over the image: the same
BOTH = 0.15  # of the reference's SCD, from which on both sources count as present


def balanced(values: Tensor) -> Tensor:
    """Harmonic mean over the two sources, (N, 2) to (N,); a value that is not positive gives 0.

    A metric of the fused image alone, (N,), passes unchanged.
    """
    if values.dim() == 1:
        return values
    a, b = values.clamp_min(0).unbind(1)
    return 2 * a * b / (a + b).clamp_min(1e-12)


class Yardstick:
    """Given pairs and a reference's fusion of them, with everything that does not depend on what is judged.

    Args:
        ir: Clean infrared, (N, 1, H, W) in [0, 1].
        vi: Clean visible luminance, same shape and range.
        reference: The reference's fusion of these pairs, same shape and range.
    """

    def __init__(self, ir: Tensor, vi: Tensor, reference: Tensor) -> None:
        self.reference = reference
        self.sources, self._as_source = Sources(ir, vi), Sources(reference, reference)
        self.values = self.measure(reference)
        self._own_edges = self._alike(reference, "Qabf").clamp_min(LEAST)

    def measure(self, fused: Tensor) -> dict[str, Tensor]:
        """The balanced value of every metric of the score, and the shares of `ARTEFACTS`, (N,) each."""
        values = evaluate_per_source(fused, self.sources, (*REPORTED, *ARTEFACTS))
        return {name: balanced(value) for name, value in values.items()}

    def ratios(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What `measure` gave, relative to the reference's, (N,), by metric; of the nine metrics, not capped."""
        return {name: values[name].clamp_min(LEAST) / self.values[name].clamp_min(LEAST) for name in REPORTED}

    def parts(self, fused: Tensor, values: Mapping[str, Tensor], damaged: bool) -> dict[str, Tensor]:
        """The parts of the score.

        Args:
            fused: Fused images, (N, 1, H, W) in [0, 1].
            values: What `measure` gives for them.
            damaged: Whether they were fused from damaged pairs.

        Returns:
            Worth by part, (N,) in [0, `CAP`], for `CLEAN_PARTS` or `DAMAGED_PARTS`; the reference has 1 in each.
        """
        slack = 0.0 if damaged else SLACK
        worth = {
            name: torch.minimum(ratio, (2.0 + slack - ratio).clamp_max(1.0 if slack else CAP))
            if name in STATISTICS
            else ratio
            for name, ratio in self.ratios(values).items()
        }
        for name, share in WORTHLESS.items():
            worth[name] = 1.0 + (self.values[name] - values[name]) / share
        if damaged:
            worth["structure"] = self._alike(fused, "SSIM")
            worth["edges"] = self._alike(fused, "Qabf") / self._own_edges
            worth["intensity"] = 1.0 - (fused - self.reference).abs().mean((1, 2, 3)) / INTENSITY_ERROR
            worth["both"] = (worth["SCD"] / BOTH).clamp_max(1.0)  # a source that was copied has nothing of the other
        return {name: value.clamp(0.0, CAP) for name, value in worth.items()}

    def score(self, fused: Tensor, damaged: bool = False) -> Tensor:
        """The score of fused images, (N,) in [0, `CAP`]; see `parts`."""
        return weighted(self.parts(fused, self.measure(fused), damaged))

    def _alike(self, fused: Tensor, metric: str) -> Tensor:
        return evaluate_per_source(fused, self._as_source, (metric,))[metric][:, 0]


def weighted(parts: Mapping[str, Tensor]) -> Tensor:
    """Weighted mean per image, (N,), of what `Yardstick.parts` gave."""
    weights = DAMAGED_PARTS if parts.keys() == DAMAGED_PARTS.keys() else CLEAN_PARTS
    return torch.stack([weight * parts[name] for name, weight in weights.items()]).sum(0) / sum(weights.values())
