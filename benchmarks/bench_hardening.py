#!/usr/bin/env python
"""What hardening buys a student and what it costs: scores by condition, by guidance and strength, early and late.

    python benchmarks/bench_hardening.py [PART ...] [--seeds 2] [--json hardening.json]

Parts: ``noise`` (a clean-trained student, noise alone: is cleaning an image worth something?), ``early`` (the same
start, 960 updates, guidance by strength of all kinds), ``late`` (the student that is shipped, 480 updates). Synthetic
scenes, the metrics' loss; 24 probe pairs, damaged at strengths of 0.5 and 0.8. In brackets: SSIM with the teacher's
output on the clean pair.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from harness import parse_parts, save, show
from tqdm import tqdm

from fusion_gym.actions import encode
from fusion_gym.cli import guard
from fusion_gym.conditions import CONDITIONS, HARDENINGS
from fusion_gym.metrics import Sources, evaluate_per_source

ALL = dict.fromkeys(HARDENINGS, 1.0)
NOISE = {**dict.fromkeys(HARDENINGS, 0.0), "noise": 1.0}
NONE = dict.fromkeys(HARDENINGS, 0.0)


def half(strengths: dict[str, float]) -> dict[str, float]:
    """The same at half the strength."""
    return {name: value / 2 for name, value in strengths.items()}


# By part: arguments of the environment, updates, and settings by name.
PARTS: dict[str, tuple[dict[str, Any], int, dict[str, dict[str, float]]]] = {
    "noise": (
        {"start": "clean", "learning_rate": 1e-3},
        480,
        {
            "no hardening": {"guidance": 0.1, "clean": 1.0, **NONE},
            "noise 1": {"guidance": 0.1, "clean": 0.5, **NOISE},
        },
    ),
    "early": (
        {"start": "clean", "learning_rate": 2e-3},
        960,
        {
            f"guidance {guidance:g}, {name}": {"guidance": guidance, "clean": clean, **strengths}
            for guidance in (0.0, 0.3, 0.7)
            for name, clean, strengths in (("0", 1.0, NONE), ("1", 0.5, ALL))
        },
    ),
    "late": (
        {"start": "trained", "learning_rate": 1e-3},
        480,
        {
            f"guidance {guidance:g}, {name}": {"guidance": guidance, "clean": clean, **strengths}
            for guidance in (0.0, 0.5)
            for name, clean, strengths in (("0", 1.0, NONE), ("0.5", 0.5, half(ALL)), ("1", 0.5, ALL))
        },
    ),
}


def figures(env: Any) -> dict[str, float]:
    """Scores by condition, and how alike the outputs are to the teacher's on the clean pairs."""
    probe, student = env.task.probe, env.distiller.student
    reading, fused = probe.read(student), probe.fuse(student)
    alike = evaluate_per_source(fused, Sources(*[probe.teacher.repeat(len(CONDITIONS), 1, 1, 1)] * 2), ("SSIM",))
    structure = alike["SSIM"][:, 0].view(len(CONDITIONS), -1).mean(1).tolist()
    similar = {f"{name} (SSIM)": value for name, value in zip(CONDITIONS, structure, strict=True)}
    return {**reading.scores, "mixed": env.episode.score, **similar}


def trained(env: gym.Env, settings: dict[str, float] | None, seed: int) -> dict[str, float]:
    """Figures after a training under constant settings; of the start where there are none."""
    env.reset(seed=seed)
    plain: Any = env.unwrapped
    if settings is not None:
        plain.step(encode(settings, plain.action_names))
    return figures(plain)


def measure(part: str, seeds: int) -> dict[str, dict[str, Any]]:
    """The table of a part: means over the seeds, and the standard deviation of the score where all is met."""
    arguments, updates, rows = PARTS[part]
    env = gym.make(
        "fusion_gym:FusionDistill-v0",
        teacher="builtin",
        deployment="mixed",
        episode_steps=1,
        updates_per_step=updates,
        probe_pairs=24,
        **arguments,
    )
    table: dict[str, dict[str, Any]] = {"at the start": trained(env, None, 0)}
    for name, settings in tqdm(rows.items(), desc=part, unit="setting"):
        found = [trained(env, settings, seed) for seed in range(seeds)]
        table[name] = {key: float(np.mean([each[key] for each in found])) for key in found[0]}
        table[name]["mixed, over seeds"] = (
            float(np.std([each["mixed"] for each in found], ddof=1)) if seeds > 1 else 0.0
        )
    return table


def shown(row: dict[str, Any]) -> dict[str, str]:
    """A row for people: structure in brackets behind the score."""
    cells = {name: f"{row[name]:.3f} ({row[f'{name} (SSIM)']:.3f})" for name in CONDITIONS}
    over = row.get("mixed, over seeds")
    return {**cells, "mixed": f"{row['mixed']:.3f}" + ("" if over is None else f" ± {over:.3f}")}


def parse() -> Namespace:
    """Reads the command line."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--json", type=Path, help="file for the figures")
    return parse_parts(parser, PARTS)


def run(args: Namespace) -> None:
    """Does what the command line asks."""
    tables = {part: measure(part, args.seeds) for part in args.parts}
    for part, table in tables.items():
        _, updates, _ = PARTS[part]
        show(f"{part}: scores after {updates} updates, {args.seeds} seeds", {k: shown(v) for k, v in table.items()})
    if args.json:
        save(args.json, {"rows": tables})


if __name__ == "__main__":
    sys.exit(guard("bench_hardening.py", lambda: run(parse()), "Stopped."))
