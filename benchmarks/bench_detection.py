#!/usr/bin/env python
"""Judges fusion by what a detector, which knows nothing of fusion, finds in the fused images.

    python benchmarks/bench_detection.py --pairs DATA/msrs --labels LABELS --detector fastestdet.onnx base=student:base

``LABELS/{infrared,visible}/<name>.txt`` hold a box a line: class (0 person, 1 bicycle, 2 car), centre x and y, width
and height, relative to the image. The truth of a pair is the union of both, boxes of a class merged at an IoU of 0.4.
A detector is an ONNX file of 80 COCO classes whose output is FastestDet's, (1, 85, h, w), or YOLO's: (1, n, 85) with
objectness, (1, 84, n) without. It sees fused images in the visible image's colours. A method is ``name=SPEC`` with what
``--teacher`` takes elsewhere, ``name=student:SPEC`` or ``name=folder:PATH``; both sources and the rules take part.

AP50: area under the envelope of precision over recall, all points, at an IoU of 0.5. Recall: at 0.5 false positives an
image. Both are means over detectors and classes (person, car), by day and night apart where names end in D and N.
Intervals hold 95 % of bootstraps over sequences, runs of names whose numbers are near each other; differences are to
the source with the larger AP50, paired, and only one whose interval leaves out 0 is worth a word.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from harness import save, show
from rank_peers import load
from tqdm import tqdm

from fusion_gym.cli import UserError, guard
from fusion_gym.data import ImagePair, find_pairs, load_pairs
from fusion_gym.images import restore_colour
from fusion_gym.runtime import onnx_session
from fusion_gym.teachers import fuse_pair, fused_pairs

Array = np.ndarray
CLASSES = {"person": (0,), "car": (2, 5, 7)}  # COCO's numbers of what a label may be found as
LABELS = {"person": 0, "car": 2}  # numbers in the label files
MERGE, MATCH, SUPPRESS = 0.4, 0.5, 0.45  # IoU of one object's labels, of a hit, and of one detector's doublets
LEAST = 0.02  # confidence below which nothing is looked at
FALSE_POSITIVES = 0.5  # an image, at which the recall is read
RULES = ("rule:mean", "rule:max", "rule:laplacian", "rule:guided")


def overlap(boxes: Array, others: Array) -> Array:
    """IoU of boxes (n, 4) and others (m, 4), corners: (n, m)."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=2)
    areas = (np.prod(each[:, 2:] - each[:, :2], axis=1) for each in (boxes, others))
    first, second = areas
    return shared / np.maximum(first[:, None] + second[None] - shared, 1e-12)


def corners(boxes: Array) -> Array:
    """Centres and sizes, (n, 4), as corners."""
    return np.concatenate((boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2), axis=1)


def read_labels(file: Path) -> Array:
    """Class and corners of each box, (n, 5); an image without objects may have no file."""
    text = file.read_text().split() if file.is_file() else []
    if len(text) % 5:
        raise UserError(f"{file} is not a list of boxes: class, centre x, centre y, width, height, one a line.")
    rows = np.array(text, dtype=float).reshape(-1, 5)
    return np.column_stack((rows[:, 0], corners(rows[:, 1:])))


def truth(folder: Path, stem: str) -> Array:
    """The boxes of a pair, (n, 5): those of both sources, seen in both but once."""
    kept: list[Array] = []
    for row in np.concatenate([read_labels(folder / source / f"{stem}.txt") for source in ("visible", "infrared")]):
        same = np.array([other[1:] for other in kept if other[0] == row[0]]).reshape(-1, 4)
        if not (overlap(row[None, 1:], same) > MERGE).any():
            kept.append(row)
    return np.array(kept).reshape(-1, 5)


def decode(output: Array, size: tuple[int, int]) -> tuple[Array, Array]:
    """Boxes and confidences by class of a detector's output.

    Args:
        output: FastestDet's or YOLO's output for one image.
        size: Height and width of the detector's input.

    Returns:
        Corners relative to the image, (n, 4), and confidences, (n, 80).
    """
    if output.ndim == 4 and output.shape[1] == 85:
        maps = output[0].reshape(85, -1).T
        down, across = (index.ravel() for index in np.indices(output.shape[2:]))
        centres = np.stack((across, down), 1) + np.tanh(maps[:, 1:3])
        sizes = 1 / (1 + np.exp(-maps[:, 3:5]))
        boxes = np.concatenate((centres / output.shape[:1:-1], sizes), axis=1)
        return corners(boxes), maps[:, :1] ** 0.6 * maps[:, 5:] ** 0.4
    if output.ndim == 3 and 84 in output.shape[1:]:
        rows = output[0].T if output.shape[1] == 84 else output[0]
        confidence = rows[:, 4:]
    elif output.ndim == 3 and output.shape[2] == 85:
        rows = output[0]
        confidence = rows[:, 4:5] * rows[:, 5:]
    else:
        raise UserError(f"The detector's output is {output.shape}; FastestDet's and YOLO's of 80 classes can be read.")
    return corners(rows[:, :4] / np.array([size[1], size[0]] * 2)), confidence


def suppressed(boxes: Array, confidence: Array) -> tuple[Array, Array]:
    """The boxes that overlap with none of a larger confidence, largest first."""
    order = np.argsort(-confidence, kind="stable")
    kept: list[int] = []
    for index in order:
        if not (overlap(boxes[index : index + 1], boxes[kept]) > SUPPRESS).any():
            kept.append(int(index))
    return boxes[kept], confidence[kept]


class Detector:
    """An ONNX detector.

    Args:
        file: The model; FastestDet takes BGR, YOLO RGB, both from 0 to 1.
    """

    def __init__(self, file: Path) -> None:
        self.session = onnx_session(str(file), threads=1)
        entry = self.session.get_inputs()[0]
        self.name = entry.name
        self.size = tuple(side if isinstance(side, int) else 640 for side in entry.shape[2:])

    def __call__(self, image: Array) -> dict[str, tuple[Array, Array]]:
        """What is found in an image, uint8 (H, W, 3) BGR: boxes and confidences by class."""
        scaled = cv2.resize(image, self.size[::-1], interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        planes = np.ascontiguousarray(scaled.transpose(2, 0, 1))[None]
        output = np.asarray(self.session.run(None, {self.name: planes})[0])
        if output.ndim == 3:  # YOLO's: once more with the channels in its order
            output = np.asarray(self.session.run(None, {self.name: np.ascontiguousarray(planes[:, ::-1])})[0])
        boxes, confidence = decode(output, self.size)
        found = {}
        for name, numbers in CLASSES.items():
            of_class = confidence[:, list(numbers)].max(1)
            seen = of_class > LEAST
            found[name] = suppressed(boxes[seen], of_class[seen])
        return found


@dataclass(frozen=True)
class Hits:
    """What a detector found of one class in all images.

    Attributes:
        confidence: Of each box, falling, (n,).
        hit: Whether it is an object that none before it was, (n,).
        image: Index of its image, (n,).
        objects: Number of objects in each image, (images,).
    """

    confidence: Array
    hit: Array
    image: Array
    objects: Array

    def figures(self, weights: Array) -> tuple[float, float]:
        """AP50 and recall, each image counted as often as its weight says; NaN where there are no objects."""
        total = float(weights @ self.objects)
        if total == 0:
            return float("nan"), float("nan")
        counted = weights[self.image]
        hits, misses = (counted * self.hit).cumsum(), (counted * ~self.hit).cumsum()
        recall, precision = hits / total, hits / np.maximum(hits + misses, 1e-12)
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        area = float((np.diff(recall, prepend=0.0) * envelope).sum())
        reached = recall[misses <= FALSE_POSITIVES * weights.sum()]
        return area, float(reached.max(initial=0.0))


def matched(found: Sequence[tuple[Array, Array]], truths: Sequence[Array]) -> Hits:
    """Matches boxes to objects, the surest first: each object is hit once."""
    confidence, hit, image = [], [], []
    for index, ((boxes, sure), objects) in enumerate(zip(found, truths, strict=True)):
        free = np.ones(len(objects), bool)
        for box, value in zip(boxes, sure, strict=True):
            iou = overlap(box[None], objects)[0] * free
            best = int(iou.argmax()) if len(iou) else -1
            good = best >= 0 and iou[best] >= MATCH
            if good:
                free[best] = False
            confidence.append(value)
            hit.append(good)
            image.append(index)
    order = np.argsort(-np.array(confidence), kind="stable")
    return Hits(
        np.array(confidence)[order],
        np.array(hit, bool)[order],
        np.array(image, int)[order],
        np.array([len(each) for each in truths]),
    )


def sequences(stems: Sequence[str], gap: int) -> Array:
    """Index of each name's sequence: names whose numbers are at most ``gap`` apart are of one, if of one kind."""
    keys = [(re.sub(r"\d+", "", stem), int((re.findall(r"\d+", stem) or ["0"])[0])) for stem in stems]
    result, current = np.zeros(len(stems), int), -1
    before: tuple[str, int] | None = None
    for index in sorted(range(len(stems)), key=lambda i: keys[i]):
        kind, number = keys[index]
        if before is None or kind != before[0] or number - before[1] > gap:
            current += 1
        result[index], before = current, (kind, number)
    return result


def coloured(fused: Array, pair: ImagePair) -> Array:
    """A fused image in the visible image's colours, uint8 (H, W, 3) BGR."""
    colour = pair.colour()
    return restore_colour(fused, colour) if colour.ndim == 3 else cv2.cvtColor(fused, cv2.COLOR_GRAY2BGR)


def images_of(spec: str, pairs: Sequence[ImagePair]) -> list[Array]:
    """A method's images of the pairs, uint8 (H, W, 3) BGR."""
    if spec == "infrared":
        return [cv2.cvtColor(pair.ir, cv2.COLOR_GRAY2BGR) for pair in pairs]
    if spec == "visible":
        return [coloured(pair.vi, pair) for pair in pairs]
    if spec.startswith("folder:"):
        fused = fused_pairs(spec.removeprefix("folder:"), pairs)
    else:
        fuse = load(spec)
        fused = [fuse_pair(fuse, pair) for pair in pairs]
    return [coloured(image, pair) for image, pair in zip(fused, pairs, strict=True)]


def mean_figures(hits: Sequence[Hits], weights: Array) -> tuple[float, float]:
    """Means of AP50 and recall over detectors and classes that have objects."""
    known = [found for each in hits if not np.isnan((found := each.figures(weights))[0])]
    area, recall = np.mean(known, axis=0) if known else (np.nan, np.nan)
    return float(area), float(recall)


def interval(values: Array) -> str:
    """What holds 95 % of the values."""
    low, high = np.nanquantile(values, (0.025, 0.975))
    return f"[{low:+.3f}, {high:+.3f}]"


def run(args: argparse.Namespace) -> None:
    """Does what the command line asks."""
    pairs = load_pairs(find_pairs(args.pairs, "test") or find_pairs(args.pairs))
    if not pairs:
        raise UserError(f"{args.pairs} has no pairs; give a folder with test/ir and test/vi, or ir and vi.")
    if not args.labels.is_dir():
        raise UserError(f"There is no folder {args.labels}; give --labels a folder with infrared and visible.")
    stems = [Path(pair.name).stem for pair in pairs]
    boxes = [truth(args.labels, stem) for stem in stems]
    if not any(map(len, boxes)):
        raise UserError(f"{args.labels} has no box for any pair of {args.pairs}; give their labels.")
    methods = {"infrared": "infrared", "visible": "visible", **{rule.removeprefix("rule:"): rule for rule in RULES}}
    methods |= {name: spec for name, _, spec in (method.partition("=") for method in args.methods)}
    detectors = [Detector(file) for file in args.detector]
    hits: dict[str, dict[str, list[Hits]]] = {}
    for name, spec in methods.items():
        shown = images_of(spec, pairs)
        hits[name] = {kind: [] for kind in CLASSES}
        for detector in detectors:
            found = [detector(image) for image in tqdm(shown, desc=name, leave=False, disable=None)]
            for kind, number in LABELS.items():
                objects = [rows[rows[:, 0] == number, 1:] for rows in boxes]
                hits[name][kind].append(matched([each[kind] for each in found], objects))
    results = tables(hits, stems, args.gap, args.bootstraps, args.seed)
    for condition, rows in results.items():
        show(f"{args.pairs}, {condition}; {len(detectors)} detectors", rows)
    if args.json:
        save(args.json, results)


def tables(
    hits: Mapping[str, Mapping[str, Sequence[Hits]]], stems: Sequence[str], gap: int, bootstraps: int, seed: int
) -> dict[str, dict[str, dict[str, str]]]:
    """The figures of each method under each condition, with intervals of the differences to the better source.

    Args:
        hits: By method and class, for each detector.
        stems: The pairs' names.
        gap: As in `sequences`.
        bootstraps: How often sequences are drawn.
        seed: Of the draws.
    """
    masks = {f"all {len(stems)} pairs": np.ones(len(stems))}
    for condition, letter in (("day", "D"), ("night", "N")):
        mask = np.array([float(stem.endswith(letter)) for stem in stems])
        if 0 < mask.sum() < len(stems):
            masks[f"{mask.sum():g} pairs by {condition}"] = mask
    groups = sequences(stems, gap)
    count = int(groups.max()) + 1
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=bootstraps)
    whole = {name: [each for kind in kinds.values() for each in kind] for name, kinds in hits.items()}
    results: dict[str, dict[str, dict[str, str]]] = {}
    for condition, mask in masks.items():
        value = {name: mean_figures(each, mask) for name, each in whole.items()}
        best = max(("infrared", "visible"), key=lambda source: value[source][0])
        areas = {
            name: np.array([mean_figures(each, mask * times[groups])[0] for times in drawn])
            for name, each in whole.items()
        }
        results[condition] = {
            name: {f"AP50 {kind}": f"{mean_figures(each, mask)[0]:.3f}" for kind, each in hits[name].items()}
            | {
                "AP50": f"{value[name][0]:.3f}",
                "recall": f"{value[name][1]:.3f}",
                f"AP50 less {best}'s": f"{value[name][0] - value[best][0]:+.3f} {interval(areas[name] - areas[best])}",
            }
            for name in hits
        }
    return results


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "methods",
        nargs="*",
        metavar="name=SPEC",
        default=["teacher=builtin", *(f"{s}=student:{s}" for s in ("base", "small", "tiny"))],
    )
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--detector", type=Path, action="append", required=True, metavar="FILE", help="once for each")
    parser.add_argument("--gap", type=int, default=30, help="largest step between numbers of one sequence")
    parser.add_argument("--bootstraps", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file for the figures")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(guard("bench_detection.py", lambda: run(parse()), "Stopped."))
