#!/usr/bin/env python
"""What the shipped students cost on one CPU thread, beside networks of published shapes, in one run.

    python benchmarks/bench_student.py [PART ...] [--repetitions 15] [--json student.json]

Parts: ``latency`` (640x480, ONNX Runtime, float and 8-bit students), ``int8`` (what quantisation leaves of each
metric, on ``--data``), ``video`` (two minutes of 640x480 at 25 frames per second, through the command).
"""

from __future__ import annotations

import argparse
import functools
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

import cv2
import numpy as np
import torch
from harness import compare, parse_parts, save, show
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from fusion_gym.data import load_splits, synthetic_pairs
from fusion_gym.export import describe, macs_per_pixel, onnx_model
from fusion_gym.memory import keep_freed_memory
from fusion_gym.models.agentfuse import AgentFuse
from fusion_gym.models.student import STUDENTS, Student, StudentError, read_student, weights_of
from fusion_gym.quantize import metric_ratios, quantised
from fusion_gym.runtime import onnx_session
from fusion_gym.synthetic import generate_scenes
from fusion_gym.video import write_video

SIZE = (480, 640)
RATE, SECONDS = 25, 120


class TwoConvolutions(nn.Module):
    """The shape of MMDRFuse's student: two 3x3 convolutions at full resolution, 2 to 4 to 1 channels; 113 weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, ir: Tensor, vi: Tensor) -> Tensor:
        """Fuses two images, (N, 1, H, W) each."""
        return torch.sigmoid(self.second(F.leaky_relu(self.first(torch.cat((ir, vi), dim=1)))))


SMALLEST, PUBLISHED = "shape of MMDRFuse's student", "shape of AgentFuse's student"


def student(name: str) -> Student:
    """A shipped student; one of random weights where it is not shipped yet, for its cost is the same."""
    try:
        return read_student(weights_of(name))
    except StudentError as error:
        print(f"{error} Random weights are measured.", file=sys.stderr)
        made = Student(**STUDENTS[name], generator=torch.Generator().manual_seed(0))
        return made.eval().requires_grad_(False)


def bench_latency(args: argparse.Namespace) -> dict[str, Any]:
    """Students, their 8-bit forms and networks of published shapes, in turn."""
    networks: dict[str, nn.Module] = {SMALLEST: TwoConvolutions().eval(), PUBLISHED: AgentFuse().eval()}
    networks |= {name: student(name) for name in STUDENTS}
    models = {name: onnx_model(network, {}) for name, network in networks.items()}
    content = {name: model.SerializeToString() for name, model in models.items()}
    pairs = synthetic_pairs(4, 96, 0)
    content |= {f"{name}, int8": quantised(models[name], pairs) for name in STUDENTS}
    rng = np.random.default_rng(0)
    feed = {name: rng.random((1, 1, *SIZE), dtype=np.float32) for name in ("ir", "vi")}
    sessions = {name: onnx_session(one, threads=1) for name, one in content.items()}
    sides = {name: functools.partial(session.run, None, feed) for name, session in sessions.items()}
    took = compare(sides, args.repetitions, "latency")
    result = {}
    for name, row in took.items():
        network = networks.get(name.removesuffix(", int8"))
        assert network is not None
        result[name] = {
            "weights": sum(weight.numel() for weight in network.parameters()),
            "GMAC": _macs(network) * SIZE[0] * SIZE[1] / 1e9,
            "ms": 1e3 * row["median"],
            "ms low": 1e3 * row["low"],
            "ms high": 1e3 * row["high"],
            "processor ms": 1e3 * row["processor"],
            f"x {SMALLEST.split()[2]}": took[SMALLEST]["processor"] / row["processor"],
            f"x {PUBLISHED.split()[2]}": took[PUBLISHED]["processor"] / row["processor"],
        }
    show("640x480, one thread, ONNX Runtime; the last columns: how many times faster, in processor time", result)
    return result


def _macs(network: nn.Module) -> float:
    """Multiply-accumulates per pixel; a transposed convolution's are counted by its inputs."""
    total = 0.0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        nonlocal total
        assert isinstance(module, nn.ConvTranspose2d)
        total += inputs[0].numel() * module.weight[0].numel() / 64**2

    layers = [module for module in network.modules() if isinstance(module, nn.ConvTranspose2d)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    plain = macs_per_pixel(network)
    for hook in hooks:
        hook.remove()
    return plain + total


def bench_int8(args: argparse.Namespace) -> dict[str, Any]:
    """What quantisation leaves of each metric's mean, in per cent."""
    splits = load_splits(args.data)
    train, test = (part[:: -(-len(part) // args.pairs)] for part in (splits.train or splits.test, splits.test))
    result = {}
    for name in tqdm(STUDENTS, desc="int8", leave=False):
        model = onnx_model(student(name), describe(student(name)))
        plain, small = (onnx_session(one, threads=1) for one in (model.SerializeToString(), quantised(model, train)))
        ratios = metric_ratios(plain, small, test)
        result[name] = {"mean": 100 * mean(ratios.values())} | {key: 100 * value for key, value in ratios.items()}
    show(f"8-bit students, per cent of the float one's metrics; {len(test)} test pairs of {args.data}", result)
    return result


def _film(channels: slice) -> Iterator[np.ndarray]:
    """A camera that wanders over a scene."""
    scene = cv2.resize(generate_scenes(1, 256, 3)[0][..., channels], (1024, 1024), interpolation=cv2.INTER_CUBIC)
    scene = scene if scene.ndim == 3 else np.repeat(scene[..., None], 3, axis=2)
    for frame in range(RATE * SECONDS):
        y, x = (
            round((1024 - side) * (0.5 + 0.5 * np.sin(frame / pace))) for side, pace in zip(SIZE, (97, 61), strict=True)
        )
        yield np.ascontiguousarray(scene[y : y + SIZE[0], x : x + SIZE[1]])


def bench_video(args: argparse.Namespace) -> dict[str, Any]:
    """A two-minute pair through ``python -m fusion_gym.fuse``: speed, and the largest memory of the process."""
    result = {}
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{name}.mp4" for name in ("ir", "vi")}
        for (name, path), channels in zip(files.items(), (slice(0, 1), slice(1, 4)), strict=True):
            write_video(path, tqdm(_film(channels), total=RATE * SECONDS, desc=f"make {name}", leave=False), RATE)
        for name in args.students:
            out = Path(folder) / f"{name}.mp4"
            command = [sys.executable, "-m", "fusion_gym.fuse", "--ir", files["ir"], "--vi", files["vi"], "--out", out]
            command += ["--student", name, "--backend", "onnx", "--threads", str(args.threads), "--no-progress"]
            before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            subprocess.run([str(part) for part in command], check=True)
            took, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
            spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            result[name] = {
                "frames": RATE * SECONDS,
                "seconds": took,
                "frames per second": RATE * SECONDS / took,
                "processor seconds": spent,
                "largest MB so far": after.ru_maxrss / 1024,
            }
    show(f"Two minutes of 640x480 at {RATE} frames per second, start of the process included", result)
    return result


PARTS = {"latency": bench_latency, "int8": bench_int8, "video": bench_video}


def main() -> None:
    """Runs the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--data", default="synthetic", help="pairs for int8: calibrated on train, measured on test")
    parser.add_argument("--pairs", type=int, default=16, help="number of pairs for int8")
    parser.add_argument("--students", nargs="+", default=list(STUDENTS), help="students for video")
    parser.add_argument("--threads", type=int, default=2, help="threads for video")
    parser.add_argument("--json", type=Path, help="file for the figures")
    args = parse_parts(parser, PARTS)
    torch.set_num_threads(1)
    keep_freed_memory()
    results = {part: PARTS[part](args) for part in args.parts}
    if args.json:
        save(args.json, results)


if __name__ == "__main__":
    main()
