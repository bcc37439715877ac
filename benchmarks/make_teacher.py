#!/usr/bin/env python
"""Makes the built-in teacher: seven trainings, each from what was left before, and means of two of them.

    python benchmarks/make_teacher.py --data DATA/roadscene,DATA/msrs,synthetic --out runs/teacher

The first three are by the metrics, the others by what is invented too, on larger crops, the fifth and seventh partly
in bad light, the last two by what is amplified too. The sixth starts from the mean of the fourth's and the fifth's
weights, and the teacher is the mean of the sixth's and the seventh's. Run again, the command goes on from where it was
stopped. ``--share 0.01`` makes every training that much shorter, for a try. Two things were otherwise when the shipped
weights were made: the fourth training was stopped after 4,600 updates, and ``cap``s of the first two's objective
differed slightly from today's.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from fusion_gym import train_teacher
from fusion_gym.archives import read_tensors, write_tensors
from fusion_gym.cli import guard

# Of each training: updates, and what else `train_teacher` is told.
LARGE = "--crop 160 --batch-size 3 --goals SSIM=340 EN=60 SD=50 SF=40 AG=40"
LATE = f"{LARGE} amplified=0"
EARLY = "--goals invented=0 amplified=0"
TRAININGS = (
    (7000, f"--learning-rate 1e-3 {EARLY} SSIM=160 VIF=100 Qabf=90 SCD=25 MI=24 EN=20 SD=28 SF=24 AG=22"),
    (2400, f"--learning-rate 5e-4 {EARLY} SSIM=260 VIF=60 Qabf=100 SCD=40 MI=32 EN=24 SD=28 SF=22 AG=22"),
    (1200, f"--learning-rate 4e-4 {EARLY} SSIM=300 VIF=60 Qabf=120 SCD=40 MI=36 EN=28 SD=28 SF=22 AG=22"),
    (5000, f"--learning-rate 6e-4 {LATE}"),
    (750, f"--learning-rate 3e-4 --unlit 0.4 {LATE} invented=80"),
    (600, f"--learning-rate 3e-4 {LARGE}"),
    (400, f"--learning-rate 3e-4 --unlit 0.3 {LARGE}"),
)
FRESH = 6  # the training that starts from the mean of the two before it


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="as train_teacher's")
    parser.add_argument("--out", type=Path, default=Path("runs/teacher"), help="folder of the trainings and the mean")
    parser.add_argument("--share", type=float, default=1.0, help="of each training's updates")
    parser.add_argument("--device", default="auto")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    """Does what the command line asks."""
    weights: list[Path] = []
    for number, (updates, settings) in enumerate(TRAININGS):
        out = args.out / str(number + 1)
        command = ["--data", args.data, "--out", str(out), "--seed", str(number), "--device", args.device]
        command += ["--updates", str(max(1, round(args.share * updates))), *settings.split()]
        if (out / train_teacher.CHECKPOINT).is_file():
            command.append("--resume")
        elif number + 1 == FRESH:
            command += ["--start", str(mean(weights[-2:], args.out / "mean.pt"))]
        elif weights:
            command += ["--start", str(weights[-1])]
        train_teacher.run(train_teacher.parse(command))
        weights.append(out / "teacher.pt")
    print(f"The teacher is {mean(weights[-2:], args.out / 'teacher.pt')}.")


def mean(files: Sequence[Path], out: Path) -> Path:
    """Writes the mean of weights; the file."""
    states = [read_tensors(file) for file in files]
    write_tensors(out, {name: torch.stack([state[name] for state in states]).mean(dim=0) for name in states[0]})
    return out


if __name__ == "__main__":
    sys.exit(guard("make_teacher.py", lambda: run(parse()), "Stopped; the same command goes on from there."))
