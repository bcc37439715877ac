"""Comparing agents: each trains the same students on the same seeds, which are then judged on test pairs."""

from .comparison import entrants, read_instances

__all__ = ["entrants", "read_instances"]
