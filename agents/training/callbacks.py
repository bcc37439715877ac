"""Callbacks of a training: our metrics in SB3's log, evaluation on fixed seeds, checkpoints to continue from."""

from __future__ import annotations

import io
import json
import math
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback
from stable_baselines3.common.save_util import recursive_setattr
from stable_baselines3.common.vec_env import VecEnv

from fusion_gym.archives import ArchiveError, check_archive
from fusion_gym.cli import UserError
from fusion_gym.files import atomic_path
from fusion_gym.text import say

from ..sb3 import read_entry, read_tensors, save_model
from ..schema import fit

STEP_METRICS = ("action/",)  # logged as means over all steps
END_METRICS = ("fusion/", "ratio/", "gap/", "student/", "score", "gain", "diverged")  # over the ends of episodes
PREFIX, KEEP = "rl_model", 2
_STATE, _REPLAY = "training.json", "replay.npz"
_BUFFER = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


class FusionMetrics(BaseCallback):
    """Logs what the environment reports: ``fusion/*``, ``gap/*``, ``action/*`` and the like, beside SB3's figures."""

    def _on_step(self) -> bool:
        dones = self.locals.get("dones", ())
        for info, done in zip(self.locals.get("infos", ()), dones, strict=True):
            prefixes = STEP_METRICS + END_METRICS if done else STEP_METRICS
            for key, value in info.items():
                if key.startswith(prefixes):
                    self.logger.record_mean(key if "/" in key else f"fusion/{key}", value)
        return True

    def _on_rollout_end(self) -> None:
        restarts = getattr(self.training_env, "restarts", None)  # of environments on other machines
        if restarts is not None:
            self.logger.record("time/env_restarts", restarts)


def ahead(returns: Sequence[float], others: Sequence[float]) -> bool:
    """Whether returns are higher than others' of the same episodes by more than a standard error of the difference."""
    apart = np.subtract(returns, others)
    error = apart.std(ddof=1) / math.sqrt(len(apart)) if len(apart) > 1 else 0.0
    return bool(apart.mean() > error)


def best_of(evaluations: Sequence[Sequence[float]]) -> int:
    """Which of several policies is the best, by the returns of each: the first, until one is `ahead` of it."""
    best = 0
    for number, returns in enumerate(evaluations):
        if ahead(returns, evaluations[best]):
            best = number
    return best


class SeededEval(EvalCallback):
    """Evaluation on the same episodes every time, so that evaluations differ by the agent alone.

    A few lucky episodes make no policy the best: see `best_of`.

    Args:
        eval_env: Environments to evaluate in.
        seed: Seed of their first episodes.
        folder: Run folder, for ``evaluations.npz``.
        on_new_best: Called when the policy is the best so far.
        freq: Evaluate every so many calls (steps of all environments together count once).
        episodes: Episodes of an evaluation.
    """

    def __init__(
        self, eval_env: VecEnv, seed: int, folder: Path, on_new_best: Callable[[], None], freq: int, episodes: int
    ) -> None:
        super().__init__(eval_env, eval_freq=freq, n_eval_episodes=episodes, log_path=str(folder), verbose=0)
        self.seed, self._target, self._on_new_best = seed, folder / "evaluations.npz", on_new_best

    def _on_training_start(self) -> None:
        super()._on_training_start()
        if self.num_timesteps == 0:
            self._on_step()  # what a policy begins with may be the best that there will be

    def _on_step(self) -> bool:
        if self.eval_freq <= 0 or self.n_calls % self.eval_freq:
            return True
        self.eval_env.seed(self.seed)
        with atomic_path(self._target) as temporary:
            self.log_path = str(temporary)
            going_on = super()._on_step()
        spread = float(np.std(self.evaluations_results[-1]))
        say(f"{self.num_timesteps} steps: evaluation return {self.last_mean_reward:.2f} ± {spread:.2f}")
        if best_of(self.evaluations_results) == len(self.evaluations_results) - 1:
            self._on_new_best()
        return going_on

    def history(self) -> dict[str, Any]:
        """The evaluations so far, as plain lists."""
        return {
            "best": self.best_mean_reward,
            "timesteps": [int(value) for value in self.evaluations_timesteps],
            "results": [[float(value) for value in row] for row in self.evaluations_results],
            "lengths": [[int(value) for value in row] for row in self.evaluations_length],
            "successes": [[bool(value) for value in row] for row in self.evaluations_successes],
        }

    def restore(self, history: Mapping[str, Any]) -> None:
        """Continues the history of an earlier training."""
        self.best_mean_reward = float(history["best"])
        kinds = {"timesteps": tuple[int, ...], "results": tuple[tuple[float, ...], ...]}
        kinds |= {"lengths": tuple[tuple[int, ...], ...], "successes": tuple[tuple[bool, ...], ...]}
        timesteps, *rows = (fit(history[name], kind, name) for name, kind in kinds.items())
        results, lengths, successes = ([list(row) for row in part] for part in rows)
        self.evaluations_timesteps, self.evaluations_results = list(timesteps), results
        self.evaluations_length, self.evaluations_successes = lengths, successes


class Checkpoint(CheckpointCallback):
    """Saves everything that continuing needs, in one zip that is written whole or not at all; the last few are kept.

    Args:
        freq: Save every so many calls.
        folder: Run folder.
        description: For `agents.sb3.save_model`.
        evaluation: Whose history is saved too.
    """

    def __init__(self, freq: int, folder: Path, description: Mapping[str, Any], evaluation: SeededEval) -> None:
        super().__init__(freq, str(folder), PREFIX)
        self.description, self.evaluation = description, evaluation

    def _on_step(self) -> bool:
        if self.n_calls % self.save_freq == 0:
            self.save()
        return True

    def save(self) -> None:
        """Saves a checkpoint now."""
        model = self.model
        state = {
            "num_timesteps": model.num_timesteps,
            "_n_updates": model._n_updates,
            "_episode_num": model._episode_num,
            "episodes": [{key: float(value) for key, value in entry.items()} for entry in model.ep_info_buffer or ()],
            "evaluation": self.evaluation.history(),
        }
        extra = {_STATE: json.dumps(state).encode()}
        buffer = getattr(model, "replay_buffer", None)
        if buffer is not None:
            stream = io.BytesIO()
            arrays = {name: getattr(buffer, name)[: buffer.size()] for name in _BUFFER}
            np.savez_compressed(stream, pos=buffer.pos, full=buffer.full, **arrays)
            extra[_REPLAY] = stream.getvalue()
        save_model(model, Path(self._checkpoint_path(extension="zip")), self.description, extra)
        for _, old in checkpoints(Path(self.save_path))[:-KEEP]:
            old.unlink(missing_ok=True)


def checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """The checkpoints of a run folder with the steps they were made at, oldest first."""
    found = [(path.stem.removeprefix(f"{PREFIX}_").removesuffix("_steps"), path) for path in folder.glob("*.zip")]
    return sorted((int(steps), path) for steps, path in found if steps.isdecimal())


def _arrays(path: Path) -> Any:
    content = read_entry(path, _REPLAY)
    check_archive(content, f"{path}: its {_REPLAY}")
    return np.load(io.BytesIO(content), allow_pickle=False)


def restore(model: BaseAlgorithm, evaluation: SeededEval, path: Path) -> None:
    """Brings an untrained model to where a checkpoint left it; nothing in the file is unpickled.

    Args:
        model: A model made with the run's settings.
        evaluation: Gets the history of evaluations.
        path: The checkpoint.

    Raises:
        UserError: If the checkpoint is damaged or of other settings.
    """
    try:
        parameters, variables = read_tensors(path, str(model.device))
        model.set_parameters(parameters, exact_match=True, device=model.device)
        for name, value in variables.items():
            if value is not None:
                recursive_setattr(model, f"{name}.data", value.data)
        if hasattr(model, "weights"):  # ARS steps from a flat copy of the policy's parameters
            model.weights = torch.nn.utils.parameters_to_vector(model.policy.parameters()).detach()
        state = json.loads(read_entry(path, _STATE))
        for name in ("num_timesteps", "_n_updates", "_episode_num"):
            setattr(model, name, fit(state[name], int, name, f"{path}, {_STATE}"))
        episodes = fit(state["episodes"], tuple[Mapping[str, float], ...], "episodes", f"{path}, {_STATE}")
        model.ep_info_buffer = deque(map(dict, episodes), maxlen=model._stats_window_size)
        model.ep_success_buffer = deque(maxlen=model._stats_window_size)
        evaluation.restore(state["evaluation"])
        buffer = getattr(model, "replay_buffer", None)
        if buffer is not None:
            with _arrays(path) as saved:
                buffer.pos, buffer.full = int(saved["pos"]), bool(saved["full"])
                for name in _BUFFER:
                    getattr(buffer, name)[: buffer.size()] = saved[name]
    except UserError:
        raise
    except ArchiveError as error:
        raise UserError(str(error)) from error
    except (
        *(AttributeError, KeyError, MemoryError, OverflowError, RuntimeError, TypeError, ValueError),
        *(zipfile.BadZipFile, zlib.error),
    ) as error:
        raise UserError(
            f"The checkpoint {path} is damaged or of other settings; remove it and resume again."
        ) from error
