#!/usr/bin/env python
"""What degraded pairs cost students and the teacher: points of the fusion score lost, for each hardening by itself.

    python benchmarks/bench_hardened.py --root DATA [--sets roadscene msrs tno] base=student:base small=student:small

A network sees the degraded pair and is scored against the clean one, as on the probe: by crops of 128×128, one of each
test pair in ``DATA/<set>/test/{ir,vi}``. The loss is its score on clean pairs less that on degraded ones, in
hundredths; in the second table the teacher's is 1. A method is ``name=teacher``, with what ``--teacher`` takes
elsewhere, or ``name=student:SPEC``.

The same two tables follow for damages that nothing was trained on, haze, rain, stripes and bloom: `fusion_gym.damages`.

The row ``restored`` says what there is to win: it is the teacher on pairs whose damage was undone by something that
knows its kind and its strength, so far as it can be undone. Light and contrast are turned back exactly where nothing
was clipped, blur by Wiener's filter, noise by non-local means (Buades et al. 2005, OpenCV's). No network is told.
"""

from __future__ import annotations

import argparse
import sys
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import torch
from harness import save, show
from rank_peers import load
from torch import Tensor
from torch.nn import functional as F

from fusion_gym.cli import guard
from fusion_gym.damages import DAMAGES
from fusion_gym.data import find_pairs, load_pairs, probe_crops
from fusion_gym.hardening import BLUR_SIGMA, DIMMING, FADING, GLARE, HARDENINGS, NOISE_STD, Draw, damage, draw
from fusion_gym.score import Yardstick
from fusion_gym.tensors import Fuse, unit

STRENGTHS = (0.5, 1.0)
CROP = 128
TEACHER = "builtin"
WIENER = 1e-5  # noise over signal that the filter expects: blurred frequencies gain up to 158 times
MARGIN = 24  # pixels repeated around an image before it is sharpened


def crops(folder: Path) -> tuple[Tensor, Tensor]:
    """Infrared and visible crops of the test pairs, (N, 1, 128, 128) in [0, 1] each."""
    stacks = [np.stack((pair.ir, pair.vi)) for pair in load_pairs(find_pairs(folder, "test"))]
    pairs = unit(probe_crops(stacks, CROP, len(stacks)))
    return pairs[:, :1], pairs[:, 1:]


def denoised(image: Tensor, strength: float) -> Tensor:
    """Non-local means that knows the noise's standard deviation."""
    eight_bit = (image * 255).round().to(torch.uint8).numpy()
    h = 0.8 * 255 * NOISE_STD * strength
    return unit(np.stack([[cv2.fastNlMeansDenoising(x[0], h=h)] for x in eight_bit]))


def sharpened(image: Tensor, strength: float) -> Tensor:
    """Wiener's filter for a Gaussian blur of known width."""
    padded = F.pad(image, (MARGIN,) * 4, mode="replicate")
    height, width = padded.shape[-2:]
    frequency = torch.fft.fftfreq(height)[:, None] ** 2 + torch.fft.rfftfreq(width) ** 2
    transfer = torch.exp(-2 * (torch.pi * BLUR_SIGMA * strength) ** 2 * frequency)
    inverse = transfer / (transfer**2 + WIENER)
    whole = torch.fft.irfft2(torch.fft.rfft2(padded) * inverse, s=(height, width))
    return whole[..., MARGIN:-MARGIN, MARGIN:-MARGIN].clamp(0, 1)


def relit(vi: Tensor, strength: float, dark: Tensor) -> Tensor:
    """Turns back `fusion_gym.hardening.illumination`, but for what was clipped."""
    brighter = (vi / (1 - DIMMING * strength)).clamp(0, 1).pow(1 / (1 + 0.5 * strength))
    darker = ((vi - 0.15 * strength) / (1 + GLARE * strength)).clamp(0, 1)
    return torch.where(dark.view(-1, 1, 1, 1), brighter, darker)


def restored(name: str, strength: float, ir: Tensor, vi: Tensor, drawn: Draw) -> tuple[Tensor, Tensor]:
    """A degraded pair, made as good again as one can who knows what was done to it."""
    if name == "blur":
        return sharpened(ir, strength), sharpened(vi, strength)
    if name == "noise":
        return denoised(ir, strength), denoised(vi, strength)
    if name == "illumination":
        return ir, relit(vi, strength, drawn.dark)
    if name == "contrast":
        mean = ir.mean(dim=(2, 3), keepdim=True)
        return mean + (ir - mean) / (1 - FADING * strength), vi
    return ir, vi


def losses(fuse: Fuse, inputs: dict[str, tuple[Tensor, Tensor]], yardstick: Yardstick) -> dict[str, float]:
    """Points of the score lost by each kind of degradation."""
    points = {
        name: 100 * float(yardstick.score(fuse(*pair).clamp(0, 1), damaged=name != "clean").mean())
        for name, pair in inputs.items()
    }
    return {name: points["clean"] - value for name, value in points.items() if name != "clean"}


def rounded(table: dict[str, dict[str, float]]) -> dict[str, dict[str, str]]:
    """The table with two decimals."""
    return {name: {kind: f"{value:.2f}" for kind, value in row.items()} for name, row in table.items()}


def run(args: argparse.Namespace) -> None:
    """Does what the command line asks."""
    networks: dict[str, Fuse] = {"teacher": load(TEACHER)}
    networks |= {name: load(spec) for name, _, spec in (method.partition("=") for method in args.methods)}
    totals: dict[str, list[dict[str, float]]] = {name: [] for name in (*networks, "restored")}
    unseen: dict[str, list[dict[str, float]]] = {name: [] for name in networks}
    with torch.inference_mode():
        for each in args.sets:
            ir, vi = crops(args.root / each)
            drawn = draw(len(ir), torch.Generator().manual_seed(0))
            inputs, undone = {"clean": (ir, vi)}, {"clean": (ir, vi)}
            for hardening, strength in product(HARDENINGS, STRENGTHS):
                kind = f"{hardening} {strength:g}"
                inputs[kind] = damage(ir, vi, {hardening: strength}, drawn)
                undone[kind] = restored(hardening, strength, *inputs[kind], drawn)
            yardstick = Yardstick(ir, vi, networks["teacher"](ir, vi))
            never = {"clean": (ir, vi)}
            for kind, strength in product(DAMAGES, STRENGTHS):
                never[f"{kind} {strength:g}"] = DAMAGES[kind](ir, vi, strength, torch.Generator().manual_seed(0))
            for name, fuse in networks.items():
                totals[name].append(losses(fuse, inputs, yardstick))
                unseen[name].append(losses(fuse, never, yardstick))
            totals["restored"].append(losses(networks["teacher"], undone, yardstick))
    results: dict[str, object] = {"sets": args.sets}
    for title, rows in (("degraded pairs", totals), ("pairs with damages that nothing was trained on", unseen)):
        table = {
            name: {kind: float(np.mean([row[kind] for row in each])) for kind in each[0]} for name, each in rows.items()
        }
        shares = {
            name: {kind: value / table["teacher"][kind] for kind, value in row.items()}
            | {"all": sum(row.values()) / sum(table["teacher"].values())}
            for name, row in table.items()
        }
        show(f"Hundredths of the score lost on {title}; mean over {', '.join(args.sets)}", rounded(table))
        show("The same relative to the teacher's loss", rounded(shares))
        results[title] = {"lost": table, "shares": shares}
    if args.json:
        save(args.json, results)


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
