"""Imitation: a policy begins with what a scripted agent does, and is improved from there by reinforcement learning.

The scripted agent acts for some episodes, pushed off its course by noise that is held for an episode, so that the
policy learns what to do beside the course too (Laskey et al. 2017, "DART", arXiv:1703.09327). Few episodes meet few
deployments and teachers, and a policy that has met them only together takes one for the other. But a scripted agent can
be asked about anything: it is asked about crosses of the states that were met as well. Then the policy's best action is
fitted to its answers.
"""

from __future__ import annotations

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.vec_env import VecEnv

from .. import Agent
from ..forks import Search

NOISE = 0.3  # standard deviation, in units of the action, which is 2 wide
EPOCHS, BATCH, RATE, DECAY = 2000, 64, 3e-3, 0.1  # passes over what was met, and of Adam with decay of the weights
CROSSES = 31  # of each state that was met
REACHED = 0.97  # the largest action that is asked for: squashed policies never reach 1


def imitate(model: BaseAlgorithm, envs: VecEnv, agent: Agent, episodes: int, seed: int) -> float:
    """Fits a model's policy to a scripted agent.

    Args:
        model: The model; of continuous actions.
        envs: Environments for the scripted agent to act in.
        agent: The scripted agent.
        episodes: Episodes that it acts for, over all environments.
        seed: Of the noise and of the order of samples.

    Returns:
        Root of the mean squared distance between the policy's and the scripted agent's actions, in the end.
    """
    rng = np.random.default_rng(seed)
    observations, actions, memory = examples(envs, agent, episodes, rng)
    met = len(observations)
    if memory is None and not isinstance(agent, Search):  # what it does follows from the observation alone
        crosses = crossed(observations, CROSSES, rng)
        asked, _ = agent.predict(crosses, episode_start=np.ones(len(crosses), dtype=bool), deterministic=True)
        observations, actions = np.concatenate((observations, crosses)), np.concatenate((actions, asked))
    policy: BasePolicy = model.policy
    seen = torch.as_tensor(observations, device=policy.device)
    wanted = torch.as_tensor(actions, device=policy.device).clamp(-REACHED, REACHED)
    optimizer = torch.optim.AdamW(policy.parameters(), RATE, weight_decay=DECAY)
    generator = torch.Generator().manual_seed(seed)
    policy.set_training_mode(True)
    updates = EPOCHS * -(-met // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    for _ in range(updates):
        index = torch.randint(len(seen), (BATCH,), generator=generator)
        loss = (policy._predict(seen[index], deterministic=True) - wanted[index]).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    policy.set_training_mode(False)
    with torch.no_grad():
        return float((policy._predict(seen[:met], deterministic=True) - wanted[:met]).square().mean().sqrt())


def crossed(observations: np.ndarray, copies: int, rng: np.random.Generator) -> np.ndarray:
    """States that nobody met: some neighbouring features of each are another's, (K, D) to (copies K, D)."""
    count, features = observations.shape
    one = np.tile(observations, (copies, 1))
    other = observations[rng.integers(count, size=len(one))]
    first, end = np.sort(rng.integers(features + 1, size=(2, len(one), 1)), axis=0)
    at = np.arange(features)
    return np.where((first <= at) & (at < end), other, one)


def examples(
    envs: VecEnv, agent: Agent, episodes: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, object]:
    """States that a perturbed scripted agent meets, (K, D), what it would do in them, (K, A), and its last memory."""
    shape = (envs.num_envs, *(envs.action_space.shape or ()))
    observation, state, start = np.asarray(envs.reset()), None, np.ones(envs.num_envs, dtype=bool)
    noise = NOISE * rng.standard_normal(shape)
    observations, actions, over = [], [], 0
    while over < episodes:
        action, state = agent.predict(observation, state=state, episode_start=start, deterministic=True)
        observations.append(observation.copy())
        actions.append(action)
        following, _, start, _ = envs.step(np.clip(action + noise, -1, 1).astype(np.float32))
        observation = np.asarray(following)
        noise[start] = NOISE * rng.standard_normal(shape[1:])
        over += int(start.sum())
    return np.concatenate(observations), np.concatenate(actions), state
