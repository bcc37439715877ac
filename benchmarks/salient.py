#!/usr/bin/env python
r"""Does a term for warm bodies make students of more use to a detector? One further training with it, one without.

    python benchmarks/salient.py --data DATA/roadscene,DATA/msrs,synthetic --out runs/salient
    python benchmarks/bench_detection.py --pairs DATA/msrs --labels LABELS --detector fastestdet.onnx \
        without=student:runs/salient/without-1.pt with=student:runs/salient/with-1.pt

The term: where the infrared is brighter than its surroundings at the scale of objects (mean over `NEAR` pixels less
mean over `AROUND`) by more than `WARM` of full scale, the fused image is to be as much brighter than its own. Both
trainings begin with a shipped student and have the same batches.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import trange

from fusion_gym.actions import ACTIONS
from fusion_gym.cli import guard
from fusion_gym.conditions import HARDENINGS
from fusion_gym.distiller import Distiller, SelfLoss
from fusion_gym.models.student import STUDENTS, TRAINED, begin, save_student
from fusion_gym.objective import keep, metric_loss
from fusion_gym.task import load_task

NEAR, AROUND = 7, 41  # pixels, sides of means
WARM = 0.08  # of full scale
PATCH, BATCH, RATE, GUIDANCE = 128, 4, 5e-4, 0.3
WEIGHT = 3.0  # of the term: it begins at half of the objective's loss


def mean(images: Tensor, sides: tuple[int, int]) -> Tensor:
    """Means over so many rows and columns, of what lies within the image."""
    padding = (sides[0] // 2, sides[1] // 2)
    return F.avg_pool2d(images, sides, stride=1, padding=padding, count_include_pad=False)


def contrast(images: Tensor) -> Tensor:
    """How much brighter than its surroundings each place is, (N, 1, H, W), of images of this shape in [0, 1]."""
    near, around = (mean(mean(images, (side, 1)), (1, side)) for side in (NEAR, AROUND))
    return near - around


def salience_lost(fused: Tensor, ir: Tensor) -> Tensor:
    """What warm bodies have lost of their contrast, (N,): mean over where the infrared has it, 0 where nowhere."""
    wanted, found = contrast(ir), contrast(fused)
    warm = (wanted > WARM).to(fused.dtype)
    return (warm * (wanted - found).clamp_min(0)).sum((1, 2, 3)) / warm.sum((1, 2, 3)).clamp_min(1.0)


def trained(args: argparse.Namespace, weight: float, seed: int) -> Distiller:
    """A shipped student after some further updates on clean pairs."""
    task = load_task(args.data, "builtin", "builtin", PATCH, 1, 96, "cpu")
    generator = torch.Generator().manual_seed(seed)
    student = begin(TRAINED, 16, args.student, generator)
    distiller = Distiller(task.bank, student, RATE, BATCH, args.updates, generator, "metrics")
    loss = lambda fused, ir, vi, kept: metric_loss(fused, ir, vi, kept) + weight * salience_lost(fused, ir)  # noqa: E731
    distiller.self_loss = SelfLoss(loss, keep)
    settings = {name: action.default for name, action in ACTIONS.items()}
    settings |= {"guidance": GUIDANCE, "clean": 1.0, **dict.fromkeys(HARDENINGS, 0.0)}
    for _ in trange(args.updates // 20, unit="decision", leave=False):
        distiller.advance(settings, 20)
    return distiller


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--student", default="tiny", choices=list(STUDENTS))
    parser.add_argument("--updates", type=int, default=1200)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/salient"))
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    """Does what the command line asks."""
    args.out.mkdir(parents=True, exist_ok=True)
    for seed in range(1, args.seeds + 1):
        for name, weight in (("without", 0.0), ("with", WEIGHT)):
            save_student(trained(args, weight, seed).student, args.out / f"{name}-{seed}.pt")
            print(f"{args.out / name}-{seed}.pt", flush=True)


if __name__ == "__main__":
    sys.exit(guard("salient.py", lambda: run(parse()), "Stopped."))
