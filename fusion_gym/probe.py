"""The probe: a fixed set of pairs, clean and hardened, on which a student is scored after every decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from fusion_gym.hardening import HARDENINGS, draw, harden
from fusion_gym.losses import sobel
from fusion_gym.metrics import Sources, evaluate_per_source
from fusion_gym.score import measure, ratios, score
from fusion_gym.tensors import Fuse

PROBE_STRENGTH = 0.5
COLLAPSED = 1e-3  # standard deviation of all outputs, of full scale; its slope is zero too: such a student stays so


@dataclass(frozen=True)
class Reading:
    """What one scoring of a student gives.

    Attributes:
        score: Mean of the clean and the hardened score.
        score_clean: Fusion score on the clean probe.
        score_hardened: Fusion score on the hardened probe.
        metrics: Mean (balanced) value on the clean probe by metric.
        ratios: Mean ratio to the reference's value on the clean probe by metric.
        gaps: Distance from the teacher on the clean probe: intensity, gradient, structure.
        alive: Whether every output of the student was finite and they were not all the same, unless the sources are.
    """

    score: float
    score_clean: float
    score_hardened: float
    metrics: dict[str, float]
    ratios: dict[str, float]
    gaps: dict[str, float]
    alive: bool

    def as_dict(self) -> dict[str, Any]:
        """The attributes by name, as a copy."""
        return asdict(self)


class Probe:
    """Fixed probe pairs with everything about the sources and the teacher computed once.

    The hardened half holds the same pairs, each with one hardening at full `PROBE_STRENGTH` in turn; the student
    sees the degraded pair and is scored against the clean one.

    Args:
        ir: Clean infrared, (N, 1, H, W) in [0, 1].
        vi: Clean visible luminance, same shape and range.
        teacher: The teacher's outputs on the clean pairs, same shape; the gaps are distances from it.
        reference: Outputs that the score is relative to, same shape; one reference for all teachers makes the scores
            of their students comparable.
    """

    def __init__(self, ir: Tensor, vi: Tensor, teacher: Tensor, reference: Tensor) -> None:
        self.ir, self.vi, self.teacher = ir, vi, teacher
        self.sources = Sources(ir, vi)
        self._both = Sources(torch.cat((ir, ir)), torch.cat((vi, vi)))
        generator = torch.Generator(ir.device).manual_seed(0)  # the probe is the same in every environment
        hardened = []
        for position in range(len(ir)):
            one = slice(position, position + 1)
            drawn = draw(1, generator, full=True)
            strengths = {HARDENINGS[position % len(HARDENINGS)]: PROBE_STRENGTH}
            hardened.append(harden(ir[one], vi[one], strengths, drawn))
        self.hard_ir = torch.cat([pair[0] for pair in hardened])
        self.hard_vi = torch.cat([pair[1] for pair in hardened])
        self._inputs = torch.cat((ir, self.hard_ir)), torch.cat((vi, self.hard_vi))
        values = measure(reference, self.sources)
        self.reference = {name: torch.cat((value, value)) for name, value in values.items()}
        self._gradient = sobel(teacher)
        self._as_source = Sources(teacher, teacher)
        self._blank = not float(torch.cat((ir, vi)).std()) > COLLAPSED  # one gray level is the right answer then
        self.teacher_score = float(score(ratios(measure(teacher, self.sources), values)).mean())

    def __len__(self) -> int:
        """Number of pairs, each scored clean and hardened."""
        return len(self.ir)

    @property
    def telling(self) -> int:
        """The pair whose sources both have the most to see, for people to look at."""
        return int(torch.minimum(self.ir.flatten(1).std(1), self.vi.flatten(1).std(1)).argmax())

    @torch.no_grad()
    def read(self, fuse: Fuse) -> Reading:
        """Scores a fusion function on the probe."""
        fused = fuse(*self._inputs)
        alive = bool(torch.isfinite(fused).all()) and (float(fused.std()) > COLLAPSED or self._blank)
        fused = torch.nan_to_num(fused, nan=0.0, posinf=1.0, neginf=0.0)
        values = measure(fused, self._both)
        relative = ratios(values, self.reference)
        scores = score(relative)
        count = len(self)
        clean, hardened = float(scores[:count].mean()), float(scores[count:].mean())
        difference = fused[:count]
        structure = evaluate_per_source(difference, self._as_source, ("SSIM",))["SSIM"][:, 0]
        return Reading(
            score=0.5 * (clean + hardened),
            score_clean=clean,
            score_hardened=hardened,
            metrics=_means({name: value[:count] for name, value in values.items()}),
            ratios=_means({name: value[:count] for name, value in relative.items()}),
            gaps={
                "intensity": float((difference - self.teacher).abs().mean()),
                "gradient": float((sobel(difference) - self._gradient).abs().mean()),
                "structure": float(1 - structure.mean()),
            },
            alive=alive,
        )


def _means(values: Mapping[str, Tensor]) -> dict[str, float]:
    return {name: float(value.mean()) for name, value in values.items()}
