"""The configuration of a comparison."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fusion_gym.cli import UserError, check_finite, check_seed
from fusion_gym.env import FusionDistillEnv

from ..schema import flag, hidden, option
from ..students import StudentSettings, check_decisions

FIRST_SEED = 1000  # far from the small seeds that people train agents with
DECISIONS = inspect.signature(FusionDistillEnv.__init__).parameters["episode_steps"].default
OF_A_RUN = ("agent", "threads", "version")  # settings of a student's run that a comparison has no use for


@dataclass(frozen=True, kw_only=True)
class ComparisonRun(StudentSettings):
    """What a comparison is made of.

    Attributes:
        agents: Agents as texts or files.
        decisions: How often agents are asked.
        instances: YAML file of {name: {arguments of the environment}}.
        seed: The first student seed.
        seeds: Student seeds for each agent and instance.
        workers: Parallel processes.
        cluster: Use all cores of a Ray cluster instead.
        search_runs: Students that the search for best-constant trains.
        search_instances: What best-constant is tuned on, if not --instances.
        oracle_runs: Students that each search on a single instance trains.
    """

    agents: tuple[str, ...] = hidden()
    decisions: int = DECISIONS
    instances: str = option("default", metavar="FILE")
    seed: int = FIRST_SEED
    seeds: int = 10
    workers: int = 1
    cluster: bool = option(False, shown="")
    search_runs: int = 500
    search_instances: str | None = option(None, metavar="FILE")
    oracle_runs: int | None = option(None, shown="--search-runs / instances")

    def __post_init__(self) -> None:
        """Checks the settings, each and together."""
        super().__post_init__()
        check_finite(self.as_dict())
        check_seed(self.seed)
        check_decisions(self.updates, self.decisions)
        for name in ("seeds", "workers", "search_runs", "oracle_runs"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{flag(type(self), name)} {value} is not allowed; give a number from 1 on.")

    def arguments(self) -> dict[str, Any]:
        """Arguments of the environment that all instances share, unless they have their own."""
        length = {"episode_steps": self.decisions, "updates_per_step": self.updates // self.decisions}
        return {**self.shared_arguments(), **length, **self.env_kwargs}

    @classmethod
    def of_file(cls, content: Mapping[str, Any], file: Any) -> dict[str, Any]:
        """Settings from the configuration of a student's run or of hand.

        Raises:
            UserError: If a setting is unknown or of a wrong type.
        """
        return cls.check({name: value for name, value in content.items() if name not in OF_A_RUN}, file)
