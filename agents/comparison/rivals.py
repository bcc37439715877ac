"""The searched rivals of an agent: the best constant schedule, the best for each instance, and an open loop.

All are tuned by the environment's own final score, on its probe of validation pairs, over seeds of their own.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from fusion_gym.cli import UserError
from fusion_gym.files import atomic_write, write_json
from fusion_gym.text import say

from .cells import Cell, file_name, load_result, origin
from .search import (
    Candidate,
    Evaluate,
    Found,
    constants,
    cross_entropy,
    settable,
    successive_halving,
    tree_parzen,
)

CONSTANT, ORACLE = "best-constant", "best-constant-per-instance"
OPEN_LOOP, OPTUNA, PBT = "open-loop", "open-loop-optuna", "pbt"
OPEN_LOOPS: dict[str, Callable[[Candidate, Evaluate, int], Found]] = {OPEN_LOOP: cross_entropy, OPTUNA: tree_parzen}
RIVALS = (CONSTANT, ORACLE, *OPEN_LOOPS, PBT)
EXTRAS = {OPTUNA: ("Optuna", "tune"), PBT: ("Ray", "scale")}
FIRST_SEED = 1_000_000  # block k of a search has this seed + k; far from those that are judged

Instances = Mapping[str, Mapping[str, Any]]  # arguments of the environment by name
RunCells = Callable[[Sequence[Cell], str], Sequence[Mapping[str, Any]]]  # results of cells, under a title


class Rivals:
    """Finds the searched schedules; a search that was killed goes on where it was, a finished one is read.

    Args:
        folder: Where the searches are kept: a schedule ``NAME.yml`` for ``piecewise:``, and ``NAME.json`` with all
            candidates.
        run_cells: Gives the results of cells, from where they are stored or by running them.
    """

    def __init__(self, folder: Path, run_cells: RunCells) -> None:
        self.folder, self._run_cells = folder, run_cells

    def find(
        self, kind: str, instances: Instances, tuning: Instances, runs: int, oracle_runs: int, label: str = ""
    ) -> dict[str, Candidate]:
        """The schedule of a rival for each instance.

        Args:
            kind: One of `RIVALS`.
            instances: The instances that are judged: those that `ORACLE` and `OPEN_LOOPS` are tuned on, one by one.
            tuning: The instances that `CONSTANT` is tuned on, all at once.
            runs: Students that the search for `CONSTANT` trains, at least.
            oracle_runs: The same for each search on a single instance.
            label: Tells apart searches of one kind, by other arguments of the environment.

        Raises:
            UserError: If a finished search of other settings is in the way, a student cannot be trained, or Optuna or
                Ray is not installed.
        """
        label = f"-{file_name(label)}" if label else ""
        if kind == CONSTANT:
            return dict.fromkeys(instances, self._constant(CONSTANT + label, tuning, runs))
        found = {}
        for instance, arguments in instances.items():
            alone = {instance: arguments}
            found[instance] = self._constant(f"{ORACLE}{label}-{file_name(instance)}", alone, oracle_runs)
            if kind != ORACLE:
                title = f"{kind}{label}-{file_name(instance)}"
                found[instance] = self._open_loop(kind, title, alone, oracle_runs, found[instance])
        return found

    def _constant(self, title: str, instances: Instances, runs: int) -> Candidate:
        blocks = math.ceil(runs / len(instances))
        names = [name for name in settable(None) if all(name in settable(a.get("actions")) for a in instances.values())]
        candidates = constants(names, blocks)
        evaluate = self._evaluate(title, instances)
        return self._kept(title, instances, runs, lambda: successive_halving(candidates, evaluate, blocks))

    def _open_loop(self, kind: str, title: str, alone: Instances, runs: int, start: Candidate) -> Candidate:
        try:
            search = OPEN_LOOPS[kind] if kind in OPEN_LOOPS else _by_populations(*alone.values())
            return self._kept(title, alone, runs, lambda: search(start, self._evaluate(title, alone), runs))
        except ImportError as error:
            if kind not in EXTRAS:
                raise
            needed, extra = EXTRAS[kind]
            raise UserError(f"{kind} needs {needed}: pip install 'fusion-gym[{extra}]'.") from error

    def _evaluate(self, title: str, instances: Instances) -> Callable[[Sequence[tuple[Candidate, int]]], list[float]]:
        def evaluate(asked: Sequence[tuple[Candidate, int]]) -> list[float]:
            cells = [
                Cell("trial", candidate, instance, arguments, FIRST_SEED + block)
                for candidate, block in asked
                for instance, arguments in instances.items()
            ]
            scores = [float(result["score"]) for result in self._run_cells(cells, title)]
            count = len(instances)
            return [sum(scores[i : i + count]) / count for i in range(0, len(scores), count)]

        return evaluate

    def _kept(self, title: str, instances: Instances, runs: int, search: Callable[[], Found]) -> Candidate:
        record = self.folder / f"{title}.json"
        # Through JSON, for what is compared has come from there.
        settings = json.loads(json.dumps({"instances": instances, "runs": runs, **origin()}))
        earlier = load_result(record)
        if earlier is not None:
            if earlier["settings"] != settings:
                changed = next(key for key in settings if earlier["settings"].get(key) != settings[key])
                raise UserError(f"{record} was found with other {changed}; give another --out, or delete that file.")
            return earlier["schedule"]
        found = search()
        atomic_write(record.with_suffix(".yml"), yaml.safe_dump(json.loads(json.dumps(found.schedule))))
        facts = {"settings": settings, "schedule": found.schedule, "score": found.score, "blocks": found.blocks}
        write_json(record, {**facts, "candidates": found.table})
        shown = ", ".join(
            f"{name} {'-'.join(f'{v:.2g}' for _, v in points)}" for name, points in found.schedule.items()
        )
        say(f"{title}: {shown}; score {found.score:.4f} over {found.blocks} seeds; {record.with_suffix('.yml')}")
        return found.schedule


def _by_populations(arguments: Mapping[str, Any]) -> Callable[[Candidate, Evaluate, int], Found]:
    from .population_based import population_based  # brings Ray with it

    return partial(population_based, arguments=arguments, first=FIRST_SEED)
