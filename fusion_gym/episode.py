"""An episode so far: what its observation, its info, its rewards and its frame are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import numpy as np

from fusion_gym.actions import ACTIONS
from fusion_gym.conditions import CLEAN
from fusion_gym.distiller import Stats
from fusion_gym.info import Info
from fusion_gym.probe import Reading


def _per_action() -> dict[str, list[float]]:
    return {name: [] for name in ACTIONS}


@dataclass
class Episode:
    """The state of an episode beside its student.

    Attributes:
        steps: Decisions that it has.
        teacher_score: Score of the teacher on the clean probe.
        deployment: Share of each condition where the student will be used; the score weighs them so.
        settings: Physical values that the student was last trained under, by name.
        stats: Figures of the last decision's training.
        before: Those of the decision before.
        reading: What the last scoring gave.
        initial: The score before the first decision.
        score: The present score.
        paid: The score up to which rewards have been paid.
        step: Decisions taken.
        diverged: Whether the student diverged.
        last_action: The last action by component.
        history: The scores so far, from the first one on, by name.
        actions: The physical values so far, by name.
    """

    steps: int
    teacher_score: float
    deployment: dict[str, float]
    settings: dict[str, float]
    stats: Stats
    before: Stats
    reading: Reading
    initial: float
    score: float
    paid: float
    step: int = 0
    diverged: bool = False
    last_action: dict[str, float] = field(default_factory=lambda: dict.fromkeys(ACTIONS, 0.0))
    history: dict[str, list[float]] = field(default_factory=lambda: {"total": [], "clean": [], "hardened": []})
    actions: dict[str, list[float]] = field(default_factory=_per_action)

    @classmethod
    def begin(
        cls,
        steps: int,
        teacher_score: float,
        deployment: Mapping[str, float],
        settings: dict[str, float],
        stats: Stats,
        reading: Reading,
    ) -> Episode:
        """An episode before its first decision, from the student's first figures and score."""
        first = reading.score(deployment)
        episode = cls(steps, teacher_score, dict(deployment), settings, stats, stats, reading, first, first, first)
        episode._record()
        return episode

    @property
    def over(self) -> bool:
        """Whether no decision is left."""
        return self.step >= self.steps

    def conclude(self, stats: Stats, reading: Reading) -> None:
        """Takes in a decision's training and scoring."""
        self.before, self.stats, self.reading = self.stats, stats, reading
        self.score = reading.score(self.deployment)
        self.step += 1
        self._record()

    def diverge(self, penalty: float) -> None:
        """Ends the episode: what was gained is lost, and the penalty, a share of the score, with it."""
        self.before, self.diverged = self.stats, True
        self.score = self.initial - penalty
        self.step = self.steps

    def pay(self) -> float:
        """What the score has gained since this was last asked."""
        gain, self.paid = self.score - self.paid, self.score
        return gain

    def _record(self) -> None:
        scores = self.score, self.reading.scores[CLEAN], self.reading.score_hardened
        for line, value in zip(self.history.values(), scores, strict=True):
            line.append(value)
        for name, value in self.settings.items():
            self.actions[name].append(value)

    def info(self, updates: int) -> Info:
        """The figures that a step reports, flat; ``updates`` is the number that the student has had.

        Returns:
            NumPy's scalars, float64 and for `is_success` bool: they are what libraries that read an info's types
            (TorchRL's) take, and NumPy's float64 is a Python float too.
        """
        figures = {
            "score": self.score,
            **{f"score_{name}": value for name, value in self.reading.scores.items()},
            "score_hardened": self.reading.score_hardened,
            "gain": self.score - self.initial,
            "diverged": self.diverged,
            "student/updates": updates,
            "student/loss_guide": self.stats.loss_guide,
            "student/loss_self": self.stats.loss_self,
            **{f"fusion/{name}": value for name, value in self.reading.metrics.items()},
            **{f"ratio/{name}": value for name, value in self.reading.ratios.items()},
            **{f"gap/{name}": value for name, value in self.reading.gaps.items()},
            **{f"action/{name}": value for name, value in self.settings.items()},
        }
        success = {"is_success": np.bool_(self.score > self.initial)}
        return cast(Info, {name: np.float64(value) for name, value in figures.items()} | success)

    def as_dict(self) -> dict[str, Any]:
        """The attributes by name, as plain containers of their own."""
        return asdict(self)

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Episode:
        """The episode that `as_dict` gave this of."""
        stats = {name: Stats(**state[name]) for name in ("stats", "before")}
        return cls(**{**state, **stats, "reading": Reading(**state["reading"])})
