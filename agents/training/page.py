"""The page of an agent's training (`fusion_gym.page`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from fusion_gym.page import NAME, Chart, Line, Page, Scene, Table, write_page

from ..pages import course
from .evaluation import Outcome
from .runs import best_point, learning_curves


def probe_scene(env: gym.Env) -> Scene:
    """The pair of an episode's probe with the most to see, with what teacher and student make of it."""
    plain: Any = env.unwrapped
    probe = plain.task.probe
    one = slice(probe.telling, probe.telling + 1)
    with torch.no_grad():
        student = plain.distiller.student(probe.ir[one], probe.vi[one])
    named = {"infrared": probe.ir[one], "visible": probe.vi[one], "teacher": probe.teacher[one], "student": student}
    return Scene("a pair of the probe", {name: image[0, 0].cpu().numpy() for name, image in named.items()})


def outcome_table(outcomes: Mapping[str, Outcome], base: str = "constant") -> Table:
    """Returns and final scores of agents on the same students, and their gains over one of them."""
    rows = []
    for label, outcome in sorted(outcomes.items(), key=lambda item: -float(np.mean(item[1].returns))):
        row = outcome.summary()
        gain = ""
        if label != base and len(outcome.returns) == len(outcomes[base].returns):
            gains = np.subtract(outcome.returns, outcomes[base].returns)
            gain = f"{gains.mean():+.2f} ± {np.std(gains, ddof=min(1, len(gains) - 1)) / np.sqrt(len(gains)):.2f}"
        scores = [f"{row[f'{name}_mean']:.4g} ± {row[f'{name}_std']:.2g}" for name in ("return", "score")]
        rows.append([label, *scores, gain, str(len(outcome.returns))])
    note = "Means ± standard deviations over fresh students; gains are paired, ± their standard error."
    return Table("Fresh students", ["agent", "return", "final score", f"gain over {base}", "episodes"], rows, note)


def training_page(
    out: Path,
    title: str,
    command: str,
    settings: str,
    outcomes: Mapping[str, Outcome],
    log: Sequence[Mapping[str, float]],
    scene: Scene,
) -> Path:
    """Writes the page of an agent's training.

    Args:
        out: Folder of the run, with ``progress.csv``.
        title: Heading.
        command: What does it again.
        settings: The configuration.
        outcomes: What was found on fresh students: trained, constant, random.
        log: The infos of one episode under the best model.
        scene: Pictures of that episode's end.

    Returns:
        The page.
    """
    series = learning_curves(out)
    best = best_point(out)
    constant = float(np.mean(outcomes["constant"].returns))
    curve = Chart(
        "Learning curve: return of an episode",
        "environment steps",
        {name: Line(x, y) for name, (x, y) in series.items()},
        {"default constant, on fresh students": constant},
        {} if best is None else {"best model": Line([best[0]], [best[1]])},
    )
    gain = float(np.mean(outcomes["trained"].returns)) - constant
    lead = (
        f"Over {len(outcomes['trained'].returns)} fresh students the agent's mean return is {gain:+.2f} over that of "
        "the default constant. Below the learning curve: one episode under the best model."
    )
    page = Page(title, lead, command, settings, [curve, *course(log)], [outcome_table(outcomes)], [scene])
    write_page(out / NAME, page)
    return out / NAME
