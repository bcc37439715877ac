"""Comparing agents: each trains the same students on the same seeds, which are then judged on test pairs."""

from .comparison import add_arguments, entrants, read_instances, run

__all__ = ["add_arguments", "entrants", "read_instances", "run"]
