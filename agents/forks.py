"""A search on forks, as an agent: another agent proposes, copies of the environment try, the best proposal is taken.

Its copies are its cost: for each decision as many steps of training as it has proposals, beside the one that counts.
Random proposals are its rival (``search:random``), for what they reach is the search's merit and not the agent's.
"""

from __future__ import annotations

import zlib
from typing import Any

import gymnasium as gym
import numpy as np

from fusion_gym.cli import UserError
from fusion_gym.observations import OBSERVATIONS

from .scripted import RandomAgent

PREFIX = "search:"
PROPOSALS = 4  # for each decision, where the text names no number
SPREAD = 0.3  # standard deviation of what is added to further proposals, in units of the action, which is 2 wide


def is_search(spec: str) -> bool:
    """Whether a text asks for a search."""
    return spec.startswith(PREFIX)


def parts(spec: str) -> tuple[int, str]:
    """Number of proposals and the agent that makes them, of ``search:AGENT`` or ``search:N:AGENT``.

    Raises:
        UserError: If no agent is named, or there are fewer than two proposals.
    """
    rest = spec.removeprefix(PREFIX)
    number, colon, agent = rest.partition(":")
    count, inner = (int(number), agent) if colon and number.isdecimal() else (PROPOSALS, rest)
    if not inner or is_search(inner):
        raise UserError(
            f"{spec} names nobody who proposes; give search:AGENT or search:N:AGENT, search:ppo for instance."
        )
    if count < 2:
        raise UserError(f"{spec} tries {count} proposals; give a number from 2 on.")
    return count, inner


def proposer(spec: str) -> str:
    """Who proposes in a search; of any other agent its own text."""
    return parts(spec)[1] if is_search(spec) else spec


class Search:
    """Takes what is best one step ahead, by the environment's own score on its validation pairs.

    Tried are the proposer's action, the one that was taken last (for some settings pay only where they last), and
    others near the proposer's, or anywhere where that is chance itself. Their noise is drawn from the observation, so
    that an episode repeats exactly. Asked about an observation that its environment no longer shows, as a resumed
    training does, it answers what its proposer does.

    Args:
        env: The environment that the agent acts in, one and not several.
        proposer: The agent that proposes.
        proposals: Actions to try for each decision.

    Attributes:
        updates: Updates of the student that its copies have made since the agent was made.
    """

    def __init__(self, env: gym.Env, proposer: Any, proposals: int = PROPOSALS) -> None:
        self.env: Any = env.unwrapped
        self.proposer, self.proposals, self.updates = proposer, proposals, 0

    def predict(
        self,
        observation: np.ndarray,
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """The best of the proposals; see `agents.Agent`. Its memory is the proposer's.

        Raises:
            UserError: If it is asked for several environments at once.
        """
        shown = np.asarray(observation, dtype=np.float32)
        if shown.size != len(OBSERVATIONS):
            raise UserError("A search on forks acts in one environment, not in several at once; give --n-envs 1.")
        best, memory = self.proposer.predict(observation, state=state, episode_start=episode_start, deterministic=True)
        if not np.array_equal(shown.ravel(), self.env.observation()):
            return best, memory
        actions = self._proposals(best.ravel(), np.random.default_rng(zlib.crc32(shown.tobytes())))
        gains = [self._gain(action) for action in actions]
        return actions[int(np.argmax(gains))].reshape(best.shape), memory

    def _proposals(self, best: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        last = [self.env.episode.last_action[name] for name in self.env.action_names]
        shape = (self.proposals - 2, len(best))
        if isinstance(self.proposer, RandomAgent):
            others = rng.uniform(-1, 1, shape)
        else:
            others = np.clip(best + SPREAD * rng.standard_normal(shape), -1, 1)
        return [best, np.array(last, dtype=np.float32), *others.astype(np.float32)]

    def _gain(self, action: np.ndarray) -> float:
        fork = self.env.fork()
        self.updates += fork.updates_per_step
        return float(fork.step(action)[4]["gain"])
