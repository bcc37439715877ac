"""Training runs: their environments, their logs and their folder, laid out as rl-baselines3-zoo does."""

from __future__ import annotations

import csv
import importlib
import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import numpy as np
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import CSVOutputFormat, KVWriter, Logger
from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv

from fusion_gym import rendering
from fusion_gym.cli import UserError
from fusion_gym.stopping import leave_to_parent

from ..environments import full_id
from .agent_run import AgentRun
from .callbacks import best_of
from .vec_envs import VEC_ENVS

INFO_KEYWORDS = ("score", "score_clean", "score_hardened", "diverged")  # columns of the monitor files


class WorkerSetup:
    """Applied to every environment in its process: wrappers, and requests to stop left to the main process."""

    def __init__(self, wrapper: str | None) -> None:
        self.wrapper = wrapper

    def __call__(self, env: gym.Env) -> gym.Env:
        """Wraps an environment, in its process."""
        if multiprocessing.parent_process() is not None:
            leave_to_parent()
        if self.wrapper is None:
            return env
        module, _, name = self.wrapper.rpartition(".")
        try:
            return getattr(importlib.import_module(module), name)(env)
        except (ImportError, AttributeError, ValueError) as error:
            raise UserError(f"There is no wrapper {self.wrapper!r}; give package.module.Class.") from error


def make_envs(run: AgentRun, seed: int, folder: Path | None = None) -> VecEnv:
    """The environments of a run.

    Args:
        run: The run's configuration.
        seed: Seed of the first environment; the others follow.
        folder: Where the monitor files go; None writes none. Existing ones are continued.
    """
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    going_on = folder is not None and (folder / "0.monitor.csv").is_file()
    afar = run.vec_env == "ray"  # where this machine's folders may not exist
    envs = make_vec_env(
        full_id(run.env),
        run.n_envs,
        seed,
        monitor_dir=None if folder is None or afar else str(folder),
        monitor_kwargs={"info_keywords": INFO_KEYWORDS, "override_existing": not going_on},
        wrapper_class=WorkerSetup(run.wrapper),
        env_kwargs=dict(run.env_kwargs),
        vec_env_cls=cast(Any, VEC_ENVS[run.vec_env]),
    )
    if folder is None or not afar:
        return envs
    from .ray_vec_env import MonitorFiles

    return MonitorFiles(envs, folder, INFO_KEYWORDS, override_existing=not going_on)


@contextmanager
def opened(run: AgentRun, seed: int, folder: Path | None = None) -> Iterator[VecEnv]:
    """`make_envs`, closed at the end whatever happens.

    Raises:
        UserError: If a worker process dies.
    """
    envs: VecEnv | None = None
    try:
        envs = make_envs(run, seed, folder)
        yield envs
    except (EOFError, ConnectionError) as error:
        raise UserError(
            "A worker process died, perhaps for want of memory; give --resume the run's folder, which continues from "
            "the last checkpoint."
        ) from error
    except KeyboardInterrupt:
        if isinstance(envs, SubprocVecEnv):
            envs.waiting = False  # some answers may have been taken already; closing would wait for them for ever
        raise
    finally:
        if envs is not None:
            with suppress(EOFError, ConnectionError):  # of the dead worker
                envs.close()


def make_logger(folder: Path) -> Logger:
    """SB3's logger into ``progress.csv`` (continued where it exists) and, where installed, TensorBoard events."""
    path = folder / "progress.csv"
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    table = CSVOutputFormat(str(path))
    if "\n" in before:
        table.file.write(before[: before.rindex("\n") + 1])  # a line cut by a kill is dropped
        table.keys = before[: before.index("\n")].split(",")
    outputs: list[KVWriter] = [table]
    try:
        from stable_baselines3.common.logger import TensorBoardOutputFormat

        outputs.append(TensorBoardOutputFormat(str(folder / "tensorboard")))
    except (ImportError, AssertionError):
        pass  # the extra "log" is not installed
    return Logger(str(folder), outputs)


def learning_curves(folder: Path) -> dict[str, tuple[list[float], list[float]]]:
    """Returns in training and in evaluation over the steps, from ``progress.csv``."""
    with open(folder / "progress.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    series: dict[str, tuple[list[float], list[float]]] = {}
    for label, key in (("training", "rollout/ep_rew_mean"), ("evaluation", "eval/mean_reward")):
        points = [(float(row["time/total_timesteps"]), float(row[key])) for row in rows if row.get(key)]
        if points:
            x, y = zip(*sorted(points), strict=True)
            series[label] = list(x), list(y)
    return series


def best_point(folder: Path) -> tuple[float, float] | None:
    """Step and mean return of the best model's evaluation; None where nothing was evaluated."""
    path = folder / "evaluations.npz"
    if not path.is_file():
        return None
    with np.load(path) as saved:
        best = best_of(saved["results"])
        return float(saved["timesteps"][best]), float(saved["results"][best].mean())


def draw_learning_curve(folder: Path, constant: float | None = None) -> None:
    """Draws ``learning_curve.png``: `learning_curves`, the best model, and the default constant's return as a line."""
    series = learning_curves(folder)
    best = best_point(folder)
    picture = rendering.plot_curves(
        series,
        "environment steps",
        "return of an episode",
        "Learning curve",
        marks={} if constant is None else {"default constant": constant},
        points={} if best is None else {"best model": best},
    )
    rendering.save_picture(folder / "learning_curve.png", picture)
