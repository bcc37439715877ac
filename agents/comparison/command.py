"""Compares agents and schedules: equal students, data, updates and seeds; the same command again continues."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NoReturn

from fusion_gym.cli import Parser, UserError, guard, read_yaml
from fusion_gym.text import plain

from ..feedback import RULES
from ..schema import add_options, given
from .comparison import OUT, Comparison
from .comparison_run import OF_A_RUN, ComparisonRun
from .rivals import RIVALS

USUAL = ("ppo", *RULES, "epsilon", "constant", "random", "nothing")  # whom an agent has to beat, and PPO
_UNKNOWN = "unrecognized arguments: "


class _Parser(Parser):
    """Says in one sentence what is not allowed."""

    def error(self, message: str) -> NoReturn:
        name = plain(message).removeprefix(_UNKNOWN).split()[0]
        if not message.startswith(_UNKNOWN):
            raise UserError(f"{message}; see --help.")
        why = "the same command again, with the same --out, continues." if name == "--resume" else "see --help."
        raise UserError(f"{name} is not for comparisons: {why}")


def make_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = _Parser(prog="python -m agents.comparison", description=__doc__)
    parser.add_argument(
        "agents",
        nargs="*",
        default=list(USUAL),
        metavar="AGENT",
        help=f"those to compare (default: {' '.join(USUAL)}): an agent's zip, a schedule or module:Class, or "
        f"NAME=AGENT, or one of {', '.join(RIVALS)}, or a YAML file of {{name: agent}} or "
        "{name: {agent: ..., and arguments of the environment}}",
    )
    add_options(parser, ComparisonRun)
    add = parser.add_argument
    also = ", ".join(OF_A_RUN[:-1])
    add("--config", type=Path, help=f"config.yml of a student's run, whose settings but {also} are the defaults")
    add("--out", type=Path, default=OUT, help=f"folder for everything that is made (default: {OUT})")
    add("--trust", action="store_true", help="load agents' zips of other origin, which can run code of their authors'")
    add("--progress", action=argparse.BooleanOptionalAction, default=True, help="progress bars")
    add("--dry-run", action="store_true", help="print what would be compared and stop")
    return parser


def run(argv: list[str] | None = None) -> None:
    """Does what the command line asks.

    Raises:
        UserError: If it asks for what cannot be.
    """
    args = make_parser().parse_args(argv)
    earlier = {} if args.config is None else ComparisonRun.of_file(read_yaml(args.config), args.config)
    now = given(ComparisonRun, args)
    env_kwargs = {**earlier.pop("env_kwargs", {}), **now.pop("env_kwargs", {})}
    settings = ComparisonRun(**{**earlier, **now, "agents": args.agents, "env_kwargs": env_kwargs})
    comparison = Comparison(settings, args.out, args.trust, args.progress)
    if args.dry_run:
        comparison.show()
    else:
        comparison.run()


def main(argv: list[str] | None = None, name: str = "agents.comparison") -> int:
    """Runs the command; a user's mistake gives one sentence and exit code 2."""
    return guard(name, lambda: run(argv), "Stopped; the same command again continues.")
