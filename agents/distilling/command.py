"""Trains a student under an agent or a schedule, and leaves a model that can be deployed."""

from __future__ import annotations

import argparse
import importlib.util
import json
from pathlib import Path
from typing import Any

import gymnasium as gym

from fusion_gym import export, files, report
from fusion_gym.cli import Parser, called_as, guard, read_yaml
from fusion_gym.data import load_splits
from fusion_gym.folders import free_folder, of_run, unused
from fusion_gym.models.own import OwnStudent
from fusion_gym.models.student import save_student
from fusion_gym.outputs import check_outputs
from fusion_gym.teachers import check_folder, fused_pairs
from fusion_gym.text import say

from .. import Agent, load_agent
from ..environments import make_checked
from ..forks import Search
from ..schema import CONFIG, add_options, earlier_run, given, refuse
from ..students import ENVIRONMENT
from .judging import curves, judge
from .page import student_page
from .student_run import StudentRun
from .training import STATE, read_state, train

USUAL = Path("runs/student")
RESUMED = ("resume", "trust", "progress", "dry_run")  # options that a resumed run takes


def make_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = Parser(
        description=__doc__, epilog="--compare AGENT ... is another command: python -m agents.comparison AGENT ..."
    )
    add_options(parser, StudentRun)
    add = parser.add_argument
    add("--config", type=Path, help="config.yml of an earlier run, whose settings are the defaults")
    add("--out", type=Path, help=f"folder for everything that is made (default: {USUAL})")
    add("--resume", type=Path, metavar="RUN", help="continue the killed run in this folder")
    add("--trust", action="store_true", help="load an agent's zip of other origin, which can run code of its author's")
    add("--progress", action=argparse.BooleanOptionalAction, default=True, help="progress bars")
    add("--dry-run", action="store_true", help="print the resolved configuration and stop")
    return parser


def configure(parser: argparse.ArgumentParser, args: argparse.Namespace) -> tuple[Path, StudentRun]:
    """Folder and configuration of the run: new, or those of the run to resume.

    Raises:
        UserError: If a setting is not allowed, or the folder does not fit what is asked.
    """
    if args.resume is not None:
        path = earlier_run(args.resume)
        refuse(StudentRun, parser, args, RESUMED, f"--resume: {args.resume} goes on as its {CONFIG} says.")
        begun = StudentRun.read(path)
        if (args.resume / STATE).is_file():
            read_state(args.resume / STATE, begun)  # a mistake shows here, before anything is computed
        return args.resume, begun
    out = unused(args.out) if args.out else free_folder(USUAL)
    earlier = {} if args.config is None else StudentRun.check(read_yaml(args.config), args.config)
    now = given(StudentRun, args)
    env_kwargs = {**earlier.get("env_kwargs", {}), **now.get("env_kwargs", {})}
    return out, StudentRun.begin({**earlier, **now, "env_kwargs": env_kwargs})


def run(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Does what the command line asks."""
    out, config = configure(parser, args)
    if args.dry_run:
        say(f"# {out / CONFIG}", *config.to_yaml().splitlines())
        return
    env = make_checked(ENVIRONMENT, config.arguments())
    agent = load_agent(config.agent, env, args.trust)
    env.reset(seed=config.seed)  # a mistake shows here, before anything is written,
    check_outputs([out], data=config.datasets)
    for data in config.datasets:
        pairs = load_splits(data, config.ir_range).test
        report.check_pairs(pairs, data)  # or here, not after the training
        fused_pairs(config.teacher, pairs)
    check_folder(config.teacher, config.datasets, config.ir_range)
    with of_run(args.resume, args.out, USUAL) as folder:
        work(config, folder, env, agent, args.progress)


def work(config: StudentRun, out: Path, env: gym.Env, agent: Agent, progress: bool) -> None:
    """Distils, judges and reports, in a folder that is this process's."""
    files.atomic_write(out / CONFIG, config.to_yaml())
    total = config.steps * config.updates_per_step
    say(f"{total} updates in {config.decisions} decisions of {config.agent}, seed {config.seed}; {out}")
    plain: Any = env.unwrapped
    log = train(plain, agent, config, out, progress)
    if isinstance(agent, Search):
        say(f"The search's copies have made {agent.updates} further updates.")
    student = plain.distiller.student.cpu()
    save_student(student, out / "student.pt")
    made = ["student.pt"]
    if all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime", "onnxscript")):
        metadata = {**export.describe(student), "config": json.dumps(config.as_dict())}
        try:
            export.export_onnx(student, out / "student.onnx", metadata)
            made.append("student.onnx")
        except export.ExportError as error:
            if not isinstance(student, OwnStudent):
                raise
            say(f"No ONNX file: {error}")  # a network of the user's own may do what ONNX cannot
    else:
        say("No ONNX file: it needs pip install 'fusion-gym[deploy]', then --resume.")
    curves(log, out)
    judged, scenes = judge(student, config, out, progress)
    size = sum(parameter.numel() for parameter in student.parameters())
    say(f"A student of {size:,} weights is in {out}: {', '.join(made)}, metrics.csv, curves and contact sheets.")
    title = f"A student of {size:,} weights under {config.agent}"
    again = f"{called_as('distill')} --config {out / CONFIG} --out {out}-again"
    say(f"Next: look at {student_page(out, title, again, config.to_yaml(), log, judged, scenes)}.")


def main(argv: list[str] | None = None) -> int:
    """Runs the command; a user's mistake gives one sentence and exit code 2."""
    parser = make_parser()
    args = parser.parse_args(argv)
    stopped = "Stopped; --resume with the run's folder continues."
    return guard("distill_student.py", lambda: run(parser, args), stopped)
