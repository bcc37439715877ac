"""What the pages of runs have in common (`fusion_gym.page`): the course of a student's training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fusion_gym.page import Chart, Line, action_lines


def course(log: Sequence[Mapping[str, float]]) -> list[Chart]:
    """Curves of a student's training: scores, actions and losses over its updates.

    Args:
        log: The infos of its decisions, from the one before any update on.
    """
    x = [entry["student/updates"] for entry in log]

    def lines(prefix: str) -> dict[str, Line]:
        keys = [key for key in log[0] if key.startswith(prefix)]
        return {key.removeprefix(prefix).lstrip("_") or "score": Line(x, [e[key] for e in log]) for key in keys}

    # The setting that is logged with a state is the one that led to it, so the curves begin with the first decision.
    actions = {key.removeprefix("action/"): [e[key] for e in log[1:]] for key in log[0] if key.startswith("action/")}
    return [
        Chart("Fusion score on the probe", "student updates", lines("score")),
        Chart("Actions, as shares of their ranges", "student updates", action_lines(x[1:], actions)),
        Chart("Losses", "student updates", lines("student/loss_")),
    ]
