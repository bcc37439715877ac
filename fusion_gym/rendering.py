"""Pictures: the environment's frame, contact sheets and curves, drawn without a display.

Everything is drawn on canvases of its own with Matplotlib's Agg backend; pyplot's global state is not touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fusion_gym.actions import ACTIONS
from fusion_gym.conditions import HARDENINGS
from fusion_gym.episode import Episode
from fusion_gym.images import write_image
from fusion_gym.opencv import cv2
from fusion_gym.probe import Probe
from fusion_gym.tensors import Fuse
from fusion_gym.text import plain

_DPI = 100
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")  # Okabe and Ito
_STYLES = ("-", "--", ":", "-.")
_GAP, _LABEL = 6, 22  # pixels of a contact sheet


def _pixels(figure: Figure) -> np.ndarray:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])


def _literal(name: str) -> str:
    """A name for Matplotlib, to which dollar signs are formulas and an underscore in front hides a curve."""
    shown = plain(name).replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def _curves(axes: Axes, series: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> None:
    for index, (name, (x, y)) in enumerate(series.items()):
        style = _STYLES[index // len(_COLOURS) % len(_STYLES)]
        marker = "o" if len(x) < 40 else None
        axes.plot(
            x,
            y,
            style,
            color=_COLOURS[index % len(_COLOURS)],
            label=_literal(name),
            marker=marker,
            markersize=3,
            lw=1.6,
        )
    axes.grid(alpha=0.25, lw=0.6)
    axes.margins(x=0.02)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, handlelength=2.5)


def render_frame(
    images: Mapping[str, np.ndarray],
    history: Mapping[str, Sequence[float]],
    actions: Mapping[str, Sequence[float]],
    title: str,
) -> np.ndarray:
    """One frame of an episode: labelled panels, the scores and the actions so far.

    Args:
        images: Gray panels by label, float (H, W) in [0, 1], all of one shape; they fill two rows, column by
            column.
        history: Scores after each decision, by name; the first value is before any decision.
        actions: Physical values of each decision, by the action's name; drawn as shares of their ranges.
        title: Heading.

    Returns:
        uint8 (H, W, 3) RGB; the shape does not depend on the values nor on how many decisions there are.
    """
    figure = Figure(figsize=(12.0, 5.6), dpi=_DPI, facecolor="white")
    figure.text(0.012, 0.965, title, fontsize=12, fontweight="bold", va="center")
    columns = -(-len(images) // 2)
    panels = figure.add_gridspec(2, columns, left=0.012, right=0.585, top=0.905, bottom=0.02, wspace=0.04, hspace=0.12)
    for index, (name, image) in enumerate(images.items()):
        axes = figure.add_subplot(panels[index % 2, index // 2])
        axes.imshow(image, cmap="gray", vmin=0.0, vmax=1.0, interpolation="lanczos")
        axes.set_title(name, fontsize=9, pad=4)
        axes.set_axis_off()
    plots = figure.add_gridspec(2, 1, left=0.635, right=0.885, top=0.905, bottom=0.09, hspace=0.27)
    shares = {
        name: [(value - ACTIONS[name].low) / (ACTIONS[name].high - ACTIONS[name].low) for value in values]
        for name, values in actions.items()
    }
    for row, (heading, values) in enumerate((("score", history), ("action, share of its range", shares))):
        axes = figure.add_subplot(plots[row, 0])
        _curves(axes, {name: (range(len(line)), line) for name, line in values.items()})
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        axes.set_title(heading, fontsize=9, loc="left", pad=4)
        if values is shares:
            axes.set_ylim(-0.04, 1.04)
            axes.set_xlabel("decision", fontsize=9)
    return _pixels(figure)


def render_episode(episode: Episode, probe: Probe, student: Fuse) -> np.ndarray:
    """The frame of an episode's present: sources, hardened sources, teacher, student, and the curves so far.

    Args:
        episode: The episode.
        probe: Its probe, of which the most telling pair is shown.
        student: Its student.

    Returns:
        As `render_frame`.
    """
    shown = probe.telling
    damaged = max(HARDENINGS, key=lambda name: episode.deployment[name])
    one = slice(shown, shown + 1)
    with torch.no_grad():
        fused = student(probe.ir[one], probe.vi[one])
    pictures = {
        "infrared": probe.ir[one],
        "visible": probe.vi[one],
        f"infrared, {damaged}": probe.pairs[damaged][0][one],
        f"visible, {damaged}": probe.pairs[damaged][1][one],
        "teacher": probe.teacher[one],
        "student": fused,
    }
    title = f"decision {episode.step}/{episode.steps}   score {episode.score:.3f}"
    panels = {name: image[0, 0].cpu().numpy() for name, image in pictures.items()}
    return render_frame(panels, episode.history, episode.actions, title)


def plot_curves(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    xlabel: str,
    ylabel: str,
    title: str,
    marks: Mapping[str, float] | None = None,
    points: Mapping[str, tuple[float, float]] | None = None,
) -> np.ndarray:
    """Curves in one plot.

    Args:
        series: x and y values by name.
        xlabel: Label of the horizontal axis.
        ylabel: Label of the vertical axis.
        title: Heading.
        marks: Values that get a horizontal line, by name.
        points: Places, x and y, that get a star, by name.

    Returns:
        uint8 (H, W, 3) RGB.
    """
    marks, points = marks or {}, points or {}
    left, plot = 0.8, 6.3  # inches
    legend = 0.7 + 0.075 * max(map(len, (*series, *marks, *points)), default=0)
    width = left + plot + legend
    figure = Figure(figsize=(width, 4.5), dpi=_DPI, facecolor="white")
    axes = figure.add_axes((left / width, 0.13, plot / width, 0.77))
    for name, value in marks.items():
        axes.axhline(value, color=_COLOURS[7], ls="--", lw=1.2, label=name)
    for name, (x, y) in points.items():
        axes.plot([x], [y], "*", color=_COLOURS[4], markersize=13, label=name, zorder=3)
    _curves(axes, series)
    axes.set_title(_literal(title), loc="left", fontsize=11, fontweight="bold")
    axes.set_xlabel(xlabel, fontsize=9)
    axes.set_ylabel(ylabel, fontsize=9)
    return _pixels(figure)


def plot_intervals(
    panels: Mapping[str, Mapping[str, tuple[float, float, float]]], xlabel: str, title: str, mark: float | None = None
) -> np.ndarray:
    """Values with their intervals: a panel beside the other for each group, a line in it for each name.

    Args:
        panels: Value, lower and upper end by name, for each panel; the same names in every panel, the first on top.
        xlabel: Label of the values.
        title: Heading.
        mark: A value that gets a vertical line in every panel.

    Returns:
        uint8 (H, W, 3) RGB.
    """
    names = list(next(iter(panels.values())))
    left, height = 0.4 + 0.075 * max(len(name) for name in names), 1.3 + 0.28 * len(names)  # inches
    width = left + 3.2 * len(panels)
    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white")
    grid = figure.add_gridspec(
        1,
        len(panels),
        left=left / width,
        right=1 - 0.15 / width,
        top=1 - 0.65 / height,
        bottom=0.5 / height,
        wspace=0.08,
    )
    rows = np.arange(len(names))
    for column, (heading, values) in enumerate(panels.items()):
        axes = figure.add_subplot(grid[0, column])
        middle, low, high = np.array([values[name] for name in names], dtype=np.float64).T
        axes.barh(rows, high - low, left=low, height=0.55, color=_COLOURS[5], alpha=0.6)
        axes.vlines(middle, rows - 0.275, rows + 0.275, color=_COLOURS[0], lw=1.8)
        if mark is not None:
            axes.axvline(mark, color=_COLOURS[1], lw=1.0, ls="--")
        axes.set_yticks(rows, list(map(_literal, names)) if column == 0 else [""] * len(names))
        axes.invert_yaxis()
        axes.use_sticky_edges = False  # else the longest bar touches the frame
        axes.margins(x=0.05)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.grid(axis="x", alpha=0.25, lw=0.6)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.set_title(_literal(heading), fontsize=9, loc="left", pad=4)
        axes.set_xlabel(_literal(xlabel), fontsize=9)
    figure.text(0.012, 1 - 0.22 / height, _literal(title), fontsize=11, fontweight="bold", va="center")
    return _pixels(figure)


def contact_sheet(rows: Sequence[Mapping[str, np.ndarray]], labels: Sequence[str], height: int = 240) -> np.ndarray:
    """Images in a grid: a column for each name, a row for each scene.

    Args:
        rows: Images by name, uint8 or float in [0, 1], (H, W) or RGB (H, W, 3); the same names in every row.
        labels: A label for each row; "" leaves it out.
        height: Height that every image is scaled to, in pixels; wider images than 4:3 are made lower instead.

    Returns:
        uint8 (H, W, 3) RGB.

    Raises:
        ValueError: If there are no rows, or their number is not that of the labels.
    """
    if not rows or len(rows) != len(labels):
        raise ValueError(f"A contact sheet needs a label for each row; there are {len(rows)} and {len(labels)}.")
    cells = [[_cell(image, height, height * 4 // 3) for image in row.values()] for row in rows]
    width = max(cell.shape[1] for row in cells for cell in row)
    heights = [max(cell.shape[0] for cell in row) for row in cells]
    step = width + _GAP
    sheet = np.full((_LABEL + sum(heights) + _GAP * len(rows), step * len(rows[0]) + _GAP, 3), 255, np.uint8)
    for column, name in enumerate(rows[0]):
        _write(sheet, name, (_GAP + column * step, _LABEL - 7), (0, 0, 0))
    top = _LABEL
    for row, label, tall in zip(cells, labels, heights, strict=True):
        for column, cell in enumerate(row):
            left = _GAP + column * step + (width - cell.shape[1]) // 2
            sheet[top : top + cell.shape[0], left : left + cell.shape[1]] = cell
        if label:
            left = _GAP + (width - row[0].shape[1]) // 2
            _write(sheet, label, (left + 6, top + 18), (0, 0, 0), backed=True)
        top += tall + _GAP
    return sheet


def _cell(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """An image as uint8 RGB, scaled to fit into a cell."""
    if image.dtype != np.uint8:
        image = (np.clip(image, 0.0, 1.0) * 255).round().astype(np.uint8)
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=2)
    scale = min(height / image.shape[0], width / image.shape[1])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def _write(
    picture: np.ndarray, text: str, where: tuple[int, int], colour: tuple[int, int, int], backed: bool = False
) -> None:
    if backed and text:
        (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)
        x, y = where
        cv2.rectangle(picture, (x - 3, y - height - 3), (x + width + 3, y + below), (255, 255, 255), cv2.FILLED)
    cv2.putText(picture, text, where, cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, 1, cv2.LINE_AA)


def save_picture(path: str | Path, picture: np.ndarray) -> None:
    """Writes an RGB picture, uint8 (H, W, 3), in the format of the suffix.

    Raises:
        fusion_gym.images.ImageError: If the format is unknown.
        fusion_gym.files.FileError: If the file cannot be written.
    """
    write_image(path, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
