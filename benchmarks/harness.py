"""Benchmarks that compare their sides in one run: interleaved repetitions, medians and spread, the machine, JSON.

On a machine that does other work too, only sides that were timed in turn are comparable; each repetition times every
side once, in an order that rotates. Wall time is what a user waits for; processor time is shown beside it, for it
suffers less from the neighbours.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.table import Table
from tqdm import trange

from fusion_gym.files import write_json
from fusion_gym.text import show_table


def machine() -> dict[str, Any]:
    """What the figures depend on: processor, cores, load at the start, versions."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].split(":", 1)[1].strip() if lines else model
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "gymnasium", "stable-baselines3", "numpy")},
    }


def parse_parts(parser: argparse.ArgumentParser, parts: Iterable[str]) -> argparse.Namespace:
    """Parses the command line, with the parts of a benchmark to run as ``parts``: all where none is named."""
    known = list(parts)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of: {', '.join(known)} (default: all)")
    args = parser.parse_args()
    unknown = [part for part in args.parts if part not in known]
    if unknown:
        parser.error(f"there is no part {unknown[0]!r}; give some of: {', '.join(known)}")
    args.parts = args.parts or known
    return args


def summary(values: list[float]) -> dict[str, float]:
    """Median and quartiles; with less than three values, the extremes in place of the quartiles."""
    low, _, high = statistics.quantiles(values, n=4) if len(values) > 2 else (min(values), 0, max(values))
    return {"median": statistics.median(values), "low": low, "high": high}


def _processor() -> float:
    children = os.times()
    return time.process_time() + children.children_user + children.children_system


def compare(sides: Mapping[str, Callable[[], object]], repetitions: int, label: str = "") -> dict[str, Any]:
    """Times sides in turn, after one call of each that does not count.

    Args:
        sides: What to call, by name; each does the same work at every call.
        repetitions: Times that every side is timed.
        label: Text of the progress bar.

    Returns:
        By side: median, low and high quartile of the wall seconds, and ``processor``, the median of the processor
        seconds of this process and of the children that it has waited for.
    """
    for call in sides.values():
        call()
    wall: dict[str, list[float]] = {name: [] for name in sides}
    processor: dict[str, list[float]] = {name: [] for name in sides}
    names = list(sides)
    for repetition in trange(repetitions, desc=label, leave=False):
        turn = repetition % len(names)
        for name in names[turn:] + names[:turn]:
            before, spent = time.perf_counter(), _processor()
            sides[name]()
            wall[name].append(time.perf_counter() - before)
            processor[name].append(_processor() - spent)
    return {name: {**summary(wall[name]), "processor": statistics.median(processor[name])} for name in names}


def show(title: str, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints a table: a row for each name, a column for each key of the first row."""
    columns = list(next(iter(rows.values())))
    table = Table(box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right")
    for name, row in rows.items():
        table.add_row(name, *(f"{row[c]:.4g}" if isinstance(row[c], float) else str(row[c]) for c in columns))
    show_table(title, table)


def save(path: str | Path, results: Mapping[str, Any]) -> None:
    """Writes results with the machine beside them."""
    write_json(path, {"machine": machine(), **results})
    print(f"Figures are in {path}.")
