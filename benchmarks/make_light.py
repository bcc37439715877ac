#!/usr/bin/env python
"""Makes what new students know of the light.

    python benchmarks/make_light.py --data DATA/roadscene,DATA/msrs,synthetic

The part of a student that evens the light is a small network on the statistics of whole images. It is the same in all
students of the family, and what would undo a damage to the light can be taught before anything is fused
(`fusion_gym.train_light`), so new students begin with it; their training goes on from there.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

from fusion_gym.archives import write_tensors
from fusion_gym.cli import guard
from fusion_gym.data import load_splits, patch_bank
from fusion_gym.models.light import TAUGHT
from fusion_gym.models.student import STUDENTS, Student
from fusion_gym.tensors import unit
from fusion_gym.train_light import train_light

PATCH = 128  # pixels


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folders of pairs joined by commas, or synthetic")
    parser.add_argument("--out", type=Path, default=TAUGHT, help="file of the weights")
    parser.add_argument("--updates", type=int, default=4000)
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    """Does what the command line asks."""
    generator = torch.Generator().manual_seed(0)
    student = Student(**STUDENTS["tiny"], generator=generator)
    stacks = [np.stack((pair.ir, pair.vi)) for pair in load_splits(args.data).train]
    patches = unit(patch_bank(stacks, PATCH))
    taught = train_light(student, patches[:, :1], patches[:, 1:], generator, args.updates, progress=True).light[0]
    write_tensors(args.out, taught.knowledge)
    print(f"What new students know of the light is in {args.out}.")


if __name__ == "__main__":
    sys.exit(guard("make_light.py", lambda: run(parse()), "Stopped; nothing was written."))
