"""REINFORCE with nothing but PyTorch and the environment.

    python examples/reinforce.py --iterations 16
    python distill_student.py --agent examples.reinforce:Agent:runs/reinforce.pt

Williams, "Simple statistical gradient-following algorithms", 1992. The baseline of a decision is the mean of what
the episodes of an iteration got from there on; all of them train the same student, so that they differ by the
decisions alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Normal


class Agent(nn.Module):
    """A Gaussian policy, linear in the features."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__()
        space: Any = env.observation_space
        self.register_buffer("low", torch.from_numpy(space.low))
        self.register_buffer("high", torch.from_numpy(space.high))
        self.mean = nn.Linear(len(space.low), *env.action_space.shape)
        self.log_std = nn.Parameter(torch.full(env.action_space.shape, -0.7))
        nn.init.zeros_(self.mean.weight)  # begins at the default schedule
        nn.init.zeros_(self.mean.bias)

    def policy(self, observation: Tensor) -> Normal:
        """Distribution of the action."""
        return Normal(self.mean((observation - self.low) / (self.high - self.low) - 0.5), self.log_std.exp())

    @classmethod
    def load(cls, path: str, env: gym.Env) -> Agent:
        """Loads what `train` saved."""
        agent = cls(env)
        agent.load_state_dict(torch.load(path, weights_only=True))
        return agent

    @torch.no_grad()
    def predict(
        self, observation: np.ndarray, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, Any]:
        """The mean action, or a sample."""
        policy = self.policy(torch.from_numpy(observation))
        return (policy.mean if deterministic else policy.sample()).clamp(-1, 1).numpy(), state


def episode(agent: Agent, env: gym.Env, seed: int) -> tuple[list[Tensor], list[float]]:
    """Log-probabilities of an episode's actions, and its rewards."""
    observation, _ = env.reset(seed=seed)
    log_probs, rewards, over = [], [], False
    while not over:
        policy = agent.policy(torch.from_numpy(observation))
        action = policy.sample()
        log_probs.append(policy.log_prob(action).sum())
        observation, reward, terminated, truncated, _ = env.step(action.numpy())
        rewards.append(float(reward))
        over = terminated or truncated
    return log_probs, rewards


def train(args: argparse.Namespace) -> Agent:
    """Trains and saves an agent; prints the mean return of each iteration."""
    torch.manual_seed(args.seed)
    env = gym.make(f"fusion_gym:{args.env}")
    agent = Agent(env)
    optimizer = torch.optim.Adam(agent.parameters(), lr=args.learning_rate)
    for iteration in range(args.iterations):
        played = [episode(agent, env, args.seed + iteration) for _ in range(args.episodes)]
        length = max(len(rewards) for _, rewards in played)
        rows = torch.tensor([rewards + [0.0] * (length - len(rewards)) for _, rewards in played])
        togo = rows.flip(1).cumsum(1).flip(1)
        gains = (togo - togo.mean(0)) / (togo.std(0) + 1e-8)
        terms = [
            -log_prob * gain
            for (log_probs, _), row in zip(played, gains, strict=True)
            for log_prob, gain in zip(log_probs, row, strict=False)  # a diverged student's episode is shorter
        ]
        optimizer.zero_grad()
        torch.stack(terms).mean().backward()
        optimizer.step()
        print(f"{iteration + 1} of {args.iterations}: mean return {togo[:, 0].mean():.4f} ± {togo[:, 0].std():.4f}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    torch.save(agent.state_dict(), args.out)
    print(f"The agent is in {args.out}.")
    return agent


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="FusionDistillFast-v0")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--iterations", type=int, default=16)
    parser.add_argument("--episodes", type=int, default=4, help="of an iteration, at least 2")
    parser.add_argument("--learning-rate", type=float, default=0.03)
    parser.add_argument("--out", type=Path, default=Path("runs/reinforce.pt"))
    return parser.parse_args(argv)


if __name__ == "__main__":
    train(parse())
