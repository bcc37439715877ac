"""Searches for schedules, as hard-working rivals of an agent: the best constant of a grid, and an open loop.

A candidate is a schedule: break points (progress, physical value) by component. A search asks for scores of
candidates on blocks: a block is one student seed over all instances that the search is for, and its score their
mean. Within a round all candidates are tried on the same blocks. The searches are deterministic in the scores they
get, so that one that is started again with the old scores at hand takes the same way.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fusion_gym.actions import ACTIONS, decode, encode
from fusion_gym.conditions import HARDENINGS

from ..scripted import Points

Candidate = dict[str, Points]
Evaluate = Callable[[Sequence[tuple[Candidate, int]]], Sequence[float]]

# Grids of guidance, hardening (one strength for all, or one of them alone) and the share that stays clean, the
# coarsest first; all hold the default.
Axes = tuple[tuple[float, ...], tuple[float | str, ...], tuple[float, ...]]
GRIDS: tuple[Axes, ...] = (
    ((0.0, 0.2, 0.5, 0.8), (0.0, 0.5, 1.0), (0.5,)),
    ((0.0, 0.1, 0.2, 0.35, 0.5, 0.8), (0.0, 0.5, 1.0, *HARDENINGS), (0.5,)),
    ((0.0, 0.1, 0.2, 0.35, 0.5, 0.8), (0.0, 0.5, 1.0, *HARDENINGS), (0.2, 0.5, 0.8)),
)
POPULATION, ELITES = 12, 4
KEEP = 0.3  # share of the old mean and spread that a generation of the open loop keeps
SPREAD, LEAST_SPREAD = 0.5, 0.05  # in units of the action, which is 2 wide


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        schedule: The best candidate.
        score: Its mean score over the blocks that it was tried on.
        blocks: The number of these blocks.
        table: Every candidate's schedule, mean score and number of blocks, the best first.
    """

    schedule: Candidate
    score: float
    blocks: int
    table: list[dict[str, Any]]


class Trials:
    """Scores of candidates, block by block.

    Args:
        evaluate: Gives a score for each (candidate, block).
    """

    def __init__(self, evaluate: Evaluate) -> None:
        self._evaluate = evaluate
        self._schedules: list[Candidate] = []
        self._scores: list[list[float]] = []

    def add(self, schedule: Candidate) -> int:
        """Enters a candidate; gives its number."""
        self._schedules.append(schedule)
        self._scores.append([])
        return len(self._schedules) - 1

    def run(self, numbers: Sequence[int], blocks: range) -> None:
        """Tries candidates on all of some blocks."""
        asked = list(itertools.product(numbers, blocks))
        scores = self._evaluate([(self._schedules[number], block) for number, block in asked])
        for (number, _), score in zip(asked, scores, strict=True):
            self._scores[number].append(score)

    def mean(self, number: int) -> float:
        """Mean score of a candidate over all blocks that it was tried on."""
        return float(np.mean(self._scores[number]))

    def found(self, best: int) -> Found:
        """The result, given the number of the best candidate."""
        order = sorted(range(len(self._scores)), key=lambda n: (n != best, -len(self._scores[n]), -self.mean(n)))
        table = [{"schedule": self._schedules[n], "score": self.mean(n), "blocks": len(self._scores[n])} for n in order]
        return Found(self._schedules[best], self.mean(best), len(self._scores[best]), table)


def constants(names: Collection[str], blocks: int) -> list[Candidate]:
    """The constant schedules of the finest grid that some blocks can search.

    Args:
        names: Components that the agent may set; the others are left out of the grid.
        blocks: Blocks that the search may use; about two for each candidate are needed at least.
    """
    made: list[Candidate] = []
    for axes in GRIDS:
        finer = list(dict.fromkeys(_constant(names, *values) for values in itertools.product(*axes)))
        if made and sum(count * each for count, each in halving(len(finer), 0)) > blocks:
            break
        made = [{name: [(0.0, value)] for name, value in items} for items in finer]
    return made


def _constant(names: Collection[str], guidance: float, hardening: float | str, clean: float) -> tuple[Any, ...]:
    alone = {name: float(name == hardening) for name in HARDENINGS}
    strengths = alone if isinstance(hardening, str) else dict.fromkeys(HARDENINGS, hardening)
    values = {"guidance": guidance, **strengths, "clean": clean}
    return tuple((name, value) for name, value in values.items() if name in names)


def halving(candidates: int, blocks: int) -> list[tuple[int, int]]:
    """Plan of a successive halving (Jamieson and Talwalkar, 2016, arXiv:1502.07943).

    Every round gets an equal share of the blocks and ends with the better half going on.

    Args:
        candidates: Number of candidates.
        blocks: Blocks to spend, at least.

    Returns:
        Candidates and new blocks for each of them, by round; their products sum up to ``blocks`` or more.
    """
    counts = [candidates]
    while counts[-1] > 2:
        counts.append(math.ceil(counts[-1] / 2))
    return [(count, max(1, math.ceil(blocks / len(counts) / count))) for count in counts]


def successive_halving(candidates: Sequence[Candidate], evaluate: Evaluate, blocks: int) -> Found:
    """The best of some candidates.

    Args:
        candidates: The candidates.
        evaluate: Scores candidates on blocks.
        blocks: Blocks to spend, at least.
    """
    trials = Trials(evaluate)
    left = [trials.add(candidate) for candidate in candidates]
    first = 0
    for count, each in halving(len(left), blocks):
        left = sorted(left, key=trials.mean, reverse=True)[:count] if first else left
        trials.run(left, range(first, first + each))
        first += each
    return trials.found(max(left, key=trials.mean))


def generations(blocks: int) -> int:
    """Number of generations of `cross_entropy` for a number of blocks; a fifth is for the final comparison."""
    return max(1, math.ceil(0.8 * blocks / POPULATION))


class Courses:
    """The courses over an episode that an open-loop search goes through, as vectors of actions.

    A course is a line through some break points, evenly spaced, for each of guidance, the hardenings that the start has
    (one strength for them) and whatever else it sets.

    Args:
        start: A constant schedule.
        parts: Number of break points.

    Attributes:
        first: The start as a vector.
    """

    def __init__(self, start: Candidate, parts: int) -> None:
        names = list(start)
        hardenings = [name for name in names if name in HARDENINGS]
        alike = [name for name in hardenings if start[name][0][1] > 0] or hardenings
        groups = (alike, *([name] for name in names if name not in HARDENINGS))
        self._start, self._groups = start, [group for group in groups if group]
        self._times = np.linspace(0, 1, parts)
        values = [encode({group[0]: start[group[0]][0][1]}, group[:1])[0] for group in self._groups]
        self.first = np.repeat(np.array(values, dtype=np.float64), parts)

    def schedule(self, vector: np.ndarray) -> Candidate:
        """The schedule of a vector, each value in [-1, 1]."""
        return self._curves(vector.reshape(len(self._groups), -1), self._times)

    def settings(self, vector: np.ndarray) -> dict[str, float]:
        """Physical values by name of a vector with one value in [-1, 1] for each group."""
        return {name: points[0][1] for name, points in self.schedule(vector).items()}

    def lineage(self, rows: np.ndarray) -> Candidate:
        """The schedule of settings that were held for one decision each, (decisions, groups)."""
        return self._curves(rows.T, np.linspace(0, 1, len(rows), endpoint=False))

    def _curves(self, values: np.ndarray, times: np.ndarray) -> Candidate:
        curves = dict(self._start)
        for group, row in zip(self._groups, values, strict=True):
            physical = [decode(np.array([value]), group[:1])[group[0]] for value in row]
            curves |= {name: list(zip(times.tolist(), physical, strict=True)) for name in group}
        return curves


def cross_entropy(start: Candidate, evaluate: Evaluate, blocks: int, parts: int = 4, seed: int = 0) -> Found:
    """The best course near a constant one, by the cross-entropy method (de Boer et al., 2005).

    A generation is drawn around the mean so far and tried on a block of its own; its better third moves mean and
    spread. In the end the mean is compared with the start on fresh blocks, and the better of the two is the result:
    the start is beaten or kept.

    Args:
        start: A constant schedule.
        evaluate: Scores candidates on blocks.
        blocks: Blocks to spend, at least.
        parts: Number of break points of a course.
        seed: Seed of the draws.
    """
    courses = Courses(start, parts)
    rng = np.random.default_rng(seed)
    mean = courses.first
    spread = np.full(mean.shape, SPREAD)
    trials = Trials(evaluate)
    rounds = generations(blocks)
    for generation in range(rounds):
        drawn = np.clip(mean + spread * rng.standard_normal((POPULATION, len(mean))), -1, 1)
        numbers = [trials.add(courses.schedule(vector)) for vector in drawn]
        trials.run(numbers, range(generation, generation + 1))
        order = np.argsort([-trials.mean(number) for number in numbers], kind="stable")
        elite = drawn[order[:ELITES]]
        mean = KEEP * mean + (1 - KEEP) * elite.mean(0)
        spread = np.maximum(KEEP * spread + (1 - KEEP) * elite.std(0), LEAST_SPREAD)
    return finals(trials, [start, courses.schedule(mean)], rounds, blocks - rounds * POPULATION)


def tree_parzen(start: Candidate, evaluate: Evaluate, blocks: int, parts: int = 4, seed: int = 0) -> Found:
    """The same by Optuna's tree-structured Parzen estimator (Bergstra et al., 2011), a block for each trial.

    In the end its best three and the start are compared on fresh blocks.

    Args:
        start: As in `cross_entropy`, like the others.
        evaluate: Scores candidates on blocks.
        blocks: Blocks to spend, at least.
        parts: Number of break points of a course.
        seed: Seed of the draws.

    Raises:
        ImportError: If Optuna is not installed.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    courses = Courses(start, parts)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed, multivariate=True))
    study.enqueue_trial({f"{at:02}": value for at, value in enumerate(courses.first.tolist())})
    trials = Trials(evaluate)
    rounds = max(1, math.ceil(0.8 * blocks))
    for block in range(rounds):
        trial = study.ask()
        vector = np.array([trial.suggest_float(f"{at:02}", -1.0, 1.0) for at in range(len(courses.first))])
        number = trials.add(courses.schedule(vector))
        trials.run([number], range(block, block + 1))
        study.tell(trial, trials.mean(number))
    best = sorted(study.trials, key=lambda trial: trial.value or -math.inf, reverse=True)[:3]
    found = [courses.schedule(np.array([trial.params[name] for name in sorted(trial.params)])) for trial in best]
    return finals(trials, [start, *found], rounds, blocks - rounds)


def finals(trials: Trials, schedules: Sequence[Candidate], first: int, blocks: int) -> Found:
    """Compares the last candidates on the blocks that are left, from the first one on, at least one for each."""
    finalists = [trials.add(schedule) for schedule in schedules]
    left = max(1, math.ceil(blocks / len(finalists)))
    trials.run(finalists, range(first, first + left))
    return trials.found(max(finalists, key=trials.mean))


def settable(actions: Sequence[str] | None) -> tuple[str, ...]:
    """The components that an environment with this argument ``actions`` lets an agent set."""
    return tuple(ACTIONS) if actions is None else tuple(actions)
