#!/usr/bin/env python
"""Draws the pictures of README and docs from the sample pairs and synthetic scenes: ``python docs/pictures.py``.

With ``--before FOLDER``, which holds the students' weights of an earlier version, also what became better.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import gymnasium as gym
import numpy as np
import torch

import fusion_gym
from agents import load_agent
from fusion_gym.data import ImagePair, Pair, load_pairs
from fusion_gym.fuser import load_student
from fusion_gym.hardening import damage, draw
from fusion_gym.images import luminance
from fusion_gym.rendering import contact_sheet, save_picture
from fusion_gym.report import sheet_rows
from fusion_gym.synthetic import generate_scene
from fusion_gym.teachers import builtin_teacher, fuse_pair
from fusion_gym.tensors import Fuse, unit

IMAGES = Path(__file__).parent / "images"
SHOWN = ("day", "night", "smoke")
SKIES = ("tno_24", "tno_37")  # sample pairs on which halos and dark corners were to be seen
DAMAGE = {"blur": 0.5, "noise": 0.5, "illumination": 1.0, "contrast": 1.0}


def pairs() -> dict[str, ImagePair]:
    """The first scene of each kind that is shown."""
    found: dict[str, ImagePair] = {}
    seed = 0
    while len(found) < len(SHOWN):
        scene = generate_scene(np.random.default_rng(seed), 320, 426)
        if scene.kind in SHOWN and scene.kind not in found:
            found[scene.kind] = ImagePair(scene.kind, scene.ir, luminance(scene.vi), scene.vi)
        seed += 1
    return {kind: found[kind] for kind in SHOWN}


def real() -> dict[str, ImagePair]:
    """The sample pairs, as far as they are there, by name."""
    files = [Pair(sample.ir.name, sample.ir, sample.vi) for sample in fusion_gym.samples()]
    return {pair.name.removesuffix(".png"): pair for pair in load_pairs(files)}


def hardened(pair: ImagePair, name: str, strength: float) -> ImagePair:
    """The pair with one degradation, an under-exposed one for illumination."""
    drawn = draw(1, torch.Generator().manual_seed(0))._replace(dark=torch.ones(1, dtype=torch.bool))
    sources = (unit(image)[None, None] for image in (pair.ir, pair.vi))
    ir, vi = (image[0, 0].mul(255).round().byte().numpy() for image in damage(*sources, {name: strength}, drawn))
    return ImagePair(name, ir, vi, cv2.cvtColor(vi, cv2.COLOR_GRAY2BGR))


def sheet(file: str, shown: Mapping[str, ImagePair], methods: Mapping[str, Fuse]) -> None:
    """Infrared, visible and what methods make of them, side by side."""
    outputs = {name: [fuse_pair(fuse, pair) for pair in shown.values()] for name, fuse in methods.items()}
    save_picture(IMAGES / file, contact_sheet(sheet_rows(outputs, list(shown.values())), list(shown)))


def full_size(file: str, pair: ImagePair, methods: Mapping[str, Fuse]) -> None:
    """What methods make of a pair, side by side, pixel by pixel."""
    fused = [fuse_pair(fuse, pair) for fuse in methods.values()]
    gap = np.full((fused[0].shape[0], 8), 255, np.uint8)
    parts = [part for image in fused for part in (image, gap)][:-1]
    save_picture(IMAGES / file, cv2.cvtColor(np.hstack(parts), cv2.COLOR_GRAY2RGB))


def beside_teacher(student: str) -> dict[str, Fuse]:
    """The teacher and a student."""
    return {"teacher": builtin_teacher(), f"student ({student})": load_student(student)}


def before_and_after(folder: Path, students: Sequence[str]) -> dict[str, Fuse]:
    """Students with the weights in a folder, and as they come with the package."""
    files = {name: str(folder / f"student_{name}.pt") for name in students}
    return {
        f"{name}, {when}": load_student(spec)
        for name in students
        for when, spec in (("before", files[name]), ("now", name))
    }


def frame() -> None:
    """What `render` gives late in an episode under the shipped agent."""
    env = gym.make("FusionDistill-v0", teacher="builtin", render_mode="rgb_array")
    agent = load_agent("ppo", env)
    observation, _ = env.reset(seed=3)
    for _ in range(14):
        observation, *_ = env.step(agent.predict(observation, deterministic=True)[0])
    save_picture(IMAGES / "frame.png", env.render())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, metavar="FOLDER")
    before = parser.parse_args().before
    IMAGES.mkdir(exist_ok=True)
    scenes = pairs()
    sheet("scenes.png", {**real(), "synthetic": scenes["night"]}, beside_teacher("small"))
    damaged = {f"{name} {strength:g}": hardened(scenes["day"], name, strength) for name, strength in DAMAGE.items()}
    sheet("hardened.png", damaged, beside_teacher("base"))
    if before is not None:
        sheet("halos.png", real(), before_and_after(before, ("tiny", "base")))
        for name in SKIES:
            full_size(f"{name}.png", real()[name], before_and_after(before, ("tiny",)))
    frame()
    print(f"The pictures are in {IMAGES}.")
