"""Trains the built-in teacher: ``python -m fusion_gym.train_teacher --data FOLDER[,FOLDER…][,synthetic]``.

The loss is made of the fusion metrics themselves, see `fusion_gym.objective`.
"""

from __future__ import annotations

import argparse
import copy
import math
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from fusion_gym.archives import read_tensors, write_tensors
from fusion_gym.cli import Parser, UserError, check_seed, guard
from fusion_gym.data import ImagePair, load_splits, sets_of
from fusion_gym.folders import of_run, unused
from fusion_gym.hardening import illumination
from fusion_gym.memory import keep_freed_memory
from fusion_gym.metrics import METRICS
from fusion_gym.models.teacher import Teacher
from fusion_gym.objective import GOALS, Goal, loss_of, objective
from fusion_gym.outputs import check_outputs
from fusion_gym.sources import add_range
from fusion_gym.stopping import Stopped, whole
from fusion_gym.teachers import load_weights
from fusion_gym.tensors import resolve_device, unit
from fusion_gym.text import Notice, say

CHECKPOINT = "checkpoint.pt"


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
        small = sum(map(len, pairs)) - sum(map(len, self.sets))
        if small:
            every = sum(map(len, pairs))
            said = f"{small} of {every} training pairs are left out, for they are smaller than --crop {size}."
            warnings.warn(said, Notice, stacklevel=2)
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

    def unlit(self, vi: Tensor, share: float) -> Tensor:
        """Visible crops, (N, 1, H, W) in [0, 1], a share of them under- or over-exposed, at strengths from U(0, 1)."""
        if share == 0:
            return vi
        chosen, strength, dark = torch.from_numpy(self.rng.random((3, len(vi)))).to(vi)
        return illumination(vi, strength * (chosen < share), dark < 0.5)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = Parser(
        prog="python -m fusion_gym.train_teacher",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
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
    parser.add_argument(
        "--unlit",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="share of the crops whose visible image is under- or over-exposed before it is fused; worth is judged "
        "against the image as it was",
    )
    parser.add_argument("--start", type=Path, help="weights to start from")
    parser.add_argument(
        "--goals", nargs="+", default=[], metavar="METRIC=WEIGHT", help="weights of metrics in the objective"
    )
    parser.add_argument("--resume", action="store_true", help="continue from the checkpoint in --out")
    parser.add_argument("--progress", action=argparse.BooleanOptionalAction, default=True)
    return parser.parse_args(argv)


@dataclass
class Training:
    """A teacher in training: all that continuing depends on.

    Attributes:
        net: The network that is trained.
        average: Its weights, averaged over updates, which are the teacher's.
        optimizer: The optimiser.
        crops: Where the batches come from.
        done: Updates made.
    """

    net: Teacher
    average: Teacher
    optimizer: torch.optim.Adam
    crops: Crops
    done: int = 0

    @classmethod
    def begin(cls, args: argparse.Namespace, crops: Crops, device: str) -> Training:
        """A new training, from the weights of ``--start`` where they are given."""
        net = Teacher(generator=torch.Generator().manual_seed(args.seed))
        if args.start is not None:
            load_weights(net, args.start)
        net = net.to(device)
        return cls(net, copy.deepcopy(net), torch.optim.Adam(net.parameters(), lr=args.learning_rate), crops)

    def save(self, weights: Path, checkpoint: Path) -> None:
        """Writes the teacher's weights, and all else that continuing needs."""
        write_tensors(weights, self.average.state_dict())
        state = {
            "net": self.net.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": self.crops.rng.bit_generator.state,
            "done": self.done,
        }
        write_tensors(checkpoint, state)

    def load(self, checkpoint: Path, device: str) -> None:
        """Goes on from a checkpoint.

        Raises:
            UserError: If it cannot be read, is damaged, or is not of this training.
        """
        state = read_tensors(checkpoint, device)
        try:
            self.net.load_state_dict(state["net"])
            self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.crops.rng.bit_generator.state = state["rng"]
            self.done = int(state["done"])
        except Exception as error:  # whatever a file can hold instead of a training's state
            raise UserError(f"{checkpoint} is damaged, or of another command; give another --out.") from error

    def update(self, args: argparse.Namespace, goals: dict[str, Goal]) -> dict[str, float]:
        """Makes one update; the mean of what each metric is worth."""
        warm = min(1.0, (self.done + 1) / 100)
        rate = args.learning_rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * self.done / args.updates)))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        device = next(self.net.parameters()).device
        ir, vi = (image.to(device) for image in self.crops.batch(args.batch_size))
        seen = self.crops.unlit(vi, args.unlit)
        worth = objective(self.net(ir, seen), ir, vi, goals)
        loss = loss_of(worth, goals).mean()
        if not torch.isfinite(loss):
            raise UserError(f"The training diverged at update {self.done}; lower --learning-rate.")
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimizer.step()
        decay = min(0.998, (self.done + 1) / (self.done + 10))
        with torch.no_grad():
            for mean, weight in zip(self.average.parameters(), self.net.parameters(), strict=True):
                mean.lerp_(weight, 1 - decay)
        self.done += 1
        return {name: float(value.detach().mean()) for name, value in worth.items()}


def train(args: argparse.Namespace) -> tuple[Path, int]:
    """Trains the teacher; leaves ``teacher.pt`` (weights, averaged over updates) and a checkpoint.

    Returns:
        The weights' file, and the number of updates made now.

    Raises:
        ValueError: If the data or the checkpoint cannot be used.
    """
    goals = parse_goals(args.goals)
    if not any(goal.weight for goal in goals.values()):
        raise UserError("--goals: every weight is 0, so that there is nothing to train for; give one above 0.")
    least = max(METRICS[name].min_side for name in goals)
    if args.crop < least:
        raise UserError(f"--crop {args.crop} is too small for the metrics of the objective; give {least} or more.")
    checkpoint, weights = args.out / CHECKPOINT, args.out / "teacher.pt"
    if args.resume and not checkpoint.is_file():
        raise UserError(f"{checkpoint} does not exist; start without --resume.")
    if not args.resume:
        unused(args.out)
    check_outputs([checkpoint, weights], [] if args.start is None else [args.start], data=[args.data])
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    device = resolve_device(args.device)
    pairs = [load_splits(part, args.ir_range).train for part in sets_of(args.data)]
    training = Training.begin(args, Crops(pairs, args.crop, args.seed), device)
    with of_run(args.out if args.resume else None, args.out, args.out):
        if args.resume:
            training.load(checkpoint, device)
        before = training.done
        smooth: dict[str, float] = {}
        bar = tqdm(total=args.updates, initial=before, dynamic_ncols=True, disable=not args.progress, desc="teacher")
        try:
            while training.done < args.updates:
                with whole():
                    worth = training.update(args, goals)
                for name, value in worth.items():
                    smooth[name] = 0.98 * smooth.get(name, value) + 0.02 * value
                bar.update()
                if training.done % 20 == 1:
                    bar.set_postfix({name: f"{value:.1f}" for name, value in smooth.items()})
                if training.done % args.save_freq == 0 and training.done < args.updates:
                    training.save(weights, checkpoint)
        finally:
            bar.close()
            if training.done > before and sys.exc_info()[0] in (None, Stopped):  # which comes between two updates
                training.save(weights, checkpoint)
    return weights, training.done - before


def run(args: argparse.Namespace) -> None:
    """Does what the command line asks."""
    for name in ("batch_size", "crop", "save_freq", "threads"):
        if getattr(args, name) < 1:
            option = f"--{name.replace('_', '-')} {getattr(args, name)}"
            raise UserError(f"{option} is not allowed; give a number from 1 on.")
    if args.updates < 0:
        raise UserError(f"--updates {args.updates} is not allowed; give a number from 0 on.")
    if not 0 < args.learning_rate < math.inf:
        raise UserError(f"--learning-rate {args.learning_rate} is not allowed; give a number above 0.")
    if not 0 <= args.unlit <= 1:
        raise UserError(f"--unlit {args.unlit} is not allowed; give a share from 0 to 1.")
    check_seed(args.seed)
    if args.resume and args.start is not None:
        raise UserError("--start is where a training begins; leave it out with --resume.")
    if not args.updates:
        say("Nothing was trained: --updates is 0.")
        return
    weights, made = train(args)
    if not made:
        say(f"Nothing was trained: the checkpoint in {args.out} has {args.updates} updates or more.")
    if weights.is_file():
        say(f"The teacher's weights are in {weights}.")
        say(f"Next: python train_agent.py --data {args.data} --teacher {weights}")


def main(argv: list[str] | None = None) -> int:
    """Runs the command; a user's mistake gives one sentence and exit code 2."""
    return guard("train_teacher", lambda: run(parse(argv)), "Stopped; --resume goes on from what was saved.")


if __name__ == "__main__":
    sys.exit(main())
