"""What a training has led to: the best model beside the default schedule and chance, and one episode of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import gymnasium as gym
from tqdm import tqdm

from fusion_gym.wrappers import RecordEpisode

from .. import load_agent
from ..playing import play
from .agent_run import AgentRun
from .evaluation import Outcome, evaluate, extremes, print_outcomes
from .learning import BEST
from .runs import opened

REPORT_SEED = 2_000_000  # away from the seeds of training and of its evaluations
REPORT_EPISODES, EXTREME_EPISODES = 10, 4


def compare(run: AgentRun, out: Path, env: gym.Env, report: bool, progress: bool) -> dict[str, Outcome]:
    """Judges the best model, the default constant and chance on the same fresh students, and prints the table."""
    specs = {"trained": str(out / BEST), "constant": "constant", "random": "random"}
    plain = dataclasses.replace(run, hyperparams={})  # the continuous environment, whatever the agent was trained in
    with opened(plain, run.seed) as envs:

        def judged(what: dict[str, str], episodes: int, title: str) -> dict[str, Outcome]:
            bar = tqdm(what.items(), desc="compare", unit="agent", dynamic_ncols=True, disable=not progress)
            seed = run.seed + REPORT_SEED
            outcomes = {label: evaluate(load_agent(spec, env), envs, episodes, seed) for label, spec in bar}
            print_outcomes(title, outcomes)
            return outcomes

        outcomes = judged(specs, REPORT_EPISODES, f"{REPORT_EPISODES} fresh students each")
        if report:
            ends = extremes(env.get_wrapper_attr("action_names"))
            outcomes |= judged(ends, EXTREME_EPISODES, "Constant schedules at the ends of their ranges")
    return outcomes


def record(run: AgentRun, out: Path, env: gym.Env) -> list[dict[str, float]]:
    """Plays the first of the fresh students with the best model once more, and keeps the episode's record.

    Returns:
        The episode's infos, the first before any decision.
    """
    return play(RecordEpisode(env, out), load_agent(str(out / BEST), env), run.seed + REPORT_SEED).infos
