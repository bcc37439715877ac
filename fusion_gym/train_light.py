"""Trains how a student evens the light: ``python -m fusion_gym.train_light --student FILE --data DATA --out FILE``.

Metrics of fused images tell a student little of the light: whether a dark image is a night or under-exposed is seen in
few of them. But hardening knows what it did, and so what would undo it. That is taught here, in a minute, and the
network that fuses stays as it is.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import trange

from fusion_gym.cli import Parser, UserError, guard
from fusion_gym.data import check_sides, load_splits, patch_bank
from fusion_gym.hardening import DIMMING, FADING, GLARE, HARDENINGS, Draw, draw, harden
from fusion_gym.models.light import Light, grids, scene_statistics
from fusion_gym.models.student import Student, read_student, save_student, weights_of
from fusion_gym.outputs import check_outputs
from fusion_gym.sources import add_range
from fusion_gym.tensors import unit
from fusion_gym.text import say

FULLY = dict.fromkeys(HARDENINGS, 1.0)
COPIES = 8  # of every patch, each with a damage of its own
RATE, BATCH = 3e-3, 256
SMALLEST = 0.02  # spread of an answer, below which its errors count no less
WEIGHTS = (0.5, 1.0, 0.5, 0.5)  # of gains and offsets, beside all that the network is told; visible light varies most


def undoing(drawn: Draw) -> Tensor:
    """Logarithms of the gains, (N, 2), that undo what full hardening did to infrared contrast and visible light."""
    amounts = dict(zip(HARDENINGS, drawn.amounts(FULLY), strict=True))
    heat, light = amounts["contrast"], amounts["illumination"]
    lit = torch.where(drawn.dark, 1 - DIMMING * light, 1 + GLARE * light)
    return -torch.log(torch.stack((1 - FADING * heat, lit), dim=1))


def examples(light: Light, ir: Tensor, vi: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """What is known of the light in clean and in damaged pairs, and how to answer it.

    A pair of damaged light is answered as the clean pair is, and the damage undone; any other as before.

    Args:
        light: The part of a student that evens the light.
        ir: Infrared patches, (N, 1, P, P) in [0, 1].
        vi: Visible luminance, the same.
        generator: Where damage is drawn from.

    Returns:
        The `scene_statistics` of the clean pairs, then of `COPIES` damaged ones of each, (N + COPIES N, 12, 1, 1), and
        what `Light.answer` shall give for them, (N + COPIES N, 4 + conditioning, 1, 1).
    """
    clean = scene_statistics(*grids(torch.cat((ir, vi), dim=1)))
    known = light.answer(clean).detach()
    parts = [(clean, known)]
    for _ in range(COPIES):
        drawn = draw(len(ir), generator)
        seen = scene_statistics(*grids(torch.cat(harden(ir, vi, FULLY, drawn), dim=1)))
        undo = undoing(drawn)
        undone = known.clone()
        undone[:, :2, 0, 0] += undo / 3.0
        undone[:, 2:4] += clean[:, :2] - seen[:, :2]  # to the brightness that the clean pair is brought to
        damaged = (undo != 0).any(1).view(-1, 1, 1, 1)
        parts.append((seen, torch.where(damaged, undone, light.answer(seen).detach())))
    seen, answers = (torch.cat(part) for part in zip(*parts, strict=True))
    return seen, answers


def train_light(
    student: Student, ir: Tensor, vi: Tensor, generator: torch.Generator, updates: int, progress: bool = False
) -> Student:
    """A copy of a student that knows better which light is damaged.

    Args:
        student: One that evens the light.
        ir: Infrared patches, (N, 1, P, P) in [0, 1].
        vi: Visible luminance, the same.
        generator: Source of all that is random.
        updates: Number of updates by Adam, of 256 pairs each.
        progress: Whether to show a progress bar.
    """
    made = copy.deepcopy(student)
    light = made.light[0].requires_grad_(True)
    assert isinstance(light, Light)
    seen, answers = examples(light, ir, vi, generator)
    spread = answers.std(dim=0, keepdim=True).clamp_min(SMALLEST)
    weights = torch.ones_like(spread)
    weights[:, : len(WEIGHTS), 0, 0] = answers.shape[1] * torch.tensor(WEIGHTS)
    optimizer = torch.optim.Adam(light.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    for _ in trange(updates, desc="light", dynamic_ncols=True, disable=not progress):
        chosen = torch.randint(len(seen), (BATCH,), generator=generator)
        error = (light.answer(seen[chosen]) - answers[chosen]) / spread
        optimizer.zero_grad()
        (weights * error.square()).mean().backward()
        optimizer.step()
        schedule.step()
    return made.eval().requires_grad_(False)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", required=True, help="a weights file, or a student that comes with the package")
    parser.add_argument("--data", default="synthetic", help="folders of pairs joined by commas, or synthetic")
    add_range(parser)
    parser.add_argument("--out", type=Path, required=True, help="file of the new weights (.pt)")
    parser.add_argument("--updates", type=int, default=4000)
    parser.add_argument("--patch-size", type=int, default=160, help="side of the patches, in pixels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--progress", action=argparse.BooleanOptionalAction, default=True)
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    """Trains, and writes the student."""
    if args.updates < 1:
        raise UserError(f"--updates {args.updates} is not allowed; give a whole number from 1 on.")
    if args.out.suffix != ".pt":
        raise UserError(f"{args.out} is not a weights file's name; let it end in .pt.")
    check_outputs([args.out], [args.student], data=[args.data])
    student = read_student(weights_of(args.student))
    if not isinstance(student, Student) or not student.light:
        raise UserError(f"The student {args.student} does not even the light; train one with light=True.")
    pairs = load_splits(args.data, args.ir_range).train
    check_sides(pairs, args.patch_size, "patch_size")
    patches = unit(patch_bank([np.stack((pair.ir, pair.vi)) for pair in pairs], args.patch_size))
    generator = torch.Generator().manual_seed(args.seed)
    made = train_light(student, patches[:, :1], patches[:, 1:], generator, args.updates, args.progress)
    save_student(made, args.out)
    say(f"The student's weights are in {args.out}.")
    say(f"Next: python -m fusion_gym.fuse --student {args.out} --ir IR --vi VI --out FUSED")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; a user's mistake gives one sentence and exit code 2."""
    return guard("train_light", lambda: run(parse(argv)), "Stopped; nothing was written.")


if __name__ == "__main__":
    sys.exit(main())
