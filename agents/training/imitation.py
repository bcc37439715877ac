"""Imitation: a policy begins with what a scripted agent does, and is improved from there by reinforcement learning.

The scripted agent acts for some episodes, pushed off its course by noise that is held for an episode, so that the
policy learns what to do beside the course too (Laskey et al. 2017, "DART", arXiv:1703.09327). Then the policy's
best action is fitted to the scripted agent's in every state that was met.
"""

from __future__ import annotations

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.vec_env import VecEnv

from .. import Agent

NOISE = 0.3  # standard deviation, in units of the action, which is 2 wide
EPOCHS, BATCH, RATE = 500, 64, 1e-3
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
    observations, actions = examples(envs, agent, episodes, np.random.default_rng(seed))
    policy: BasePolicy = model.policy
    seen = torch.as_tensor(observations, device=policy.device)
    wanted = torch.as_tensor(actions, device=policy.device).clamp(-REACHED, REACHED)
    optimizer = torch.optim.Adam(policy.parameters(), RATE)
    generator = torch.Generator().manual_seed(seed)
    policy.set_training_mode(True)
    for _ in range(EPOCHS * -(-len(seen) // BATCH)):
        index = torch.randint(len(seen), (BATCH,), generator=generator)
        loss = (policy._predict(seen[index], deterministic=True) - wanted[index]).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    policy.set_training_mode(False)
    with torch.no_grad():
        return float((policy._predict(seen, deterministic=True) - wanted).square().mean().sqrt())


def examples(envs: VecEnv, agent: Agent, episodes: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """States that a perturbed scripted agent meets, (K, D), and what it would do in them, (K, A)."""
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
    return np.concatenate(observations), np.concatenate(actions)
