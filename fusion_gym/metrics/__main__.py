"""Scores folders of fused images: ``python -m fusion_gym.metrics --ir DIR --vi DIR --fused DIR [DIR ...]``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from rich import box
from rich.table import Table
from tqdm import tqdm

from fusion_gym.cli import Parser, guard
from fusion_gym.files import write_csv, write_json
from fusion_gym.metrics.evaluation import CONVENTIONS
from fusion_gym.metrics.folders import Values, common, ranks, score_folders, summarise
from fusion_gym.metrics.table import METRICS, definitions
from fusion_gym.outputs import check_outputs
from fusion_gym.sources import add_range
from fusion_gym.tensors import resolve_device
from fusion_gym.text import plain, say, show_table


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = Parser(
        prog="python -m fusion_gym.metrics",
        description="Scores folders of fused images. Files belong together by name, whatever their format; "
        "colour images are scored on their luminance.",
    )
    parser.add_argument("--ir", type=Path, metavar="DIR", help="infrared images")
    parser.add_argument("--vi", type=Path, metavar="DIR", help="visible images")
    parser.add_argument("--fused", type=Path, nargs="+", metavar="DIR", help="fused images, a folder for each method")
    parser.add_argument("--metrics", nargs="+", metavar="NAME", help="metrics (default: all that the convention has)")
    parser.add_argument(
        "--convention",
        choices=CONVENTIONS,
        default=CONVENTIONS[0],
        help="cddfuse: the numbers of the evaluator behind most published tables (sums over the two sources, MI in "
        "nats); default: %(default)s, as --list documents",
    )
    add_range(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write mean, std and the values of every image")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the values of every image")
    parser.add_argument(
        "--images", action=argparse.BooleanOptionalAction, default=True, help="print the values of every image"
    )
    parser.add_argument(
        "--progress", action=argparse.BooleanOptionalAction, help="progress bar (default: on a terminal)"
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="threads of torch (default: as torch chooses)")
    parser.add_argument("--list", action="store_true", help="print the definitions of all metrics and stop")
    args = parser.parse_args(arguments)
    if not args.list and None in (args.ir, args.vi, args.fused):
        parser.error("give --ir, --vi and --fused, or --list")
    if args.threads is not None and args.threads < 1:
        parser.error(f"--threads {args.threads} is not allowed; give a whole number from 1 on")
    return args


def _arrow(metric: str) -> str:
    return f"{metric} {'↑' if METRICS[metric].higher_is_better else '↓'}"


def _figure(value: float) -> str:
    return f"{value:#.4g}".rstrip(".")


def show_folder(name: str, values: Values, images: bool) -> None:
    """Prints the table of one folder: the images, their mean and their standard deviation."""
    mean, std = summarise(values)
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("")
    for metric in mean:
        table.add_column(_arrow(metric), justify="right", no_wrap=True)
    rows: Mapping[str, Mapping[str, float]] = {**(values if images else {}), "mean": mean, "± std": std}
    for label, row in rows.items():
        table.add_row(plain(label), *map(_figure, row.values()), end_section=images and label == list(values)[-1])
    show_table(f"{name}: {len(values)} images", table)


def show_ranks(scores: Mapping[str, Values]) -> None:
    """Prints the means and ranks of several methods over the images that all of them have."""
    shared = common(scores)
    count = len(next(iter(shared.values())))
    if count == 0:
        say("No image is in all folders, so there are no ranks.")
        return
    means = {name: summarise(values)[0] for name, values in shared.items()}
    placed = ranks(means)
    overall = {name: float(np.mean(list(row.values()))) for name, row in placed.items()}
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("")
    table.add_column("mean rank", justify="right")
    for metric in next(iter(means.values())):
        table.add_column(_arrow(metric), justify="right", no_wrap=True)
    for name in sorted(overall, key=lambda each: overall[each]):
        cells = (f"{_figure(means[name][metric])} ({rank:g})" for metric, rank in placed[name].items())
        table.add_row(plain(name), f"{overall[name]:.2f}", *cells)
    show_table(f"means and ranks over the {count} images that all methods have, best first", table)


def write(scores: Mapping[str, Values], args: argparse.Namespace) -> None:
    """Writes the files that were asked for."""
    if args.json is not None:
        summaries = {name: summarise(values) for name, values in scores.items()}
        write_json(
            args.json,
            {name: {"mean": mean, "std": std, "images": scores[name]} for name, (mean, std) in summaries.items()},
        )
    if args.csv is not None:
        write_csv(
            args.csv,
            [
                {"method": name, "image": image, **row}
                for name, values in scores.items()
                for image, row in values.items()
            ],
        )


def run(args: argparse.Namespace) -> None:
    """Does what the command line asks."""
    if args.list:
        say(*definitions().splitlines())
        return
    for file in (args.json, args.csv):
        if file is not None and not file.parent.is_dir():
            raise ValueError(f"There is no folder {file.parent} to write {file.name} to; create it first.")
    check_outputs((args.json, args.csv), folders=(args.ir, args.vi, *args.fused))
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    hidden = None if args.progress is None else not args.progress
    scores, notes = score_folders(
        args.ir,
        args.vi,
        args.fused,
        args.metrics,
        args.convention,
        resolve_device(args.device),
        lambda stems: tqdm(stems, desc="scoring", unit="pair", dynamic_ncols=True, disable=hidden),
        args.ir_range,
    )
    write(scores, args)
    for name, values in scores.items():
        show_folder(name, values, args.images)
    if len(scores) > 1:
        show_ranks(scores)
    for note in notes:
        say(note, error=True)
    count = sum(map(len, scores.values()))
    written = " and ".join(str(file) for file in (args.json, args.csv) if file is not None)
    where = f"; the values are in {written}." if written else "; --json FILE or --csv FILE keeps the values."
    say(f"{count} images of {len(scores)} folders scored in the convention {args.convention}{where}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    return guard("fusion_gym.metrics", lambda: run(parse(arguments)), "Stopped; nothing was written.")


if __name__ == "__main__":
    sys.exit(main())
