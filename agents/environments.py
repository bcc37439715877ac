"""Environments by id and settings, with one sentence for whatever is wrong with them."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import load_env_creator

from fusion_gym.cli import UserError, check_keys

from .schema import check_arguments


def full_id(env_id: str) -> str:
    """The id with its package in front, so that worker processes import the package that registers it."""
    return env_id if ":" in env_id else f"fusion_gym:{env_id}"


def make_checked(env_id: str, kwargs: Mapping[str, Any]) -> gym.Env:
    """Makes one environment, turning whatever is wrong with its id or settings into one sentence.

    Raises:
        UserError: If there is no such environment, it has no such setting, or it is not one of ours.
        ValueError: If the environment refuses a value.
    """
    try:
        module, _, name = full_id(env_id).rpartition(":")
        importlib.import_module(module)
        spec = gym.spec(name)
        if spec.entry_point is None:
            raise UserError(f"The environment {env_id} has no entry point.")
        creator = load_env_creator(spec.entry_point) if isinstance(spec.entry_point, str) else spec.entry_point
    except (gym.error.Error, ImportError) as error:
        raise UserError(f"--env {env_id}: {error}") from error
    parameters = inspect.signature(creator).parameters
    if not any(value.kind is inspect.Parameter.VAR_KEYWORD for value in parameters.values()):
        check_keys(kwargs, parameters, f"setting of {env_id}")
    check_arguments(creator.__init__ if inspect.isclass(creator) else creator, kwargs, "--env-kwargs")
    try:
        env = gym.make(full_id(env_id), **kwargs)
        env.get_wrapper_attr("action_names")
    except TypeError as error:
        raise UserError(f"--env-kwargs: a value is of a wrong type: {error}.") from error
    except AttributeError as error:
        raise UserError(
            f"--env {env_id} is not an environment of FusionGym; there are FusionDistill-v0 and FusionDistillFast-v0."
        ) from error
    return env
