"""Search for hyperparameters with Optuna: resumable trial by trial, with poor ones broken off early.

    python train_agent.py --algo ppo --tune 20
    python train_agent.py --resume runs/ppo --tune 40      # goes on, also after a kill

Each trial is a training of its own, judged on the evaluation's students, which the final report does not see.
"""

from __future__ import annotations

import functools
import inspect
import logging
import sqlite3
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, Trial, TrialState
from stable_baselines3.common.callbacks import BaseCallback
from tqdm import tqdm

from fusion_gym import rendering
from fusion_gym.cli import UserError
from fusion_gym.files import atomic_write, write_csv
from fusion_gym.text import say

from ..sb3 import algorithm, make_model
from ..schema import CONFIG, check_same
from .agent_run import AgentRun
from .callbacks import FusionMetrics, SeededEval
from .runs import opened

STUDY, BEST, TABLE, PICTURE = "study.db", "best.yml", "trials.csv", "trials.png"
WARM_UP = 4  # trials that are drawn at random and run to their end
# What is searched, wherever the algorithm has it as a number.
SPACE: dict[str, BaseDistribution] = {
    "learning_rate": FloatDistribution(1e-4, 1e-2, log=True),
    "gamma": CategoricalDistribution([0.9, 0.95, 0.99, 1.0]),
    "n_steps": CategoricalDistribution([16, 32, 64, 128]),
    "batch_size": CategoricalDistribution([32, 64, 128, 256]),
    "n_epochs": IntDistribution(3, 20),
    "gae_lambda": CategoricalDistribution([0.8, 0.9, 0.95, 1.0]),
    "clip_range": CategoricalDistribution([0.1, 0.2, 0.3]),
    "ent_coef": FloatDistribution(0.0, 0.02),
    "tau": FloatDistribution(0.001, 0.1, log=True),
    "gradient_steps": IntDistribution(1, 8),
    "target_update_interval": CategoricalDistribution([1, 50, 200, 1000]),
    "exploration_fraction": FloatDistribution(0.1, 0.6),
    "n_delta": IntDistribution(2, 16),
    "delta_std": FloatDistribution(0.01, 0.2, log=True),
}


def space(algo: str, fixed: Collection[str] = ()) -> dict[str, BaseDistribution]:
    """What is searched for an algorithm.

    Args:
        algo: Key of `agents.sb3.ALGORITHMS`.
        fixed: Hyperparameters that stay as they are.
    """
    known = inspect.signature(algorithm(algo).__init__).parameters
    return {
        name: distribution
        for name, distribution in SPACE.items()
        if name in known and isinstance(known[name].default, (int, float)) and name not in fixed
    }


class _Report(BaseCallback):
    """Tells Optuna of each evaluation, and stops a training that falls behind the other trials."""

    def __init__(self, trial: Trial, evaluation: SeededEval) -> None:
        super().__init__()
        self.trial, self.evaluation, self.pruned, self._told = trial, evaluation, False, 0

    def _on_step(self) -> bool:
        steps = self.evaluation.evaluations_timesteps
        if len(steps) > self._told:
            self._told = len(steps)
            self.trial.report(self.evaluation.best_mean_reward, int(steps[-1]))
            self.pruned = self.trial.should_prune()
        return not self.pruned


def _try(trial: Trial, run: AgentRun, evaluation_seed: int, folder: Path) -> tuple[float, bool]:
    """Trains under a trial's hyperparameters: the best mean return of an evaluation, and whether it was broken off."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {**run.hyperparams, **trial.params}
    with opened(run, run.seed) as envs, opened(run, run.seed) as judge_envs:
        model = make_model(run.algo, envs, settings, seed=run.seed, device="cpu")
        freq = max(1, run.eval_freq // run.n_envs)
        evaluation = SeededEval(judge_envs, evaluation_seed, folder, lambda: None, freq, run.eval_episodes)
        report = _Report(trial, evaluation)
        model.learn(run.n_timesteps, [FusionMetrics(), evaluation, report])
    return float(evaluation.best_mean_reward), report.pruned


def _why(path: Path, error: BaseException) -> str | None:
    """Why a study cannot be kept, in one sentence; None where it is not for its database.

    SQLAlchemy and Optuna wrap SQLite's errors in many classes; its own words tell a full disk from damage.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, sqlite3.Error):
        cause = getattr(cause, "orig", None) or cause.__cause__ or cause.__context__
    if cause is None:
        return None
    if any(words in str(cause) for words in ("full", "I/O error", "readonly", "unable to open")):
        return f"{path} cannot be written: {cause}; free some space, or give another --out."
    if "locked" in str(cause):
        return f"{path} is in use by another search; wait for its end, or give another --out."
    return f"{path} is damaged: {cause}; remove it, or give another --out."


@contextmanager
def _opening(path: Path) -> Iterator[None]:
    """Says in one sentence why a study cannot be opened; what was begun of a new one is removed."""
    new = not path.exists()
    try:
        yield
    except Exception as error:  # beside the database's errors all that damaged content can lead to
        if new:
            for part in (path, path.with_name(f"{path.name}-journal")):
                part.unlink(missing_ok=True)
        why = _why(path, error)
        if why is None and new:
            raise
        raise UserError(why or f"{path} is damaged; remove it, or give another --out.") from error


def _telling(search: Callable[..., FrozenTrial]) -> Callable[..., FrozenTrial]:
    """Has a search of a run in a folder, its second argument, say in one sentence why its study cannot be kept."""

    @functools.wraps(search)
    def told(run: Any, out: Path, *args: Any, **kwargs: Any) -> FrozenTrial:
        try:
            return search(run, out, *args, **kwargs)
        except (UserError, OSError):
            raise
        except Exception as error:
            why = _why(out / STUDY, error)
            if why is None:
                raise
            raise UserError(why) from error

    return told


def open_study(out: Path, seed: int, fixed: Collection[str]) -> optuna.Study:
    """The study of a run folder, new or continued; trials that a kill broke off are queued again.

    Args:
        out: The folder.
        seed: Seed of the sampler.
        fixed: Hyperparameters that are not searched; a continued study keeps its own.

    Raises:
        UserError: If the folder's study is damaged, or cannot be written.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    storage = f"sqlite:///{out.resolve() / STUDY}"
    with _opening(out / STUDY):
        study = optuna.create_study(study_name="fusion-gym", storage=storage, direction="maximize", load_if_exists=True)
        if "fixed" not in study.user_attrs:
            study.set_user_attr("fixed", sorted(fixed))
    study.sampler = optuna.samplers.TPESampler(n_startup_trials=WARM_UP, seed=seed + len(study.trials))
    study.pruner = optuna.pruners.MedianPruner(n_startup_trials=WARM_UP, n_warmup_steps=1)
    for broken in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(broken.number, state=TrialState.FAIL)
        study.enqueue_trial(broken.params)
    return study


@_telling
def tune(
    run: AgentRun, out: Path, trials: int, fixed: Collection[str], evaluation_seed: int, progress: bool
) -> FrozenTrial:
    """Searches until a study has a number of finished trials; the best hyperparameters are kept after each.

    Args:
        run: Configuration of the run, whose ``n_timesteps`` each trial trains for.
        out: Folder of the run, for ``study.db``, ``best.yml``, ``trials.csv`` and ``trials.png``.
        trials: Number of trials in all.
        fixed: Hyperparameters that stay as they are.
        evaluation_seed: Seed of the students that trials are judged on.
        progress: Whether to show a bar.

    Returns:
        The best trial.

    Raises:
        UserError: If no trial ends well.
    """
    if run.eval_freq == 0:
        raise UserError("--eval-freq 0 is not for --tune, which judges trials by their evaluations.")
    if trials < 1:
        raise UserError(f"--tune {trials} is not allowed; give a number of trials from 1 on.")
    study = open_study(out, run.seed, fixed)
    if "run" in study.user_attrs:
        check_same(out / CONFIG, run.identity(), out / STUDY, study.user_attrs["run"])
    else:
        study.set_user_attr("run", run.identity())
    searched = space(run.algo, study.user_attrs["fixed"])
    if not searched:
        raise UserError(f"There is nothing left to search for {run.algo}; leave out some of -p.")
    if not study.trials:  # the file's own settings are the first trial, as far as they are in the space
        usual = {name: run.hyperparams[name] for name in searched if name in run.hyperparams}
        study.enqueue_trial({name: value for name, value in usual.items() if _within(searched[name], value)})
    ended = len(_ended(study))
    bar = tqdm(total=trials, initial=ended, desc="tune", unit="trial", dynamic_ncols=True, disable=not progress)
    failures = 0
    while len(_ended(study)) < trials:
        trial = study.ask(searched)
        try:
            value, pruned = _try(trial, run, evaluation_seed, out / "trials" / str(trial.number))
        except ValueError as error:  # settings that do not go together, or a policy that became NaN
            study.tell(trial, state=TrialState.FAIL)
            say(f"Trial {trial.number} failed: {error}")
            failures += 1
            if failures >= max(WARM_UP, trials):
                raise UserError(f"{failures} trials failed, the last by: {error}") from error
            continue
        study.tell(trial, None if pruned else value, TrialState.PRUNED if pruned else TrialState.COMPLETE)
        _write(study, run, out)
        bar.update()
        bar.set_postfix(best=f"{study.best_value:.4f}")
    bar.close()
    return study.best_trial


def _within(distribution: BaseDistribution, value: Any) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    numeric: Any = distribution
    return isinstance(value, (int, float)) and numeric.low <= value <= numeric.high


def _ended(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))


def _write(study: optuna.Study, run: AgentRun, out: Path) -> None:
    """The best settings as a file for --config, all trials as a table and a picture."""
    best = {**run.hyperparams, **study.best_params}
    name = run.env.split(":")[-1]
    atomic_write(out / BEST, yaml.safe_dump({name: best}, sort_keys=False))
    ended = _ended(study)
    last = [trial.value if trial.value is not None else max(trial.intermediate_values.values()) for trial in ended]
    rows = [
        {"trial": trial.number, "state": trial.state.name.lower(), "return": value, **trial.params}
        for trial, value in zip(ended, last, strict=True)
    ]
    write_csv(out / TABLE, rows)
    numbers = [float(trial.number) for trial in ended]
    so_far = [max(last[: count + 1]) for count in range(len(last))]
    series = {"trial": (numbers, last), "best so far": (numbers, so_far)}
    rendering.save_picture(out / PICTURE, rendering.plot_curves(series, "trial", "return of an episode", "Trials"))
