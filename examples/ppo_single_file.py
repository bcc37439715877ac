"""PPO in one file, in CleanRL's manner: PyTorch and Gymnasium, nothing else.

    python examples/ppo_single_file.py --timesteps 512
    python distill_student.py --agent examples.ppo_single_file:Agent:runs/ppo_single_file.pt

After Huang et al., "The 37 implementation details of proximal policy optimization", 2022, without those that an
environment with features in known bounds and short episodes has no need of.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor, nn
from torch.distributions import Normal


def layer(inputs: int, outputs: int, gain: float) -> nn.Linear:
    """A linear layer with orthogonal weights."""
    made = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(made.weight, gain)
    nn.init.zeros_(made.bias)
    return made


def network(inputs: int, outputs: int, gain: float) -> nn.Sequential:
    """Two hidden layers of 64."""
    hidden = layer(inputs, 64, 2**0.5), nn.Tanh(), layer(64, 64, 2**0.5), nn.Tanh()
    return nn.Sequential(*hidden, layer(64, outputs, gain))


class Agent(nn.Module):
    """Actor and critic; `predict` is what distill_student.py calls."""

    def __init__(self, env: Any) -> None:
        super().__init__()
        space, actions = env.observation_space, env.action_space
        low, high = torch.from_numpy(space.low).view(-1), torch.from_numpy(space.high).view(-1)
        features, components = space.shape[-1], actions.shape[-1]
        self.register_buffer("low", low[:features])
        self.register_buffer("high", high[:features])
        self.critic = network(features, 1, 1.0)
        self.actor = network(features, components, 0.01)
        self.log_std = nn.Parameter(torch.full((components,), -0.5))

    def scaled(self, observation: Tensor) -> Tensor:
        """Features in [-1, 1]."""
        return 2 * (observation - self.low) / (self.high - self.low) - 1

    def value(self, observation: Tensor) -> Tensor:
        """Expected return of the rest of the episode, (N,)."""
        return self.critic(self.scaled(observation)).squeeze(-1)

    def policy(self, observation: Tensor) -> Normal:
        """Distribution of the action, (N, A)."""
        return Normal(self.actor(self.scaled(observation)), self.log_std.exp())

    @classmethod
    def load(cls, path: str, env: Any) -> Agent:
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
        action = policy.mean if deterministic else policy.sample()
        return action.clamp(-1, 1).numpy(), state


def advantages(rewards: Tensor, values: Tensor, dones: Tensor, last: Tensor, gamma: float, lam: float) -> Tensor:
    """Generalized advantage estimates, (T, N); `dones` says where an episode ended with the step."""
    result, running = torch.zeros_like(rewards), torch.zeros_like(last)
    following = last
    for step in reversed(range(len(rewards))):
        alive = 1 - dones[step]
        delta = rewards[step] + gamma * following * alive - values[step]
        running = delta + gamma * lam * alive * running
        result[step], following = running, values[step]
    return result


def train(args: argparse.Namespace) -> Agent:
    """Trains and saves an agent; prints the mean return of the episodes of each iteration."""
    torch.manual_seed(args.seed)
    envs = gym.make_vec(
        f"fusion_gym:{args.env}",
        args.num_envs,
        vectorization_mode=args.vectorization,
        vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
    )
    envs = gym.wrappers.vector.RecordEpisodeStatistics(envs)
    agent = Agent(envs)
    optimizer = torch.optim.Adam(agent.parameters(), lr=args.learning_rate, eps=1e-5)
    iterations = max(1, args.timesteps // (args.num_steps * args.num_envs))
    observation = torch.from_numpy(envs.reset(seed=args.seed)[0])
    begin = time.perf_counter()
    for iteration in range(iterations):
        optimizer.param_groups[0]["lr"] = args.learning_rate * (1 - iteration / iterations)
        rows: list[tuple[Tensor, ...]] = []
        returns: list[float] = []
        for _ in range(args.num_steps):
            with torch.no_grad():
                policy = agent.policy(observation)
                action = policy.sample()
                known = policy.log_prob(action).sum(-1), agent.value(observation)
            following, reward, terminated, truncated, infos = envs.step(action.numpy())
            done = torch.from_numpy(terminated | truncated).float()
            rows.append((observation, action, *known, torch.from_numpy(reward).float(), done))
            observation = torch.from_numpy(following)
            if "episode" in infos:
                returns += infos["episode"]["r"][infos["_episode"]].tolist()
        observations, actions, log_probs, values, rewards, dones = (
            torch.stack(column) for column in zip(*rows, strict=True)
        )
        with torch.no_grad():
            last = agent.value(observation)
        gains = advantages(rewards, values, dones, last, args.gamma, args.gae_lambda)
        batch = [part.flatten(0, 1) for part in (observations, actions, log_probs, gains, gains + values)]
        for _ in range(args.epochs):
            for some in torch.randperm(len(batch[0])).split(args.minibatch):
                seen, acted, before, gain, target = (part[some] for part in batch)
                policy = agent.policy(seen)
                ratio = (policy.log_prob(acted).sum(-1) - before).exp()
                gain = (gain - gain.mean()) / (gain.std(correction=0) + 1e-8)
                clipped = ratio.clamp(1 - args.clip, 1 + args.clip)
                loss = -torch.min(gain * ratio, gain * clipped).mean()
                loss = loss + 0.5 * (agent.value(seen) - target).square().mean()
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
                optimizer.step()
        steps = (iteration + 1) * args.num_steps * args.num_envs
        mean = f"{np.mean(returns):.4f}" if returns else "none ended"
        print(f"{steps} steps: mean return {mean}, {steps / (time.perf_counter() - begin):.1f} steps/s")
    envs.close()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    torch.save(agent.state_dict(), args.out)
    print(f"The agent is in {args.out}.")
    return agent


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="FusionDistillFast-v0")
    parser.add_argument("--vectorization", default="sync", choices=("sync", "async"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timesteps", type=int, default=512)
    parser.add_argument("--num-envs", type=int, default=2)
    parser.add_argument("--num-steps", type=int, default=32, help="of each environment in an iteration")
    parser.add_argument("--minibatch", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--gamma", type=float, default=1.0)
    parser.add_argument("--gae-lambda", type=float, default=0.95)
    parser.add_argument("--clip", type=float, default=0.2)
    parser.add_argument("--out", type=Path, default=Path("runs/ppo_single_file.pt"))
    return parser.parse_args(argv)


if __name__ == "__main__":
    train(parse())
