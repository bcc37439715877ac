"""The observation of FusionDistill: named features with true bounds.

The table `OBSERVATIONS` drives the observation space, the documentation and the tests.
Nothing here needs torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from fusion_gym.actions import ACTIONS


@dataclass(frozen=True)
class Feature:
    """One feature of the observation.

    Attributes:
        name: The feature's key.
        low: Lower bound, attained by clipping where the formula has none.
        high: Upper bound.
        doc: Formula or meaning, in one sentence.
    """

    name: str
    low: float
    high: float
    doc: str


RATIO_METRICS = ("EN", "SD", "SF", "AG", "MI", "SCD", "VIF", "Qabf", "SSIM")

OBSERVATIONS: tuple[Feature, ...] = (
    Feature("progress", 0.0, 1.0, "Share of the episode's decisions already taken."),
    Feature("loss_guide", -3.0, 2.0, "log10 of the mean guidance loss of the last decision, clipped."),
    Feature("loss_self", -3.0, 2.0, "log10 of the mean self-learning loss of the last decision, clipped."),
    Feature("trend_guide", -1.0, 1.0, "Change of loss_guide over the last decision, times 4, clipped."),
    Feature("trend_self", -1.0, 1.0, "Change of loss_self over the last decision, times 4, clipped."),
    Feature("grad_norm", -1.0, 1.0, "log10 of the mean gradient norm of the last decision, halved, clipped."),
    Feature("gap_intensity", 0.0, 1.0, "10 x mean of abs(student - teacher) on the clean probe, clipped."),
    Feature("gap_gradient", 0.0, 1.0, "10 x mean of abs(Sobel(student) - Sobel(teacher)) on the clean probe, clipped."),
    Feature("gap_structure", 0.0, 1.0, "1 - SSIM(student, teacher) on the clean probe, clipped."),
    Feature("teacher_score", 0.0, 1.5, "Fusion score of the teacher itself on the clean probe."),
    Feature("lead", -1.0, 1.0, "5 x (teacher_score - score_clean), clipped: positive where the teacher is ahead."),
    Feature("score_clean", 0.0, 1.5, "Fusion score of the student on the clean probe."),
    Feature("score_hardened", 0.0, 1.5, "Fusion score of the student on the hardened probe."),
    *(
        Feature(f"ratio_{name}", 0.0, 2.0, f"{name} of the student on the clean probe relative to the reference's.")
        for name in RATIO_METRICS
    ),
    *(Feature(f"last_{name}", -1.0, 1.0, f"The last action's {name}; 0 before the first.") for name in ACTIONS),
)


def index(name: str) -> int:
    """Position of a named feature in the observation.

    Raises:
        KeyError: If there is no such feature.
    """
    for position, feature in enumerate(OBSERVATIONS):
        if feature.name == name:
            return position
    raise KeyError(f"no observation feature {name!r}; there are: {', '.join(f.name for f in OBSERVATIONS)}")
