"""Judging agents: whole episodes on seeds of their own, and what constant extremes do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv

from agents import Agent
from fusion_gym.actions import ACTIONS


@dataclass(frozen=True)
class Outcome:
    """Results of some episodes under one agent.

    Attributes:
        returns: Undiscounted return of each episode.
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
        env: Environments; the same number of them and the same seed give every agent the same students.
        episodes: Number of episodes.
        seed: Seed of the environments' first episodes.
    """
    scores: list[float] = []

    def collect(scope: dict[str, Any], _: dict[str, Any]) -> None:
        if scope["done"]:
            scores.append(float(scope["info"]["score"]))

    env.seed(seed)
    returns, _ = evaluate_policy(cast(Any, agent), env, episodes, callback=collect, return_episode_rewards=True)
    return Outcome([float(value) for value in cast(list[float], returns)], scores)


def extremes(names: tuple[str, ...]) -> dict[str, str]:
    """Specs of constant schedules at the ends of every component's range, by a label."""
    ends = {f"{name} {value:g}": f"constant:{name}={value}" for name in names for value in _ends(name)}
    for label, side in (("all lowest", 0), ("all highest", 1)):
        ends[label] = "constant:" + ",".join(f"{name}={_ends(name)[side]}" for name in names)
    return ends


def _ends(name: str) -> tuple[float, float]:
    return ACTIONS[name].low, ACTIONS[name].high


def print_outcomes(title: str, outcomes: Mapping[str, Outcome]) -> None:
    """Prints a table of returns and final scores, mean ± standard deviation, best return first."""
    table = Table(title=title, box=box.SIMPLE)
    for name in ("agent", "return", "final score", "episodes"):
        table.add_column(name, justify="left" if name == "agent" else "right")
    rows = {label: outcome.summary() for label, outcome in outcomes.items()}
    for label, row in sorted(rows.items(), key=lambda item: -item[1]["return_mean"]):
        cells = (f"{row[f'{name}_mean']:.4f} ± {row[f'{name}_std']:.4f}" for name in ("return", "score"))
        table.add_row(label, *cells, f"{row['episodes']:.0f}")
    Console().print(table)
