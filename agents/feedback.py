"""Scripted agents that see the state: what one can write down by hand about when to guide and what to harden.

They are the rivals that a trained agent has to beat before it is worth its training. Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from fusion_gym.actions import encode
from fusion_gym.conditions import CLEAN, HARDENINGS
from fusion_gym.observations import index

WORTH_FOLLOWING = 0.95  # score from which on a teacher is as good as the reference
GUIDED, LED = 0.3, 0.15  # guidance under such a teacher, and under any other: without any a student sharpens too much
TOO_SHARP = 2.0  # further guidance for each unit of AG beyond such a teacher's: edges get rims before scores fall
HELD = 0.01  # fall of the clean score, from its best, that doubles the clean share
Seen = Callable[[str], float]  # a feature's value by name


def follow(seen: Seen) -> dict[str, float]:
    """Twice the guidance where the teacher is worth following, and more where the student is sharper than that."""
    if seen("teacher_score") <= WORTH_FOLLOWING:
        return {"guidance": LED}
    return {"guidance": min(1.0, GUIDED + TOO_SHARP * max(0.0, seen("ratio_AG") - 1.0))}


def weakest(seen: Seen) -> dict[str, float]:
    """Hardening of the one kind that the student is worst at."""
    worst = min(HARDENINGS, key=lambda name: seen(f"score_{name}"))
    return {name: float(name == worst) for name in HARDENINGS}


def deployed(seen: Seen) -> dict[str, float]:
    """Hardening by what the student will meet, as often as it will meet damage; guidance as `follow` has it."""
    most = max(seen(f"share_{name}") for name in HARDENINGS)
    strengths = {name: seen(f"share_{name}") / max(most, 1e-6) for name in HARDENINGS}
    return {**follow(seen), **strengths, "clean": seen(f"share_{CLEAN}")}


def hold(seen: Seen) -> dict[str, float]:
    """`follow` and `weakest` together, with a clean share that rises where the clean score falls below its best."""
    fallen = max(0.0, seen("best_clean") - seen(f"score_{CLEAN}"))
    return {**follow(seen), **weakest(seen), "clean": min(1.0, 0.4 * (1 + fallen / HELD))}


REMEMBERING = ("hold",)  # rules that ask for "best_clean"
RULES: dict[str, Callable[[Seen], dict[str, float]]] = {
    "follow": follow,
    "weakest": weakest,
    "hold": hold,
    "deployed": deployed,
}


class Rule:
    """An agent that follows one of `RULES`; a component that the rule does not name stays at its default.

    Args:
        name: The rule.
        names: The components that the environment lets the agent set; what else the rule names is left out.
    """

    def __init__(self, name: str, names: Sequence[str]) -> None:
        self._rule, self.names = RULES[name], tuple(names)
        self._clean, self._remembers = index(f"score_{CLEAN}"), name in REMEMBERING

    def predict(
        self,
        observation: np.ndarray,
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """The rule's action; see `agents.Agent`. Its memory, where it has one, is the best clean score so far, (N,)."""
        rows = np.atleast_2d(observation)
        clean = rows[:, self._clean]
        best = clean if state is None else np.maximum(clean, state[0])
        if episode_start is not None:
            best = np.where(episode_start, clean, best)
        actions = np.stack([self._action(row, float(known)) for row, known in zip(rows, best, strict=True)])
        return actions.reshape(*observation.shape[:-1], len(self.names)), (best,) if self._remembers else None

    def _action(self, row: np.ndarray, best_clean: float) -> np.ndarray:
        wanted = self._rule(lambda name: best_clean if name == "best_clean" else float(row[index(name)]))
        return encode({name: value for name, value in wanted.items() if name in self.names}, self.names)
