#!/usr/bin/env python
"""Trains a student under an agent or a schedule, and leaves a model that can be deployed."""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import yaml
from rich import box
from rich.console import Console
from rich.table import Table
from torch import nn
from tqdm import tqdm

import fusion_gym
from agents import Agent, comparison, load_agent, pages, settings_of
from agents.environments import make_checked
from fusion_gym import export, files, page, rendering, report
from fusion_gym.cli import (
    UserError,
    check_finite,
    check_keys,
    check_seed,
    guard,
    parse_settings,
    read_yaml,
)
from fusion_gym.data import load_splits
from fusion_gym.distiller import SELF_LOSSES
from fusion_gym.folders import free_folder, of_run, unused
from fusion_gym.metrics import INVENTED, REPORTED
from fusion_gym.models.student import STUDENTS, save_student
from fusion_gym.outputs import check_outputs
from fusion_gym.record import of_episode
from fusion_gym.rules import RULES
from fusion_gym.sources import add_range
from fusion_gym.teachers import check_folder, fuse_pair, fused_pairs
from fusion_gym.text import plain

ENVIRONMENT, DECISIONS = "FusionDistill-v0", 16
CONFIG, STATE, DONE, RECORD = "config.yml", "state.pt", "metrics.json", "episode.json"
STRETCH, STRETCHES = 100, 400  # updates between two savings, unless there were more savings than that
SETTINGS = (
    *("agent", "data", "ir_range", "test", "teacher", "student", "width", "start", "updates", "decisions"),
    *("learning_rate", "batch_size", "self_loss", "env_kwargs", "seed", "device", "threads"),
)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line; what is absent there comes from the file of --config."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--agent", default="constant", help="a trained agent's zip, a schedule, or module:Class (default: constant)")
    add("--data", default="synthetic", help="folder of pairs, several joined by commas, or synthetic (the default)")
    add_range(parser)
    add("--test", nargs="*", default=[], metavar="DATA", help="further data whose test pairs are reported on")
    add("--teacher", default="builtin", help="name, TorchScript or ONNX file, module:Class, or folder")
    add("--student", choices=sorted(STUDENTS), help="one of the family that is shipped, instead of a --width")
    add("--width", type=int, default=12, help="channels of the student (default: 12)")
    add("--start", default="new", help="new, trained (weights that come with the package), or a weights file")
    add("--updates", type=int, default=3200, help="optimiser updates in all, rounded up (default: 3200)")
    add("--decisions", type=int, help="how often the agent is asked (default: as in its training, else 16)")
    add("--learning-rate", type=float, default=3e-3, help="of the student, at the start (default: 0.003)")
    add("--batch-size", type=int, default=8, help="patches in an update (default: 8)")
    add("--self-loss", choices=sorted(SELF_LOSSES), default="simple", help="what a student learns by itself from")
    add("--env-kwargs", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="environment's settings")
    add("--config", type=Path, help="config.yml of an earlier run, whose settings are the defaults")
    add("--seed", type=int, help="drawn, printed and stored when absent")
    add("--out", type=Path, help="folder for everything that is made (default: runs/student)")
    add("--resume", type=Path, metavar="RUN", help="continue the killed run in this folder")
    add("--trust", action="store_true", help="load an agent's zip of other origin, which can run code of its author's")
    add("--device", default="auto", help="auto, cpu or cuda")
    add("--threads", type=int, default=1, help="torch's threads (default: 1)")
    add("--progress", action=argparse.BooleanOptionalAction, default=True, help="progress bars")
    add("--dry-run", action="store_true", help="print the resolved configuration and stop")
    comparison.add_arguments(parser)
    args = parser.parse_args(argv)
    if args.config is not None:
        content = read_yaml(args.config)
        check_keys(content, (*SETTINGS, "version"), f"setting (in {args.config})")
        parser.set_defaults(**{key: value for key, value in content.items() if key != "version"})
        args = parser.parse_args(argv)
    return args


def configure(args: argparse.Namespace) -> tuple[Path, dict[str, Any]]:
    """Folder and configuration of the run: new, or those of the run to resume.

    Raises:
        UserError: If a setting is not allowed, or the folder does not fit what is asked.
    """
    if args.resume is not None:
        path = args.resume / CONFIG
        if not path.is_file():
            raise UserError(f"{args.resume} has no {CONFIG}; give --resume the folder of an earlier run.")
        config = read_yaml(path)
        missing = [key for key in SETTINGS if key not in config]
        if missing:
            raise UserError(f"{path} lacks {missing[0]}; start anew with another --out.")
        return args.resume, config
    out = unused(args.out) if args.out else free_folder(Path("runs/student"))
    config = {key: getattr(args, key) for key in SETTINGS}
    given = config["env_kwargs"]  # a mapping where it comes from a file
    brought = settings_of(args.agent)
    decisions = brought.pop("decisions", DECISIONS)
    config["env_kwargs"] = brought | (given if isinstance(given, dict) else parse_settings(given, "--env-kwargs"))
    config["decisions"] = decisions if args.decisions is None else args.decisions
    if args.updates < config["decisions"] or config["decisions"] < 1:
        raise UserError(f"--updates {args.updates} for {config['decisions']} decisions: give at least one for each.")
    if args.seed is None:
        config["seed"] = int(np.random.default_rng().integers(2**31))
    check_finite(config)
    check_seed(config["seed"])
    return out, {**config, "version": fusion_gym.__version__}


def rhythm(config: dict[str, Any]) -> tuple[int, int]:
    """Stretches for each decision, and updates in each stretch; the training is saved after every stretch."""
    stretches = max(1, round(min(config["updates"] / STRETCH, STRETCHES) / config["decisions"]))
    return stretches, math.ceil(config["updates"] / (config["decisions"] * stretches))


def make_env(config: dict[str, Any]) -> gym.Env:
    """The environment whose one episode is the whole training."""
    stretches, updates = rhythm(config)
    settings = {
        "data": config["data"],
        "ir_range": config["ir_range"],
        "teacher": config["teacher"],
        "student": config["student"],
        "student_width": config["width"],
        "start": config["start"],
        "learning_rate": config["learning_rate"],
        "batch_size": config["batch_size"],
        "self_loss": config["self_loss"],
        "episode_steps": config["decisions"] * stretches,
        "updates_per_step": updates,
        "patches": None,
        "device": config["device"],
        "threads": config["threads"],
    }
    for name in config["env_kwargs"]:
        if name in settings:
            raise UserError(f"--env-kwargs {name} is not for this command: it has an option for that, see --help.")
    return make_checked(ENVIRONMENT, {**settings, **config["env_kwargs"]})


def train(env: Any, agent: Agent, config: dict[str, Any], out: Path, progress: bool) -> list[dict[str, float]]:
    """Runs the episode, each decision held for some stretches; continues from the saved state where there is one.

    Returns:
        The infos: the first before any update, then one for each stretch.

    Raises:
        UserError: If the student diverges or the saved state is damaged.
    """
    stretches, _ = rhythm(config)
    observation, info = env.reset(seed=config["seed"])
    log, seen, memory, action = [info], [], None, None
    taken: list[Any] = []  # the actions
    rewards: list[float] = []
    path = out / STATE

    def ask(what: np.ndarray, first: bool) -> tuple[np.ndarray, Any]:
        return agent.predict(what, state=memory, episode_start=np.array([first]), deterministic=True)

    if path.is_file():
        try:
            saved = torch.load(path, weights_only=True)
            observation, *seen = (value.numpy() for value in saved["observations"])
            env.load_state(saved["env"])
            log, rewards, taken = saved["log"], saved["rewards"], list(saved["actions"].numpy())
        except Exception as error:  # torch and zipfile raise many classes for the many kinds of damage
            raise UserError(f"{path} is damaged; remove it and resume again, from the beginning.") from error
        for number, past in enumerate(seen):  # an agent with a memory comes to where it was
            action, memory = ask(past, number == 0)
    total = config["decisions"] * stretches
    bar = tqdm(total=total, initial=len(log) - 1, disable=not progress, unit="stretch", desc="distil")
    for step in range(len(log) - 1, total):
        if step % stretches == 0:
            action, memory = ask(observation, step == 0)
            seen.append(observation)
        observation, reward, _, _, info = env.step(action)
        log.append(info)
        taken.append(action)
        rewards.append(float(reward))
        if info["diverged"]:
            curves(log, out)
            raise UserError(
                f"The student diverged after {log[-2]['student/updates']:.0f} updates, see {out / 'losses.png'}; "
                "lower --learning-rate."
            )
        state = {
            "observations": [torch.from_numpy(o) for o in (observation, *seen)],
            "log": log,
            "rewards": rewards,
            "actions": torch.from_numpy(np.stack(taken)),
            "env": env.save_state(),
        }
        with files.atomic_path(path) as temporary:
            torch.save(state, temporary)
        bar.update()
        bar.set_postfix(score=f"{info['score']:.3f}")
    bar.close()
    of_episode(env, config["seed"], taken, rewards).save(out / RECORD)
    return log


def curves(log: list[dict[str, float]], out: Path) -> None:
    """Draws losses, scores and actions over the updates, and writes all that was recorded."""
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


def judge(
    student: nn.Module, config: dict[str, Any], out: Path, progress: bool
) -> tuple[dict[str, Any], list[page.Scene]]:
    """Scores student, teacher and rules on the test pairs; writes tables and contact sheets in colour.

    Returns:
        By test data, the mean metrics and those of each pair; and the pictures of the first data's pairs.
    """
    result: dict[str, Any] = {}
    scenes: list[page.Scene] = []
    rows = []
    for number, data in enumerate(dict.fromkeys((config["data"], *config["test"]))):
        pairs = load_splits(data, config["ir_range"]).test
        rules = {name.removeprefix("rule:"): RULES[name] for name in ("rule:laplacian", "rule:guided")}
        outputs = {
            "student": [fuse_pair(student, pair) for pair in pairs],
            "teacher": fused_pairs(config["teacher"], pairs),
            **report.baselines(pairs),
            **{name: [fuse_pair(rule, pair) for pair in pairs] for name, rule in rules.items()},
        }
        table = report.score_outputs(
            outputs, pairs, track=lambda loop: tqdm(loop, disable=not progress, unit="pair", desc="judge")
        )
        result[data] = {"mean": report.means(table), "images": table}
        for method, images in table.items():
            rows += [{"data": data, "method": method, "image": name, **row} for name, row in images.items()]
        files.write_csv(out / "metrics.csv", rows)  # before the pictures: they take the files of the pairs once more
        files.write_json(out / DONE, result)
        shown = report.sheet_rows({name: outputs[name] for name in ("teacher", "student")}, pairs)
        name = "contact_sheet.png" if number == 0 else f"contact_sheet_{number}.png"
        names = [plain(pair.name) for pair in report.spread(pairs)]
        rendering.save_picture(out / name, rendering.contact_sheet(shown, names))
        scenes = scenes or [page.Scene(*scene) for scene in zip(names, shown, strict=True)]
    for data, judged in result.items():
        show(f"{data}: {len(judged['images']['student'])} test pairs", judged["mean"])
    return result, scenes


def show(title: str, table: dict[str, dict[str, float]]) -> None:
    """Prints a table of mean metrics by method, and how much of the teacher's the student has."""
    shown = Table(title=title, box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    shown.add_column("method", no_wrap=True)
    for name in REPORTED:
        shown.add_column(name, justify="right", no_wrap=True)
    shown.add_column("inv. ↓", justify="right", no_wrap=True)
    for method, row in table.items():
        cells = (*(_short(row[name]) for name in REPORTED), f"{row[INVENTED]:.2%}")
        shown.add_row(method, *cells, end_section=method == list(table)[-1])
    shares = [report.share(table["student"][name], table["teacher"][name]) for name in REPORTED]
    shown.add_row("of teacher", *("-" if math.isnan(share) else f"{share:.0%}" for share in shares))
    Console().print(shown)


def _short(value: float) -> str:
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.3f}"


def run(args: argparse.Namespace) -> None:
    """Does what the command line asks."""
    if args.compare:
        comparison.run(args)
        return
    out, config = configure(args)
    if args.dry_run:
        print(f"# {out / CONFIG}\n{yaml.safe_dump(config, sort_keys=False)}", end="")
        return
    env = make_env(config)
    agent = load_agent(config["agent"], env, args.trust)
    env.reset(seed=config["seed"])  # a mistake shows here, before anything is written,
    reported = list(dict.fromkeys((config["data"], *config["test"])))
    check_outputs([out], data=reported)
    for data in reported:
        pairs = load_splits(data, config["ir_range"]).test
        report.check_pairs(pairs, data)  # or here, not after the training
        fused_pairs(config["teacher"], pairs)
    check_folder(config["teacher"], reported, config["ir_range"])
    with of_run(args.resume, args.out, Path("runs/student")) as out:
        work(config, out, env, agent, args.progress)


def work(config: dict[str, Any], out: Path, env: gym.Env, agent: Agent, progress: bool) -> None:
    """Distils, judges and reports, in a folder that is this process's."""
    files.atomic_write(out / CONFIG, yaml.safe_dump(config, sort_keys=False))
    stretches, updates = rhythm(config)
    total = config["decisions"] * stretches * updates
    print(f"{total} updates in {config['decisions']} decisions of {config['agent']}, seed {config['seed']}; {out}")
    plain: Any = env.unwrapped
    log = train(plain, agent, config, out, progress)
    student = plain.distiller.student.cpu().eval()
    save_student(student, out / "student.pt")
    made = ["student.pt"]
    if all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime", "onnxscript")):
        metadata = {**export.describe(student), "config": json.dumps(config)}
        export.export_onnx(student, out / "student.onnx", metadata)
        made.append("student.onnx")
    else:
        print("No ONNX file: it needs pip install 'fusion-gym[deploy]', then --resume.")
    curves(log, out)
    judged, scenes = judge(student, config, out, progress)
    size = sum(parameter.numel() for parameter in student.parameters())
    print(f"A student of {size:,} weights is in {out}: {', '.join(made)}, metrics.csv, curves and contact sheets.")
    title = f"A student of {size:,} weights under {config['agent']}"
    again = f"python distill_student.py --config {out / CONFIG} --out {out}-again"
    settings = yaml.safe_dump(config, sort_keys=False)
    print(f"Next: look at {pages.student_page(out, title, again, settings, log, judged, scenes)}.")


def main(argv: list[str] | None = None) -> int:
    """Runs the command; a user's mistake gives one sentence and exit code 2."""
    return guard("distill_student.py", lambda: run(parse(argv)), "Stopped; --resume with the run's folder continues.")


if __name__ == "__main__":
    sys.exit(main())
