"""Compares agents and schedules: equal students, data, updates and seeds; resumable cell by cell.

A cell is an agent on an instance with a student seed: see `agents.comparison.cells`. The same command again continues a
comparison that was killed; more agents, instances and seeds are added to what is there.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from tqdm import tqdm

from fusion_gym import page
from fusion_gym.cli import UserError, check_keys, read_yaml
from fusion_gym.data import sets_of
from fusion_gym.env import FusionDistillEnv
from fusion_gym.files import atomic_write, make_folder, write_csv
from fusion_gym.folders import held, is_free
from fusion_gym.models.own import labels
from fusion_gym.outputs import check_outputs
from fusion_gym.teachers import check_folder
from fusion_gym.text import say

from .. import settings_of
from ..schema import CONFIG, fit
from . import report
from .cells import Cell, complete, environment, file_name, judge, load_result, make_agent, origin
from .comparison_run import ComparisonRun
from .rivals import RIVALS, Instances, Rivals
from .search import settable
from .workers import Failure, Pool

if TYPE_CHECKING:
    from .ray_pool import RayPool

TITLE, OUT = "compare", Path("runs/comparison")
# Arguments of the environment that are not an instance's: they are options of the command, or alike for all.
_PARAMETERS = inspect.signature(FusionDistillEnv.__init__).parameters
_NOT_OF_INSTANCES = ("self", "episode_steps", "updates_per_step", "device", "threads", "render_mode")
_PLAIN_STEMS = ("best_model", "final_model", "model")  # file names that say nothing, their folder does


@dataclass(frozen=True)
class Entrant:
    """An agent that takes part.

    Attributes:
        name: Its name in tables.
        spec: What `agents.load_agent` takes, or one of `agents.comparison.rivals.RIVALS`.
        arguments: Arguments of the environment that the agent brings along, the components that it sets above all.
    """

    name: str
    spec: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


def entrants(items: Sequence[str]) -> list[Entrant]:
    """Reads the agents that are to be compared.

    Raises:
        UserError: If a file cannot be read or two agents have one name.
    """
    found: list[Entrant] = []
    for item in items:
        if item.endswith((".yml", ".yaml")) and ":" not in item:
            found += [_entrant(str(name), value, item) for name, value in read_yaml(item).items()]
            continue
        named = None if Path(item).exists() else re.match(r"^([\w.-]+)=(.+)$", item)  # what exists is literal
        name, spec = named.groups() if named else (_default_name(item), item)
        found.append(_entrant(name, spec, "agent"))
    names = [file_name(entrant.name) for entrant in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"Two agents are named {twice}; give one of them another name: NAME=AGENT.")
    return found


def _default_name(spec: str) -> str:
    path = Path(spec.removeprefix("piecewise:"))
    if not path.is_file():
        return spec
    return path.parent.name if path.stem in _PLAIN_STEMS else path.stem


def _entrant(name: str, value: Any, where: str) -> Entrant:
    arguments: dict[str, Any] = {}
    if isinstance(value, Mapping):
        arguments = {key: item for key, item in value.items() if key != "agent"}
        value = value.get("agent")
    if not isinstance(value, str):
        raise UserError(f"{where}: {name} takes an agent, or {{agent: ..., and arguments of the environment}}.")
    _check_arguments(arguments, f"{where}: {name}")
    brought = settings_of(value)
    own = ["actions", "fixed"] if tuple(brought.get("actions", settable(None))) != settable(None) else []
    own += ["hidden"] if brought.get("hidden") else []
    return Entrant(name, value, {**{key: brought[key] for key in own}, **arguments})


def read_instances(file: str) -> dict[str, dict[str, Any]]:
    """Reads instances: arguments of the environment by name.

    Args:
        file: YAML file, or ``default`` for one instance without arguments.

    Raises:
        UserError: If the file cannot be read or names an argument that there is not.
    """
    if file == "default":
        return {"default": {}}
    content = {str(name): value if value is not None else {} for name, value in read_yaml(file).items()}
    for name, arguments in content.items():
        if not isinstance(arguments, Mapping):
            raise UserError(f"{file}: {name} takes arguments of the environment, as in {{teacher: builtin}}.")
        _check_arguments(arguments, f"{file}: {name}")
    if len({file_name(name) for name in content}) < len(content) or not content:
        raise UserError(f"{file} has no instances, or two whose names are alike; name each in its own way.")
    return content


def _check_arguments(arguments: Mapping[str, Any], where: str) -> None:
    try:
        check_keys(arguments, _PARAMETERS.keys() - set(_NOT_OF_INSTANCES), "argument of the environment")
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


class Comparison:
    """A comparison.

    Args:
        settings: Its settings.
        out: Its folder.
        trust: As in `agents.load_agent`.
        progress: Whether to show bars.

    Raises:
        UserError: If a setting is not allowed.
    """

    def __init__(self, settings: ComparisonRun, out: Path, trust: bool, progress: bool) -> None:
        self.out, self.progress, self.trust = out, progress, trust
        self.workers, self.cluster = settings.workers, settings.cluster
        self.tests = tuple(dict.fromkeys(settings.test or sets_of(settings.data)))
        check_outputs([self.out], data=[settings.data, *self.tests])
        _check_arguments(settings.env_kwargs, "--env-kwargs")
        self.entrants = entrants(settings.agents)
        given = read_instances(settings.instances)
        shared = settings.arguments()
        self.instances = {name: {**shared, **own} for name, own in given.items()}
        tuning = given if settings.search_instances is None else read_instances(settings.search_instances)
        self.tuning = {name: {**shared, **own} for name, own in tuning.items()}
        self.seeds = list(range(settings.seed, settings.seed + settings.seeds))
        self.search_runs = settings.search_runs
        self.oracle_runs = settings.oracle_runs or -(-settings.search_runs // len(self.instances))

    def arguments(self, entrant: Entrant) -> dict[str, dict[str, Any]]:
        """Arguments of the environment for an agent, by instance."""
        return {name: {**arguments, **entrant.arguments} for name, arguments in self.instances.items()}

    def check(self) -> None:
        """Tries everything that a cell needs, so that mistakes show before any training; warms the disk cache.

        Raises:
            ValueError: If something cannot be loaded or does not fit; one sentence.
        """
        wanted = [(entrant.spec, a) for entrant in self.entrants for a in self.arguments(entrant).values()]
        if any(entrant.spec in RIVALS for entrant in self.entrants):
            wanted += [(RIVALS[0], arguments) for arguments in self.tuning.values()]
        for spec, arguments in tqdm(
            wanted, dynamic_ncols=True, disable=not self.progress, desc="prepare", unit="task", leave=False
        ):
            env = environment(json.dumps(arguments, sort_keys=True))
            if spec not in RIVALS:
                make_agent(spec, env, self.trust)
            plain: Any = env.unwrapped
            for data in self.tests:
                for teacher in plain.teachers:
                    judge(data, plain.reference, plain.device, plain.ir_range).teacher(teacher)
            for teacher in (plain.reference, *plain.teachers):
                check_folder(teacher, (*plain.data, *self.tests), plain.ir_range)
        if self.workers > 1 or self.cluster:  # the workers have their own
            environment.cache_clear()
            judge.cache_clear()

    def configuration(self) -> dict[str, Any]:
        """What the folder's configuration says from now on; what is in the folder must fit it.

        Raises:
            UserError: If the folder is in use by something else.
        """
        facts = {"tests": list(self.tests), **origin(), "instances": self.instances}
        config = json.loads(json.dumps(facts))
        if (self.out / CONFIG).is_file():
            earlier = read_yaml(self.out / CONFIG)
            kind = Mapping[str, Mapping[str, Any]]
            earlier["instances"] = fit(earlier.get("instances"), kind, "instances", str(self.out / CONFIG))
            for key, old, new in _pairs(earlier, config):
                if old != new:
                    raise UserError(
                        f"{self.out} holds a comparison with {key} {old}, not {new}; give another --out, or the same "
                        "settings."
                    )
            config["instances"] = {**earlier["instances"], **config["instances"]}
        elif not is_free(self.out):
            raise UserError(f"{self.out} is in use and holds no comparison; give another --out.")
        return config

    def show(self) -> None:
        """Prints what would be compared."""
        agents = {one.name: {"agent": one.spec, **one.arguments} for one in self.entrants}
        plan = {"agents": agents, "seeds": self.seeds, **self.configuration()}
        if any(entrant.spec in RIVALS for entrant in self.entrants):
            plan["search"] = {"runs": self.search_runs, "oracle_runs": self.oracle_runs, "instances": self.tuning}
        text = yaml.safe_dump(json.loads(json.dumps(plan)), sort_keys=False)
        say(f"# {self.out / CONFIG}", *text.splitlines())

    def run(self) -> None:
        """Searches, trains, judges and reports."""
        self.check()
        self.configuration()
        make_folder(self.out)
        with held(self.out):
            config = self.configuration()  # once more: another process may have run here in the meantime
            for folder in ("cells", "search/cells"):
                (self.out / folder).mkdir(parents=True, exist_ok=True)
            atomic_write(self.out / CONFIG, yaml.safe_dump(config, sort_keys=False))
            self._work()

    def _work(self) -> None:
        with self._pool() as pool:
            rivals = Rivals(self.out / "search", lambda cells, title: self._trials(pool, cells, title))
            cells = [cell for entrant in self.entrants for cell in self._cells(entrant, rivals)]
            cells.sort(key=lambda cell: cell.seed)  # so that a part of the work is a comparison of fewer seeds
            results = self._results(pool, cells, self.out / "cells", TITLE)
        done = {
            (cell.name, cell.instance, cell.seed): result
            for cell, result in zip(cells, results, strict=True)
            if not isinstance(result, Failure)
        }
        write_csv(self.out / "comparison.csv", self._rows(done))
        finished = [
            entrant.name
            for entrant in self.entrants
            if any(all((entrant.name, instance, seed) in done for instance in self.instances) for seed in self.seeds)
        ]
        table = report.Results(finished, list(self.instances), self.seeds, self.tests, done)
        students = {cell.name: cell.path(self.out / "cells") for cell in cells[::-1]}
        named = labels(a.get("student") for entrant in self.entrants for a in self.arguments(entrant).values())
        report.write(table, self.out, students, next(iter(self.instances.values())).get("ir_range"), named)
        failed = [
            f"{cell}: {result.reason}"
            for cell, result in zip(cells, results, strict=True)
            if isinstance(result, Failure)
        ]
        if failed:
            say(f"{len(failed)} of {len(cells)} cells failed:", *(f"  {each}" for each in failed), error=True)
            say("The same command again tries them again.", error=True)
            raise SystemExit(1)
        say(f"Made: {self.out / 'comparison.csv'}, comparison.md and pictures in {self.out}.")
        say(f"Next: look at {self.out / page.NAME}.")

    def _pool(self) -> Pool | RayPool:
        if not self.cluster:
            return Pool(complete, self.workers)
        try:
            from .ray_pool import RayPool
        except ImportError as error:
            raise UserError("--cluster needs Ray: pip install 'fusion-gym[scale]'.") from error
        return RayPool()

    def _cells(self, entrant: Entrant, rivals: Rivals) -> list[Cell]:
        instances = self.arguments(entrant)
        agents: Mapping[str, Any] = dict.fromkeys(instances, entrant.spec)
        if entrant.spec in RIVALS:
            tuning = {name: {**arguments, **entrant.arguments} for name, arguments in self.tuning.items()}
            label = entrant.name if entrant.arguments else ""
            agents = rivals.find(entrant.spec, instances, tuning, self.search_runs, self.oracle_runs, label)
        return [
            Cell(entrant.name, agents[name], name, arguments, seed, self.tests, seed == self.seeds[0], self.trust)
            for name, arguments in instances.items()
            for seed in self.seeds
        ]

    def _trials(self, pool: Pool | RayPool, cells: Sequence[Cell], title: str) -> list[Any]:
        results = self._results(pool, cells, self.out / "search" / "cells", title)
        for cell, result in zip(cells, results, strict=True):
            if isinstance(result, Failure):
                raise UserError(
                    f"The search {title} stopped, for {cell} failed: {result.reason}; the same command again continues."
                )
        return results

    def _results(self, pool: Pool | RayPool, cells: Sequence[Cell], folder: Path, title: str) -> list[Any]:
        """The results of cells, stored ones or by running them, with a progress bar."""
        results: list[Any] = [load_result(cell.path(folder)) for cell in cells]
        open_cells = [index for index, result in enumerate(results) if result is None]
        bar = tqdm(
            total=len(cells),
            initial=len(cells) - len(open_cells),
            desc=title,
            unit="student",
            leave=title == TITLE,
            dynamic_ncols=True,
            disable=not self.progress or not open_cells,
        )
        for position, result in pool.run([(cells[index], folder) for index in open_cells]):
            results[open_cells[position]] = result
            bar.update()
        bar.close()
        return results

    def _rows(self, done: Mapping[tuple[str, str, int], Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [
            {"agent": entrant.name, "instance": instance, "dataset": data, "seed": seed, **figures}
            for entrant in self.entrants
            for instance in self.instances
            for seed in self.seeds
            if (entrant.name, instance, seed) in done
            for data, figures in done[entrant.name, instance, seed]["tests"].items()
        ]


def _pairs(earlier: Mapping[str, Any], config: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """What an earlier configuration and the present one must agree in: name, earlier value, present value."""
    pairs = [(key, earlier.get(key), config[key]) for key in config if key != "instances"]
    known: Instances = earlier["instances"]
    for name in set(known) & set(config["instances"]):
        keys = dict.fromkeys((*known[name], *config["instances"][name]))
        pairs += [(f"{name}'s {key}", known[name].get(key), config["instances"][name].get(key)) for key in keys]
    return pairs
