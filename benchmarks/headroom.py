#!/usr/bin/env python
"""What there is to decide: how well students end under constants, schedules, rules that see the state, and a search.

    python benchmarks/headroom.py [--data FOLDER[,FOLDER…]] [--seeds 3] [--updates 20] [--json headroom.json]

Each instance takes some twenty minutes of a core; the file is written after every one, and the command goes on from it.

An agent is worth its training only where no constant is right for all instances, and it is worth more than a rule
only where something is left above the best rule. For every kind of instance the table has the mean gain of the score
over an episode, in hundredths, under the constant that is best for all instances, and how far ahead of it, on the same
seeds, are

* the constant that is best for this instance, with and without hardening;
* the best open loop, of schedules over the episode;
* the best rule that sees the state (`agents.feedback`);
* `ppo`, which comes with the package;
* a greedy search: at each decision the environment is forked, every candidate is tried, and the best one is taken.
  It is the one that sees the future, and so a bound for those that do not, but for what patience would bring.

and the standard deviation of one episode's gain beyond what agent and seed make of it. Best ones are chosen by the mean
over the seeds, so that the best of many is flattered by chance.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from harness import save, show
from tqdm import tqdm

from agents import load_agent
from agents.playing import play
from fusion_gym.actions import encode
from fusion_gym.cli import UserError, guard
from fusion_gym.conditions import HARDENINGS

INSTANCES: dict[str, dict[str, Any]] = {
    "new, fair": {"start": "new", "deployment": "fair", "learning_rate": 2e-3},
    "new, mixed, few patches": {"start": "new", "deployment": "mixed", "learning_rate": 2e-3, "patches": 24},
    "clean, noise": {"start": "clean", "deployment": "noise"},
    "clean, contrast, poor teacher": {"start": "clean", "deployment": "contrast", "teacher": "rule:poor"},
    "half, illumination": {"start": "half", "deployment": "illumination"},
    "robust, fair": {"start": "robust", "deployment": "fair"},
    "robust, blur, mean as teacher": {"start": "robust", "deployment": "blur", "teacher": "rule:mean"},
    "forgotten, mixed": {"start": "forgotten", "deployment": "mixed"},
    "trained, noise": {"start": "trained", "deployment": "noise"},
}
GUIDANCE = (0.0, 0.3, 0.8)
SCHEDULES = ("epsilon", "curriculum", "linear", "cyclic")
RULES = ("follow", "weakest", "hold", "deployed")
LEARNED = ("ppo",)


def settings(guidance: float, hardening: float | str, clean: float) -> dict[str, float]:
    """Settings of a candidate; hardening is one strength for all kinds, or the kind that is alone at its full one."""
    strengths = {name: float(name == hardening) if isinstance(hardening, str) else hardening for name in HARDENINGS}
    return {"guidance": guidance, **strengths, "clean": clean}


CONSTANTS: dict[str, dict[str, float]] = {
    **{f"guidance {g:g}": settings(g, 0.0, 1.0) for g in GUIDANCE},
    **{f"guidance {g:g}, all": settings(g, 1.0, 0.4) for g in GUIDANCE},
    **{f"guidance {GUIDANCE[1]:g}, {kind}": settings(GUIDANCE[1], kind, 0.4) for kind in HARDENINGS},
}
UNHARDENED = tuple(name for name, values in CONSTANTS.items() if values["clean"] == 1.0)


def spec(values: Mapping[str, float]) -> str:
    """What `load_agent` takes for constant settings."""
    return "constant:" + ",".join(f"{name}={value:g}" for name, value in values.items())


def episode(env: gym.Env, agent: str, seed: int) -> float:
    """Gain of the score over an episode, in hundredths."""
    return 100 * float(play(env, load_agent(agent, env), seed).infos[-1]["gain"])


def greedy(env: gym.Env, seed: int) -> float:
    """The same where every decision is the best of `CONSTANTS` by its own outcome."""
    env.reset(seed=seed)
    plain: Any = env.unwrapped
    actions = [encode(values, plain.action_names) for values in CONSTANTS.values()]
    over = False
    while not over:
        forks = [plain.fork() for _ in actions]
        outcomes = [fork.step(action) for fork, action in zip(forks, actions, strict=True)]
        best = max(range(len(forks)), key=lambda position: outcomes[position][4]["score"])
        plain, (_, _, over, _, info) = forks[best], outcomes[best]
    return 100 * float(info["gain"])


def best(gains: Mapping[str, np.ndarray], names: Sequence[str]) -> str:
    """The name with the highest mean over the seeds."""
    return max(names, key=lambda name: float(gains[name].mean()))


def spread(gains: Mapping[str, np.ndarray]) -> float:
    """Standard deviation of one episode's gain, beyond what the agent and the seed make of it."""
    table = np.stack([values for values in gains.values() if len(values) == max(map(len, gains.values()))])
    rest = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    freedom = (table.shape[0] - 1) * (table.shape[1] - 1)
    return float(np.sqrt(np.square(rest).sum() / freedom)) if freedom else float("nan")


def row(gains: Mapping[str, np.ndarray], shared: str) -> dict[str, Any]:
    """A row of the table, from the gains of an instance by agent, (seeds,) each."""
    found = {
        "constant, unhardened": best(gains, UNHARDENED),
        "constant": best(gains, list(CONSTANTS)),
        "open loop": best(gains, SCHEDULES),
        "rule": best(gains, RULES),
        **{name: name for name in LEARNED},
        "greedy": "greedy",
    }
    ahead = {kind: float((gains[name] - gains[shared][: len(gains[name])]).mean()) for kind, name in found.items()}
    return {
        "shared constant": float(gains[shared].mean()),
        **ahead,
        "± an episode": spread(gains),
        "best constant": found["constant"],
        "best rule": found["rule"],
    }


def earlier(file: Path | None, settings_of: Mapping[str, Any]) -> dict[str, dict[str, np.ndarray]]:
    """The gains that a file has by instance and agent, (seeds,) each.

    Raises:
        UserError: If they were measured with other settings.
    """
    if file is None or not file.is_file():
        return {}
    content = json.loads(file.read_text())
    if content["settings"] != settings_of:
        raise UserError(f"{file} has figures of other settings; give another --json, or delete that file.")
    return {name: {agent: np.array(g) for agent, g in row.items()} for name, row in content["gains"].items()}


def measured(instance: str, agents: Mapping[str, str], args: argparse.Namespace, bar: tqdm) -> dict[str, np.ndarray]:
    """Gains on an instance by agent, (seeds,) each; those of the greedy search among them."""
    arguments = {"teacher": "builtin", "learning_rate": 1e-3, **INSTANCES[instance]}
    env = gym.make("fusion_gym:FusionDistill-v0", data=args.data, updates_per_step=args.updates, **arguments)
    runs = {name: [lambda seed, agent=agent: episode(env, agent, seed)] * args.seeds for name, agent in agents.items()}
    gains: dict[str, list[float]] = {}
    for name, each in (runs | {"greedy": [lambda seed: greedy(env, seed)] * args.searches}).items():
        gains[name] = []
        for seed, run_one in enumerate(each):
            gains[name].append(run_one(seed))
            bar.update()
    return {name: np.array(values) for name, values in gains.items()}


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="synthetic")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=20, help="updates of a decision; an episode has 16 decisions")
    parser.add_argument("--instances", nargs="+", choices=list(INSTANCES), default=list(INSTANCES), metavar="NAME")
    parser.add_argument(
        "--searches", type=int, default=1, help=f"seeds of the greedy search, which costs as much as {len(CONSTANTS)}"
    )
    parser.add_argument(
        "--json", type=Path, help="file for the figures, instance by instance; what it has is not run again"
    )
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    """Does what the command line asks."""
    agents = {
        **{name: spec(values) for name, values in CONSTANTS.items()},
        **{name: name for name in SCHEDULES + RULES + LEARNED},
    }
    settings_of = {key: value for key, value in vars(args).items() if key not in ("json", "instances")}
    gains = earlier(args.json, settings_of)
    left = [instance for instance in args.instances if instance not in gains]
    with tqdm(total=len(left) * (args.seeds * len(agents) + args.searches), unit="agent") as bar:
        for instance in left:
            gains[instance] = measured(instance, agents, args, bar)
            if args.json:
                each = {name: {agent: values.tolist() for agent, values in row.items()} for name, row in gains.items()}
                save(args.json, {"settings": settings_of, "gains": each})
    gains = {instance: gains[instance] for instance in args.instances}
    means = {name: float(np.mean([each[name].mean() for each in gains.values()])) for name in agents}
    shared = max(CONSTANTS, key=means.__getitem__)
    table = {instance: row(each, shared) for instance, each in gains.items()}
    figures = [key for key, value in next(iter(table.values())).items() if isinstance(value, float)]
    table["mean"] = {key: float(np.mean([each[key] for each in table.values()])) for key in figures}
    table["mean"] |= {"best constant": shared, "best rule": max(RULES, key=means.__getitem__)}
    show(f"Gain of the score over an episode of {16 * args.updates} updates, in hundredths, {args.seeds} seeds", table)
    order = sorted(means, key=means.__getitem__, reverse=True)
    show("Mean gain over the instances", {name: {"gain": means[name]} for name in order})


if __name__ == "__main__":
    sys.exit(guard("headroom.py", lambda: run(parse()), "Stopped."))
