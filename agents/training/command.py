"""Trains an agent that sets guidance and hardening, and compares it with the default schedule and with chance."""

from __future__ import annotations

import argparse
import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import yaml
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv
from tqdm import tqdm

from fusion_gym import files
from fusion_gym.cli import UserError, called_as, guard, parse_settings
from fusion_gym.folders import of_run
from fusion_gym.sources import add_range
from fusion_gym.wrappers import RecordEpisode

from .. import load_agent
from ..environments import make_checked
from ..sb3 import ALGORITHMS, make_model, save_model
from . import page as pages
from .callbacks import Checkpoint, FusionMetrics, SeededEval, checkpoints, restore
from .configuration import configure, write_config
from .evaluation import Outcome, evaluate, extremes, print_outcomes
from .imitation import imitate
from .runs import VEC_ENVS, WorkerSetup, draw_learning_curve, make_logger, opened

BEST, FINAL, SUMMARY = "best_model.zip", "final_model.zip", "summary.json"
EVALUATION_SEED, REPORT_SEED = 1_000_000, 2_000_000  # away from the seeds of training
REPORT_EPISODES, EXTREME_EPISODES = 10, 4


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line; what is absent there comes from --config, then from the algorithm's YAML file."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--algo", help=f"algorithm (default: ppo): {', '.join(ALGORITHMS)}")
    add("--env", help="environment id (default: FusionDistill-v0)")
    add("--data", help="folder of pairs, several joined by commas, or synthetic; short for --env-kwargs data=...")
    add_range(parser)
    add("--teacher", help="teacher's name, file, module:Class or folder; short for --env-kwargs teacher=...")
    add("--env-kwargs", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="environment's settings")
    add("-p", "--param", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="hyperparameters")
    add("--config", type=Path, help="config.yml of an earlier run, or hyperparameters keyed by environment id")
    add("--seed", type=int, help="drawn, printed and stored when absent")
    add(
        "-n",
        "--timesteps",
        dest="n_timesteps",
        type=int,
        help="environment steps (default: of the algorithm's YAML file)",
    )
    add("--n-envs", type=int, help="environments side by side (default: 2, or 1 on one core)")
    add(
        "--vec-env",
        choices=sorted(VEC_ENVS),
        help="dummy: one after the other; subproc: a process each (default if several); population: trained together",
    )
    add("--device", help="where students are trained (default: auto); the agent's own network stays on the CPU")
    add("--threads", type=int, help="torch's threads in each process (default: 1)")
    add("--eval-freq", type=int, help="steps between evaluations (default: a fifth of all; 0: none)")
    add("--eval-episodes", type=int, help="episodes of an evaluation (default: 4)")
    add("--save-freq", type=int, help="steps between checkpoints (default: a tenth of all)")
    add("--tune", type=int, metavar="TRIALS", help="search hyperparameters by so many trainings; --resume goes on")
    add("--resume", type=Path, metavar="RUN", help="continue the run in this folder; -n gives it more steps")
    add("--out", type=Path, help="folder of the run (default: runs/ALGO)")
    add("--report", action="store_true", help="also try constant schedules at the ends of every range")
    add("--progress", action=argparse.BooleanOptionalAction, default=True, help="progress bar")
    add("--dry-run", action="store_true", help="print the resolved configuration and stop")
    return parser.parse_args(argv)


def minutes(env: gym.Env, config: dict[str, Any], done: int) -> float:
    """Expected duration of training, evaluations and final comparison, from the speed of two steps."""
    env.reset(seed=0)
    begin = time.perf_counter()
    for _ in range(2):
        env.step(np.zeros(env.action_space.shape or (), dtype=np.float32))
    seconds = (time.perf_counter() - begin) / 2
    length = env.get_wrapper_attr("episode_steps")
    freq = config["eval_freq"]
    evaluations = config["n_timesteps"] // freq * config["eval_episodes"] * length if freq > 0 else 0
    steps = config["n_timesteps"] - done + evaluations + 3 * REPORT_EPISODES * length
    return steps * seconds / min(config["n_envs"], os.cpu_count() or 1) / 60


def begin_with(model: BaseAlgorithm, config: dict[str, Any], env: gym.Env, envs: VecEnv) -> None:
    """Lets a model's policy begin with what the agent named by ``imitate`` does."""
    spec, episodes = config["hyperparams"]["imitate"], config["hyperparams"].get("imitate_episodes", 16)
    apart = imitate(model, envs, load_agent(spec, env), episodes, config["seed"])
    print(f"The policy begins with what {spec} did in {episodes} episodes; its actions are {apart:.3f} apart.")


def train(config: dict[str, Any], out: Path, description: dict[str, Any], env: gym.Env, progress: bool) -> int:
    """Trains, from the last checkpoint where there is one; leaves the best and the final model.

    Returns:
        The number of environment steps made in all.

    Raises:
        UserError: If the training breaks off.
    """
    saved = checkpoints(out)
    seed = config["seed"] + (saved[-1][0] if saved else 0)  # a resumed run meets new students, not the first again
    per_call = config["n_envs"]
    with ExitStack() as stack:
        envs = stack.enter_context(opened(config, seed, out))
        judge_envs = stack.enter_context(opened(config, config["seed"])) if config["eval_freq"] else envs
        model = make_model(config["algo"], envs, config["hyperparams"], seed=seed, device="cpu")

        def save_best() -> None:
            save_model(model, out / BEST, description)
            checkpoint.save()  # so that a resumed run knows what the best model reached

        evaluation = SeededEval(
            judge_envs,
            config["seed"] + EVALUATION_SEED,
            out,
            save_best,
            -(-config["eval_freq"] // per_call),
            config["eval_episodes"],
        )
        checkpoint = Checkpoint(max(1, config["save_freq"] // per_call), out, description, evaluation)
        checkpoint.init_callback(model)
        if saved:
            restore(model, evaluation, saved[-1][1])
            print(f"Continuing at step {model.num_timesteps} of {config['n_timesteps']}.")
        elif "imitate" in config["hyperparams"]:
            begin_with(model, config, env, stack.enter_context(opened(config, seed)))
        model.set_logger(make_logger(out))
        try:
            if model.num_timesteps < config["n_timesteps"]:
                model.learn(
                    config["n_timesteps"] - model.num_timesteps,
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
        if not (config["eval_freq"] and (out / BEST).is_file()):
            save_model(model, out / BEST, description)
        return model.num_timesteps


def compare(config: dict[str, Any], out: Path, env: gym.Env, report: bool, progress: bool) -> dict[str, Outcome]:
    """Judges the best model, the default constant and chance on the same fresh students, and prints the table."""
    specs = {"trained": str(out / BEST), "constant": "constant", "random": "random"}
    plain = {**config, "hyperparams": {}}  # the continuous environment, whatever the agent was trained in
    with opened(plain, config["seed"]) as envs:

        def judged(what: dict[str, str], episodes: int, title: str) -> dict[str, Outcome]:
            bar = tqdm(what.items(), desc="compare", unit="agent", disable=not progress)
            seed = config["seed"] + REPORT_SEED
            outcomes = {label: evaluate(load_agent(spec, env), envs, episodes, seed) for label, spec in bar}
            print_outcomes(title, outcomes)
            return outcomes

        outcomes = judged(specs, REPORT_EPISODES, f"{REPORT_EPISODES} fresh students each")
        if report:
            ends = extremes(env.get_wrapper_attr("action_names"))
            outcomes |= judged(ends, EXTREME_EPISODES, "Constant schedules at the ends of their ranges")
    return outcomes


def record(config: dict[str, Any], out: Path, env: gym.Env) -> list[dict[str, float]]:
    """Plays the first of the fresh students with the best model once more, and keeps the episode's record.

    Returns:
        The episode's infos, the first before any decision.
    """
    agent, recorded = load_agent(str(out / BEST), env), RecordEpisode(env, out)
    observation, info = recorded.reset(seed=config["seed"] + REPORT_SEED)
    log, memory, over = [info], None, False
    while not over:
        start = np.array([len(log) == 1])
        action, memory = agent.predict(observation, state=memory, episode_start=start, deterministic=True)
        observation, _, terminated, truncated, info = recorded.step(action)
        log.append(info)
        over = terminated or truncated
    return log


def tune(args: argparse.Namespace, config: dict[str, Any], out: Path) -> None:
    """Searches hyperparameters.

    Raises:
        UserError: If Optuna is not installed, or an option does not go with a search.
    """
    try:
        from . import tuning
    except ImportError as error:
        raise UserError("--tune needs Optuna: pip install 'fusion-gym[tune]'.") from error
    fixed = parse_settings(args.param, "--param")
    best = tuning.tune(config, out, args.tune, fixed, config["seed"] + EVALUATION_SEED, args.progress)
    print(f"The best trial is number {best.number}, with an evaluation return of {best.value:.4f}: {best.params}")
    print(f"In {out}: {tuning.BEST} (its settings), {tuning.TABLE}, {tuning.PICTURE}, {tuning.STUDY} (Optuna's).")
    print(
        f"Next: {called_as('train-agent')} --algo {config['algo']} --env {config['env']} --config {out / tuning.BEST}"
    )


def run(args: argparse.Namespace) -> None:
    """Does what the command line asks."""
    out, config = configure(args)
    if args.dry_run:
        print(f"# {out / 'config.yml'}\n{yaml.safe_dump(config, sort_keys=False)}", end="")
        return
    torch.set_num_threads(config["env_kwargs"].get("threads", 1))
    env = make_checked(config["env"], config["env_kwargs"])
    wrapped = WorkerSetup(config["hyperparams"].get("env_wrapper"))(env)
    make_model(config["algo"], wrapped, config["hyperparams"], device="cpu")  # mistakes show before anything is written
    done = checkpoints(out)[-1][0] if checkpoints(out) else 0
    expected = max(1, round(minutes(env, config, done)))
    with of_run(args.resume, args.out, Path("runs") / config["algo"]) as out:
        work(args, config, out, env, expected)


def work(args: argparse.Namespace, config: dict[str, Any], out: Path, env: gym.Env, expected: int) -> None:
    """Trains or tunes, and reports, in a folder that is this process's."""
    write_config(out, config)
    steps = config["n_timesteps"]
    print(f"{config['algo']} on {config['env']}, {steps} steps, seed {config['seed']}; folder {out}")
    count = f"{config['n_envs']} environment{'s' if config['n_envs'] > 1 else ''}"
    print(f"About {expected} min on {count}{' for each trial' if args.tune else ''}.")
    if args.tune is not None:
        tune(args, config, out)
        return
    description = {
        "algo": config["algo"],
        "policy": config["hyperparams"].get("policy", "MlpPolicy"),
        "actions": list(env.get_wrapper_attr("action_names")),
        "fixed": dict(env.get_wrapper_attr("fixed")),
        "hidden": list(env.get_wrapper_attr("hidden")),
        "decisions": env.get_wrapper_attr("episode_steps"),
        "env": config["env"],
        "env_kwargs": config["env_kwargs"],
        "seed": config["seed"],
    }
    begin = time.perf_counter()
    made = train(config, out, description, env, args.progress)
    seconds = time.perf_counter() - begin
    outcomes = compare(config, out, env, args.report, args.progress)
    draw_learning_curve(out, float(np.mean(outcomes["constant"].returns)))
    log = record(config, out, env)
    table = {
        label: {**outcome.summary(), "returns": outcome.returns, "scores": outcome.scores}
        for label, outcome in outcomes.items()
    }
    files.write_json(out / SUMMARY, {"config": config, "timesteps": made, "training_seconds": seconds, "agents": table})
    print(f"The agent is in {out}: {BEST} (best evaluation), {FINAL}, learning_curve.png, {SUMMARY}.")
    print(
        f"To see an episode of it: python -m fusion_gym.replay {out / 'episode-0.json'} --render {out / 'episode.mp4'}"
    )
    settings = yaml.safe_dump(config, sort_keys=False)
    title = f"{config['algo']} on {config['env']}, {made} steps"
    again = f"{called_as('train-agent')} --config {out / 'config.yml'} --out {out}-again"
    page = pages.training_page(out, title, again, settings, outcomes, log, pages.probe_scene(env))
    print(f"All of it is on {page}. Next: {called_as('distill')} --agent {out / BEST}")


def main(argv: list[str] | None = None) -> int:
    """Runs the command; a user's mistake gives one sentence and exit code 2."""
    return guard(
        "train_agent.py", lambda: run(parse(argv)), "Stopped and saved; --resume with the run's folder continues."
    )
