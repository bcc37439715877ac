"""The configuration of a student's run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

import fusion_gym
from fusion_gym.cli import UserError, check_finite, check_seed
from fusion_gym.data import SYNTHETIC, sets_of

from .. import settings_of
from ..schema import hidden, option
from ..students import StudentSettings, check_decisions

DECISIONS = 16
# Synthetic scenes are there to be tried. Anything else is worth a long training, in which small patches would teach a
# student of the family to see what is in them in place of whole images.
TRY: dict[str, Any] = {"updates": 3_200, "batch_size": 8}
WHOLE: dict[str, Any] = {"updates": 24_000, "batch_size": 4}
WHOLE_PATCH = 128  # pixels
STRETCH, STRETCHES = 100, 400  # updates between two savings, unless there were more savings than that


def _shown(name: str) -> str:
    return f"{WHOLE[name]}, but {TRY[name]} where the data is synthetic alone"


@dataclass(frozen=True, kw_only=True)
class StudentRun(StudentSettings):
    """What a student's run is made of; ``config.yml`` holds it.

    Attributes:
        agent: A trained agent's zip, a schedule, or module:Class.
        decisions: How often the agent is asked.
        seed: Drawn, printed and stored when absent.
        threads: Torch's threads.
        version: The package's, when the run began.
    """

    agent: str = "constant"
    updates: int = option(WHOLE["updates"], shown=_shown("updates"))
    batch_size: int = option(WHOLE["batch_size"], shown=_shown("batch_size"))
    decisions: int = option(DECISIONS, shown=f"as in its training, else {DECISIONS}")
    seed: int = option(0, shown="")
    threads: int = 1
    version: str = hidden(fusion_gym.__version__)

    def __post_init__(self) -> None:
        """Checks the settings, each and together."""
        super().__post_init__()
        check_finite(self.as_dict())
        check_seed(self.seed)
        check_decisions(self.updates, self.decisions)
        own = {name for name in self._arguments() if name in self.env_kwargs}
        if own:
            raise UserError(f"--env-kwargs {min(own)} is not for this command: it has an option for that, see --help.")

    @classmethod
    def begin(cls, given: Mapping[str, Any]) -> StudentRun:
        """A new run: what is given, then what the agent brings along, then a seed that is drawn, then the defaults.

        Raises:
            UserError: If a setting is not allowed.
        """
        brought = settings_of(given.get("agent", cls.agent))
        decisions = brought.pop("decisions", DECISIONS)
        seed = int(np.random.default_rng().integers(2**31))
        tried = all(name in SYNTHETIC for name in sets_of(given.get("data", cls.data)))
        env_kwargs = ({} if tried else {"patch_size": WHOLE_PATCH}) | brought | dict(given.get("env_kwargs", {}))
        usual = {"decisions": decisions, "seed": seed, **(TRY if tried else WHOLE)}
        return cls(**{**usual, **given, "env_kwargs": env_kwargs, "version": fusion_gym.__version__})

    @property
    def stretches(self) -> int:
        """Steps of the environment for each decision; the training is saved after every one."""
        return max(1, round(min(self.updates / STRETCH, STRETCHES) / self.decisions))

    @property
    def steps(self) -> int:
        """Steps of the environment in all."""
        return self.decisions * self.stretches

    @property
    def updates_per_step(self) -> int:
        """Updates of the student in each step."""
        return math.ceil(self.updates / self.steps)

    @property
    def datasets(self) -> list[str]:
        """The data whose test pairs are reported on."""
        return list(dict.fromkeys((self.data, *self.test)))

    def arguments(self) -> dict[str, Any]:
        """Arguments of the environment whose one episode is the whole training."""
        return {**self._arguments(), **self.env_kwargs}

    def _arguments(self) -> dict[str, Any]:
        length = {"episode_steps": self.steps, "updates_per_step": self.updates_per_step}
        return {**self.shared_arguments(), **length, "patches": None, "threads": self.threads}
