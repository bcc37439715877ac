"""Stable-Baselines3's algorithms by name: settings from YAML, models, and files that load without running code.

A model saved by `save_model` is an ordinary SB3 zip with one more entry, ``fusion_gym.json``, which says how to build
its policy. From such a file only that text and plain tensors are read; SB3's own entry, which holds pickled objects,
is never opened.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.utils import LinearSchedule

import fusion_gym
from fusion_gym import archives
from fusion_gym.archives import MOST_TEXT, ArchiveError, check_file, read_member
from fusion_gym.cli import UserError, check_finite, check_keys, nearest, read_yaml
from fusion_gym.files import atomic_path
from fusion_gym.modes import settled
from fusion_gym.observations import OBSERVATIONS
from fusion_gym.wrappers import DiscreteActions

from .description import SIDECAR, Description
from .schema import fit

# Name on the command line → package and class.
ALGORITHMS: dict[str, tuple[str, str]] = {
    "ppo": ("stable_baselines3", "PPO"),
    "sac": ("stable_baselines3", "SAC"),
    "td3": ("stable_baselines3", "TD3"),
    "ddpg": ("stable_baselines3", "DDPG"),
    "a2c": ("stable_baselines3", "A2C"),
    "dqn": ("stable_baselines3", "DQN"),
    "tqc": ("sb3_contrib", "TQC"),
    "crossq": ("sb3_contrib", "CrossQ"),
    "trpo": ("sb3_contrib", "TRPO"),
    "ars": ("sb3_contrib", "ARS"),
    "ppo_lstm": ("sb3_contrib", "RecurrentPPO"),
}
HYPERPARAMS = Path(__file__).parent / "hyperparams"
# Settings of the file that are not arguments of the algorithm, as in rl-baselines3-zoo, and their types.
RUN_SETTINGS: dict[str, Any] = {
    "policy": str,
    "n_timesteps": int,
    "n_envs": int,
    "noise_type": str | None,
    "noise_std": float,
    "env_wrapper": str | None,
    "imitate": str,  # `agents.training.imitation`
    "imitate_episodes": int,
}


def algorithm(name: str) -> type[BaseAlgorithm]:
    """The class of an algorithm.

    Raises:
        UserError: If there is no such algorithm or its package is not installed.
    """
    if name not in ALGORITHMS:
        raise UserError(f"There is no algorithm {name!r}; {nearest(name, ALGORITHMS)}")
    package, cls = ALGORITHMS[name]
    try:
        return getattr(importlib.import_module(package), cls)
    except ImportError as error:
        raise UserError(f"The algorithm {name} needs sb3-contrib: pip install 'fusion-gym[contrib]'.") from error


def hyperparameters(algo: str, env_id: str, overrides: Mapping[str, Any], file: Path | None = None) -> dict[str, Any]:
    """Settings of an algorithm on an environment: the file's, then the overrides.

    Args:
        algo: Key of `ALGORITHMS`.
        env_id: Environment id without its package; the file's ``default`` serves ids that it does not name.
        overrides: Settings that go before the file's.
        file: YAML in rl-baselines3-zoo's schema; the packaged one where it is None.

    Raises:
        UserError: If a setting is unknown or not finite, or the file has none for this environment.
    """
    path = file or HYPERPARAMS / f"{algo}.yml"
    content = read_yaml(path)
    chosen = content.get(env_id, content.get("default"))
    if not isinstance(chosen, dict):
        raise UserError(f"{path} has no settings for {env_id}; {nearest(env_id, content)}")
    return check_hyperparameters(algo, {**chosen, **overrides})


def check_hyperparameters(algo: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of an algorithm, with whole numbers where it has whole numbers.

    Raises:
        UserError: If a setting is unknown, not finite or of a wrong type.
    """
    parameters = inspect.signature(algorithm(algo).__init__).parameters
    known = set(parameters) - {"self", "env", "_init_setup_model"}
    check_keys(settings, known | RUN_SETTINGS.keys(), f"hyperparameter of {algo}")
    check_finite(settings)
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    return {
        name: fit(value, RUN_SETTINGS[name], f"The hyperparameter {name}")
        if name in RUN_SETTINGS
        else _checked(name, value, defaults.get(name))
        for name, value in settings.items()
    }


def _checked(name: str, value: Any, default: Any) -> Any:
    """The value, as a whole number where the algorithm's default is one; SB3 itself would fail much later."""
    if isinstance(default, bool) or not isinstance(default, (int, float)) or isinstance(value, list):
        return value
    if isinstance(default, float) and isinstance(value, str) and value.startswith("lin_"):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UserError(f"The hyperparameter {name}={value!r} is not allowed; give a number.")
    if isinstance(default, int) and value != int(value):
        raise UserError(f"The hyperparameter {name}={value!r} is not allowed; give a whole number.")
    return int(value) if isinstance(default, int) else value


def make_model(algo: str, env: GymEnv, settings: Mapping[str, Any], **arguments: Any) -> BaseAlgorithm:
    """Makes an untrained model.

    Args:
        algo: Key of `ALGORITHMS`.
        env: The environment, mostly a VecEnv.
        settings: What `hyperparameters` gave. ``lin_3e-4`` as a value is a schedule that falls to 0, as in the zoo.
        arguments: Further arguments of the algorithm: ``seed``, ``device``, ``verbose``, ``tensorboard_log``.

    Raises:
        UserError: If the algorithm does not take the settings.
    """
    settings = copy.deepcopy(dict(settings))  # SB3 adds to policy_kwargs
    given = {key: _schedule(value) for key, value in settings.items() if key not in RUN_SETTINGS}
    if settings.get("noise_type") == "normal":
        zero = np.zeros(env.action_space.shape or ())
        given["action_noise"] = NormalActionNoise(zero, zero + settings.get("noise_std", 0.1))
    try:
        return algorithm(algo)(settings.get("policy", "MlpPolicy"), env, **given, **arguments)
    except Exception as error:  # of SB3, Gymnasium and torch, each with classes of its own for what it does not take
        raise UserError(f"{algo} does not take these settings: {error or 'an assertion of SB3 failed'}") from error


def _schedule(value: Any) -> Any:
    if not (isinstance(value, str) and value.startswith("lin_")):
        return value
    try:
        return LinearSchedule(float(value.removeprefix("lin_")), 0.0, 1.0)
    except ValueError as error:
        raise UserError(f"{value!r} is not a schedule; give lin_ and a number, as in lin_3e-4.") from error


def save_model(
    model: BaseAlgorithm, path: Path, description: Mapping[str, Any], extra: Mapping[str, bytes] | None = None
) -> None:
    """Saves a model atomically, with what is needed to build its policy again and, for checkpoints, further entries.

    Args:
        model: The model.
        path: Zip file to write.
        description: JSON-able facts for `read_description`: at least ``algo``, ``policy``, ``actions``.
        extra: Further entries of the zip by name.
    """
    kwargs = {key: value for key, value in model.policy_kwargs.items() if not key.startswith("optimizer")}
    if "use_sde" in inspect.signature(model.policy_class.__init__).parameters:
        kwargs["use_sde"] = bool(getattr(model, "use_sde", False))
    facts = {
        **description,
        "policy_kwargs": kwargs,
        "features": [feature.name for feature in OBSERVATIONS],
        "version": fusion_gym.__version__,
    }
    buffer = io.BytesIO()
    model.save(buffer)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(SIDECAR, json.dumps(facts, indent=2))
        for name, content in (extra or {}).items():
            archive.writestr(name, content)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


def read_description(path: Path) -> Description | None:
    """What `save_model` wrote about a model; None where the zip was written by another program.

    Raises:
        UserError: If the file is missing or no zip, or what it says is not of the right types.
    """
    if not path.is_file():
        raise UserError(f"The agent file {path} does not exist.")
    try:
        check_file(path)
        with zipfile.ZipFile(path) as archive:
            known = SIDECAR in archive.namelist()
        text = read_member(path, SIDECAR, MOST_TEXT) if known else None
    except ArchiveError as error:
        raise UserError(str(error)) from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise UserError(f"{path} is not an agent's zip file, or it is damaged; give one that SB3 saved.") from error
    return None if text is None else Description.parse(text, str(path))


def read_entry(path: Path, name: str) -> bytes:
    """One entry of a saved model's zip.

    Raises:
        UserError: If there is no such entry, the file is damaged, or it would unpack to more than it should.
    """
    try:
        return read_member(path, name)
    except ArchiveError as error:
        raise UserError(str(error)) from error


def read_tensors(path: Path, device: str = "cpu") -> tuple[dict[str, Any], dict[str, Any]]:
    """The state dicts and the single variables of a saved model, read without unpickling code.

    Raises:
        UserError: If the file is damaged.
    """
    try:
        check_file(path)
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(".pth")]
        found = {
            name.removesuffix(".pth"): archives.read_tensors(read_member(path, name), device, f"{path}: its {name}")
            for name in names
        }
    except ArchiveError as error:
        raise UserError(str(error)) from error
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is damaged: its weights cannot be read.") from error
    variables = found.pop("pytorch_variables", None)
    return found, variables or {}


@settled()
def load_model(path: str | Path, env: gym.Env, trust: bool = False) -> Any:
    """Loads a trained agent for acting.

    Args:
        path: Zip file.
        env: The environment that it is to act in.
        trust: Whether a file without our description may be unpickled by SB3.

    Returns:
        An object with SB3's ``predict``.

    Raises:
        UserError: If the file cannot be read, does not fit the environment, or needs trust.
    """
    path = Path(path)
    names = tuple(env.get_wrapper_attr("action_names"))
    facts = read_description(path)
    if facts is None:
        return _load_foreign(path, env, names, trust)
    if facts.actions != names:
        raise UserError(
            f"{path} was trained to set {', '.join(facts.actions)}; this environment has {', '.join(names)}: "
            "give the environment the same actions."
        )
    if list(facts.features) != [feature.name for feature in OBSERVATIONS]:
        raise UserError(f"{path} was trained on other observations (version {facts.version}); train it anew.")
    if facts.algo not in ALGORITHMS:
        raise UserError(f"{path} is of an algorithm {facts.algo!r}; {nearest(facts.algo, ALGORITHMS)}")
    cls = algorithm(facts.algo)
    discrete = facts.algo == "dqn"
    action_space = DiscreteActions.space(names) if discrete else env.action_space
    given: list[Any] = [env.observation_space, action_space]
    try:
        policy_class = cls.policy_aliases[facts.policy]
        if "lr_schedule" in inspect.signature(policy_class.__init__).parameters:
            given.append(lambda _: 0.0)
        with torch.random.fork_rng(devices=[]):  # the weights drawn here are overwritten at once
            policy = policy_class(*given, **facts.policy_kwargs)
        policy.load_state_dict(read_tensors(path)[0]["policy"])
    except UserError:
        raise
    except Exception as error:  # of SB3 and torch, whatever the description makes them do
        raise UserError(f"{path} is damaged: its weights do not fit its description.") from error
    policy.set_training_mode(False)
    return DiscreteAgent(policy, names) if discrete else TrainedAgent(policy)


class TrainedAgent:
    """A trained policy, which acts the same whatever modes torch has around the call.

    Args:
        model: What chooses the action.
    """

    def __init__(self, model: Any) -> None:
        self.model = model

    @settled()
    def predict(
        self, observation: np.ndarray, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, Any]:
        """What SB3's ``predict`` gives."""
        return self.model.predict(observation, state, episode_start, deterministic)


class DiscreteAgent:
    """An agent of `fusion_gym.wrappers.DiscreteActions`, acting in the continuous environment.

    Args:
        model: What chooses the discrete action.
        names: The components that the environment lets the agent set.
    """

    def __init__(self, model: Any, names: tuple[str, ...]) -> None:
        self.model, self.names = model, names

    @settled()
    def predict(
        self, observation: np.ndarray, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, Any]:
        """The continuous action; see `agents.Agent`."""
        choice, state = self.model.predict(observation, state, episode_start, deterministic)
        pairs = zip(np.atleast_2d(observation), np.atleast_1d(choice), strict=True)
        actions = np.stack([DiscreteActions.apply(int(c), row, self.names) for row, c in pairs])
        return actions.reshape(*observation.shape[:-1], len(self.names)), state


def _load_foreign(path: Path, env: gym.Env, names: tuple[str, ...], trust: bool) -> Any:
    if not trust:
        raise UserError(
            f"{path} was not saved by train_agent.py: loading it would run pickled code of its author's; "
            "add --trust if you know where it comes from."
        )
    try:
        data = json.loads(read_member(path, "data", MOST_TEXT))
        model = algorithm(_guess(data)).load(path, device="cpu")
    except UserError:
        raise
    except ArchiveError as error:
        raise UserError(str(error)) from error
    except Exception as error:  # unpickling raises anything
        raise UserError(f"{path} is not an agent that SB3 saved, or it is damaged.") from error
    if model.observation_space.shape != env.observation_space.shape:
        raise UserError(f"{path} takes observations of shape {model.observation_space.shape}, not of this environment.")
    if isinstance(model.action_space, spaces.Discrete):
        return DiscreteAgent(model, names)
    if model.action_space.shape != env.action_space.shape:
        raise UserError(f"{path} gives actions of shape {model.action_space.shape}, not of this environment.")
    return TrainedAgent(model)


def _guess(data: Mapping[str, Any]) -> str:
    """The algorithm whose constructor's arguments are the most like a saved model's attributes."""
    attributes = set(data)

    def likeness(name: str) -> float:
        try:
            known = set(inspect.signature(algorithm(name).__init__).parameters) - {"self", "env", "policy"}
        except UserError:
            return -1.0
        return len(known & attributes) / len(known | attributes)

    return max(ALGORITHMS, key=likeness)
