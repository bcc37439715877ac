"""The page of a run: one HTML file with curves, tables and pictures, which opens from disk and fetches nothing."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
import numpy as np

from fusion_gym.actions import ACTIONS
from fusion_gym.files import atomic_write
from fusion_gym.opencv import cv2
from fusion_gym.text import plain

NAME = "report.html"
_QUALITY = 95  # of the pictures' JPEG
_DIGITS = 6  # significant ones of a curve's values


@dataclass(frozen=True)
class Line:
    """A curve.

    Attributes:
        x: Where it has values.
        y: The values; those that are not finite leave a gap.
        said: What is shown of each value; None shows the value itself.
    """

    x: Sequence[float]
    y: Sequence[float]
    said: Sequence[str] | None = None


@dataclass(frozen=True)
class Chart:
    """Curves over one axis.

    Attributes:
        title: Heading.
    xlabel: What the horizontal axis is; charts over the same one have one cursor.
        lines: Curves by name.
        marks: Horizontal lines by name.
        points: Curves of which every value is marked with a dot, such as the best model.
    """

    title: str
    xlabel: str
    lines: Mapping[str, Line]
    marks: Mapping[str, float] = field(default_factory=dict)
    points: Mapping[str, Line] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """A table that can be sorted by each of its columns.

    Attributes:
        title: Heading.
        columns: Names of the columns; the first one names the rows.
        rows: Cells, as text.
        note: What has to be known to read it.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class Scene:
    """Pictures of one scene, of one size, to be laid over each other.

    Attributes:
        name: Name of the scene.
        images: uint8 gray (H, W) or RGB (H, W, 3), or float gray in [0, 1], by name; two or more.
    """

    name: str
    images: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Page:
    """All that is shown of a run.

    Attributes:
        title: Heading.
        lead: What was run and what came out, in sentences.
        command: The command that does it again.
        settings: The settings, as text.
        charts: Curves.
        tables: Tables.
        scenes: Pictures.
    """

    title: str
    lead: str
    command: str
    settings: str
    charts: Sequence[Chart] = ()
    tables: Sequence[Table] = ()
    scenes: Sequence[Scene] = ()


def action_lines(x: Sequence[float], actions: Mapping[str, Sequence[float]]) -> dict[str, Line]:
    """Curves of actions as shares of their ranges, so that one chart holds all; what is said is the physical value.

    Args:
        x: Where the actions were taken.
        actions: Physical values by the action's name.
    """
    lines = {}
    for name, values in actions.items():
        action = ACTIONS[name]
        shares = [(value - action.low) / (action.high - action.low) for value in values]
        lines[name] = Line(x, shares, [f"{value:.3g} {action.unit}".strip() for value in values])
    return lines


def write_page(path: str | Path, page: Page) -> None:
    """Writes the page.

    Args:
        path: The HTML file.
        page: What it shows.

    Raises:
        fusion_gym.files.FileError: If the file cannot be written.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"plain": plain, "curves": _curves, "source": _source}
    atomic_write(path, environment.get_template("page.html").render(page=page))


def _curves(chart: Chart) -> dict[str, object]:
    """The chart as the page's script takes it."""
    lines = [{"name": name, **_points(line), "dots": False} for name, line in chart.lines.items()]
    dots = [{"name": name, **_points(line), "dots": True} for name, line in chart.points.items()]
    marks = [{"name": name, "y": float(value)} for name, value in chart.marks.items() if np.isfinite(value)]
    return {"xlabel": chart.xlabel, "lines": lines + dots, "marks": marks}


def _points(line: Line) -> dict[str, list[object]]:
    figures = [float(f"{value:.{_DIGITS}g}") if np.isfinite(value) else None for value in line.y]
    said = [f"{value:.4g}" for value in line.y] if line.said is None else line.said
    return {"x": [float(value) for value in line.x], "y": list(figures), "said": list(said)}


def _source(image: np.ndarray) -> str:
    """The picture as the address of itself."""
    if image.dtype != np.uint8:
        image = (np.clip(image, 0.0, 1.0) * 255).round().astype(np.uint8)
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")
