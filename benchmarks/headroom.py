#!/usr/bin/env python
"""What there is to decide: the final score under constant guidance, for teachers, starts and rates, beside seed noise.

    python benchmarks/headroom.py --data FOLDER[,FOLDER…] [--seeds 3] [--json headroom.json]

An agent is worth its training only where no constant is right for all instances: where the best guidance differs from
row to row by more than the seeds move a result. The last columns are the gain of the best constant of a row over the
one that is best for all rows, and the standard deviation over seeds, averaged over the row.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
from harness import save, show
from tqdm import tqdm

from fusion_gym.actions import ACTIONS, encode
from fusion_gym.cli import guard
from fusion_gym.hardening import HARDENINGS


def final_score(env: gym.Env, guidance: float, hardening: float, seed: int) -> float:
    """Score of a student at the end of an episode under constant settings."""
    settings = {"guidance": guidance, **dict.fromkeys(HARDENINGS, hardening)}
    action = encode(settings, tuple(ACTIONS))
    env.reset(seed=seed)
    over = False
    while not over:
        _, _, over, _, info = env.step(action)
    return float(info["score"])


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="synthetic")
    parser.add_argument("--teachers", nargs="+", default=["builtin", "rule:max", "rule:poor"])
    parser.add_argument("--starts", nargs="+", default=["new", "trained"])
    parser.add_argument("--rates", nargs="+", type=float, default=[3e-3, 1e-2])
    parser.add_argument("--width", type=int, default=12)
    parser.add_argument("--guidance", nargs="+", type=float, default=[0.0, 0.25, 0.5, 1.0])
    parser.add_argument("--hardening", type=float, default=0.05, help="one strength for all")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="file for the figures")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    """Does what the command line asks."""
    rows = list(itertools.product(args.starts, args.teachers, args.rates))
    scores = np.empty((len(rows), len(args.guidance), args.seeds))
    bar = tqdm(total=scores.size, unit="student")
    for i, (start, teacher, rate) in enumerate(rows):
        arguments = {"data": args.data, "teacher": teacher, "start": start, "learning_rate": rate}
        env = gym.make("fusion_gym:FusionDistill-v0", student_width=args.width, **arguments)
        for j, guidance in enumerate(args.guidance):
            for seed in range(args.seeds):
                scores[i, j, seed] = final_score(env, guidance, args.hardening, seed)
                bar.update()
    bar.close()
    means, noise = scores.mean(2), scores.std(2, ddof=min(1, args.seeds - 1)).mean(1)
    best = int(means.mean(0).argmax())
    table = {}
    for i, (start, teacher, rate) in enumerate(rows):
        cells = {f"guidance {g:g}": float(mean) for g, mean in zip(args.guidance, means[i], strict=True)}
        left = {"headroom": float(means[i].max() - means[i, best]), "over seeds": float(noise[i])}
        table[f"{start}, {teacher}, {rate:g}"] = {**cells, **left}
    show(f"Final score, width {args.width}, hardening {args.hardening:g}, {args.seeds} seeds", table)
    print(f"Best constant for all rows: guidance {args.guidance[best]:g}, {means[:, best].mean():.4f}; ", end="")
    print(f"best of each row: {means.max(1).mean():.4f}; over seeds: {noise.mean():.4f}")
    if args.json:
        save(args.json, {"settings": {k: v for k, v in vars(args).items() if k != "json"}, "rows": table})


if __name__ == "__main__":
    sys.exit(guard("headroom.py", lambda: run(parse()), "Stopped."))
