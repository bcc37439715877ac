#!/usr/bin/env python
"""What degraded pairs cost students and the teacher: points of the fusion score lost, for each hardening by itself.

    python benchmarks/bench_hardened.py --root DATA [--sets roadscene msrs tno] base=student:base small=student:small

A network sees the degraded pair and is scored against the clean one, as on the probe: by crops of 128×128, one of each
test pair in ``DATA/<set>/test/{ir,vi}``. The loss is its score on clean pairs less that on degraded ones, in
hundredths; in the second table the teacher's is 1. A method is ``name=teacher``, with what ``--teacher`` takes
elsewhere, or ``name=student:SPEC``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from harness import save, show
from rank_peers import load
from torch import Tensor

from fusion_gym.cli import guard
from fusion_gym.data import find_pairs, load_pairs, probe_crops
from fusion_gym.hardening import HARDENINGS, draw, harden
from fusion_gym.metrics import Sources
from fusion_gym.probe import Fuse
from fusion_gym.score import measure, ratios, score

STRENGTHS = (0.5, 1.0)
CROP = 128
TEACHER = "builtin"


def crops(folder: Path) -> tuple[Tensor, Tensor]:
    """Infrared and visible crops of the test pairs, (N, 1, 128, 128) in [0, 1] each."""
    stacks = [np.stack((pair.ir, pair.vi)) for pair in load_pairs(find_pairs(folder, "test"))]
    pairs = torch.from_numpy(probe_crops(stacks, CROP, len(stacks))).float() / 255
    return pairs[:, :1], pairs[:, 1:]


def degraded(ir: Tensor, vi: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """The clean pairs and each hardening at each strength, by name."""
    drawn = draw(len(ir), torch.Generator().manual_seed(0), full=True)
    hard = {f"{name} {s:g}": harden(ir, vi, {name: s}, drawn) for name in HARDENINGS for s in STRENGTHS}
    return {"clean": (ir, vi), **hard}


def losses(fuse: Fuse, inputs: dict[str, tuple[Tensor, Tensor]], reference: Tensor) -> dict[str, float]:
    """Points of the score lost by each kind of degradation."""
    sources = Sources(*inputs["clean"])
    known = measure(reference, sources)
    points = {
        name: 100 * float(score(ratios(measure(fuse(*pair).clamp(0, 1), sources), known)).mean())
        for name, pair in inputs.items()
    }
    return {name: points["clean"] - value for name, value in points.items() if name != "clean"}


def run(args: argparse.Namespace) -> None:
    """Does what the command line asks."""
    networks: dict[str, Fuse] = {"teacher": load(TEACHER)}
    networks |= {name: load(spec) for name, _, spec in (method.partition("=") for method in args.methods)}
    totals: dict[str, list[dict[str, float]]] = {name: [] for name in networks}
    with torch.inference_mode():
        for each in args.sets:
            inputs = degraded(*crops(args.root / each))
            reference = networks["teacher"](*inputs["clean"])
            for name, fuse in networks.items():
                totals[name].append(losses(fuse, inputs, reference))
    table = {
        name: {kind: float(np.mean([row[kind] for row in rows])) for kind in rows[0]} for name, rows in totals.items()
    }
    shares = {
        name: {kind: value / table["teacher"][kind] for kind, value in row.items()}
        | {"all": sum(row.values()) / sum(table["teacher"].values())}
        for name, row in table.items()
    }
    show(f"Hundredths of the score lost on degraded pairs; mean over {', '.join(args.sets)}", table)
    show("The same relative to the teacher's loss", shares)
    if args.json:
        save(args.json, {"sets": args.sets, "lost": table, "shares": shares})


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "methods", nargs="*", metavar="name=SPEC", default=[f"{s}=student:{s}" for s in ("base", "small", "tiny")]
    )
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=["roadscene", "msrs", "tno"])
    parser.add_argument("--json", type=Path, help="file for the figures")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(guard("bench_hardened.py", lambda: run(parse()), "Stopped."))
