#!/usr/bin/env python
"""Does a measure agree with the eye? Sheets of fused images in pairs, without names, and what the answers say.

    python benchmarks/blind_pairs.py --root DATA --out sheets teacher=builtin tiny=student:tiny max=rule:max
    python benchmarks/blind_pairs.py --out sheets --score

It draws test pairs of ``DATA/<set>/test`` and two methods for each, such that their invented structure differs by
``--least``, and writes rows of infrared, visible, A and B; each pair comes twice, in both orders, far from each other.
Write A, B or = beside each row's number into ``sheets/answers.csv``, without a look at ``key.csv``. ``--score`` says
how often both orders had one answer, and how often the measure agrees with those.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

import cv2
import numpy as np
from rank_peers import load
from tqdm import tqdm

from fusion_gym.cli import UserError, guard
from fusion_gym.data import find_pairs, load_pairs
from fusion_gym.files import write_csv
from fusion_gym.metrics import INVENTED
from fusion_gym.report import score_outputs
from fusion_gym.teachers import fuse_pair

ROWS, WIDTH, HEAD = 5, 400, 22  # rows of a sheet; pixels of an image's side and of a row's heading
NAMES = ("infrared", "visible", "A", "B")


def row_of(number: int, images: list[np.ndarray]) -> np.ndarray:
    """One row of a sheet, uint8 (h, 4 · WIDTH)."""
    height = round(WIDTH * images[0].shape[0] / images[0].shape[1])
    scaled = [cv2.resize(image, (WIDTH, height), interpolation=cv2.INTER_AREA) for image in images]
    head = np.full((HEAD, len(images) * WIDTH), 255, np.uint8)
    for place, name in enumerate(NAMES):
        text = f"{number}  {name}" if place == 0 else name
        cv2.putText(head, text, (place * WIDTH + 6, HEAD - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 0, 1, cv2.LINE_AA)
    return np.concatenate((head, np.concatenate(scaled, axis=1)))


def make(args: argparse.Namespace) -> None:
    """Writes the sheets, the key and a file for the answers."""
    rng = np.random.default_rng(args.seed)
    methods = {name: load(spec) for name, _, spec in (method.partition("=") for method in args.methods)}
    found = []
    for dataset in args.sets:
        pairs = load_pairs(find_pairs(args.root / dataset, "test"))
        outputs = {name: [fuse_pair(fuse, pair) for pair in tqdm(pairs, desc=name)] for name, fuse in methods.items()}
        table = score_outputs(outputs, pairs)
        for index, pair in enumerate(pairs):
            share = {name: table[name][pair.name][INVENTED] for name in methods}
            for first in methods:
                for second in methods:
                    if share[first] + args.least <= share[second]:
                        images = [pair.ir, pair.vi, outputs[first][index], outputs[second][index]]
                        found.append((f"{dataset}/{pair.name}", first, second, share, images))
    rng.shuffle(found)
    chosen, seen = [], set()
    for entry in found:  # no scene twice
        if entry[0] not in seen and len(chosen) < args.count:
            chosen.append(entry)
            seen.add(entry[0])
    turned = rng.random(len(chosen)) < 0.5
    order = [*rng.permutation(len(chosen)), *rng.permutation(len(chosen))]
    key, rows = [], []
    for number, index in enumerate(order):
        scene, less, more, share, images = chosen[index]
        swap = bool(turned[index]) != (number >= len(chosen))
        rows.append(row_of(number, [*images[:2], *(images[:1:-1] if swap else images[2:])]))
        a, b = (more, less) if swap else (less, more)
        key.append({"row": number, "scene": scene, "A": a, "B": b, "invented A": share[a], "invented B": share[b]})
    args.out.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(rows), ROWS):
        sheet = np.concatenate(rows[start : start + ROWS])
        cv2.imwrite(str(args.out / f"sheet_{start // ROWS:02d}.png"), sheet)
    write_csv(args.out / "key.csv", key)
    write_csv(args.out / "answers.csv", [{"row": number, "answer": ""} for number in range(len(rows))])
    print(
        f"{len(chosen)} pairs, each in both orders, are in {args.out}; write A, B or = into answers.csv, then: --score."
    )


def judge(key: list[dict[str, str]], answers: dict[int, str]) -> list[dict[str, str]]:
    """One line for each pair: what the eye chose in both orders, and whether the measure agrees.

    Args:
        key: The rows of ``key.csv``.
        answers: "A", "B" or "=" by number of the row.
    """
    chosen: dict[str, list[str]] = {}
    less: dict[str, tuple[str, str]] = {}
    for row in key:
        answer = answers[int(row["row"])]
        chosen.setdefault(row["scene"], []).append(row[answer] if answer in ("A", "B") else "equal")
        pair = sorted(("A", "B"), key=lambda side: float(row[f"invented {side}"]))
        less[row["scene"]] = row[pair[0]], row[pair[1]]
    lines = []
    for scene, (first, second) in chosen.items():
        verdict = first if first == second else "equal"
        agrees = "–" if verdict == "equal" else "yes" if verdict == less[scene][0] else "no"
        line = {"scene": scene, "invents less": less[scene][0], "invents more": less[scene][1], "first": first}
        lines.append({**line, "second": second, "agrees": agrees})
    return lines


def score(args: argparse.Namespace) -> None:
    """Writes and prints what the answers say."""
    with (args.out / "key.csv").open(newline="") as file:
        key = list(csv.DictReader(file))
    with (args.out / "answers.csv").open(newline="") as file:
        answers = {int(row["row"]): row["answer"].strip() for row in csv.DictReader(file)}
    missing = [row["row"] for row in key if answers.get(int(row["row"])) not in ("A", "B", "=")]
    if missing:
        raise UserError(f"{args.out / 'answers.csv'} has no A, B or = for row {missing[0]}; answer every row.")
    lines = judge(key, answers)
    write_csv(args.out / "sheet.csv", lines)
    same = sum(line["first"] == line["second"] for line in lines)
    decided = [line for line in lines if line["agrees"] != "–"]
    agreed = sum(line["agrees"] == "yes" for line in decided)
    print(f"{len(lines)} pairs; one answer in both orders: {same}; of {len(decided)} decided, the measure agrees with")
    print(f"{agreed} ({agreed / max(1, len(decided)):.0%}). Pair by pair: {args.out / 'sheet.csv'}.")


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", metavar="name=SPEC", help="two or more, to make sheets")
    parser.add_argument("--out", type=Path, required=True, help="folder of the sheets")
    parser.add_argument("--score", action="store_true", help="say what the answers say, instead of making sheets")
    parser.add_argument("--root", type=Path, help="folder of the sets, to make sheets")
    parser.add_argument("--sets", nargs="+", default=["roadscene", "msrs", "tno"])
    parser.add_argument("--count", type=int, default=20, help="pairs of fused images")
    parser.add_argument("--least", type=float, default=0.003, help="least difference of invented structure, a share")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    if not args.score and (args.root is None or len(args.methods) < 2):
        parser.error("give --root and two methods or more, or --score")
    return args


def main() -> int:
    """Runs the command."""
    args = parse()
    return guard("blind_pairs.py", lambda: (score if args.score else make)(args), "Stopped.")


if __name__ == "__main__":
    sys.exit(main())
