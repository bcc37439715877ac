"""The probe: fixed pairs, clean and damaged in every way, on which a student is scored after every decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from fusion_gym.conditions import CLEAN, CONDITIONS, HARDENINGS
from fusion_gym.hardening import damage, draw
from fusion_gym.losses import sobel
from fusion_gym.metrics import Sources, evaluate_per_source
from fusion_gym.modes import settled
from fusion_gym.score import Yardstick, weighted
from fusion_gym.tensors import Fuse

STRENGTHS = (0.5, 0.8)  # of the probe's damages, in turn
COLLAPSED = 1e-3  # standard deviation of all outputs, of full scale; its slope is zero too: such a student stays so


@dataclass(frozen=True)
class Reading:
    """What one scoring of a student gives.

    Attributes:
        scores: Mean fusion score by condition (`fusion_gym.conditions.CONDITIONS`).
        metrics: Mean (balanced) value on the clean pairs by metric.
        ratios: Mean ratio to the reference's value on the clean pairs by metric.
        gaps: Distance from the teacher on the clean pairs: intensity, gradient, structure.
        alive: Whether every output of the student was finite and they were not all the same, unless the sources are.
    """

    scores: dict[str, float]
    metrics: dict[str, float]
    ratios: dict[str, float]
    gaps: dict[str, float]
    alive: bool

    def score(self, deployment: Mapping[str, float]) -> float:
        """The score where a student meets the conditions in these shares."""
        return sum(share * self.scores[condition] for condition, share in deployment.items())

    @property
    def score_hardened(self) -> float:
        """Mean of the scores under every damage."""
        return sum(self.scores[name] for name in HARDENINGS) / len(HARDENINGS)

    def as_dict(self) -> dict[str, Any]:
        """The attributes by name, as a copy."""
        return asdict(self)


class Probe:
    """Fixed probe pairs with everything about the sources, the teacher and the reference computed once.

    Every pair is there clean and, by each of `HARDENINGS`, damaged at one of `STRENGTHS`; light goes wrong in both
    directions, in turn. The student sees the damaged pair and is scored against the clean one.

    Args:
        ir: Clean infrared, (N, 1, H, W) in [0, 1].
        vi: Clean visible luminance, same shape and range.
        teacher: The teacher's outputs on the clean pairs, same shape; the gaps are distances from it.
        reference: Outputs that the score is relative to, same shape; one reference for all teachers makes the scores
            of their students comparable.

    Attributes:
        pairs: Infrared and visible images by condition, (N, 1, H, W) each.
        teacher_score: Mean score of the teacher on the clean pairs.
    """

    @settled()
    def __init__(self, ir: Tensor, vi: Tensor, teacher: Tensor, reference: Tensor) -> None:
        self.ir, self.vi, self.teacher, self.reference = ir, vi, teacher, reference
        count = len(ir)
        drawn = draw(count, torch.Generator(ir.device).manual_seed(0))  # the same in every environment
        turn = torch.arange(count, device=ir.device)
        drawn = drawn._replace(dark=turn // len(STRENGTHS) % 2 == 0)
        strength = torch.tensor(STRENGTHS, device=ir.device)[turn % len(STRENGTHS)]
        self.pairs = {CLEAN: (ir, vi)} | {name: damage(ir, vi, {name: strength}, drawn) for name in HARDENINGS}
        self._inputs = tuple(torch.cat(images) for images in zip(*self.pairs.values(), strict=True))
        self._clean = Yardstick(ir, vi, reference)
        self._damaged = Yardstick(*(image.repeat(len(HARDENINGS), 1, 1, 1) for image in (ir, vi, reference)))
        self._gradient, self._as_source = sobel(teacher), Sources(teacher, teacher)
        self._blank = not float(torch.cat((ir, vi)).std()) > COLLAPSED  # one gray level is the right answer then
        self.teacher_score = float(self._clean.score(teacher).mean())

    def __len__(self) -> int:
        """Number of pairs, each scored under every condition."""
        return len(self.ir)

    @property
    def telling(self) -> int:
        """The pair whose sources both have the most to see, for people to look at."""
        return int(torch.minimum(self.ir.flatten(1).std(1), self.vi.flatten(1).std(1)).argmax())

    @torch.no_grad()
    def fuse(self, fuse: Fuse) -> Tensor:
        """What a fusion function makes of all pairs, (len(CONDITIONS) · N, 1, H, W), in the order of the conditions."""
        return fuse(*self._inputs)

    @settled()
    def read(self, fuse: Fuse) -> Reading:
        """Scores a fusion function on the probe."""
        return self.judge(self.fuse(fuse))

    @torch.no_grad()
    def judge(self, fused: Tensor) -> Reading:
        """Scores what `fuse` gave."""
        alive = bool(torch.isfinite(fused).all()) and (float(fused.std()) > COLLAPSED or self._blank)
        fused = torch.nan_to_num(fused, nan=0.0, posinf=1.0, neginf=0.0)
        clean, damaged = fused[: len(self)], fused[len(self) :]
        values = self._clean.measure(clean)
        scores = torch.cat(
            (weighted(self._clean.parts(clean, values, damaged=False)), self._damaged.score(damaged, True))
        )
        structure = evaluate_per_source(clean, self._as_source, ("SSIM",))["SSIM"][:, 0]
        return Reading(
            scores=dict(zip(CONDITIONS, scores.view(len(CONDITIONS), -1).mean(1).tolist(), strict=True)),
            metrics=_means(values),
            ratios=_means(self._clean.ratios(values)),
            gaps={
                "intensity": float((clean - self.teacher).abs().mean()),
                "gradient": float((sobel(clean) - self._gradient).abs().mean()),
                "structure": float(1 - structure.mean()),
            },
            alive=alive,
        )


def _means(values: Mapping[str, Tensor]) -> dict[str, float]:
    return {name: float(value.mean()) for name, value in values.items()}
