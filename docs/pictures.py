#!/usr/bin/env python
"""Draws the pictures of README and docs from synthetic scenes: ``python docs/pictures.py``."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np

import fusion_gym  # noqa: F401  (registers the ids)
from agents import load_agent
from fusion_gym.data import ImagePair
from fusion_gym.fuser import load_student
from fusion_gym.images import luminance
from fusion_gym.rendering import contact_sheet, save_picture
from fusion_gym.report import sheet_rows
from fusion_gym.synthetic import generate_scene
from fusion_gym.teachers import builtin_teacher, fuse_pair

IMAGES = Path(__file__).parent / "images"
SHOWN = ("day", "night", "smoke")


def scenes() -> None:
    """Infrared, visible, teacher and student, side by side."""
    pairs: dict[str, ImagePair] = {}
    seed = 0
    while len(pairs) < len(SHOWN):
        scene = generate_scene(np.random.default_rng(seed), 320, 426)
        if scene.kind in SHOWN and scene.kind not in pairs:
            pairs[scene.kind] = ImagePair(scene.kind, scene.ir, luminance(scene.vi), scene.vi)
        seed += 1
    shown = [pairs[kind] for kind in SHOWN]
    methods = {"teacher": builtin_teacher(), "student (small)": load_student("small")}
    outputs = {name: [fuse_pair(fuse, pair) for pair in shown] for name, fuse in methods.items()}
    save_picture(IMAGES / "scenes.png", contact_sheet(sheet_rows(outputs, shown), list(SHOWN)))


def frame() -> None:
    """What `render` gives late in an episode under the shipped agent."""
    env = gym.make("FusionDistill-v0", teacher="builtin", render_mode="rgb_array")
    agent = load_agent("ppo", env)
    observation, _ = env.reset(seed=3)
    for _ in range(14):
        observation, *_ = env.step(agent.predict(observation, deterministic=True)[0])
    save_picture(IMAGES / "frame.png", env.render())


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    scenes()
    frame()
    print(f"The pictures are in {IMAGES}.")
