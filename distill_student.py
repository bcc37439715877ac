#!/usr/bin/env python
"""Trains a student under an agent or a schedule, and leaves a model that can be deployed."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import yaml
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

import fusion_gym
from agents import comparison, load_agent
from fusion_gym import export, files, rendering, report
from fusion_gym.data import load_splits
from fusion_gym.teachers import fuse_pair, fused_pairs

CONFIG, STATE, DONE = "config.yml", "state.pt", "metrics.json"


class UserError(ValueError):
    """A mistake of the user's; the message is one sentence."""


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--agent", default="constant", help="a trained agent's zip, a schedule, or module:Class")
    parser.add_argument("--data", default="synthetic", help="folder of pairs, several joined by commas, or synthetic")
    parser.add_argument("--test", nargs="*", default=[], help="further data whose test pairs are reported on")
    parser.add_argument("--teacher", default="builtin", help="name, TorchScript or ONNX file, module:Class, or folder")
    parser.add_argument("--width", type=int, default=12, help="channels of the student")
    parser.add_argument("--updates", type=int, default=3200, help="optimiser updates in all")
    parser.add_argument("--decisions", type=int, default=16, help="decisions of the agent in all")
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seed", type=int, help="drawn, printed and stored when absent")
    parser.add_argument("--out", type=Path, default=Path("runs/student"), help="folder for everything that is made")
    parser.add_argument("--resume", type=Path, metavar="RUN", help="continue the killed run in this folder")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads")
    parser.add_argument("--progress", action=argparse.BooleanOptionalAction, default=True)
    comparison.add_arguments(parser)
    return parser.parse_args(argv)


def configure(args: argparse.Namespace) -> tuple[Path, dict[str, Any]]:
    """Folder and configuration of the run: new, or those of the run to resume.

    Raises:
        UserError: If the folder does not fit what is asked.
    """
    if args.resume is not None:
        path = args.resume / CONFIG
        if not path.is_file():
            raise UserError(f"{args.resume} has no {CONFIG}; give --resume the folder of an earlier run.")
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise UserError(f"{path} is damaged; start anew with another --out.")
        return args.resume, config
    if args.out.exists() and any(args.out.iterdir() if args.out.is_dir() else [args.out]):
        raise UserError(f"{args.out} is in use; give --resume {args.out} to continue it, or another --out.")
    if args.updates < args.decisions or args.decisions < 1:
        raise UserError(f"--updates {args.updates} is less than --decisions {args.decisions}; give more updates.")
    seed = args.seed if args.seed is not None else int(np.random.default_rng().integers(2**31))
    keys = ("agent", "data", "test", "teacher", "width", "updates", "decisions", "learning_rate", "batch_size")
    return args.out, {key: getattr(args, key) for key in keys} | {"seed": seed, "version": fusion_gym.__version__}


def train(env: gym.Env, agent: Any, config: dict[str, Any], out: Path, progress: bool) -> dict[str, Any]:
    """Runs the episode, saving its state after every decision; continues from a saved state where there is one.

    Returns:
        The environment's last state, with what was recorded on the way.
    """
    plain: Any = env.unwrapped
    observation, info = plain.reset(seed=config["seed"])
    seen, log = [observation], [info]
    memory, start = None, np.ones(1, dtype=bool)
    path = out / STATE
    if path.is_file():
        saved = torch.load(path, weights_only=True)
        seen, log = [value.numpy() for value in saved["observations"]], saved["log"]
        for past in seen[:-1]:  # an agent with a memory or a generator of its own comes to where it was
            _, memory = agent.predict(past, state=memory, episode_start=start, deterministic=True)
            start = np.zeros(1, dtype=bool)
        plain.load_state(saved["env"])
    bar = tqdm(total=config["decisions"], initial=len(log) - 1, disable=not progress, unit="decision", desc="distil")
    while len(log) <= config["decisions"]:
        action, memory = agent.predict(seen[-1], state=memory, episode_start=start, deterministic=True)
        start = np.zeros(1, dtype=bool)
        observation, _, _, _, info = plain.step(action)
        seen.append(observation)
        log.append(info)
        if info["diverged"]:
            raise UserError(f"The student diverged in decision {len(log) - 1}; lower --learning-rate.")
        state = {"observations": [torch.from_numpy(o) for o in seen], "log": log, "env": plain.save_state()}
        with files.atomic_path(path) as temporary:
            torch.save(state, temporary)
        bar.update()
        bar.set_postfix(score=f"{info['score']:.3f}")
    bar.close()
    return {"log": log, "student": plain.distiller.student}


def curves(log: list[dict[str, float]], out: Path) -> None:
    """Draws losses, scores and actions over the updates."""
    updates = [entry["student/updates"] for entry in log]
    for name, prefix, label in (
        ("losses", "student/loss_", "loss"),
        ("scores", "score", "fusion score"),
        ("actions", "action/", "physical value"),
    ):
        keys = [key for key in log[0] if key.startswith(prefix)]
        series = {key.split("/")[-1]: (updates, [entry[key] for entry in log]) for key in keys}
        rendering.save_picture(out / f"{name}.png", rendering.plot_curves(series, "student updates", label, name))
    files.write_csv(out / "log.csv", log)


def judge(student: torch.nn.Module, config: dict[str, Any], out: Path, progress: bool) -> dict[str, Any]:
    """Scores student, teacher and floors on the test pairs; writes tables and contact sheets."""
    result: dict[str, Any] = {}
    rows = []
    for data in (config["data"], *config["test"]):
        pairs = load_splits(data).test
        outputs = {
            "student": [fuse_pair(student, pair) for pair in pairs],
            "teacher": fused_pairs(config["teacher"], pairs),
            **report.floors(pairs),
        }
        table = report.score_outputs(
            outputs, pairs, track=lambda loop: tqdm(loop, disable=not progress, unit="pair", desc="judge")
        )
        result[data] = {"mean": report.means(table), "images": table}
        for method, images in table.items():
            rows += [{"data": data, "method": method, "image": name, **row} for name, row in images.items()]
        name = "contact_sheet" if data == config["data"] else f"contact_sheet_{Path(data).name}"
        shown = report.sheet_rows({key: outputs[key] for key in ("teacher", "student")}, pairs)
        rendering.save_picture(out / f"{name}.png", rendering.contact_sheet(shown, [""] * len(shown)))
        show(f"{data}: {len(pairs)} test pairs", result[data]["mean"])
    files.write_csv(out / "metrics.csv", rows)
    files.write_json(out / DONE, result)
    return result


def show(title: str, table: dict[str, dict[str, float]]) -> None:
    """Prints a table of mean metrics by method."""
    shown = Table(title=title)
    for name in ("method", *report.TABLE):
        shown.add_column(name, justify="left" if name == "method" else "right")
    for method, row in table.items():
        shown.add_row(method, *(f"{row[name]:.3f}" for name in report.TABLE))
    Console().print(shown)


def run(args: argparse.Namespace) -> None:
    """Does what the command line asks."""
    if args.compare:
        return comparison.run(args)
    out, config = configure(args)
    env = gym.make(
        "fusion_gym:FusionDistill-v0",
        data=config["data"],
        teacher=config["teacher"],
        student_width=config["width"],
        learning_rate=config["learning_rate"],
        batch_size=config["batch_size"],
        episode_steps=config["decisions"],
        updates_per_step=config["updates"] // config["decisions"],
        patches=None,
        device=args.device,
        threads=args.threads,
    )
    agent = load_agent(config["agent"], env)
    for data in config["test"]:
        load_splits(data)  # a mistake shows before the training, not after it
    out.mkdir(parents=True, exist_ok=True)
    files.atomic_write(out / CONFIG, yaml.safe_dump(config, sort_keys=False))
    print(f"seed {config['seed']}, {config['updates']} updates, agent {config['agent']}")
    trained = train(env, agent, config, out, args.progress)
    student = trained["student"].cpu().eval()
    weights = {"width": student.width, "depth": student.depth, "weights": student.state_dict()}
    with files.atomic_path(out / "student.pt") as temporary:
        torch.save(weights, temporary)
    metadata = {"version": fusion_gym.__version__, "input": "luminance in [0, 1]", "config": json.dumps(config)}
    export.export_onnx(student, out / "student.onnx", metadata)
    curves(trained["log"], out)
    judge(student, config, out, args.progress)
    print(
        f"A student of {sum(p.numel() for p in student.parameters()):,} weights is in {out}: student.pt, student.onnx."
    )
    print(f"Next: look at {out / 'contact_sheet.png'}")


def main(argv: list[str] | None = None) -> int:
    """Runs the command; a user's mistake gives one sentence and exit code 2."""
    try:
        run(parse(argv))
    except KeyboardInterrupt:
        print("Stopped; --resume continues from the last decision.", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        print(f"distill_student.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
