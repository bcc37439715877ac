"""Report of a comparison: tables on screen and in Markdown, and pictures."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from fusion_gym import rendering, report
from fusion_gym.actions import ACTIONS
from fusion_gym.cli import called
from fusion_gym.data import load_splits
from fusion_gym.files import atomic_write
from fusion_gym.metrics import ARTEFACTS, REPORTED
from fusion_gym.models.student import read_student
from fusion_gym.page import NAME, Chart, Line, Page, Scene, action_lines, write_page
from fusion_gym.page import Table as PageTable
from fusion_gym.teachers import fuse_pair
from fusion_gym.text import plain, say, show_table

from .cells import file_name
from .intervals import (
    Estimate,
    difference,
    estimate,
    interquartile_mean,
    mean_difference,
    probability_of_improvement,
)
from .rivals import CONSTANT, ORACLE

ALL = "all sets"
COLUMNS = (
    "agent",
    "score",
    "mean gain",
    "closed",
    "P(better)",
    "less {base}",
    "clean",
    "hardened",
    "unseen",
    "to teacher",
)
ON_SCREEN = 5  # columns; the others are in the file
EXPLANATION = """\
- **score**: interquartile mean, over instances and student seeds, of the fusion score on test pairs, with its 95 %
  stratified bootstrap interval (Agarwal et al. 2021, arXiv:2108.13264); **clean**, **hardened** and **unseen**: the
  same on clean pairs, under the damages that samples are hardened by, and under those that nothing is trained on.
- **mean gain**: mean of the differences to {base}, the seeds paired.
- **closed**: share that the mean gain is of {oracle}'s; only where the interval of
  that is above zero.
- **P(better)**: probability that a student of this agent scores higher than one of {base} on the same instance.
- **less {base}**: difference of the interquartile means, the seeds paired. The mean gain counts every instance alike,
  while an interquartile mean leaves out those whose scores are the highest and the lowest for whatever agent.
- **to teacher**: mean over the metrics of the ratio to the value of the student's own teacher on clean pairs."""


@dataclass(frozen=True)
class Results:
    """Everything that a comparison found.

    Attributes:
        agents: Names of the agents.
        instances: Names of the instances.
        seeds: Student seeds.
        tests: Data that was judged on.
        cells: Result of each finished cell by agent, instance and seed.
    """

    agents: Sequence[str]
    instances: Sequence[str]
    seeds: Sequence[int]
    tests: Sequence[str]
    cells: Mapping[tuple[str, str, int], Mapping[str, Any]]

    @property
    def complete(self) -> list[int]:
        """The seeds that every agent has finished on every instance; only these are compared."""
        return [s for s in self.seeds if all((a, i, s) in self.cells for a in self.agents for i in self.instances)]

    def scores(self, agent: str, tests: Iterable[str], figure: str = "score") -> np.ndarray:
        """A figure of an agent's students, (seeds, instances), as the mean over some data."""
        values = [
            [np.mean([self.cells[agent, i, s]["tests"][data][figure] for data in tests]) for i in self.instances]
            for s in self.complete
        ]
        return np.array(values)

    def mean_log(self, agent: str, name: str, instances: Sequence[str] | None = None) -> list[float]:
        """Mean over an agent's cells of a logged value, decision by decision; diverged students are left out."""
        cells = [self.cells[agent, i, s] for i in instances or self.instances for s in self.complete]
        logs = [cell["log"][name] for cell in cells if not cell["diverged"]]
        return np.mean(logs, axis=0).tolist() if logs else []

    @property
    def base(self) -> str:
        """The agent that the others are compared with: the best constant, else a constant, else the first."""
        constants = [name for name in self.agents if name.startswith("constant")]
        return next((name for name in (CONSTANT, *constants) if name in self.agents), self.agents[0])

    @property
    def groups(self) -> dict[str, list[str]]:
        """Data to report on by heading: each by itself and, where there are several, all together."""
        short = [Path(data).name for data in self.tests]
        headings = short if len(set(short)) == len(short) else self.tests
        groups = {heading: [data] for heading, data in zip(headings, self.tests, strict=True)}
        return groups if len(groups) == 1 else {**groups, ALL: list(self.tests)}


def write(
    results: Results,
    out: Path,
    students: Mapping[str, Path],
    ir_range: tuple[int, int] | None = None,
    trusted: Collection[str] = (),
) -> None:
    """Prints the tables and writes ``comparison.md`` and the pictures.

    Args:
        results: What was found.
        out: Folder of the comparison.
        students: For each agent the result file beside which a student is saved, for the contact sheet.
        ir_range: As `fusion_gym.data.load_splits` takes it, for the contact sheet too.
        trusted: As `fusion_gym.models.student.read_student` takes it.
    """
    if not results.complete:
        say("No seed has been finished by every agent on every instance: there is nothing to compare yet.")
        return
    tables = {heading: main_table(results, data) for heading, data in results.groups.items()}
    columns = [column.format(base=results.base) for column in COLUMNS]
    for heading, rows in tables.items():
        size = f"{len(results.complete)} seeds x {len(results.instances)} instances"
        title = f"{heading}: {size}, gain on {results.base}"
        shown = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for column in columns[:ON_SCREEN]:
            shown.add_column(column, justify="left" if column == "agent" else "right", overflow="fold")
        for row in rows:
            shown.add_row(*(plain(cell).replace(" [", "\n[") for cell in row[:ON_SCREEN]))
        show_table(title, shown)
    atomic_write(out / "comparison.md", _markdown(results, tables, columns))
    _pictures(results, out)
    scenes = _sheets(results, out, students, ir_range, trusted)
    _page(results, out, [PageTable(heading, columns, rows) for heading, rows in tables.items()], scenes)


def _page(results: Results, out: Path, tables: Sequence[PageTable], scenes: Sequence[Scene]) -> None:
    seeds = results.complete
    lead = (
        f"{len(seeds)} student seeds ({seeds[0]} to {seeds[-1]}) on each of {len(results.instances)} instances "
        f"({', '.join(results.instances)}). What the columns mean stands in comparison.md."
    )
    config = out / "config.yml"
    settings = config.read_text(encoding="utf-8") if config.is_file() else ""
    updates = {agent: results.mean_log(agent, "student/updates") for agent in results.agents}
    updates = {agent: x for agent, x in updates.items() if x}
    scores = {agent: Line(x, results.mean_log(agent, "score")) for agent, x in updates.items()}
    charts = [Chart("Score on the probe, mean over instances and seeds", "student updates", scores)]
    for name in ACTIONS:
        lines = {
            agent: action_lines(x[1:], {name: results.mean_log(agent, f"action/{name}")[1:]})[name]
            for agent, x in updates.items()
        }
        charts.append(Chart(f"{name}, as a share of its range", "student updates", lines))
    write_page(out / NAME, Page("Comparison of agents", lead, called(), settings, charts, tables, scenes))


def main_table(results: Results, tests: Sequence[str]) -> list[list[str]]:
    """Rows of `COLUMNS` for each agent, on some data."""
    base = results.scores(results.base, tests)
    headroom = None
    if ORACLE in results.agents and results.base != ORACLE:
        headroom = estimate(mean_difference, results.scores(ORACLE, tests), base, paired=True)
    rows = []
    for agent in results.agents:
        scores = results.scores(agent, tests)
        total, clean, hardened, unseen = (
            estimate(interquartile_mean, results.scores(agent, tests, figure)).text()
            for figure in ("score", "score_clean", "score_hardened", "score_unseen")
        )
        against = ["", "", "", ""]
        if agent != results.base:
            gain = estimate(mean_difference, scores, base, paired=True)
            clear = headroom is not None and headroom.low > 0
            against = [
                gain.text(sign=True),
                f"{100 * gain.value / headroom.value:.0f} %" if headroom is not None and clear else "",
                _better(results, agent, tests).text(),
                estimate(difference, scores, base, paired=True).text(sign=True),
            ]
        ratio = f"{results.scores(agent, tests, 'teacher_ratio').mean():.3f}"
        rows.append([agent, total, *against, clean, hardened, unseen, ratio])
    return rows


def _markdown(results: Results, tables: Mapping[str, Sequence[Sequence[str]]], columns: Sequence[str]) -> str:
    seeds = results.complete
    parts = [
        "# Comparison of agents",
        f"{len(seeds)} student seeds ({seeds[0]} to {seeds[-1]}) on each of {len(results.instances)} instances "
        f"({', '.join(results.instances)}).",
    ]
    if len(seeds) < len(results.seeds):
        parts.append(f"{len(results.seeds) - len(seeds)} seeds are left out, for not all of their cells are finished.")
    diverged = [f"{a} on {i}, seed {s}" for (a, i, s), cell in results.cells.items() if cell["diverged"]]
    if diverged:
        parts.append(f"Students that diverged, with the scores that they then have: {'; '.join(diverged)}.")
    for heading, rows in tables.items():
        parts += [f"## {heading}", _table(columns, rows)]
    parts.append(EXPLANATION.format(base=results.base, oracle=ORACLE))
    data = list(results.tests)
    by_instance = [[a, *(f"{x:.3f}" for x in results.scores(a, data).mean(0))] for a in results.agents]
    parts += ["## Mean score by instance", _table(["agent", *results.instances], by_instance)]
    for name in ACTIONS:
        rows = [
            [a, *(f"{np.mean(results.mean_log(a, f'action/{name}', [i])[1:]):.2f}" for i in results.instances)]
            for a in results.agents
        ]
        parts += [f"## Mean {name} by instance", _table(["agent", *results.instances], rows)]
    for heading, tests in results.groups.items():
        for suffix, pairs in (("", "clean"), ("_hardened", "hardened")):
            rows = [
                [
                    a,
                    *(f"{results.scores(a, tests, name + suffix).mean():.3f}" for name in REPORTED),
                    *(f"{results.scores(a, tests, name + suffix).mean():.2%}" for name in ARTEFACTS),
                ]
                for a in results.agents
            ]
            columns = ["agent", *REPORTED, *(f"{name} (less is better)" for name in ARTEFACTS)]
            parts += [f"## {heading}: mean metrics on {pairs} pairs", _table(columns, rows)]
    return "\n\n".join(parts) + "\n"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] + ["---:"] * (len(columns) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _triple(found: Estimate) -> tuple[float, float, float]:
    return found.value, found.low, found.high


def _pictures(results: Results, out: Path) -> None:
    """Draws intervals, probabilities of improvement, scores over the updates and actions over time."""
    groups, base = results.groups, results.base
    intervals = {
        heading: {a: _triple(estimate(interquartile_mean, results.scores(a, tests))) for a in results.agents}
        for heading, tests in groups.items()
    }
    pictures = {
        "intervals": rendering.plot_intervals(intervals, "fusion score", "Interquartile mean, 95 % bootstrap interval")
    }
    others = [agent for agent in results.agents if agent != base]
    if others:
        better = {
            heading: {a: _triple(_better(results, a, tests)) for a in others} for heading, tests in groups.items()
        }
        title = f"Probability of a better student than by {base}"
        pictures["improvement"] = rendering.plot_intervals(better, "probability", title, mark=0.5)
    updates = {agent: results.mean_log(agent, "student/updates") for agent in results.agents}
    updates = {agent: values for agent, values in updates.items() if values}
    scores = {agent: (x, results.mean_log(agent, "score")) for agent, x in updates.items()}
    pictures["scores"] = rendering.plot_curves(
        scores, "student updates", "fusion score", "Score on the probe, mean over instances and seeds"
    )
    # The setting that is logged with a state is the one that led to it, so the curves begin with the first decision.
    pictures["actions"] = np.concatenate(
        [
            rendering.plot_curves(
                {a: (x[1:], results.mean_log(a, f"action/{name}")[1:]) for a, x in updates.items()},
                "student updates",
                component.unit,
                f"{name}, mean over instances and seeds",
            )
            for name, component in ACTIONS.items()
        ]
    )
    for name, picture in pictures.items():
        rendering.save_picture(out / f"{name}.png", picture)


def _better(results: Results, agent: str, tests: Sequence[str]) -> Estimate:
    x, y = results.scores(agent, tests), results.scores(results.base, tests)
    return estimate(probability_of_improvement, x, y, repetitions=2000)


def _sheets(
    results: Results,
    out: Path,
    students: Mapping[str, Path],
    ir_range: tuple[int, int] | None,
    trusted: Collection[str],
) -> list[Scene]:
    """Draws a contact sheet for each test set: a column for each agent, by its student of the first seed.

    Returns:
        The first and the last of each set's pairs.
    """
    nets, scenes = {}, []
    for agent in results.agents:
        file = students[agent].with_suffix(".pt")
        if file.is_file():
            nets[agent] = read_student(file, trusted)
    for heading, tests in results.groups.items():
        if heading == ALL:
            continue
        pairs = load_splits(tests[0], ir_range).test
        chosen = report.spread(pairs)
        outputs = {agent: [fuse_pair(net, pair) for pair in chosen] for agent, net in nets.items()}
        rows = report.sheet_rows(outputs, chosen)
        names = [plain(pair.name) for pair in chosen]
        rendering.save_picture(out / f"contact_sheet_{file_name(heading)}.png", rendering.contact_sheet(rows, names))
        scenes += [Scene(f"{heading}: {names[index]}", rows[index]) for index in sorted({0, len(rows) - 1})]
    return scenes
