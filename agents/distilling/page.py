"""The page of a distilled student (`fusion_gym.page`)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fusion_gym.metrics import ARTEFACTS, REPORTED
from fusion_gym.page import NAME, Page, Scene, Table, write_page
from fusion_gym.report import share

from ..pages import course

NOTE = f"{' and '.join(ARTEFACTS)}: shares of the image, less is better; of all others more is better."


def method_table(title: str, means: Mapping[str, Mapping[str, float]]) -> Table:
    """Mean metrics by method, and how much of the teacher's the student has."""
    rows = [
        [name, *(f"{row[m]:.4g}" for m in REPORTED), *(f"{row[m]:.2%}" for m in ARTEFACTS)]
        for name, row in means.items()
    ]
    shares = [share(means["student"][name], means["teacher"][name]) for name in REPORTED]
    rows.append(
        [
            "student, of teacher",
            *("" if math.isnan(value) else f"{value:.0%}" for value in shares),
            *("" for _ in ARTEFACTS),
        ]
    )
    return Table(title, ["method", *REPORTED, *ARTEFACTS], rows, NOTE)


def student_page(
    out: Path,
    title: str,
    command: str,
    settings: str,
    log: Sequence[Mapping[str, float]],
    judged: Mapping[str, Mapping[str, Any]],
    scenes: Sequence[Scene],
) -> Path:
    """Writes the page of a student.

    Args:
        out: Folder of the run.
        title: Heading.
        command: What does it again.
        settings: The configuration.
        log: The infos of its training.
        judged: By test data, ``mean`` metrics by method and ``images``.
        scenes: Fused test pairs.

    Returns:
        The page.
    """
    tables = [
        method_table(f"{data}: {len(found['images']['student'])} test pairs", found["mean"])
        for data, found in judged.items()
    ]
    lead = f"The fusion score on the probe went from {log[0]['score']:.3f} to {log[-1]['score']:.3f}."
    write_page(out / NAME, Page(title, lead, command, settings, course(log), tables, scenes))
    return out / NAME
