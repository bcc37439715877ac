"""Playing: an agent acts in an environment from one reset to the end of the episode, and what was met is kept."""

from __future__ import annotations

from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from . import Agent


class Played(NamedTuple):
    """What an episode was.

    Attributes:
        observations: What was seen before each decision.
        actions: The decisions.
        infos: That of the reset, then one after each decision.
    """

    observations: list[np.ndarray]
    actions: list[np.ndarray]
    infos: list[dict[str, Any]]


def play(env: gym.Env, agent: Agent, seed: int) -> Played:
    """Plays an episode with the agent's best actions.

    Args:
        env: The environment, one and not several.
        agent: The agent.
        seed: Of the reset.
    """
    observation, info = env.reset(seed=seed)
    played, memory, over = Played([], [], [info]), None, False
    while not over:
        start = np.array([not played.actions])
        action, memory = agent.predict(observation, state=memory, episode_start=start, deterministic=True)
        played.observations.append(observation)
        played.actions.append(action)
        observation, _, terminated, truncated, info = env.step(action)
        played.infos.append(info)
        over = terminated or truncated
    return played
