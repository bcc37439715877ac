"""Trains the built-in teacher: ``python -m fusion_gym.train_teacher --data FOLDER[,FOLDER…][,synthetic]``.

The loss is made of the fusion metrics themselves, see `fusion_gym.objective`.
"""

from __future__ import annotations

import argparse
import copy
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from fusion_gym.cli import Parser, guard
from fusion_gym.data import ImagePair, load_splits, sets_of
from fusion_gym.files import atomic_path, make_folder
from fusion_gym.folders import held
from fusion_gym.memory import keep_freed_memory
from fusion_gym.models.teacher import Teacher
from fusion_gym.objective import GOALS, Goal, loss_of, objective
from fusion_gym.outputs import check_outputs
from fusion_gym.sources import add_range
from fusion_gym.tensors import resolve_device, unit
from fusion_gym.text import say


def parse_goals(changes: Sequence[str]) -> dict[str, Goal]:
    """`GOALS` with some weights changed, each given as ``METRIC=WEIGHT``.

    Raises:
        ValueError: If a metric is unknown or a weight is not a number from 0 on.
    """
    goals = dict(GOALS)
    for change in changes:
        name, _, weight = change.partition("=")
        if name not in goals:
            raise ValueError(f"--goals {change}: there is no metric {name!r} here; there are {', '.join(goals)}.")
        try:
            value = float(weight)
        except ValueError:
            value = math.nan
        if not 0 <= value < math.inf:
            raise ValueError(f"--goals {change}: {weight!r} is not allowed; give a number from 0 on.")
        goals[name] = replace(goals[name], weight=value)
    return goals


class Crops:
    """Random square crops of pairs, mirrored at random.

    Args:
        pairs: Where they come from; each set of pairs is drawn from equally often.
        size: Side in pixels.
        seed: Seed of the generator.
    """

    def __init__(self, pairs: Sequence[Sequence[ImagePair]], size: int, seed: int) -> None:
        self.sets = [[np.stack((pair.ir, pair.vi)) for pair in part if min(pair.ir.shape) >= size] for part in pairs]
        self.sets = [part for part in self.sets if part]
        if not self.sets:
            raise ValueError(f"No training pair is {size} pixels wide and high; lower --crop or give other data.")
        self.size, self.rng = size, np.random.default_rng(seed)

    def batch(self, count: int) -> tuple[Tensor, Tensor]:
        """Infrared and visible luminance, (count, 1, size, size) each in [0, 1]."""
        crops = []
        for _ in range(count):
            part = self.sets[self.rng.integers(len(self.sets))]
            stack = part[self.rng.integers(len(part))]
            y, x = (int(self.rng.integers(side - self.size + 1)) for side in stack.shape[1:])
            crop = stack[:, y : y + self.size, x : x + self.size]
            crops.append(crop[..., ::-1] if self.rng.random() < 0.5 else crop)
        images = unit(np.stack(crops))
        return images[:, :1], images[:, 1:]


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="synthetic", help="folders of pairs joined by commas, or synthetic")
    add_range(parser)
    parser.add_argument("--out", type=Path, default=Path("runs/teacher"), help="folder of checkpoint and weights")
    parser.add_argument("--updates", type=int, default=8000)
    parser.add_argument("--batch-size", type=int, default=6)
    parser.add_argument("--crop", type=int, default=112, help="side of the training crops, in pixels")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--save-freq", type=int, default=200, help="updates between two checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="torch's threads")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--start", type=Path, help="weights to start from")
    parser.add_argument(
        "--goals", nargs="+", default=[], metavar="METRIC=WEIGHT", help="weights of metrics in the objective"
    )
    parser.add_argument("--resume", action="store_true", help="continue from the checkpoint in --out")
    parser.add_argument("--progress", action=argparse.BooleanOptionalAction, default=True)
    return parser.parse_args(argv)


def train(args: argparse.Namespace) -> Path:
    """Trains the teacher; leaves ``teacher.pt`` (weights, averaged over updates) and a checkpoint.

    Raises:
        ValueError: If the data or the checkpoint cannot be used.
    """
    goals = parse_goals(args.goals)
    checkpoint, weights = args.out / "checkpoint.pt", args.out / "teacher.pt"
    if args.resume and not checkpoint.is_file():
        raise ValueError(f"{checkpoint} does not exist; start without --resume.")
    check_outputs([checkpoint, weights], [] if args.start is None else [args.start], data=[args.data])
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    device = resolve_device(args.device)
    pairs = [load_splits(part, args.ir_range).train for part in sets_of(args.data)]
    crops = Crops(pairs, args.crop, args.seed)
    net = Teacher(generator=torch.Generator().manual_seed(args.seed)).to(device)
    if args.start is not None:
        net.load_state_dict(torch.load(args.start, map_location=device, weights_only=True))
    average = copy.deepcopy(net)
    optimizer = torch.optim.Adam(net.parameters(), lr=args.learning_rate)
    make_folder(args.out)
    with held(args.out):
        done = 0
        if args.resume:
            state: dict[str, Any] = torch.load(checkpoint, map_location=device, weights_only=True)
            net.load_state_dict(state["net"])
            average.load_state_dict(state["average"])
            optimizer.load_state_dict(state["optimizer"])
            crops.rng.bit_generator.state = state["rng"]
            done = state["done"]
        bar = tqdm(
            range(done, args.updates), initial=done, total=args.updates, disable=not args.progress, desc="teacher"
        )
        smooth: dict[str, float] = {}
        for update in bar:
            warm = min(1.0, (update + 1) / 100)
            rate = args.learning_rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * update / args.updates)))
            for group in optimizer.param_groups:
                group["lr"] = rate
            ir, vi = (image.to(device) for image in crops.batch(args.batch_size))
            worth = objective(net(ir, vi), ir, vi, goals)
            loss = loss_of(worth, goals).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            decay = min(0.998, (update + 1) / (update + 10))
            with torch.no_grad():
                for mean, weight in zip(average.parameters(), net.parameters(), strict=True):
                    mean.lerp_(weight, 1 - decay)
            for name, value in worth.items():
                now = float(value.detach().mean())
                smooth[name] = 0.98 * smooth.get(name, now) + 0.02 * now
            if update % 20 == 0:
                bar.set_postfix({name: f"{value:.1f}" for name, value in smooth.items()})
            if (update + 1) % args.save_freq == 0 or update + 1 == args.updates:
                with atomic_path(weights) as temporary:
                    torch.save(average.state_dict(), temporary)
                state = {"net": net.state_dict(), "average": average.state_dict(), "optimizer": optimizer.state_dict()}
                with atomic_path(checkpoint) as temporary:
                    torch.save({**state, "rng": crops.rng.bit_generator.state, "done": update + 1}, temporary)
    return weights


def main(argv: list[str] | None = None) -> int:
    """Runs the command; a user's mistake gives one sentence and exit code 2."""
    args = parse(argv)

    def run() -> None:
        weights = train(args)
        say(f"The teacher's weights are in {weights}.")
        say(f"Next: python train_agent.py --data {args.data} --teacher {weights}")

    return guard("train_teacher", run, "Stopped; --resume continues from the last checkpoint.")


if __name__ == "__main__":
    sys.exit(main())
