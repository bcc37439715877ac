"""The training of a student under an agent, saved after every step of the environment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

import fusion_gym
from fusion_gym.archives import check_file, write_tensors
from fusion_gym.cli import UserError
from fusion_gym.record import of_episode

from .. import Agent
from ..schema import CONFIG, check_same
from .judging import curves
from .student_run import StudentRun

STATE, RECORD = "state.pt", "episode.json"


def train(env: Any, agent: Agent, run: StudentRun, out: Path, progress: bool) -> list[dict[str, float]]:
    """Runs the episode, each decision held for some stretches; continues from the saved state where there is one.

    Args:
        env: The environment, without wrappers.
        agent: The agent.
        run: The configuration.
        out: The run's folder.
        progress: Whether to show a bar.

    Returns:
        The infos: the first before any update, then one for each step.

    Raises:
        UserError: If the student diverges, or the saved state is damaged or of another configuration.
    """
    observation, info = env.reset(seed=run.seed)
    log, seen, memory, action = [_plain(info)], [], None, None
    taken: list[Any] = []  # the actions
    rewards: list[float] = []
    path = out / STATE

    def ask(what: np.ndarray, first: bool) -> tuple[np.ndarray, Any]:
        return agent.predict(what, state=memory, episode_start=np.array([first]), deterministic=True)

    if path.is_file():
        saved = read_state(path, run)
        with _sound(path, run.version):
            observation, *seen = (value.numpy() for value in saved["observations"])
            log, rewards, taken = saved["log"], saved["rewards"], list(saved["actions"].numpy())
            _check(env, run, (observation, *seen), log, rewards, taken, info)
            env.load_state(saved["env"])
        for number, past in enumerate(seen):  # an agent with a memory comes to where it was
            _, memory = ask(past, number == 0)
        action = taken[-1]
    bar = tqdm(
        total=run.steps, initial=len(log) - 1, dynamic_ncols=True, disable=not progress, unit="stretch", desc="distil"
    )
    for step in range(len(log) - 1, run.steps):
        if step % run.stretches == 0:
            action, memory = ask(observation, step == 0)
            seen.append(observation)
        observation, reward, _, _, info = env.step(action)
        log.append(_plain(info))
        taken.append(action)
        rewards.append(float(reward))
        if info["diverged"]:
            curves(log, out)
            raise UserError(
                f"The student diverged after {log[-2]['student/updates']:.0f} updates, see {out / 'losses.png'}; "
                "lower --learning-rate."
            )
        state = {
            "config": run.as_dict(),
            "observations": [torch.from_numpy(o) for o in (observation, *seen)],
            "log": log,
            "rewards": rewards,
            "actions": torch.from_numpy(np.stack(taken)),
            "env": env.save_state(),
        }
        write_tensors(path, state)
        bar.update()
        bar.set_postfix(score=f"{info['score']:.3f}")
    bar.close()
    of_episode(env, run.seed, taken, rewards).save(out / RECORD)
    return log


def read_state(path: Path, run: StudentRun) -> Mapping[str, Any]:
    """The saved state of a run, made under its configuration.

    Raises:
        UserError: If the file cannot be read, is damaged, or was made under another configuration.
    """
    check_file(path)
    with _sound(path):
        saved = torch.load(path, map_location="cpu", weights_only=True)  # a GPU's state may go on without one
        if not {"log", "env"} <= saved.keys() or not isinstance(saved.get("config", {}), dict):
            raise ValueError("no state of ours")
    if "config" not in saved:
        raise UserError(f"{path} was saved by an earlier version of FusionGym; start anew with another --out.")
    check_same(path.with_name(CONFIG), run.as_dict(), path, saved["config"])
    return saved


@contextmanager
def _sound(path: Path, version: str = fusion_gym.__version__) -> Iterator[None]:
    """Says in one sentence why a state cannot be used; it is damaged only where nothing else explains it."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise UserError(f"There is not enough memory for {path}; free some, and resume again.") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
    except Exception as error:  # torch and zipfile raise many classes for the many kinds of damage
        if version != fusion_gym.__version__:
            raise UserError(
                f"{path} is of version {version} and does not fit version {fusion_gym.__version__}; resume it with "
                "that one, or start anew with another --out."
            ) from error
        raise UserError(f"{path} is damaged; remove it and resume again, from the beginning.") from error


def _plain(info: dict[str, Any]) -> dict[str, float]:
    """An info's figures as Python's own, which files of tensors hold."""
    return {name: value.item() for name, value in info.items()}


def _check(
    env: Any,
    run: StudentRun,
    observations: tuple[np.ndarray, ...],
    log: list[dict[str, float]],
    rewards: list[float],
    taken: list[np.ndarray],
    first: Mapping[str, float],
) -> None:
    """Raises a ValueError where the parts of a state do not belong together."""
    steps = len(taken)
    asked = -(-steps // run.stretches)
    if not (1 <= steps <= run.steps and len(log) == steps + 1 and len(rewards) == steps):
        raise ValueError(f"{len(log)} entries of the log and {len(rewards)} rewards for {steps} actions")
    if len(observations) != asked + 1 or any(one.shape != env.observation_space.shape for one in observations):
        raise ValueError(f"{len(observations)} observations for {asked} decisions, or of a wrong shape")
    if any(action.shape != env.action_space.shape for action in taken):
        raise ValueError("actions of a wrong shape")
    figures = [value for entry in log for value in entry.values()] + rewards
    if any(entry.keys() != first.keys() for entry in log) or not all(isinstance(one, (int, float)) for one in figures):
        raise ValueError("a log of other things")
