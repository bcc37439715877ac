"""The observation of FusionDistill: named features with true bounds and their formulas.

The table `OBSERVATIONS` drives the observation space, the observation, the documentation and the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fusion_gym.actions import ACTIONS
from fusion_gym.conditions import CLEAN, CONDITIONS
from fusion_gym.reported import REPORTED

if TYPE_CHECKING:
    from fusion_gym.episode import Episode

TREND, GAP, LEAD = 4, 10, 5  # what small differences are multiplied by, so that they fill their ranges


@dataclass(frozen=True)
class Feature:
    """One feature of the observation.

    Attributes:
        name: The feature's key.
        low: Lower bound, attained by clipping where the formula has none.
        high: Upper bound.
        doc: Formula or meaning, in one sentence.
        value: The formula.
    """

    name: str
    low: float
    high: float
    doc: str
    value: Callable[[Episode], float]


def _log10(value: float) -> float:
    return float(np.log10(max(value, 1e-12)))


def _ratio(name: str) -> Feature:
    doc = f"{name} of the student on the clean probe relative to the reference's."
    return Feature(f"ratio_{name}", 0.0, 2.0, doc, lambda e: e.reading.ratios[name])


def _score(condition: str) -> Feature:
    doc = f"Fusion score of the student on the probe's {condition} pairs."
    return Feature(f"score_{condition}", 0.0, 1.5, doc, lambda e: e.reading.scores[condition])


def _share(condition: str) -> Feature:
    doc = f"Share of {condition} pairs where the student will be deployed."
    return Feature(f"share_{condition}", 0.0, 1.0, doc, lambda e: e.deployment[condition])


def _last(name: str) -> Feature:
    doc = f"The last action's {name}; 0 before the first."
    return Feature(f"last_{name}", -1.0, 1.0, doc, lambda e: e.last_action[name])


OBSERVATIONS: tuple[Feature, ...] = (
    Feature(
        "progress",
        0.0,
        1.0,
        "Share of the episode's decisions already taken.",
        lambda e: e.step / e.steps,
    ),
    Feature(
        "loss_guide",
        -3.0,
        2.0,
        "log10 of the mean guidance loss of the last decision, clipped.",
        lambda e: _log10(e.stats.loss_guide),
    ),
    Feature(
        "loss_self",
        -3.0,
        2.0,
        "log10 of the mean self-learning loss of the last decision, clipped.",
        lambda e: _log10(e.stats.loss_self),
    ),
    Feature(
        "trend_guide",
        -1.0,
        1.0,
        f"Change of loss_guide over the last decision, times {TREND}, clipped.",
        lambda e: TREND * (_log10(e.stats.loss_guide) - _log10(e.before.loss_guide)),
    ),
    Feature(
        "trend_self",
        -1.0,
        1.0,
        f"Change of loss_self over the last decision, times {TREND}, clipped.",
        lambda e: TREND * (_log10(e.stats.loss_self) - _log10(e.before.loss_self)),
    ),
    Feature(
        "grad_norm",
        -1.0,
        1.0,
        "log10 of the mean gradient norm of the last decision, halved, clipped.",
        lambda e: _log10(e.stats.grad_norm) / 2,
    ),
    Feature(
        "gap_intensity",
        0.0,
        1.0,
        f"{GAP} x mean of abs(student - teacher) on the clean probe, clipped.",
        lambda e: GAP * e.reading.gaps["intensity"],
    ),
    Feature(
        "gap_gradient",
        0.0,
        1.0,
        f"{GAP} x mean of abs(Sobel(student) - Sobel(teacher)) on the clean probe, clipped.",
        lambda e: GAP * e.reading.gaps["gradient"],
    ),
    Feature(
        "gap_structure",
        0.0,
        1.0,
        "1 - SSIM(student, teacher) on the clean probe, clipped.",
        lambda e: e.reading.gaps["structure"],
    ),
    Feature(
        "teacher_score",
        0.0,
        1.5,
        "Fusion score of the teacher itself on the clean probe.",
        lambda e: e.teacher_score,
    ),
    Feature(
        "lead",
        -1.0,
        1.0,
        f"{LEAD} x (teacher_score - score_clean), clipped: positive where the teacher is ahead.",
        lambda e: LEAD * (e.teacher_score - e.reading.scores[CLEAN]),
    ),
    Feature(
        "score",
        0.0,
        1.5,
        "Fusion score of the student where it will be deployed: what the reward is the gain of.",
        lambda e: e.score,
    ),
    *map(_score, CONDITIONS),
    *map(_share, CONDITIONS),
    *map(_ratio, REPORTED),
    *map(_last, ACTIONS),
)
LOW, HIGH = np.array([(feature.low, feature.high) for feature in OBSERVATIONS], dtype=np.float32).T


def observe(episode: Episode, hidden: Sequence[str] = ()) -> np.ndarray:
    """The observation.

    Args:
        episode: The episode.
        hidden: Features that read 0 whatever they are.

    Returns:
        float32 (len(OBSERVATIONS),), each within its bounds.
    """
    values = np.array([feature.value(episode) for feature in OBSERVATIONS], dtype=np.float32)
    kept = np.array([feature.name not in hidden for feature in OBSERVATIONS])
    return np.where(kept, np.clip(values, LOW, HIGH), np.float32(0))


def index(name: str) -> int:
    """Position of a named feature in the observation.

    Raises:
        KeyError: If there is no such feature.
    """
    for position, feature in enumerate(OBSERVATIONS):
        if feature.name == name:
            return position
    raise KeyError(f"no observation feature {name!r}; there are: {', '.join(f.name for f in OBSERVATIONS)}")
