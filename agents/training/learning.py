"""The training itself: from the last checkpoint where there is one, to the best and the final model."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import gymnasium as gym
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from fusion_gym.cli import UserError
from fusion_gym.text import say

from .. import load_agent
from ..forks import is_search
from ..sb3 import make_model, read_description, save_model
from ..schema import CONFIG, check_same
from .agent_run import AgentRun
from .callbacks import Checkpoint, FusionMetrics, SeededEval, checkpoints, restore
from .imitation import imitate
from .runs import make_logger, opened

BEST, FINAL = "best_model.zip", "final_model.zip"
EVALUATION_SEED = 1_000_000  # away from the seeds of training


def begin_with(model: BaseAlgorithm, run: AgentRun, env: gym.Env, envs: VecEnv) -> None:
    """Lets a model's policy begin with what the agent named by ``imitate`` does."""
    spec, episodes = run.hyperparams["imitate"], run.hyperparams.get("imitate_episodes", 16)
    if is_search(spec):  # it tries its proposals on copies of the environment that it acts in
        envs = DummyVecEnv([lambda: env])
        envs.seed(run.seed)
    apart = imitate(model, envs, load_agent(spec, env), episodes, run.seed)
    say(f"The policy begins with what {spec} did in {episodes} episodes; its actions are {apart:.3f} apart.")


def train(run: AgentRun, out: Path, description: dict[str, Any], env: gym.Env, progress: bool) -> int:
    """Trains, from the last checkpoint where there is one; leaves the best and the final model.

    Returns:
        The number of environment steps made in all.

    Raises:
        UserError: If the training breaks off.
    """
    saved = checkpoints(out)
    seed = run.seed + (saved[-1][0] if saved else 0)  # a resumed run meets new students, not the first again
    per_call = run.n_envs
    with ExitStack() as stack:
        envs = stack.enter_context(opened(run, seed, out))
        judge_envs = stack.enter_context(opened(run, run.seed)) if run.eval_freq else envs
        model = make_model(run.algo, envs, run.hyperparams, seed=seed, device="cpu")

        def save_best() -> None:
            save_model(model, out / BEST, description)
            checkpoint.save()  # so that a resumed run knows what the best model reached

        evaluation = SeededEval(
            judge_envs,
            run.seed + EVALUATION_SEED,
            out,
            save_best,
            -(-run.eval_freq // per_call),
            run.eval_episodes,
        )
        checkpoint = Checkpoint(max(1, run.save_freq // per_call), out, description, evaluation)
        checkpoint.init_callback(model)
        if saved:
            restore(model, evaluation, saved[-1][1])
            say(f"Continuing at step {model.num_timesteps} of {run.n_timesteps}.")
        elif "imitate" in run.hyperparams:
            begin_with(model, run, env, stack.enter_context(opened(run, seed)))
        model.set_logger(make_logger(out))
        try:
            if model.num_timesteps < run.n_timesteps:
                model.learn(
                    run.n_timesteps - model.num_timesteps,
                    [FusionMetrics(), evaluation, checkpoint],
                    reset_num_timesteps=False,
                    progress_bar=progress,
                )
        except KeyboardInterrupt:
            checkpoint.save()
            raise
        except ValueError as error:  # torch's distributions refuse NaN parameters
            raise UserError(f"The training broke off at step {model.num_timesteps}: {error}") from error
        checkpoint.save()
        save_model(model, out / FINAL, description)
        if not (run.eval_freq and (out / BEST).is_file()):
            save_model(model, out / BEST, description)
        return model.num_timesteps


def check_checkpoint(out: Path, run: AgentRun) -> None:
    """Checks that a run's last checkpoint was made under its configuration.

    Raises:
        UserError: If it was not; names the setting.
    """
    for _, path in checkpoints(out)[-1:]:
        description = read_description(path)
        if description is not None and description.run is not None:
            check_same(out / CONFIG, run.identity(), path, description.run)
