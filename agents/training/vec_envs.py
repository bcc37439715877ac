"""The kinds of vector environments, by name."""

from __future__ import annotations

from collections.abc import Callable

import gymnasium as gym
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv

from fusion_gym.cli import UserError

from .population_vec_env import PopulationVecEnv


def _ray_vec_env(makers: list[Callable[[], gym.Env]]) -> VecEnv:
    try:
        from .ray_vec_env import RayVecEnv
    except ImportError as error:
        raise UserError("--vec-env ray needs Ray: pip install 'fusion-gym[scale]'.") from error
    return RayVecEnv(makers)


VEC_ENVS: dict[str, Callable[[list[Callable[[], gym.Env]]], VecEnv]] = {
    "dummy": DummyVecEnv,
    "population": PopulationVecEnv,
    "ray": _ray_vec_env,
    "subproc": SubprocVecEnv,
}
