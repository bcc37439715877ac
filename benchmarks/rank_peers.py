#!/usr/bin/env python
"""Ranks fusion networks among public methods on the same test pairs, metric by metric.

    python benchmarks/rank_peers.py --peers PEERS.json --root DATA teacher=builtin small=student:small

``PEERS.json`` holds ``{"means": {dataset: {method: {metric: value}}}}`` in the public evaluator's convention, and
``DATA/<dataset>/test/{ir,vi}`` the pairs that they were measured on. A method of ours is ``name=teacher``, with what
``--teacher`` takes elsewhere, or ``name=student:SPEC``. Ranks are over the nine metrics; invented structure and
amplified detail stand beside them, for methods whose fused images are at hand. ``--out docs/tables`` keeps the tables
as CSV files, which ``docs/tables.py`` puts into the page.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from scipy.stats import rankdata
from tqdm import tqdm

from fusion_gym.data import find_pairs, load_pairs
from fusion_gym.files import make_folder, write_csv
from fusion_gym.metrics import ARTEFACTS, REPORTED
from fusion_gym.report import means, score_outputs
from fusion_gym.teachers import fuse_pair, load_teacher
from fusion_gym.text import show_table

GROUPS = {
    "mean rank (9)": REPORTED,
    "EN SD SF AG": REPORTED[:4],
    "MI SCD VIF Qabf SSIM": REPORTED[4:],
}


def load(spec: str) -> Callable[..., Any]:
    """A fusion function: what `load_teacher` takes, or ``student:SPEC``."""
    if spec.startswith("student:"):
        from fusion_gym.fuser import load_student

        return load_student(spec.removeprefix("student:"))
    return load_teacher(spec)


def ranks(rows: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Rank of each method in each metric, 1 the best (all are larger the better; ties share their mean rank)."""
    names = list(rows)
    columns = {metric: rankdata([-rows[name][metric] for name in names]) for metric in REPORTED}
    return {name: {metric: float(columns[metric][i]) for metric in REPORTED} for i, name in enumerate(names)}


def main(argv: list[str] | None = None) -> int:
    """Prints one table per dataset."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", default=["teacher=builtin"], metavar="name=SPEC")
    parser.add_argument("--peers", type=Path, required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--datasets", nargs="+", default=["roadscene", "msrs", "tno", "m3fd"])
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="folder of a CSV file for each dataset")
    args = parser.parse_args(argv)
    peers = json.loads(args.peers.read_text())["means"]
    ours = {name: load(spec) for name, _, spec in (method.partition("=") for method in args.methods)}
    for dataset in args.datasets:
        pairs = load_pairs(find_pairs(args.root / dataset, "test"))
        outputs = {name: [fuse_pair(fuse, pair) for pair in tqdm(pairs, desc=name)] for name, fuse in ours.items()}
        rows = means(score_outputs(outputs, pairs)) | {
            name: row for name, row in peers[dataset].items() if not name.startswith("copy:")
        }
        places = ranks(rows)
        table = Table()
        kept = []
        for name in sorted(rows, key=lambda name: float(np.mean(list(places[name].values())))):
            kept.append(
                {
                    "method": name,
                    **{metric: f"{rows[name][metric]:.4g}" for metric in REPORTED},
                    **{
                        head: f"{np.mean([places[name][metric] for metric in group]):.1f}"
                        for head, group in GROUPS.items()
                    },
                    **{
                        artefact: f"{rows[name][artefact]:.4f}" if artefact in rows[name] else ""
                        for artefact in ARTEFACTS
                    },
                    "ours": "yes" if name in ours else "no",
                }
            )
        for head in ("method", *REPORTED, *GROUPS, *(f"{artefact} ↓" for artefact in ARTEFACTS)):
            table.add_column(head, justify="left" if head == "method" else "right")
        for row in kept:
            cells = (row[head] for head in ("method", *REPORTED, *GROUPS))
            shares = (f"{float(row[artefact]):.2%}" if row[artefact] else "–" for artefact in ARTEFACTS)
            table.add_row(*cells, *shares, style="bold" if row["ours"] == "yes" else None)
        if args.out is not None:
            write_csv(make_folder(args.out) / f"{dataset}.csv", kept)
        show_table(f"{dataset}/test, {len(pairs)} pairs", table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
