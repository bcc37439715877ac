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

UNIT, SIGNED, LOSS, SCORE = (0.0, 1.0), (-1.0, 1.0), (-3.0, 2.0), (0.0, 1.5)  # bounds; beyond them values are clipped
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


def _loss(name: str, kind: str) -> Feature:
    doc = f"log10 of the mean {kind} loss of the last decision, clipped."
    return Feature(f"loss_{name}", *LOSS, doc, lambda e: _log10(getattr(e.stats, f"loss_{name}")))


def _trend(name: str) -> Feature:
    of, doc = f"loss_{name}", f"Change of loss_{name} over the last decision, times {TREND}, clipped."
    return Feature(
        f"trend_{name}", *SIGNED, doc, lambda e: TREND * (_log10(getattr(e.stats, of)) - _log10(getattr(e.before, of)))
    )


def _ratio(name: str) -> Feature:
    doc = f"{name} of the student on the clean probe relative to the reference's."
    return Feature(f"ratio_{name}", 0.0, 2.0, doc, lambda e: e.reading.ratios[name])


def _score(condition: str) -> Feature:
    doc = f"Fusion score of the student on the probe's {condition} pairs."
    return Feature(f"score_{condition}", *SCORE, doc, lambda e: e.reading.scores[condition])


def _share(condition: str) -> Feature:
    doc = f"Share of {condition} pairs where the student will be deployed."
    return Feature(f"share_{condition}", *UNIT, doc, lambda e: e.deployment[condition])


def _last(name: str) -> Feature:
    doc = f"The last action's {name}; 0 before the first."
    return Feature(f"last_{name}", *SIGNED, doc, lambda e: e.last_action[name])


OBSERVATIONS: tuple[Feature, ...] = (
    Feature("progress", *UNIT, "Share of the episode's decisions already taken.", lambda e: e.step / e.steps),
    _loss("guide", "guidance"),
    _loss("self", "self-learning"),
    _trend("guide"),
    _trend("self"),
    Feature(
        "grad_norm",
        *SIGNED,
        "log10 of the mean gradient norm of the last decision, halved, clipped.",
        lambda e: _log10(e.stats.grad_norm) / 2,
    ),
    Feature(
        "gap_intensity",
        *UNIT,
        f"{GAP} x mean of abs(student - teacher) on the clean probe, clipped.",
        lambda e: GAP * e.reading.gaps["intensity"],
    ),
    Feature(
        "gap_gradient",
        *UNIT,
        f"{GAP} x mean of abs(Sobel(student) - Sobel(teacher)) on the clean probe, clipped.",
        lambda e: GAP * e.reading.gaps["gradient"],
    ),
    Feature(
        "gap_structure",
        *UNIT,
        "1 - SSIM(student, teacher) on the clean probe, clipped.",
        lambda e: e.reading.gaps["structure"],
    ),
    Feature(
        "teacher_score", *SCORE, "Fusion score of the teacher itself on the clean probe.", lambda e: e.teacher_score
    ),
    Feature(
        "lead",
        *SIGNED,
        f"{LEAD} x (teacher_score - score_clean), clipped: positive where the teacher is ahead.",
        lambda e: LEAD * (e.teacher_score - e.reading.scores[CLEAN]),
    ),
    Feature(
        "score",
        *SCORE,
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
