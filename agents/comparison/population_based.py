"""Population-based training as a rival (Jaderberg et al. 2017, arXiv:1711.09846), by Ray Tune.

A population of students is trained side by side, each under settings of its own; every few decisions the worst take
over the students of the best and move their settings. What the best student was trained under, from its first
ancestor on, is an open loop, and judged as such.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ray import tune
from ray.tune.schedulers import PopulationBasedTraining
from ray.tune.search import BasicVariantGenerator

from fusion_gym.actions import encode
from fusion_gym.archives import read_tensors, write_tensors

from ..environments import make_checked
from ..ray_cluster import connect
from .search import Candidate, Courses, Evaluate, Found, Trials, finals

MEMBERS = 8  # students of a population
INTERVAL = 2  # decisions between two selections
STATE = "state.pt"
Train = Callable[[Courses, Mapping[str, Any], int], np.ndarray]


class Member(tune.Trainable):
    """One student of a population: a decision is an iteration of Tune's."""

    def setup(self, config: dict[str, Any]) -> None:
        """Begins an episode; the settings are the keys that are numbers, the other keys those of `train`."""
        self.env: Any = make_checked(config["environment"], config["arguments"]).unwrapped
        self.env.reset(seed=config["seed"])
        self.course: list[list[float]] = []

    def step(self) -> dict[str, Any]:
        """Trains for one decision."""
        vector = _vector(self.config)
        settings = self.config["courses"].settings(vector)
        _, _, over, _, info = self.env.step(encode(settings, self.env.action_names))
        self.course.append(vector.tolist())
        return {"score": float(info["score"]), "course": self.course, "done": over}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Saves the episode as it is."""
        write_tensors(Path(checkpoint_dir) / STATE, {"env": self.env.save_state(), "course": self.course})

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Goes on from an episode, its own or a better member's."""
        saved = read_tensors(Path(checkpoint) / STATE)
        self.env.load_state(saved["env"])
        self.course = saved["course"]

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Becomes another member, whose episode `load_checkpoint` brings."""
        self.setup(new_config)
        return True


def train(
    courses: Courses, arguments: Mapping[str, Any], seed: int, environment: str = "FusionDistill-v0"
) -> np.ndarray:
    """Trains one population.

    Tune draws the moves of settings from global generators and runs members as they come, so it does not repeat
    exactly.

    Args:
        courses: What settings there are, with one break point each.
        arguments: Arguments of the environment.
        seed: Seed of the episode, the same for all members, and of the first settings.
        environment: Id of the environment.

    Returns:
        The settings of the best student, one row for each decision, as `Courses.settings` takes them.

    Raises:
        RuntimeError: If no member comes to its end.
    """
    connect()
    free = {f"{at:02}": tune.uniform(0.0, 1.0) for at in range(len(courses.first))}
    scheduler = PopulationBasedTraining(
        perturbation_interval=INTERVAL, hyperparam_mutations=dict(free), custom_explore_fn=_within, synch=True
    )
    fixed = {"environment": environment, "arguments": dict(arguments), "seed": seed, "courses": courses}
    with tempfile.TemporaryDirectory() as folder:
        tuner = tune.Tuner(
            tune.with_resources(Member, {"cpu": 1}),
            param_space={**free, **fixed},
            tune_config=tune.TuneConfig(
                metric="score",
                mode="max",
                num_samples=MEMBERS,
                scheduler=scheduler,
                search_alg=BasicVariantGenerator(random_state=seed),
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        )
        return np.array((tuner.fit().get_best_result().metrics or {})["course"])


def _vector(config: Mapping[str, Any]) -> np.ndarray:
    return np.array([2 * config[key] - 1 for key in sorted(key for key in config if key.isdecimal())])


def _within(config: dict[str, Any]) -> dict[str, Any]:
    return {key: min(1.0, max(0.0, value)) if key.isdecimal() else value for key, value in config.items()}


def population_based(
    start: Candidate, evaluate: Evaluate, blocks: int, arguments: Mapping[str, Any], first: int, train: Train = train
) -> Found:
    """The best course that populations find; the start is beaten or kept, as in `search.cross_entropy`.

    Args:
        start: A constant schedule.
        evaluate: Scores candidates on blocks.
        blocks: Students to train, at least: most in populations, the rest to compare what these found.
        arguments: Arguments of the environment.
        first: Seed of the first block.
        train: What trains a population.
    """
    courses = Courses(start, 1)
    populations = max(1, math.ceil(0.8 * blocks / MEMBERS))
    found = [courses.lineage(train(courses, arguments, first + block)) for block in range(populations)]
    return finals(Trials(evaluate), [start, *found], populations, blocks - populations * MEMBERS)
