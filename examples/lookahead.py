"""An agent that learns nothing: it tries actions on copies of the environment and takes the best.

    python examples/lookahead.py --episodes 4
    python distill_student.py --agent examples.lookahead:Agent --updates 800

`fork()` copies an environment in mid-episode, student, optimiser and random numbers included, so that what a copy
gains is exactly what the environment would. The copies' training is what it costs: with the default settings, 16
times that of the schedule.
"""

from __future__ import annotations

import argparse
from typing import Any

import gymnasium as gym
import numpy as np

from fusion_gym.env import FusionDistillEnv
from fusion_gym.observations import index


class Agent:
    """Chooses among the default, the last action and random changes of it by the gain of a few decisions ahead.

    Args:
        env: The environment that it acts in; a single one, for it is asked about the present state.
        tries: Number of actions that it compares.
        horizon: Decisions that each is held for.
        seed: Seed of the changes.
    """

    def __init__(self, env: gym.Env, tries: int = 8, horizon: int = 2, seed: int = 0) -> None:
        plain = env.unwrapped
        assert isinstance(plain, FusionDistillEnv)
        self.env, self.tries, self.horizon = plain, tries, horizon
        self.generator = np.random.default_rng(seed)

    def predict(
        self, observation: np.ndarray, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, Any]:
        """The best of the tried actions."""
        last = np.array([observation[index(f"last_{name}")] for name in self.env.action_names], dtype=np.float32)
        changes = self.generator.normal(0, 0.5, (max(0, self.tries - 2), len(last)))
        actions = np.stack([np.zeros_like(last), last, *(last + changes)]).clip(-1, 1).astype(np.float32)
        return max(actions, key=self.gain), state

    def gain(self, action: np.ndarray) -> float:
        """What a copy of the environment gains under an action."""
        copy, total = self.env.fork(), 0.0
        for _ in range(self.horizon):
            _, reward, terminated, truncated, _ = copy.step(action)
            total += float(reward)
            if terminated or truncated:
                break
        return total


class Default:
    """The default schedule, to compare with."""

    def __init__(self, env: gym.Env) -> None:
        self.action = np.zeros(env.action_space.shape or (), dtype=np.float32)

    def predict(self, observation: np.ndarray) -> tuple[np.ndarray, Any]:
        """Always zero."""
        return self.action, None


def play(agent: Any, env: gym.Env, seed: int) -> float:
    """Return of one episode."""
    observation, _ = env.reset(seed=seed)
    total, over = 0.0, False
    while not over:
        observation, reward, terminated, truncated, _ = env.step(agent.predict(observation)[0])
        total, over = total + float(reward), terminated or truncated
    return total


def main(argv: list[str] | None = None) -> list[tuple[float, float]]:
    """Prints and gives the returns of the agent and of the default schedule on the same students."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="FusionDistillFast-v0")
    parser.add_argument("--episodes", type=int, default=4)
    parser.add_argument("--tries", type=int, default=8)
    parser.add_argument("--horizon", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    env = gym.make(f"fusion_gym:{args.env}")
    agent, default = Agent(env, args.tries, args.horizon, args.seed), Default(env)
    results = []
    for seed in range(args.seed, args.seed + args.episodes):
        results.append((play(agent, env, seed), play(default, env, seed)))
        print(f"student {seed}: look-ahead {results[-1][0]:.4f}, default schedule {results[-1][1]:.4f}")
    means = np.mean(results, axis=0)
    print(f"mean: look-ahead {means[0]:.4f}, default schedule {means[1]:.4f}")
    return results


if __name__ == "__main__":
    main()
