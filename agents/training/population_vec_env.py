"""Stable-Baselines3's VecEnv over students that are trained together in one process."""

from __future__ import annotations

from stable_baselines3.common.vec_env import DummyVecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

from fusion_gym.population import train_together


class PopulationVecEnv(DummyVecEnv):
    """`DummyVecEnv` whose environments do the training of a step in batched updates (`fusion_gym.population`).

    It goes where `DummyVecEnv` goes, ``make_vec_env(..., vec_env_cls=PopulationVecEnv)`` for one; the environments
    are FusionGym's, made with equal arguments, in wrappers that leave the action as it is.
    """

    def step_wait(self) -> VecEnvStepReturn:
        """See `DummyVecEnv.step_wait`."""
        train_together(self.envs, list(self.actions))
        return super().step_wait()
