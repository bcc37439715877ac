"""Configuration of a training run: command line before an earlier run's file before the algorithm's YAML file."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from fusion_gym import files
from fusion_gym.cli import UserError, check_keys, check_seed, parse_settings, read_yaml
from fusion_gym.folders import free_folder, unused

from ..sb3 import algorithm, hyperparameters
from .runs import VEC_ENVS

CONFIG = "config.yml"
FLAGS = ("algo", "env", "seed", "n_timesteps", "n_envs", "vec_env", "eval_freq", "eval_episodes", "save_freq")
KEYS = (*FLAGS, "env_kwargs", "hyperparams", "versions")


def configure(args: argparse.Namespace) -> tuple[Path, dict[str, Any]]:
    """Folder and configuration of a run.

    Args:
        args: The command line of train_agent.py.

    Raises:
        UserError: If a setting is unknown or not allowed, or the folder does not fit what is asked.
    """
    given = {key: getattr(args, key) for key in FLAGS if getattr(args, key) is not None}
    if args.resume is not None:
        return args.resume, _checked(_earlier_run(args.resume) | {k: v for k, v in given.items() if k == "n_timesteps"})
    earlier = read_yaml(args.config) if args.config else {}
    file = args.config if earlier and "hyperparams" not in earlier else None
    if file is not None:
        earlier = {}  # it holds hyperparameters only
    check_keys(earlier, KEYS, f"setting (in {args.config})")
    seed = int(np.random.default_rng().integers(2**31 - 1))
    chosen: dict[str, Any] = {"algo": "ppo", "env": "FusionDistill-v0", "seed": seed, "eval_episodes": 4}
    chosen |= earlier | given
    chosen["algo"] = str(chosen["algo"]).lower()
    algorithm(chosen["algo"])
    overrides = parse_settings(args.param, "--param")
    if earlier.get("algo") == chosen["algo"]:
        overrides = earlier["hyperparams"] | overrides
    hyperparams = hyperparameters(chosen["algo"], chosen["env"].split(":")[-1], overrides, file)
    sizes = {"n_timesteps": 10_000, "n_envs": min(2, os.cpu_count() or 1)}
    for name, usual in sizes.items():
        if name not in given:
            chosen[name] = hyperparams.get(name, usual)
        hyperparams[name] = chosen[name]
    chosen.setdefault("vec_env", "subproc" if chosen["n_envs"] > 1 else "dummy")
    chosen.setdefault("eval_freq", chosen["n_timesteps"] // 5)
    chosen.setdefault("save_freq", max(1, chosen["n_timesteps"] // 10))
    env_kwargs = earlier.get("env_kwargs", {}) | parse_settings(args.env_kwargs, "--env-kwargs")
    shortcuts = {name: getattr(args, name) for name in ("data", "ir_range", "teacher", "device", "threads")}
    env_kwargs |= {key: value for key, value in shortcuts.items() if value is not None}
    config = {key: chosen[key] for key in FLAGS}
    config |= {"env_kwargs": env_kwargs, "hyperparams": hyperparams, "versions": _versions()}
    out = unused(args.out) if args.out else free_folder(Path("runs") / chosen["algo"])
    return out, _checked(config)


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Writes ``config.yml`` and ``command.txt``, by which the run can be repeated."""
    folder.mkdir(parents=True, exist_ok=True)
    files.atomic_write(folder / CONFIG, yaml.safe_dump(dict(config), sort_keys=False))
    files.atomic_write(folder / "command.txt", shlex.join(["python", *sys.argv]) + "\n")


def _earlier_run(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file():
        raise UserError(f"{folder} has no {CONFIG}; give --resume the folder of an earlier run.")
    config = read_yaml(path)
    missing = [key for key in KEYS if key not in config]
    if missing:
        raise UserError(f"{path} lacks {missing[0]}; start anew with another --out.")
    return config


def _checked(config: dict[str, Any]) -> dict[str, Any]:
    for name in ("n_timesteps", "n_envs", "eval_episodes", "save_freq"):
        if not isinstance(config[name], int) or config[name] < 1:
            raise UserError(f"{name}={config[name]} is not allowed; give a whole number from 1 on.")
    if not isinstance(config["eval_freq"], int) or config["eval_freq"] < 0:
        raise UserError(f"eval_freq={config['eval_freq']} is not allowed; give a whole number, 0 for no evaluation.")
    check_seed(config["seed"])
    check_keys([config["vec_env"]], VEC_ENVS, "kind of --vec-env")
    if config["vec_env"] == "population" and "env_wrapper" in config["hyperparams"]:
        raise UserError(f"--vec-env population takes no wrapper, which {config['algo']} needs; give dummy or subproc.")
    return config


def _versions() -> dict[str, str]:
    found = {"python": sys.version.split()[0]}
    for name in ("fusion-gym", "gymnasium", "stable-baselines3", "sb3-contrib", "torch", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
