"""Fuses images, folders, numbered frames or videos: ``python -m fusion_gym.fuse --ir A --vi B --out C``.

A and B are two images, two folders (paired by name), two patterns of numbered files (ir_%04d.png) or two videos.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from fusion_gym.cli import Parser, UserError, guard
from fusion_gym.data import natural, pair_folders
from fusion_gym.files import make_folder
from fusion_gym.fuser import BACKENDS, DEFAULT, Fuser, load_student
from fusion_gym.images import DEEP_SUFFIXES, luminance, to_8_bit, write_image
from fusion_gym.models.student import STUDENTS
from fusion_gym.opencv import cv2
from fusion_gym.outputs import check_outputs
from fusion_gym.rules import RULES
from fusion_gym.sample_pairs import FOLDER, samples
from fusion_gym.sources import Reader, add_range
from fusion_gym.text import say
from fusion_gym.video import SUFFIXES as VIDEO_SUFFIXES
from fusion_gym.video import VideoPair, ahead, write_video

_NUMBER = re.compile(r"%0?\d*d")


@dataclass(frozen=True)
class Job:
    """Two files to fuse, and the file to make of them."""

    ir: Path
    vi: Path
    out: Path


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = Parser(prog="python -m fusion_gym.fuse", description=__doc__)
    parser.add_argument("--ir", help="infrared: image, folder, pattern or video")
    parser.add_argument("--vi", help="visible: the same kind")
    parser.add_argument("--samples", action="store_true", help="take the pairs that come with the package")
    parser.add_argument("--out", required=True, help="image, folder, pattern or video (.mkv: lossless) to make")
    names = ", ".join((*STUDENTS, *RULES))
    parser.add_argument(
        "--student", default=DEFAULT, help=f"{names}, a .pt or .onnx file, or module:Class:FILE.pt (default: {DEFAULT})"
    )
    parser.add_argument("--backend", choices=BACKENDS, help="default: onnx for .onnx files, torch for all else")
    parser.add_argument("--threads", type=int, help="threads of the computation")
    parser.add_argument("--tile", type=int, help="side of tiles, for images that need too much memory")
    parser.add_argument("--align", choices=("resize",), help="scale the infrared to the visible image's size")
    parser.add_argument("--depth", type=int, choices=(8, 16), help="bits of the result (default: the sources')")
    add_range(parser)
    parser.add_argument("--colour", action=argparse.BooleanOptionalAction, default=True, help="the visible's colour")
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    parser.add_argument("--progress", action=argparse.BooleanOptionalAction, default=True)
    args = parser.parse_args(argv)
    if args.samples:
        if args.ir or args.vi:
            parser.error("--samples takes the place of --ir and --vi; leave them out")
        if not samples():
            parser.error(f"the sample pairs have been taken out of {FOLDER}; give --ir and --vi")
        args.ir, args.vi = str(FOLDER / "ir"), str(FOLDER / "vi")
    elif args.ir is None or args.vi is None:
        parser.error("give both --ir and --vi, or --samples")
    return args


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES


def _is_pattern(text: str) -> bool:
    """Whether a text names numbered files; what exists is meant literally, whatever percent signs it has."""
    return bool(_NUMBER.search(Path(text).name)) and not os.path.lexists(text)


def _numbered(pattern: str) -> tuple[str, dict[int, Path]]:
    """The part of a pattern that stands for the number, and the files by their number."""
    path = Path(pattern)
    if not path.parent.is_dir():
        raise UserError(f"The folder {path.parent} does not exist.")
    names = sorted((file.name for file in path.parent.iterdir()), key=natural)
    fitting = []
    for place in _NUMBER.finditer(path.name):  # one stands for the number, any others are literal
        before, after = path.name[: place.start()], path.name[place.end() :]
        known = re.compile(re.escape(before) + r"([0-9]+)" + re.escape(after))
        matches = [match for match in map(known.fullmatch, names) if match]
        found = {int(match[1]): path.with_name(match[0]) for match in matches if place[0] % int(match[1]) == match[1]}
        if found:
            fitting.append((place[0], dict(sorted(found.items()))))
    if not fitting:
        raise UserError(f"No file fits the pattern {pattern}.")
    if len(fitting) > 1:
        raise UserError(f"The pattern {pattern} must have one number, such as %04d; files fit several of its numbers.")
    return fitting[0]


def _number_jobs(ir: str, vi: str, out: str) -> list[Job]:
    (number_format, infrared), (_, visible) = _numbered(ir), _numbered(vi)
    for here, there, pattern in ((infrared, visible, vi), (visible, infrared, ir)):
        missing = [number for number in here if number not in there]
        if missing:
            raise UserError(
                f"Frame {missing[0]} is missing in {pattern} ({len(missing)} in all); add it, or remove it."
            )
    path = Path(out)
    numbers = list(_NUMBER.finditer(path.name))
    if not numbers or not path.suffix or path.is_dir():
        return [Job(file, visible[number], path / file.name) for number, file in infrared.items()]
    if len(numbers) > 1:  # the one that stands for the number is written as in the infrared's pattern
        numbers = [place for place in numbers if place[0] == number_format]
    if len(numbers) != 1:
        raise UserError(f"The pattern {out} must have one number, such as %04d, in the file's name.")
    before, after = path.name[: numbers[0].start()], path.name[numbers[0].end() :]
    return [
        Job(file, visible[number], path.with_name(f"{before}{numbers[0][0] % number}{after}"))
        for number, file in infrared.items()
    ]


def find_jobs(ir: str, vi: str, out: str) -> list[Job]:
    """The pairs of image files that the arguments name.

    Raises:
        UserError: If they are missing or not of one kind.
        fusion_gym.data.DataError: If folders do not pair up.
    """
    patterns = [_is_pattern(text) for text in (ir, vi)]
    if all(patterns):
        return _number_jobs(ir, vi, out)
    for text, pattern in zip((ir, vi), patterns, strict=True):
        if not pattern and not Path(text).exists():
            raise UserError(f"{text} does not exist.")
    if any(patterns) or Path(ir).is_dir() != Path(vi).is_dir():
        raise UserError(f"{ir} and {vi} are not of one kind; give two images, folders, patterns or videos.")
    if Path(ir).is_dir():
        if Path(out).is_file():
            raise UserError(f"{out} is a file; give a folder for the images of {ir}.")
        return [Job(pair.ir, pair.vi, Path(out) / pair.name) for pair in pair_folders(ir, vi)]
    as_folder = Path(out).is_dir() or not Path(out).suffix
    return [Job(Path(ir), Path(vi), Path(out) / Path(ir).name if as_folder else Path(out))]


def prepare(outputs: Sequence[Path], overwrite: bool, sources: Sequence[Path], folders: Sequence[Path] = ()) -> None:
    """Refuses to lose what is there, and makes the folders of the outputs.

    Raises:
        UserError: If an output would change what is read, or exists and may not be replaced.
    """
    check_outputs(outputs, sources, folders)
    for out in outputs:
        if out.exists() and not overwrite:
            raise UserError(f"{out} exists; give --overwrite, or another --out.")
    for folder in {out.parent for out in outputs}:
        make_folder(folder)


def _aligned(ir: np.ndarray, vi: np.ndarray, align: str | None, names: str) -> np.ndarray:
    """The infrared in the visible image's size."""
    if ir.shape[:2] == vi.shape[:2]:
        return ir
    if align is None:
        sizes = [f"{image.shape[1]}x{image.shape[0]}" for image in (ir, vi)]
        raise UserError(f"{names} are {sizes[0]} and {sizes[1]} pixels; register them, or give --align resize.")
    smaller = ir.shape[0] > vi.shape[0]
    return cv2.resize(ir, vi.shape[1::-1], interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)


def read_pair(job: Job, reader: Reader, args: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """The two images of a job, of one size: the infrared gray, the visible as the result is to be.

    Raises:
        UserError: If the sizes differ and may not be aligned.
        fusion_gym.images.ImageError: If an image cannot be read.
    """
    ir, vi = reader.infrared(job.ir), reader.visible(job.vi)
    return _aligned(ir, vi, args.align, f"{job.ir} and {job.vi}"), vi if args.colour else luminance(vi)


def _in_depth(image: np.ndarray, depth: int | None, suffix: str) -> np.ndarray:
    """The image in the depth that is asked for, or else in the deepest that it has and the format holds."""
    if depth == 16 and image.dtype == np.uint8:
        return image.astype(np.uint16) * 257
    return to_8_bit(image) if depth == 8 or (depth is None and suffix.lower() not in DEEP_SUFFIXES) else image


def fuse_files(jobs: Sequence[Job], fuser: Fuser, args: argparse.Namespace) -> str:
    """Fuses pairs of image files; what was made, in words."""
    reader = Reader(args.ir_range, min_side=1, keep_depth=True)
    sources = [Path(args.student), *(path for job in jobs for path in (job.ir, job.vi))]
    folders = [path for path in (Path(args.ir), Path(args.vi)) if path.is_dir()]
    prepare([job.out for job in jobs], args.overwrite, sources, folders)
    shape, bits, start = (0, 0), 8, time.perf_counter()
    pairs = ahead(read_pair(job, reader, args) for job in jobs)
    bar = tqdm(
        pairs,
        total=len(jobs),
        unit="frame",
        desc="fuse",
        dynamic_ncols=True,
        disable=not args.progress or len(jobs) < 2,
    )
    for job, (ir, vi) in zip(jobs, bar, strict=True):
        if args.depth == 16:
            ir, vi = (_in_depth(image, 16, "") for image in (ir, vi))
        fused = _in_depth(fuser(ir, vi), args.depth, job.out.suffix)
        write_image(job.out, fused)
        shape, bits = fused.shape[:2], 8 * fused.itemsize
    seconds = time.perf_counter() - start
    for remark in reader.remarks():
        say(remark, error=True)
    kind = f"{shape[1]}x{shape[0]}, {bits} bit, {fuser.name}"
    if len(jobs) == 1:
        return f"The fused image is {jobs[0].out} ({kind})."
    return (
        f"{len(jobs)} fused images are in {jobs[0].out.parent} ({kind}, {len(jobs) / seconds:.1f} frames per second)."
    )


def fuse_videos(fuser: Fuser, args: argparse.Namespace) -> str:
    """Fuses two video files; what was made, in words."""
    out = Path(args.out)
    if not _is_video(out):
        raise UserError(f"{out} has no video suffix; use one of {', '.join(VIDEO_SUFFIXES)}.")
    if args.depth == 16:
        raise UserError("Videos have 8 bit; leave out --depth 16.")
    pair = VideoPair(Path(args.ir), Path(args.vi))
    prepare([out], args.overwrite, [Path(args.student), *pair.paths.values()])
    if args.ir_range is not None:
        say("--ir-range has no effect on videos, which have 8 bit.", error=True)

    def fused() -> Iterator[np.ndarray]:
        bar = tqdm(
            ahead(pair),
            total=pair.count or None,
            unit="frame",
            desc="fuse",
            dynamic_ncols=True,
            disable=not args.progress,
        )
        for ir, vi in bar:
            ir = _aligned(luminance(ir), vi, args.align, f"The frames of {args.ir} and {args.vi}")
            yield fuser(ir, vi if args.colour else luminance(vi))

    start = time.perf_counter()
    try:
        count, sound = write_video(out, ahead(fused()), pair.rate, pair.paths["visible"])
    finally:
        pair.close()
    if pair.leftover:
        say(f"The {pair.leftover} video goes on after frame {count}; the rest of it is left out.", error=True)
    for name, off in pair.uneven.items():
        say(
            f"The frames of the {name} video come at a varying rate: the fused one has {pair.rate:g} per second, "
            f"each up to {off:.2f} s from their time and their sound; convert both to one constant rate beforehand.",
            error=True,
        )
    speed = count / (time.perf_counter() - start)
    made = f"{count} frames at {pair.rate:g} per second, {sound}"
    return f"The fused video is {out} ({made}; {fuser.name}, {speed:.1f} frames per second)."


def run(args: argparse.Namespace) -> None:
    """Does what the command line asks."""
    videos = [_is_video(Path(text)) for text in (args.ir, args.vi)]
    if any(videos) and not all(videos):
        raise UserError(f"{args.ir} and {args.vi} are not of one kind; give two images, folders, patterns or videos.")
    jobs = [] if all(videos) else find_jobs(args.ir, args.vi, args.out)
    fuser = load_student(args.student, args.backend, args.threads, args.tile)
    say(fuse_videos(fuser, args) if all(videos) else fuse_files(jobs, fuser, args))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; a user's mistake gives one sentence and exit code 2."""
    return guard("fuse", lambda: run(parse(argv)), "Stopped; the images that were finished are kept.")


if __name__ == "__main__":
    sys.exit(main())
