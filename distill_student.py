#!/usr/bin/env python
"""Trains a student under an agent or a schedule: see agents/distilling; --compare is python -m agents.comparison."""

from __future__ import annotations

import argparse
import sys

from agents.comparison import command as comparison
from agents.distilling import command

NAME = "distill_student.py"


def main(argv: list[str] | None = None) -> int:
    """Runs the command; a user's mistake gives one sentence and exit code 2."""
    compared = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    compared.add_argument("--compare", nargs="*")
    found, rest = compared.parse_known_args(argv)
    return command.main(argv) if found.compare is None else comparison.main([*found.compare, *rest], NAME)


if __name__ == "__main__":
    sys.exit(main())
