#!/usr/bin/env python
"""What scoring a fused image costs, against plain SciPy and scikit-learn implementations of the same formulas.

    python benchmarks/bench_metrics.py [--data FOLDER] [--repetitions 5] [--json metrics.json]

One thread. ``images``: the reference set of metrics on whole images, in the public evaluator's convention, with the
sources new for each fused image and with their side computed before. ``probe``: the same metrics in the own convention
on batches of 8 and 16 crops of 96×96. ``reward``: the metrics of the score on the 16 crops, one by one. FOLDER holds
pairs (by default those of the golden values, ten of RoadScene, where they are beside the project); the fused image is
the mean of its sources. The share of an environment step: ``bench_env.py step``.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

# ruff: noqa: E402
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"  # before NumPy is loaded: one thread on both sides

import numpy as np
import plain_metrics
import torch
from harness import compare, parse_parts, save, show
from torch import Tensor

from fusion_gym.cli import guard
from fusion_gym.data import DataError, find_pairs, load_pairs, probe_crops
from fusion_gym.images import read_gray
from fusion_gym.memory import keep_freed_memory
from fusion_gym.metrics import Sources, evaluate, evaluate_per_source
from fusion_gym.score import CLEAN_PARTS
from fusion_gym.tensors import unit

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden" / "inputs"
REFERENCE_SET = tuple(plain_metrics.EVALUATOR)
Stack = np.ndarray  # uint8 (3, H, W): infrared, visible, fused


def load(folder: Path) -> list[Stack]:
    """The first ten pairs of a folder, each with the mean of its sources (halves round up)."""
    named = sorted(folder.glob("*_ir.png"))
    if named:
        pairs = [(read_gray(file), read_gray(file.with_name(file.name.replace("_ir", "_vi")))) for file in named[:10]]
    else:
        pairs = [(pair.ir, pair.vi) for pair in load_pairs(find_pairs(folder)[:10])]
    return [np.stack((ir, vi, (ir.astype(int) + vi + 1) // 2)).astype(np.uint8) for ir, vi in pairs]


def tensors(stacks: list[Stack]) -> tuple[Tensor, ...]:
    """Infrared, visible and fused images of one size, (N, 1, H, W) in [0, 1] each."""
    batch = unit(np.stack(stacks))
    return tuple(part.clone() for part in batch.split(1, dim=1))


def plainly(stacks: list[Stack], table: Mapping[str, Callable[..., float]]) -> list[dict[str, float]]:
    """The reference set by the plain implementations, image by image."""
    rows = []
    for stack in stacks:
        ir, vi, fused = stack.astype(np.float32)
        rows.append({name: table[name](fused, ir, vi) for name in REFERENCE_SET})
    return rows


def ours(fused: list[Tensor], sources: list[Sources], convention: str) -> list[dict[str, Tensor]]:
    """The reference set by this project, batch by batch."""
    return [evaluate(*each, REFERENCE_SET, convention) for each in zip(fused, sources, strict=True)]


def from_scratch(batches: list[tuple[Tensor, ...]], convention: str) -> list[dict[str, Tensor]]:
    """The same with new sources for each batch."""
    return ours([fused for _, _, fused in batches], [Sources(ir, vi) for ir, vi, _ in batches], convention)


def report(title: str, result: dict[str, Any], counts: Mapping[str, int]) -> dict[str, Any]:
    """Adds milliseconds per fused image and how many times as fast as plain each side is."""
    for side, row in result.items():
        row["ms per image"] = 1000 * row["median"] / counts[side]
        for base, name in (("median", "times as fast"), ("processor", "by processor time")):
            row[name] = result["plain"][base] / counts["plain"] / (row[base] / counts[side])
    columns = ("ms per image", "times as fast", "by processor time")
    show(title, {side: {column: row[column] for column in columns} for side, row in result.items()})
    return result


def disagreement(plain: list[dict[str, float]], values: list[dict[str, Tensor]]) -> dict[str, float]:
    """Largest relative difference by metric."""
    return {
        name: max(
            abs(float(value) - row[name]) / max(abs(row[name]), 1e-12)
            for row, value in zip(plain, torch.cat([batch[name] for batch in values]), strict=True)
        )
        for name in REFERENCE_SET
    }


def bench_images(stacks: list[Stack], repetitions: int) -> dict[str, Any]:
    """Whole images."""
    batches = [tensors([stack]) for stack in stacks]
    fused, sources = [batch[2] for batch in batches], [Sources(*batch[:2]) for batch in batches]
    sides: dict[str, Callable[[], object]] = {
        "plain": partial(plainly, stacks, plain_metrics.EVALUATOR),
        "sources new": partial(from_scratch, batches, "cddfuse"),
        "sources cached": partial(ours, fused, sources, "cddfuse"),
    }
    title = f"{len(stacks)} images, {len(REFERENCE_SET)} metrics"
    result = report(title, compare(sides, repetitions, "images"), dict.fromkeys(sides, len(stacks)))
    apart = disagreement(plainly(stacks, plain_metrics.EVALUATOR), ours(fused, sources, "cddfuse"))
    print("Largest relative difference:", ", ".join(f"{name} {value:.0e}" for name, value in apart.items()))
    return {**result, "difference": apart}


def bench_probe(stacks: list[Stack], repetitions: int) -> dict[str, Any]:
    """Batches of the probe's size, with cached sources."""
    sides: dict[str, Callable[[], object]] = {
        "plain": partial(plainly, list(probe_crops(stacks, 96, 8)), plain_metrics.OWN)
    }
    counts = {"plain": 8}
    for count in (8, 16):
        ir, vi, fused = tensors(list(probe_crops(stacks, 96, count)))
        sides[f"{count} crops"] = partial(ours, [fused], [Sources(ir, vi)], "fusiongym")
        counts[f"{count} crops"] = count
    result = compare(sides, 4 * repetitions, "probe")
    return report(f"Crops of 96×96, {len(REFERENCE_SET)} metrics, sources cached", result, counts)


def bench_reward(stacks: list[Stack], repetitions: int) -> dict[str, Any]:
    """The metrics of the score on 16 crops, together and one by one."""
    ir, vi, fused = tensors(list(probe_crops(stacks, 96, 16)))
    sources = Sources(ir, vi)
    sides = {"all": tuple(CLEAN_PARTS)} | {name: (name,) for name in CLEAN_PARTS}
    calls = {side: partial(evaluate_per_source, fused, sources, names) for side, names in sides.items()}
    result = compare(calls, max(20, repetitions), "reward")
    shown = {side: {key: 1000 * row[key] for key in ("median", "low", "processor")} for side, row in result.items()}
    show("The reward's metrics on 16 crops of 96×96, milliseconds", shown)
    return result


PARTS = {"images": bench_images, "probe": bench_probe, "reward": bench_reward}


def main() -> int:
    """Runs the parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=GOLDEN, help="folder of pairs (default: %(default)s)")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parse_parts(parser, PARTS)

    def run() -> None:
        if not args.data.is_dir():
            raise DataError(f"There is no folder {args.data}; give --data a folder of pairs.")
        torch.set_num_threads(1)
        keep_freed_memory()
        stacks = load(args.data)
        with torch.no_grad():
            results = {part: PARTS[part](stacks, args.repetitions) for part in args.parts}
        if args.json is not None:
            save(args.json, results)

    return guard("bench_metrics.py", run, "Stopped.")


if __name__ == "__main__":
    sys.exit(main())
