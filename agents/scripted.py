"""Scripted agents: settings as a function of the episode's progress, or drawn at random.

Every schedule is a set of break points per component, (progress, physical value), joined by straight lines. Nothing
here needs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fusion_gym.actions import ACTIONS, encode
from fusion_gym.cli import UserError, check_keys, read_yaml
from fusion_gym.conditions import HARDENINGS
from fusion_gym.observations import index

Points = Sequence[tuple[float, float]]
_CLEAN: dict[str, Points] = {name: [(0, 0)] for name in HARDENINGS}
_HARDER: dict[str, Points] = {name: [(0, 0), (1, 0.5)] for name in HARDENINGS}
_FALLING: dict[str, Points] = {"guidance": [(0, 1), (1, 0)]}

# Break points by schedule and component; a component that is not named stays at its default.
SCHEDULES: dict[str, dict[str, Points]] = {
    "constant": {},
    "linear": _FALLING,
    "cosine": _FALLING,
    "cyclic": _HARDER,
    "curriculum": {**_FALLING, **_HARDER},
    "epsilon": {name: [(0, 0), (0.25, 0), (1, 1)] for name in HARDENINGS},  # as in arXiv:2509.23325
    "nothing": {"rate": [(0, 0)]},
    "no-teacher": {"guidance": [(0, 0)], **_CLEAN},
    "teacher-only": {"guidance": [(0, 1)], **_CLEAN},
    "hardening-only": {"guidance": [(0, 0)]},
    "piecewise": {},
    "random": {},
}
_FEATURE_OF_TIME = "progress"
CYCLES = 4  # four decisions each where an episode has sixteen


def _wave(cycles: float) -> Callable[[float], float]:
    """From 0 to 1 and back so many times; half a cycle is the cosine schedule."""
    return lambda progress: 0.5 - 0.5 * float(np.cos(2 * np.pi * cycles * progress))


class Schedule:
    """Settings that depend on the progress of the episode alone.

    Args:
        points: Break points (progress, physical value) by component, progress rising; before the first and after
            the last the value is constant. A component without points stays at its default.
        names: The components that the environment lets the agent set, in its order.
        warp: Map of the progress in [0, 1] before it is looked up, to bend the straight lines.

    Raises:
        ValueError: If a component is unknown or a value is outside its range.
    """

    def __init__(
        self, points: Mapping[str, Points], names: Sequence[str], warp: Callable[[float], float] = float
    ) -> None:
        self.names, self._warp = tuple(names), warp
        self._curves = {name: np.array(curve, dtype=np.float64).T for name, curve in points.items()}
        self._time = index(_FEATURE_OF_TIME)
        for end in (np.min, np.max):  # values between break points lie between these
            encode({name: float(end(values)) for name, (_, values) in self._curves.items()}, self.names)

    def settings(self, progress: float) -> dict[str, float]:
        """Physical value at a progress, for the components that have break points."""
        at = self._warp(progress)
        return {name: float(np.interp(at, times, values)) for name, (times, values) in self._curves.items()}

    def predict(
        self,
        observation: np.ndarray,
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """The schedule's action at the observed progress; see `agents.Agent`."""
        rows = np.atleast_2d(observation)
        actions = np.stack([encode(self.settings(float(row[self._time])), self.names) for row in rows])
        return actions.reshape(*observation.shape[:-1], len(self.names)), state


class RandomAgent:
    """Uniformly random actions.

    The draw is seeded by the observation, so that an episode repeats exactly, whatever was run before it and in
    however many processes.

    Args:
        names: The components that the environment lets the agent set.
        seed: Seed; another one gives other actions for the same observation.
    """

    def __init__(self, names: Sequence[str], seed: int = 0) -> None:
        self.names, self.seed = tuple(names), seed

    def predict(
        self,
        observation: np.ndarray,
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """A random action; see `agents.Agent`."""
        rows = np.atleast_2d(np.asarray(observation, dtype=np.float32))
        actions = [self._draw(row) for row in rows]
        return np.stack(actions).reshape(*observation.shape[:-1], len(self.names)), state

    def _draw(self, row: np.ndarray) -> np.ndarray:
        generator = np.random.default_rng([self.seed, *np.ascontiguousarray(row).view(np.uint32).tolist()])
        return generator.uniform(-1, 1, len(self.names)).astype(np.float32)


def make_schedule(name: str, settings: str, names: Sequence[str]) -> Schedule | RandomAgent:
    """Makes a scripted agent.

    Args:
        name: A key of `SCHEDULES`.
        settings: Components by ``name=value`` or, for a line from one value to another, ``name=first..last``, joined
            by commas; for ``cyclic``, which goes there and back again, also ``cycles=N``; for ``piecewise`` a YAML
            file that gives [progress, value] pairs by component; for ``random`` ``seed=N``.
        names: The components that the environment lets the agent set.

    Raises:
        UserError: If the settings cannot be read or do not fit.
    """
    if name == "random":
        return RandomAgent(names, _seed(settings))
    if name == "piecewise":
        return _checked(_from_file(settings, names), names, settings, float)
    points = dict(SCHEDULES[name])
    warp: Callable[[float], float] = _wave(0.5) if name == "cosine" else float
    if name == "cyclic":
        cycles, settings = _cycles(settings)
        warp = _wave(cycles)
    if "guidance" in points and "guidance" not in names:
        raise UserError(f"The schedule {name} sets guidance, which this environment keeps fixed; select that action.")
    points = {component: curve for component, curve in points.items() if component in names}
    return _checked(points | _parse(settings, names), names, name, warp)


def _checked(points: Mapping[str, Points], names: Sequence[str], what: str, warp: Callable[[float], float]) -> Schedule:
    try:
        return Schedule(points, names, warp)
    except ValueError as error:
        raise UserError(f"The schedule {what}: {error}") from error


def _seed(settings: str) -> int:
    key, _, value = settings.partition("=")
    if not settings:
        return 0
    if key != "seed" or not value.isdecimal():
        raise UserError(f"The schedule random takes seed=N, a whole number, not {settings!r}.")
    return int(value)


def _cycles(settings: str) -> tuple[int, str]:
    """The number of cycles, and the settings without it."""
    cycles, others = CYCLES, []
    for item in settings.split(","):
        key, _, value = (part.strip() for part in item.partition("="))
        if key != "cycles":
            others.append(item)
        elif value.isdecimal() and int(value) > 0:
            cycles = int(value)
        else:
            raise UserError(f"The schedule cyclic takes cycles=N, a whole number from 1 on, not {item!r}.")
    return cycles, ",".join(others)


def _parse(settings: str, names: Sequence[str]) -> dict[str, Points]:
    points: dict[str, Points] = {}
    for item in filter(None, settings.split(",")):
        component, equals, value = (part.strip() for part in item.partition("="))
        if not equals:
            raise UserError(f"The schedule's {item!r} is not of the form name=value or name=first..last.")
        _check_component(component, names)
        try:
            values = [float(part) for part in value.split("..")]
        except ValueError:
            values = []
        if len(values) not in (1, 2):
            raise UserError(f"The schedule's {item!r} is not a number or a range; give {component}=0.3 or =1..0.")
        points[component] = list(zip((0.0, 1.0), values, strict=False))
    return points


def _check_component(component: str, names: Sequence[str]) -> None:
    check_keys([component], ACTIONS, "action component")
    if component not in names:
        raise UserError(f"This environment keeps {component} fixed; the agent sets: {', '.join(names)}.")


def _from_file(file: str, names: Sequence[str]) -> dict[str, Points]:
    if not file:
        raise UserError("The schedule piecewise needs a file: piecewise:FILE.yml.")
    content: dict[str, Any] = read_yaml(Path(file))
    for component, curve in content.items():
        _check_component(component, names)
        try:
            times, values = np.array(curve, dtype=np.float64).T
        except (TypeError, ValueError) as error:
            raise UserError(f"{file}: {component} takes a list of [progress, value] pairs.") from error
        if (np.diff(times) <= 0).any() or times.min() < 0 or times.max() > 1 or not np.isfinite(values).all():
            raise UserError(f"{file}: the progress of {component} must rise within [0, 1], its values be finite.")
    return content
