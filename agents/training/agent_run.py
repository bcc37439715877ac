"""The configuration of an agent's training."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from fusion_gym.cli import UserError, check_keys, check_seed

from ..sb3 import ALGORITHMS, algorithm, check_hyperparameters, hyperparameters
from ..schema import Settings, fit, option
from .vec_envs import VEC_ENVS

LEAST_EVAL_FREQ = 256  # steps; an evaluation costs as much as half of them
_PACKAGES = ("fusion-gym", "gymnasium", "stable-baselines3", "sb3-contrib", "torch", "numpy")


@dataclass(frozen=True, kw_only=True)
class AgentRun(Settings):
    """What an agent's training is made of; ``config.yml`` holds it.

    Attributes:
        algo: Algorithm.
        env: Environment id.
        seed: Drawn, printed and stored when absent.
        n_timesteps: Environment steps.
        n_envs: Environments side by side.
        vec_env: dummy: one after the other; subproc: a process each (default if several); population: trained together.
        eval_freq: Steps between evaluations; 0 for none.
        eval_episodes: Episodes of an evaluation.
        save_freq: Steps between checkpoints.
        env_kwargs: Environment's settings.
        hyperparams: Hyperparameters.
        versions: Of the packages, when the run began.
    """

    algo: str = option("ppo", type=str.lower, metavar="ALGO", shown=f"ppo; there are {', '.join(ALGORITHMS)}")
    env: str = "FusionDistill-v0"
    seed: int = option(0, shown="")
    n_timesteps: int = option(10_000, "-n", "--timesteps", shown="of the algorithm's YAML file")
    n_envs: int = option(1, shown="2, or 1 on one core")
    vec_env: str = option("dummy", choices=sorted(VEC_ENVS), shown="")
    eval_freq: int = option(0, shown="an eighth of all, 256 at least")
    eval_episodes: int = 8
    save_freq: int = option(1, shown="a tenth of all")
    env_kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    hyperparams: Mapping[str, Any] = dataclasses.field(default_factory=dict, metadata={"flags": ("-p", "--param")})
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict, metadata={"hidden": True})

    def __post_init__(self) -> None:
        """Checks the settings, each and together."""
        super().__post_init__()
        for name in ("n_timesteps", "n_envs", "eval_episodes", "save_freq"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} is not allowed; give a whole number from 1 on.")
        if self.eval_freq < 0:
            raise UserError(f"eval_freq={self.eval_freq} is not allowed; give a whole number, 0 for no evaluation.")
        check_seed(self.seed)
        check_keys([self.vec_env], VEC_ENVS, "kind of --vec-env")
        check_hyperparameters(self.algo, self.hyperparams)
        if self.vec_env == "population" and "env_wrapper" in self.hyperparams:
            raise UserError(f"--vec-env population takes no wrapper, which {self.algo} needs; give dummy or subproc.")

    @classmethod
    def check(cls, content: Mapping[Any, Any], where: str | Path) -> dict[str, Any]:
        """Some of the settings, as a file has them; hyperparameters are those of the algorithm."""
        found = super().check(content, where)
        try:
            check_hyperparameters(found.get("algo", cls.algo).lower(), found.get("hyperparams", {}))
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
        return found

    @classmethod
    def begin(cls, given: Mapping[str, Any], earlier: Mapping[str, Any], file: Path | None = None) -> AgentRun:
        """A new run: what is given, then what an earlier run had, then the algorithm's settings, then the defaults.

        Args:
            given: Settings from the command line.
            earlier: Settings of an earlier run.
            file: Hyperparameters by environment id; the algorithm's own file where it is None.

        Raises:
            UserError: If a setting is not allowed.
        """
        seed = int(np.random.default_rng().integers(2**31 - 1))
        chosen: dict[str, Any] = {"algo": cls.algo, "env": cls.env, "seed": seed, **earlier, **given}
        chosen["algo"] = chosen["algo"].lower()
        algorithm(chosen["algo"])
        overrides = dict(given.get("hyperparams", {}))
        if earlier.get("algo") == chosen["algo"]:
            overrides = {**earlier.get("hyperparams", {}), **overrides}
        hyperparams = hyperparameters(chosen["algo"], chosen["env"].split(":")[-1], overrides, file)
        for name, usual in (("n_timesteps", cls.n_timesteps), ("n_envs", min(2, os.cpu_count() or 1))):
            chosen[name] = hyperparams[name] = given.get(name, hyperparams.get(name, usual))
        chosen.setdefault("vec_env", "subproc" if chosen["n_envs"] > 1 else "dummy")
        chosen.setdefault("eval_freq", min(chosen["n_timesteps"], max(LEAST_EVAL_FREQ, chosen["n_timesteps"] // 8)))
        chosen.setdefault("save_freq", max(1, chosen["n_timesteps"] // 10))
        env_kwargs = {**earlier.get("env_kwargs", {}), **given.get("env_kwargs", {})}
        return cls(**{**chosen, "env_kwargs": env_kwargs, "hyperparams": hyperparams, "versions": _versions()})

    @property
    def threads(self) -> int | None:
        """Torch's threads in each process; None leaves them."""
        return fit(self.env_kwargs.get("threads", 1), int | None, "threads", "--env-kwargs")

    @property
    def wrapper(self) -> str | None:
        """What the algorithm's environments are wrapped in, ``package.module.Class``."""
        return self.hyperparams.get("env_wrapper")

    def identity(self) -> dict[str, Any]:
        """What a run that goes on must have in common with what it was: all but its length and the versions."""
        settings = self.as_dict()
        hyperparams = {name: value for name, value in settings["hyperparams"].items() if name != "n_timesteps"}
        own = {name: value for name, value in settings.items() if name not in ("n_timesteps", "versions")}
        return {**own, "hyperparams": hyperparams}


def _versions() -> dict[str, str]:
    found = {"python": sys.version.split()[0]}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
