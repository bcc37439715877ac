#!/usr/bin/env python
"""Makes the stages of a long training that episodes begin with: ``start="clean"`` and so on, for the student tiny.

    python benchmarks/make_starts.py [--out FOLDER] [--updates 2400] [--seed 1]

Each stage goes on from the one before, by the fusion metrics alone (guidance 0), on the patches of the data:

* clean: trained on clean pairs only;
* half: then a fifth as long on hardened ones, every kind at full strength, two fifths of the samples clean;
* robust: then as long as the first stage in the same way;
* forgotten: from there, two fifths as long on clean pairs only.
"""

from __future__ import annotations

import argparse
import copy
import sys
from pathlib import Path

import torch
from harness import show
from tqdm import tqdm

from fusion_gym.actions import ACTIONS
from fusion_gym.cli import guard
from fusion_gym.conditions import HARDENINGS
from fusion_gym.distiller import Distiller
from fusion_gym.models import WEIGHTS
from fusion_gym.models.student import STUDENTS, Student, save_student
from fusion_gym.task import load_task

STUDENT, BATCH, PATCH = "tiny", 8, 64
EASY = {**dict.fromkeys(ACTIONS, 0.0), "clean": 1.0, "rate": 1.0}
HARD = {**EASY, **dict.fromkeys(HARDENINGS, 1.0), "clean": 0.4}
# Stage: what it goes on from, settings, length relative to the first stage, learning rate.
STAGES = {
    "clean": ("", EASY, 1.0, 2e-3),
    "half": ("clean", HARD, 0.2, 1e-3),
    "robust": ("half", HARD, 1.0, 2e-3),
    "forgotten": ("robust", EASY, 0.4, 2e-3),
}


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="synthetic")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder of the weights (default: the package's)")
    parser.add_argument("--updates", type=int, default=2400, help="length of the first stage")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    """Does what the command line asks."""
    torch.set_num_threads(1)
    task = load_task(args.data, "builtin", "builtin", PATCH, 8, 96, "cpu")
    made = {"": Student(**STUDENTS[STUDENT], generator=torch.Generator().manual_seed(args.seed))}
    table = {}
    for number, (stage, (before, settings, share, rate)) in enumerate(tqdm(STAGES.items(), unit="stage")):
        student = copy.deepcopy(made[before]).train()
        updates = max(1, round(share * args.updates))
        generator = torch.Generator().manual_seed(args.seed + number)
        Distiller(task.bank, student, rate, BATCH, updates, generator, "metrics").advance(settings, updates)
        save_student(student, args.out / f"stage_{STUDENT}_{stage}.pt", half=True)
        table[stage] = task.probe.read(student.eval()).scores
        made[stage] = student
    show("Fusion score on the probe, by condition", table)
    print(f"The stages are in {args.out}.")


if __name__ == "__main__":
    sys.exit(guard("make_starts.py", lambda: run(parse()), "Stopped."))
