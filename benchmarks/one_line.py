#!/usr/bin/env python
"""Is an agent worth more than one line? Fits to its decisions a line for each action, and makes an agent of these.

    python benchmarks/one_line.py ppo --out one_line.json
    python -m agents.comparison ppo benchmarks.one_line:OneLine:one_line.json constant --instances benchmarks/drawn.yml

A line is ``low + (high − low) · (feature > threshold)`` or ``offset + slope · feature``, of the one feature of the
observation that leaves the least of the decisions' variance; printed with the share that it explains.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from tqdm import trange

from agents import load_agent
from agents.playing import play
from fusion_gym.cli import guard
from fusion_gym.files import write_json
from fusion_gym.observations import OBSERVATIONS

NAMES = tuple(feature.name for feature in OBSERVATIONS)
FOLLOWED = tuple(number for number, name in enumerate(NAMES) if not name.startswith("last_"))  # no line of itself


class OneLine:
    """An agent of one line for each action.

    Args:
        lines: By action, in order: feature, and its step (threshold, low, high) or its line (offset, slope).
    """

    def __init__(self, lines: list[dict[str, Any]]) -> None:
        self.lines = lines

    @classmethod
    def load(cls, file: str, env: gym.Env) -> OneLine:
        """Reads what this command wrote."""
        return cls(json.loads(Path(file).read_text())["lines"])

    def predict(
        self,
        observation: np.ndarray,
        state: Any = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, Any]:
        """The lines' values; see `agents.Agent`."""
        rows = np.atleast_2d(observation)
        values = np.stack([said(line, rows[:, NAMES.index(line["feature"])]) for line in self.lines], axis=1)
        return np.clip(values, -1, 1).astype(np.float32).reshape(*observation.shape[:-1], len(self.lines)), state


def said(line: dict[str, Any], seen: np.ndarray) -> np.ndarray:
    """Values of a line, (K,), where its feature is ``seen``, (K,)."""
    if "threshold" in line:
        return np.where(seen > line["threshold"], line["high"], line["low"])
    return line["offset"] + line["slope"] * seen


def step(seen: np.ndarray, wanted: np.ndarray) -> dict[str, Any]:
    """The best step of a feature."""
    cuts = np.unique(np.quantile(seen, np.linspace(0.05, 0.95, 19)))
    parts = [(cut, seen > cut) for cut in cuts if 0 < (seen > cut).sum() < len(seen)]
    lines = [
        {"threshold": float(cut), "low": float(wanted[~above].mean()), "high": float(wanted[above].mean())}
        for cut, above in parts
    ]
    return min(lines, key=lambda line: left(line, seen, wanted), default={"offset": float(wanted.mean()), "slope": 0.0})


def straight(seen: np.ndarray, wanted: np.ndarray) -> dict[str, Any]:
    """The best straight line of a feature."""
    slope = float(np.cov(seen, wanted, bias=True)[0, 1] / max(seen.var(), 1e-9))
    return {"offset": float(wanted.mean() - slope * seen.mean()), "slope": slope}


def left(line: dict[str, Any], seen: np.ndarray, wanted: np.ndarray) -> float:
    """Mean square of what a line leaves."""
    return float(np.square(said(line, seen) - wanted).mean())


def fitted(observations: np.ndarray, wanted: np.ndarray) -> dict[str, Any]:
    """The best line for one action, (K,), of observations, (K, D); with the share of the variance that it explains."""
    lines = [
        (left(line, observations[:, at], wanted), {"feature": NAMES[at], **line})
        for at in FOLLOWED
        for line in (step(observations[:, at], wanted), straight(observations[:, at], wanted))
    ]
    rest, best = min(lines, key=lambda pair: pair[0])
    return {**best, "explained": 1 - rest / max(float(wanted.var()), 1e-9)}


def decisions(spec: str, episodes: int, seed: int) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Observations, (K, D), and what an agent did in them, (K, A), on the default draws; the actions' names."""
    env = gym.make("fusion_gym:FusionDistill-v0")
    played = [play(env, load_agent(spec, env), seed + number) for number in trange(episodes, unit="episode")]
    seen, done = (np.concatenate(parts) for parts in zip(*(each[:2] for each in played), strict=True))
    return seen, done, env.get_wrapper_attr("action_names")


def text(line: dict[str, Any]) -> str:
    """A line for people, in units of the action."""
    if "threshold" in line:
        return f"{line['high']:+.2f} where {line['feature']} > {line['threshold']:.3g}, else {line['low']:+.2f}"
    return f"{line['offset']:+.2f} {line['slope']:+.2f} x {line['feature']}"


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("agent")
    parser.add_argument("--episodes", type=int, default=16)
    parser.add_argument("--seed", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path("one_line.json"))
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    """Does what the command line asks."""
    observations, actions, names = decisions(args.agent, args.episodes, args.seed)
    lines = [fitted(observations, actions[:, number]) for number in range(len(names))]
    for name, line in zip(names, lines, strict=True):
        print(f"{name}: {text(line)}; explains {line['explained']:.0%} of {len(actions)} decisions' variance")
    write_json(args.out, {"agent": args.agent, "actions": list(names), "lines": lines})
    print(f"The agent is benchmarks.one_line:OneLine:{args.out}.")


if __name__ == "__main__":
    sys.exit(guard("one_line.py", lambda: run(parse()), "Stopped."))
