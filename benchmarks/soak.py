#!/usr/bin/env python
"""Random actions with resets for a long time: memory, step time and NaN.

    python benchmarks/soak.py [--seconds 3600] [--env FusionDistillFast-v0] [--json soak.json]

The first tenth is warm-up. Drift is the change from the first to the last third of the rest, by medians of windows.
Step time is processor time, in units of a fixed computation that takes turns with the steps: neighbours slow down
both. The exit code is 1 where memory has changed by more than 2 %, the step time has grown by more than 10 %, or a
NaN was seen.
"""

from __future__ import annotations

import argparse
import gc
import math
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from harness import save, show

import fusion_gym  # noqa: F401  (registers the ids)

WINDOWS = 60
MOST_MEMORY, MOST_TIME = 0.02, 0.10


def resident() -> float:
    """Memory of this process, MB."""
    statm = Path("/proc/self/statm")
    if statm.is_file():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


class Stopwatch:
    """Processor time of what it runs."""

    def __init__(self) -> None:
        self.seconds = self.calls = 0.0

    def run(self, work: Callable[[], Any]) -> None:
        """Runs something and adds its time."""
        begin = time.process_time()
        work()
        self.seconds += time.process_time() - begin
        self.calls += 1

    def mean(self) -> float:
        """Milliseconds of a call."""
        return 1000 * self.seconds / self.calls


class Yardstick:
    """A fixed computation, much like that of a step."""

    def __init__(self) -> None:
        self.image = torch.rand(8, 8, 64, 64)
        self.weights = torch.rand(8, 8, 3, 3, requires_grad=True)

    def run(self) -> None:
        """Computes."""
        torch.nn.functional.conv2d(self.image, self.weights).relu().sum().backward()


class Soak:
    """An environment under random actions.

    Args:
        env: The environment.
        seed: Seed of actions, resets and students.
    """

    def __init__(self, env: gym.Env, seed: int) -> None:
        self.env, self.generator = env, np.random.default_rng(seed)
        self.steps = self.episodes = self.diverged = self.nans = 0
        self.env.reset(seed=seed)

    def step(self) -> None:
        """One step; now and then an action outside [-1, 1], and a reset in mid-episode."""
        scale = 3.0 if self.generator.random() < 0.05 else 1.0
        action = self.generator.uniform(-scale, scale, self.env.action_space.shape or ()).astype(np.float32)
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.steps += 1
        self.diverged += bool(info["diverged"])
        values = [float(reward), *(value for value in info.values() if isinstance(value, float))]
        if not np.isfinite(observation).all() or not (all(map(math.isfinite, values)) or info["diverged"]):
            self.nans += 1
        if terminated or truncated or self.generator.random() < 0.01:
            self.episodes += 1
            self.env.reset()


def run(args: argparse.Namespace) -> list[dict[str, float]]:
    """Steps until the time is up; a row for each window."""
    soak, yardstick = Soak(gym.make(args.env), args.seed), Yardstick()
    rows: list[dict[str, float]] = []
    begin = time.monotonic()
    for window in range(1, WINDOWS + 1):
        steps, fixed = Stopwatch(), Stopwatch()
        while time.monotonic() - begin < args.seconds * window / WINDOWS or not steps.calls:
            steps.run(soak.step)
            fixed.run(yardstick.run)
        gc.collect()  # what is garbage is no leak
        rows.append(
            {
                "minutes": (time.monotonic() - begin) / 60,
                "steps": soak.steps,
                "episodes": soak.episodes,
                "memory MB": resident(),
                "step ms": steps.mean(),
                "step units": steps.mean() / fixed.mean(),
                "diverged": soak.diverged,
                "NaN": soak.nans,
            }
        )
        print("  ".join(f"{name} {value:.4g}" for name, value in rows[-1].items()), flush=True)
    return rows


def drift(rows: list[dict[str, float]], name: str) -> float:
    """Relative change of a column from the first to the last third after the warm-up."""
    values = [row[name] for row in rows[len(rows) // 10 :]]
    third = max(1, len(values) // 3)
    return statistics.median(values[-third:]) / statistics.median(values[:third]) - 1


def main() -> int:
    """Runs, prints and judges."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--env", default="FusionDistillFast-v0")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = run(args)
    result: dict[str, Any] = {
        "steps": rows[-1]["steps"],
        "episodes": rows[-1]["episodes"],
        "memory drift": drift(rows, "memory MB"),
        "step time drift": drift(rows, "step units"),
        "diverged": rows[-1]["diverged"],
        "NaN": rows[-1]["NaN"],
    }
    show(f"{args.env}, {args.seconds / 60:.0f} min", {"soak": result})
    if args.json:
        save(args.json, {"result": result, "windows": rows})
    sound = abs(result["memory drift"]) <= MOST_MEMORY and result["step time drift"] <= MOST_TIME and not result["NaN"]
    print("Sound." if sound else "Not sound.")
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
