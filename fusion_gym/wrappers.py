"""Gymnasium wrappers: the discrete twin of the action space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from fusion_gym.observations import index

STEP = 0.5


class DiscreteActions(gym.Wrapper[np.ndarray, Any, np.ndarray, Any], gym.utils.RecordConstructorArgs):
    """The environment with moves instead of values, for DQN and tabular methods.

    ``Discrete(1 + 2k)`` for k components: 0 keeps the last action, 2i + 1 lowers component i by `STEP` of the
    continuous action's [-1, 1], 2i + 2 raises it. An episode begins at the default schedule, all zeros. The last
    action is part of the observation, so the process stays Markov, and a move is a function of the observation.
    """

    def __init__(self, env: gym.Env) -> None:
        gym.utils.RecordConstructorArgs.__init__(self)  # so that the wrapped environment has a spec
        gym.Wrapper.__init__(self, env)
        self._names: tuple[str, ...] = tuple(env.get_wrapper_attr("action_names"))
        self.action_space = self.space(self._names)
        self._observation: np.ndarray | None = None

    @staticmethod
    def space(names: Sequence[str]) -> spaces.Discrete:
        """The action space for the given components."""
        return spaces.Discrete(1 + 2 * len(names))

    @staticmethod
    def apply(move: int, observation: np.ndarray, names: Sequence[str]) -> np.ndarray:
        """The continuous action that a move from an observation means.

        Args:
            move: The discrete action.
            observation: What the environment gave last, (D,).
            names: The components that the agent sets, in the environment's order.

        Returns:
            float32 (len(names),) in [-1, 1].

        Raises:
            ValueError: If there is no such move.
        """
        if not 0 <= move <= 2 * len(names):
            raise ValueError(f"The action {move} is outside 0..{2 * len(names)}.")
        action = np.array([observation[index(f"last_{name}")] for name in names], dtype=np.float32)
        if move > 0:
            component = (move - 1) // 2
            action[component] = np.clip(action[component] + (STEP if move % 2 == 0 else -STEP), -1.0, 1.0)
        return action

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        """Begins an episode; see `gymnasium.Env.reset`."""
        self._observation, info = self.env.reset(seed=seed, options=options)
        return self._observation, info

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Makes a move; see `gymnasium.Env.step`.

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset.
            ValueError: If there is no such move.
        """
        if self._observation is None:
            raise gym.error.ResetNeeded("There is no episode yet: call reset() before step().")
        continuous = self.apply(int(action), self._observation, self._names)
        self._observation, reward, terminated, truncated, info = self.env.step(continuous)
        return self._observation, float(reward), terminated, truncated, info
