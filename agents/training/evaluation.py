"""Judging agents: whole episodes on seeds of their own, and what constant extremes do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from rich import box
from rich.table import Table
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv

from fusion_gym.actions import ACTIONS
from fusion_gym.text import show_table

from .. import Agent


@dataclass(frozen=True)
class Outcome:
    """Results of some episodes under one agent.

    Attributes:
        returns: Undiscounted return of each episode, in an order that is the same for every agent.
        scores: Fusion score of each episode's student at the end.
    """

    returns: list[float]
    scores: list[float]

    def summary(self) -> dict[str, float]:
        """Means and standard deviations (of the sample) of both, and the number of episodes."""
        return {
            "episodes": len(self.returns),
            **{
                f"{name}_{what}": float(value)
                for name, values in (("return", self.returns), ("score", self.scores))
                for what, value in (("mean", np.mean(values)), ("std", np.std(values, ddof=min(1, len(values) - 1))))
            },
        }


def evaluate(agent: Agent, env: VecEnv, episodes: int, seed: int) -> Outcome:
    """Runs an agent, taking its best actions.

    Args:
        agent: The agent.
        env: Environments in SB3's `Monitor`; the same number of them and the same seed give every agent the same
            students.
        episodes: Number of episodes.
        seed: Seed of the environments' first episodes.
    """
    results: dict[tuple[int, int], tuple[float, float]] = {}

    def collect(scope: dict[str, Any], _: dict[str, Any]) -> None:
        if scope["done"]:
            place = scope["i"]
            key = int(scope["episode_counts"][place]), place  # the same students in the same order for every agent
            results[key] = float(scope["info"]["episode"]["r"]), float(scope["info"]["score"])

    env.seed(seed)
    evaluate_policy(cast(Any, agent), env, episodes, callback=collect)
    returns, scores = zip(*(results[key] for key in sorted(results)), strict=True)
    return Outcome(list(returns), list(scores))


def extremes(names: tuple[str, ...]) -> dict[str, str]:
    """Specs of constant schedules at the ends of every component's range, by a label."""
    ends = {f"{name} {value:g}": f"constant:{name}={value}" for name in names for value in _ends(name)}
    for label, side in (("all lowest", 0), ("all highest", 1)):
        ends[label] = "constant:" + ",".join(f"{name}={_ends(name)[side]}" for name in names)
    return ends


def _ends(name: str) -> tuple[float, float]:
    return ACTIONS[name].low, ACTIONS[name].high


def print_outcomes(title: str, outcomes: Mapping[str, Outcome], base: str = "constant") -> None:
    """Prints a table, best return first.

    Returns and final scores are means ± standard deviations over the students. Where ``base`` is among the agents,
    so are the differences from it, student by student, ± the standard error of their mean.
    """
    table = Table(box=box.SIMPLE)
    columns = ["agent", "return", "final score", *([f"over {base}"] if base in outcomes else []), "episodes"]
    for name in columns:
        table.add_column(name, justify="left" if name == "agent" else "right")
    for label, outcome in sorted(outcomes.items(), key=lambda item: -float(np.mean(item[1].returns))):
        row = outcome.summary()
        cells = [
            f"{row['return_mean']:.2f} ± {row['return_std']:.2f}",
            f"{row['score_mean']:.4f} ± {row['score_std']:.4f}",
        ]
        if base in outcomes:
            gains = np.subtract(outcome.returns, outcomes[base].returns)
            error = np.std(gains, ddof=min(1, len(gains) - 1)) / np.sqrt(len(gains))
            cells.append("" if label == base else f"{gains.mean():+.2f} ± {error:.2f}")
        table.add_row(label, *cells, str(len(outcome.returns)))
    show_table(title, table)
