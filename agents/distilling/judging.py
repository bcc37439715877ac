"""What became of a student: curves of its training, and metrics and pictures of it on test pairs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from torch import nn
from tqdm import tqdm

from fusion_gym import files, page, rendering, report
from fusion_gym.data import load_splits
from fusion_gym.metrics import ARTEFACTS, REPORTED
from fusion_gym.rules import RULES
from fusion_gym.teachers import fuse_pair, fused_pairs
from fusion_gym.text import plain, show_table

from .student_run import StudentRun

DONE = "metrics.json"


def curves(log: list[dict[str, float]], out: Path) -> None:
    """Draws losses, scores and actions over the updates, and writes all that was recorded."""
    updates = [entry["student/updates"] for entry in log]
    for name, prefix, label in (
        ("losses", "student/loss_", "loss"),
        ("scores", "score", "fusion score"),
        ("actions", "action/", "physical value"),
    ):
        keys = [key for key in log[0] if key.startswith(prefix)]
        series = {key.split("/")[-1]: (updates, [entry[key] for entry in log]) for key in keys}
        rendering.save_picture(out / f"{name}.png", rendering.plot_curves(series, "student updates", label, name))
    files.write_csv(out / "log.csv", log)


def judge(student: nn.Module, run: StudentRun, out: Path, progress: bool) -> tuple[dict[str, Any], list[page.Scene]]:
    """Scores student, teacher and rules on the test pairs; writes tables and contact sheets in colour.

    Returns:
        By test data, the mean metrics and those of each pair; and the pictures of the first data's pairs.
    """
    result: dict[str, Any] = {}
    scenes: list[page.Scene] = []
    rows = []
    for number, data in enumerate(run.datasets):
        pairs = load_splits(data, run.ir_range).test
        rules = {name.removeprefix("rule:"): RULES[name] for name in ("rule:laplacian", "rule:guided")}
        outputs = {
            "student": [fuse_pair(student, pair) for pair in pairs],
            "teacher": fused_pairs(run.teacher, pairs),
            **report.baselines(pairs),
            **{name: [fuse_pair(rule, pair) for pair in pairs] for name, rule in rules.items()},
        }
        table = report.score_outputs(
            outputs,
            pairs,
            track=lambda loop: tqdm(loop, dynamic_ncols=True, disable=not progress, unit="pair", desc="judge"),
        )
        result[data] = {"mean": report.means(table), "images": table}
        for method, images in table.items():
            rows += [{"data": data, "method": method, "image": name, **row} for name, row in images.items()]
        files.write_csv(out / "metrics.csv", rows)  # before the pictures: they take the files of the pairs once more
        files.write_json(out / DONE, result)
        shown = report.sheet_rows({name: outputs[name] for name in ("teacher", "student")}, pairs)
        name = "contact_sheet.png" if number == 0 else f"contact_sheet_{number}.png"
        names = [plain(pair.name) for pair in report.spread(pairs)]
        rendering.save_picture(out / name, rendering.contact_sheet(shown, names))
        scenes = scenes or [page.Scene(*scene) for scene in zip(names, shown, strict=True)]
    for data, judged in result.items():
        show(f"{data}: {len(judged['images']['student'])} test pairs", judged["mean"])
    return result, scenes


def show(title: str, table: dict[str, dict[str, float]]) -> None:
    """Prints a table of mean metrics by method, and how much of the teacher's the student has."""
    shown = Table(box=box.SIMPLE, padding=0)  # 80 columns hold it
    shown.add_column("method", no_wrap=True)
    for name in REPORTED:
        shown.add_column(name, justify="right", no_wrap=True)
    for name in ARTEFACTS:
        shown.add_column(f"{name[:3]}. ↓", justify="right", no_wrap=True)
    for method, row in table.items():
        cells = (*(_short(row[name]) for name in REPORTED), *(f"{row[name]:.2%}" for name in ARTEFACTS))
        shown.add_row(method, *cells, end_section=method == list(table)[-1])
    shares = [report.share(table["student"][name], table["teacher"][name]) for name in REPORTED]
    shown.add_row("of teacher", *("-" if math.isnan(share) else f"{share:.0%}" for share in shares))
    show_table(title, shown)


def _short(value: float) -> str:
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.3f}"
