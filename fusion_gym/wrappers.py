"""Gymnasium wrappers: the discrete twin of the action space, and records of episodes."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from fusion_gym.actions import array_of
from fusion_gym.files import make_folder
from fusion_gym.observations import index
from fusion_gym.record import Record, RecordError, identity

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

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begins an episode; see `gymnasium.Env.reset`."""
        self._observation, info = self.env.reset(seed=seed, options=options)
        return self._observation, info

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Makes a move; see `gymnasium.Env.step`.

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset.
            ValueError: If there is no such move.
        """
        if self._observation is None:
            raise gym.error.ResetNeeded("There is no episode yet: call reset() before step().")
        try:
            move = operator.index(action)
        except TypeError as error:
            raise ValueError(f"The action {action!r} is not a whole number.") from error
        continuous = self.apply(move, self._observation, self._names)
        self._observation, reward, terminated, truncated, info = self.env.step(continuous)
        return self._observation, float(reward), terminated, truncated, info


class RecordEpisode(gym.Wrapper[np.ndarray, Any, np.ndarray, Any], gym.utils.RecordConstructorArgs):
    """Saves a record of each episode, which ``python -m fusion_gym.replay`` plays again and checks.

    It belongs directly around the environment, inside of wrappers that change actions or rewards. An episode that is
    broken off by a reset or by `close` is saved as far as it went.

    Args:
        env: An environment made by `gymnasium.make`.
        folder: Where the records go: ``PREFIX-0.json``, ``PREFIX-1.json``, ...; earlier ones are kept.
        name_prefix: Begin of the files' names.
        episode_trigger: Whether to save an episode, by its number from 0 on; None saves all.

    Raises:
        fusion_gym.record.RecordError: If the environment was not made by its id, or its actions are not its own.
    """

    def __init__(
        self,
        env: gym.Env,
        folder: str | Path,
        name_prefix: str = "episode",
        episode_trigger: Callable[[int], bool] | None = None,
    ) -> None:
        gym.utils.RecordConstructorArgs.__init__(
            self, folder=folder, name_prefix=name_prefix, episode_trigger=episode_trigger
        )
        gym.Wrapper.__init__(self, env)
        self._identity = identity(env)
        if env.action_space != env.unwrapped.action_space:
            raise RecordError("RecordEpisode belongs inside of wrappers that change the actions; apply it first.")
        self._folder, self._prefix, self._trigger = Path(folder), name_prefix, episode_trigger
        make_folder(self._folder)
        self._episodes = self._number = 0
        self._start: dict[str, Any] | None = None
        self._actions: list[list[float]] = []
        self._rewards: list[float] = []

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begins an episode; see `gymnasium.Env.reset`."""
        self._finish("unfinished")
        generator = None if seed is not None else self.unwrapped.np_random.bit_generator.state
        observation, info = self.env.reset(seed=seed, options=options)
        self._start, self._actions, self._rewards = {"seed": seed, "generator": generator}, [], []
        return observation, info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Takes a step; see `gymnasium.Env.step`."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._actions.append(array_of(action).astype(np.float64).tolist())
        self._rewards.append(float(reward))
        if terminated or truncated:
            self._finish("terminated" if terminated else "truncated")
        return observation, float(reward), terminated, truncated, info

    def close(self) -> None:
        """Saves an episode under way and closes the environment."""
        self._finish("unfinished")
        super().close()

    def _finish(self, end: str) -> None:
        start, self._start = self._start, None
        if start is None or not self._actions:
            return
        if self._trigger is None or self._trigger(self._episodes):
            record = Record(*self._identity, self._actions, self._rewards, sum(self._rewards), end, **start)
            record.save(self._free_path())
        self._episodes += 1

    def _free_path(self) -> Path:
        while (path := self._folder / f"{self._prefix}-{self._number}.json").exists():
            self._number += 1
        return path
