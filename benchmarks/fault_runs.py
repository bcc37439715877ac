#!/usr/bin/env python
"""Kills the commands at random moments (`kill -9`, workers too) and checks that every run resumes and nothing is cut.

    python benchmarks/fault_runs.py [train] [distill] [compare] [--kills 20] [--json faults.json]

Each command runs once undisturbed. Then it is killed at a moment drawn between its first file and its end, resumed,
killed again, ..., until it ends by itself; that is a chain, and there are chains until the kills are used up. After
each kill every file must be whole (the logs that Stable-Baselines3 appends to may lack the end of their last line).
At the end of each chain the result must be that of the undisturbed run where that is promised, by distill_student.py
and its comparisons; a resumed training of an agent meets new students and has to reach its steps.
"""

from __future__ import annotations

import argparse
import csv
import functools
import io
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from harness import save, show

from fusion_gym.images import read_image

ROOT = Path(__file__).resolve().parents[1]
FAST = ("teacher=rule:max", "reference=rule:max", "updates_per_step=1")
TRAIN = (
    *("train_agent.py", "--env", "FusionDistillFast-v0", "--env-kwargs", *FAST, "episode_steps=4", "--seed", "1"),
    *("-n", "256", "-p", "n_steps=16", "batch_size=16", "n_epochs=2", "--save-freq", "16", "--eval-freq", "64"),
    *("--eval-episodes", "1", "--n-envs", "1", "--no-progress"),
)
STUDENT = (
    *("distill_student.py", "--data", "synthetic-small", "--teacher", "rule:max", "--width", "4", "--batch-size", "2"),
    *("--no-progress", "--env-kwargs", "reference=rule:max", "patch_size=32", "probe_pairs=2", "probe_size=64"),
)
DISTIL = (*STUDENT, "--agent", "random", "--updates", "128", "--decisions", "64", "--seed", "3")
COMPARE = (*STUDENT, "--compare", "constant", "linear", "random", "--updates", "32", "--decisions", "8", "--seeds", "4")


def trained(folder: Path) -> Any:
    """Steps that a training reached; its models must load."""
    for name in ("best_model.zip", "final_model.zip"):
        with zipfile.ZipFile(folder / name) as archive:
            torch.load(io.BytesIO(archive.read("policy.pth")), weights_only=True)
    return json.loads((folder / "summary.json").read_text())["timesteps"]


def distilled(folder: Path) -> Any:
    """Weights, log and figures of a student."""
    weights = torch.load(folder / "student.pt", weights_only=True)["weights"]
    figures = tuple((folder / name).read_bytes() for name in ("log.csv", "metrics.csv", "metrics.json", "episode.json"))
    return {name: value.tolist() for name, value in weights.items()}, figures


def compared(folder: Path) -> Any:
    """Figures of a comparison."""
    return (folder / "comparison.csv").read_bytes()


@dataclass(frozen=True)
class Command:
    """A command under test.

    Attributes:
        start: Its arguments without ``--out``.
        resumes: Whether ``--resume`` continues it; else the same command does.
        result: What of its folder must be equal to the undisturbed run's.
    """

    start: Sequence[str]
    resumes: bool
    result: Callable[[Path], Any]


COMMANDS = {
    "train": Command(TRAIN, True, trained),
    "distill": Command(DISTIL, True, distilled),
    "compare": Command(COMPARE, False, compared),
}


def _read_zip(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged:
        raise ValueError(damaged)


READERS: dict[str, Callable[[Path], Any]] = {
    ".zip": _read_zip,
    ".json": lambda path: json.loads(path.read_text()),
    ".yml": lambda path: yaml.safe_load(path.read_text()),
    ".npz": lambda path: dict(np.load(path)),
    ".pt": lambda path: torch.load(path, weights_only=True),
    ".png": read_image,
    ".csv": lambda path: list(csv.DictReader(path.open(newline=""), strict=True)),
    ".onnx": lambda path: __import__("onnx").load(path),
}


def broken(folder: Path) -> list[str]:
    """Names of the files that are not whole; temporary ones, whose names begin with a dot, do not count."""
    found = []
    for path in folder.rglob("*"):
        read = READERS.get(path.suffix)
        if not path.is_file() or path.name.startswith(".") or read is None:
            continue
        try:
            read(path)
        except Exception as error:
            found.append(f"{path.name} ({type(error).__name__})")
    return found


def launch(arguments: Sequence[str], log: Path) -> subprocess.Popen:
    """Starts a command in a process group of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def arguments(command: Command, out: Path) -> list[str]:
    """The command line that begins or continues a run in a folder."""
    if command.resumes and (out / "config.yml").is_file():
        return [command.start[0], "--resume", str(out), "--no-progress"]
    return [*command.start, "--out", str(out)]


def undisturbed(command: Command, out: Path) -> tuple[float, float]:
    """Runs a command once: seconds to its first file, and in all."""
    begin, first = time.monotonic(), 0.0
    process = launch(arguments(command, out), out.with_suffix(".log"))
    while process.poll() is None:
        if not first and (out / "config.yml").is_file():
            first = time.monotonic() - begin
        time.sleep(0.02)
    if process.returncode:
        raise SystemExit(f"{command.start[0]} failed undisturbed; see {out.with_suffix('.log')}.")
    return first, time.monotonic() - begin


def chain(command: Command, out: Path, moments: Callable[[], float], kills: int) -> tuple[int, list[str], str]:
    """Kills and resumes a run until it ends by itself.

    Returns:
        Number of kills, files that were found cut, and what went wrong with a resumption.
    """
    done, cut = 0, list[str]()
    while True:
        process = launch(arguments(command, out), out.with_suffix(".log"))
        try:
            process.wait(moments() if done < kills else None)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            done += 1
            cut += broken(out)
            continue
        return done, cut, f"exit code {process.returncode}" if process.returncode else ""


def main() -> int:
    """Runs, prints and judges."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", nargs="*", metavar="COMMAND", help=f"of {', '.join(COMMANDS)} (default: all)")
    parser.add_argument("--kills", type=int, default=20, help="of each command")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where the runs are kept; a temporary folder where absent")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    unknown = [name for name in args.commands if name not in COMMANDS]
    if unknown:
        parser.error(f"there is no command {unknown[0]}")
    generator = random.Random(args.seed)
    table: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name in args.commands or COMMANDS:
            command = COMMANDS[name]
            first, whole = undisturbed(command, folder / f"{name}-whole")
            expected = command.result(folder / f"{name}-whole")
            moments = functools.partial(generator.uniform, 0.9 * first, whole)
            kills, chains, cut, failed, unequal = 0, 0, list[str](), list[str](), 0
            while kills < args.kills:
                out = folder / f"{name}-{chains}"
                done, files, fault = chain(command, out, moments, args.kills - kills)
                kills, chains, cut = kills + done, chains + 1, cut + files
                if fault:
                    failed.append(fault)
                elif command.result(out) != expected:
                    unequal += 1
                faults = f"{len(cut)} files cut, {len(failed)} failed, {unequal} unequal"
                print(f"{name}: {kills} of {args.kills} kills, {chains} runs ended, {faults}", flush=True)
            table[name] = {
                "seconds undisturbed": whole,
                "kills": kills,
                "runs": chains,
                "files cut": len(cut),
                "failed": len(failed),
                "unequal": unequal,
                "what": "; ".join([*cut, *failed]),
            }
    show("Killed at random moments", table)
    if args.json:
        save(args.json, {"faults": table})
    return int(any(row["files cut"] or row["failed"] or row["unequal"] for row in table.values()))


if __name__ == "__main__":
    sys.exit(main())
