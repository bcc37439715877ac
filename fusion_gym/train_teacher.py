"""Trains the built-in teacher: ``python -m fusion_gym.train_teacher --data FOLDER[,FOLDER…][,synthetic]``.

The loss is made of the fusion metrics themselves, in differentiable form: what a fused image keeps of both sources
(SSIM, VIF, Qabf, SCD, MI) and what it shows by itself (EN, SD, SF, AG), the latter relative to the brighter source
and capped, so that neither noise nor tone-mapping is worth more than the sources are.
"""

from __future__ import annotations

import argparse
import copy
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from fusion_gym.data import ImagePair, load_splits
from fusion_gym.files import atomic_path
from fusion_gym.memory import keep_freed_memory
from fusion_gym.metrics import Sources, evaluate_per_source
from fusion_gym.models.teacher import Teacher

BINS = 64
SIMILARITY = ("SSIM", "VIF", "Qabf", "SCD")
STATISTICS = ("SD", "SF", "AG")


@dataclass(frozen=True)
class Goal:
    """What one metric is worth.

    Attributes:
        weight: Gain of the objective for one unit of the metric (of its logarithm for SD, SF and AG).
        cap: Lead over the brighter source at each pixel above which more is worth nothing; infinite for no cap.
    """

    weight: float
    cap: float = math.inf


# Weights by how densely public methods stand in each metric on public test pairs; what is far from them counts less.
GOALS: dict[str, Goal] = {
    "SSIM": Goal(300.0, 0.04),
    "VIF": Goal(60.0),
    "Qabf": Goal(120.0),
    "SCD": Goal(40.0),
    "MI": Goal(36.0),
    "EN": Goal(28.0, 0.45),
    "SD": Goal(28.0, 0.30),
    "SF": Goal(22.0, 0.32),
    "AG": Goal(22.0, 0.38),
}


def soft_entropies(fused: Tensor, source: Tensor) -> tuple[Tensor, Tensor]:
    """Entropy of the fused image and its mutual information with a source, over `BINS` linearly interpolated bins.

    Args:
        fused: (N, 1, H, W) in [0, 1]; differentiable.
        source: Same shape and range.

    Returns:
        Entropy and mutual information, (N,) each, in bits.
    """
    count = fused.shape[0]
    at = fused.flatten(1) * (BINS - 1)
    low = at.detach().floor().clamp(0, BINS - 2)
    share = at - low
    column = (source.flatten(1) * (BINS - 1)).round().long()
    joint = fused.new_zeros(count, BINS * BINS)
    for step, weight in ((0, 1 - share), (1, share)):
        joint = joint.scatter_add(1, (low.long() + step) * BINS + column, weight)
    joint = (joint / at.shape[1]).view(count, BINS, BINS)
    rows, columns = joint.sum(2), joint.sum(1)
    entropy = _entropy(rows)
    return entropy, entropy + _entropy(columns) - _entropy(joint.flatten(1))


def _entropy(probability: Tensor) -> Tensor:
    return -(probability * torch.log2(probability.clamp_min(1e-9))).sum(1)


def _capped(value: Tensor, cap: float, softness: float = 0.05) -> Tensor:
    """The value below the cap, levelling off smoothly around it."""
    return cap - softness * F.softplus((cap - value) / softness)


def objective(fused: Tensor, ir: Tensor, vi: Tensor, goals: Mapping[str, Goal] = GOALS) -> dict[str, Tensor]:
    """Worth of fused images by metric, (N,) each; their sum is what the teacher's training maximises.

    Metrics that relate to the sources count half by their sum and half by twice the smaller one, so that serving
    one source only does not pay.

    Args:
        fused: (N, 1, H, W) in [0, 1].
        ir: Infrared, same shape and range.
        vi: Visible luminance, same shape and range.
        goals: What each metric is worth.
    """
    sources = Sources(ir, vi)
    values = evaluate_per_source(fused, sources, (*SIMILARITY, *STATISTICS))
    brighter = torch.maximum(ir, vi)
    with torch.no_grad():
        floor = evaluate_per_source(brighter, sources, ("SSIM", *STATISTICS))
        plain_entropy, _ = soft_entropies(brighter, ir)
    entropy, with_ir = soft_entropies(fused, ir)
    _, with_vi = soft_entropies(fused, vi)
    lead = (values["SSIM"] - floor["SSIM"]).sum(1)
    worth = {"SSIM": goals["SSIM"].weight * _capped(lead, goals["SSIM"].cap, softness=0.01)}
    worth["SCD"] = goals["SCD"].weight * values["SCD"].sum(1)
    for name in ("VIF", "Qabf"):
        worth[name] = goals[name].weight * (0.5 * values[name].sum(1) + values[name].amin(1))
    worth["MI"] = goals["MI"].weight * (with_ir + with_vi)
    worth["EN"] = goals["EN"].weight * _capped(entropy - plain_entropy, goals["EN"].cap)
    for name in STATISTICS:
        relative = torch.log((values[name] + 1) / (floor[name] + 1))
        worth[name] = goals[name].weight * _capped(relative, goals[name].cap)
    return worth


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
        images = torch.from_numpy(np.ascontiguousarray(np.stack(crops))).float() / 255
        return images[:, :1], images[:, 1:]


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="synthetic", help="folders of pairs joined by commas, or synthetic")
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
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    device = ("cuda" if torch.cuda.is_available() else "cpu") if args.device == "auto" else args.device
    crops = Crops([load_splits(part).train for part in args.data.split(",")], args.crop, args.seed)
    net = Teacher(generator=torch.Generator().manual_seed(args.seed)).to(device)
    if args.start is not None:
        net.load_state_dict(torch.load(args.start, map_location=device, weights_only=True))
    average = copy.deepcopy(net)
    optimizer = torch.optim.Adam(net.parameters(), lr=args.learning_rate)
    args.out.mkdir(parents=True, exist_ok=True)
    done = 0
    if args.resume:
        state: dict[str, Any] = torch.load(checkpoint, map_location=device, weights_only=True)
        net.load_state_dict(state["net"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        crops.rng.bit_generator.state = state["rng"]
        done = state["done"]
    bar = tqdm(range(done, args.updates), initial=done, total=args.updates, disable=not args.progress, desc="teacher")
    smooth: dict[str, float] = {}
    for update in bar:
        warm = min(1.0, (update + 1) / 100)
        rate = args.learning_rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * update / args.updates)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        ir, vi = (image.to(device) for image in crops.batch(args.batch_size))
        worth = objective(net(ir, vi), ir, vi, goals)
        loss = -torch.stack(list(worth.values())).sum(0).mean() / sum(goal.weight for goal in goals.values())
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
    try:
        weights = train(args)
    except KeyboardInterrupt:
        print("Stopped; --resume continues from the last checkpoint.", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        print(f"train_teacher: {error}", file=sys.stderr)
        return 2
    print(f"The teacher's weights are in {weights}.")
    print(f"Next: python train_agent.py --data {args.data} --teacher {weights}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
