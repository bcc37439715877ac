"""Trains an agent that sets guidance and hardening, and compares it with the default schedule and with chance."""

from __future__ import annotations

import argparse
import dataclasses
import os
import shlex
import sys
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch

from fusion_gym import files
from fusion_gym.cli import Parser, UserError, called_as, guard, read_yaml
from fusion_gym.folders import free_folder, of_run, unused
from fusion_gym.outputs import check_outputs
from fusion_gym.sources import add_range
from fusion_gym.text import say

from ..environments import make_checked
from ..sb3 import make_model
from ..schema import CONFIG, add_options, earlier_run, given, refuse
from .agent_run import AgentRun
from .callbacks import checkpoints
from .judging import REPORT_EPISODES, compare, record
from .learning import BEST, EVALUATION_SEED, FINAL, check_checkpoint, train
from .page import probe_scene, training_page
from .runs import WorkerSetup, draw_learning_curve

SUMMARY = "summary.json"
SHORT = ("data", "ir_range", "teacher", "student", "device", "threads")  # short for some of --env-kwargs
RESUMED = ("resume", "n_timesteps", "tune", "report", "progress", "dry_run")  # options that a resumed run takes


def make_parser() -> argparse.ArgumentParser:
    """The command's options; what is absent there comes from --config, then from the algorithm's YAML file."""
    parser = Parser(description=__doc__)
    add_options(parser, AgentRun)
    add = parser.add_argument
    add("--data", help="folder of pairs, several joined by commas, or synthetic; short for --env-kwargs data=...")
    add_range(parser)
    add("--teacher", help="teacher's name, file, module:Class or folder; short for --env-kwargs teacher=...")
    add("--student", help="tiny, small, base, agentfuse or module:Class; short for --env-kwargs student=...")
    add("--device", help="where students are trained (default: auto); the agent's own network stays on the CPU")
    add("--threads", type=int, help="torch's threads in each process (default: 1)")
    add("--config", type=Path, help="config.yml of an earlier run, or hyperparameters keyed by environment id")
    add("--tune", type=int, metavar="TRIALS", help="search hyperparameters by so many trainings; --resume goes on")
    add("--resume", type=Path, metavar="RUN", help="continue the run in this folder; -n gives it more steps")
    add("--out", type=Path, help="folder of the run (default: runs/ALGO)")
    add("--report", action="store_true", help="also try constant schedules at the ends of every range")
    add("--progress", action=argparse.BooleanOptionalAction, default=True, help="progress bar")
    add("--dry-run", action="store_true", help="print the resolved configuration and stop")
    return parser


def configure(parser: argparse.ArgumentParser, args: argparse.Namespace) -> tuple[Path, AgentRun]:
    """Folder and configuration of the run: new, or those of the run to resume.

    Raises:
        UserError: If a setting is unknown or not allowed, or the folder does not fit what is asked.
    """
    now = given(AgentRun, args)
    if args.resume is not None:
        path = earlier_run(args.resume)
        refuse(AgentRun, parser, args, RESUMED, f"--resume: {args.resume} goes on as its {CONFIG} says.")
        run = dataclasses.replace(AgentRun.read(path), **now)
        check_checkpoint(args.resume, run)
        return args.resume, run
    short = {name: getattr(args, name) for name in SHORT if getattr(args, name) is not None}
    now["env_kwargs"] = {**now.get("env_kwargs", {}), **short}
    content = read_yaml(args.config) if args.config else {}
    of_algorithm = bool(content) and "hyperparams" not in content  # it holds hyperparameters only
    earlier = {} if of_algorithm else AgentRun.check(content, args.config)
    run = AgentRun.begin(now, earlier, args.config if of_algorithm else None)
    return unused(args.out) if args.out else free_folder(_usual(run)), run


def _usual(run: AgentRun) -> Path:
    return Path("runs") / run.algo


def write_config(folder: Path, run: AgentRun) -> None:
    """Writes ``config.yml`` and ``command.txt``, by which the run can be repeated."""
    files.atomic_write(folder / CONFIG, run.to_yaml())
    files.atomic_write(folder / "command.txt", shlex.join(["python", *sys.argv]) + "\n")


def minutes(env: gym.Env, run: AgentRun, done: int) -> float:
    """Expected duration of imitation, training, evaluations and final comparison, from the speed of two steps."""
    env.reset(seed=0)
    begin = time.perf_counter()
    for _ in range(2):
        env.step(np.zeros(env.action_space.shape or (), dtype=np.float32))
    seconds = (time.perf_counter() - begin) / 2
    length = env.get_wrapper_attr("episode_steps")
    freq = run.eval_freq
    evaluations = (1 + run.n_timesteps // freq) * run.eval_episodes if freq > 0 else 0
    imitation = 0 if done else run.hyperparams.get("imitate_episodes", 0)
    steps = run.n_timesteps - done + (imitation + evaluations + 3 * REPORT_EPISODES) * length
    return steps * seconds / min(run.n_envs, os.cpu_count() or 1) / 60


def tune(args: argparse.Namespace, run: AgentRun, out: Path) -> None:
    """Searches hyperparameters.

    Raises:
        UserError: If Optuna is not installed, or an option does not go with a search.
    """
    try:
        from . import tuning
    except ImportError as error:
        raise UserError("--tune needs Optuna: pip install 'fusion-gym[tune]'.") from error
    fixed = given(AgentRun, args).get("hyperparams", {})
    best = tuning.tune(run, out, args.tune, fixed, run.seed + EVALUATION_SEED, args.progress)
    say(f"The best trial is number {best.number}, with an evaluation return of {best.value:.4f}: {best.params}")
    say(f"In {out}: {tuning.BEST} (its settings), {tuning.TABLE}, {tuning.PICTURE}, {tuning.STUDY} (Optuna's).")
    say(f"Next: {called_as('train-agent')} --algo {run.algo} --env {run.env} --config {out / tuning.BEST}")


def run_command(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Does what the command line asks."""
    out, run = configure(parser, args)
    if args.dry_run:
        say(f"# {out / CONFIG}", *run.to_yaml().splitlines())
        return
    if run.threads is not None:
        torch.set_num_threads(run.threads)
    env = make_checked(run.env, run.env_kwargs)
    check_outputs([out], data=env.get_wrapper_attr("data"))
    wrapped = WorkerSetup(run.wrapper)(env)
    make_model(run.algo, wrapped, run.hyperparams, device="cpu")  # mistakes show before anything is written
    done = checkpoints(out)[-1][0] if checkpoints(out) else 0
    expected = max(1, round(minutes(env, run, done)))
    with of_run(args.resume, args.out, _usual(run)) as folder:
        work(args, run, folder, env, expected)


def work(args: argparse.Namespace, run: AgentRun, out: Path, env: gym.Env, expected: int) -> None:
    """Trains or tunes, and reports, in a folder that is this process's."""
    write_config(out, run)
    steps = run.n_timesteps
    say(f"{run.algo} on {run.env}, {steps} steps, seed {run.seed}; folder {out}")
    count = f"{run.n_envs} environment{'s' if run.n_envs > 1 else ''}"
    say(f"About {expected} min on {count}{' for each trial' if args.tune else ''}.")
    if args.tune is not None:
        tune(args, run, out)
        return
    description = {
        "algo": run.algo,
        "policy": run.hyperparams.get("policy", "MlpPolicy"),
        "actions": list(env.get_wrapper_attr("action_names")),
        "fixed": dict(env.get_wrapper_attr("fixed")),
        "hidden": list(env.get_wrapper_attr("hidden")),
        "decisions": env.get_wrapper_attr("episode_steps"),
        "env": run.env,
        "env_kwargs": dict(run.env_kwargs),
        "seed": run.seed,
        "run": run.identity(),
    }
    begin = time.perf_counter()
    made = train(run, out, description, env, args.progress)
    seconds = time.perf_counter() - begin
    outcomes = compare(run, out, env, args.report, args.progress)
    draw_learning_curve(out, float(np.mean(outcomes["constant"].returns)))
    log = record(run, out, env)
    table = {
        label: {**outcome.summary(), "returns": outcome.returns, "scores": outcome.scores}
        for label, outcome in outcomes.items()
    }
    files.write_json(
        out / SUMMARY, {"config": run.as_dict(), "timesteps": made, "training_seconds": seconds, "agents": table}
    )
    say(f"The agent is in {out}: {BEST} (best evaluation), {FINAL}, learning_curve.png, {SUMMARY}.")
    say(f"To see an episode of it: python -m fusion_gym.replay {out / 'episode-0.json'} --render {out / 'episode.mp4'}")
    title = f"{run.algo} on {run.env}, {made} steps"
    again = f"{called_as('train-agent')} --config {out / CONFIG} --out {out}-again"
    page = training_page(out, title, again, run.to_yaml(), outcomes, log, probe_scene(env))
    say(f"All of it is on {page}. Next: {called_as('distill')} --agent {out / BEST}")


def main(argv: list[str] | None = None) -> int:
    """Runs the command; a user's mistake gives one sentence and exit code 2."""
    parser = make_parser()
    args = parser.parse_args(argv)
    stopped = "Stopped and saved; --resume with the run's folder continues."
    return guard("train_agent.py", lambda: run_command(parser, args), stopped)
