"""Checks of the environment's arguments: each gives the value to keep, or raises a ValueError of one sentence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from fusion_gym.actions import ACTIONS
from fusion_gym.observations import OBSERVATIONS

MOST_THREADS, MOST_IMAGES = 256, 4096  # of a process; of a batch and of the probe
_T = TypeVar("_T")


def choices(name: str, value: Any, kind: type[_T]) -> tuple[_T, ...]:
    """A scalar or a sequence of equally likely values, as a tuple."""
    values = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    if not values or not all(isinstance(v, kind) and not isinstance(v, bool) for v in values):
        raise ValueError(f"{name}={value!r} is not allowed; give one {kind.__name__} or a list of them.")
    return values


def one_of(name: str, value: _T, allowed: Iterable[_T]) -> _T:
    """A value that is among those allowed."""
    known = tuple(allowed)
    if value not in known:
        raise ValueError(f"{name}={value!r} is not allowed; give one of {', '.join(map(str, known))}.")
    return value


def whole(name: str, value: Any, least: int, most: int | None = None) -> int:
    """A whole number from ``least`` to ``most``."""
    fits = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not fits or value < least or (most is not None and value > most):
        raise ValueError(
            f"{name}={value!r} is not allowed; give a whole number from {least} {f'to {most}' if most else 'on'}."
        )
    return int(value)


def learning_rates(value: Any) -> tuple[float, ...]:
    """One learning rate in (0, 1] or a sequence of them, as a tuple."""
    rates = choices("learning_rate", value, float)
    if not all(np.isfinite(rate) and 0 < rate <= 1 for rate in rates):
        raise ValueError(f"learning_rate={value!r} is not allowed; give values in (0, 1].")
    return rates


def components(actions: Sequence[str], fixed: Mapping[str, float]) -> tuple[tuple[str, ...], dict[str, float]]:
    """The action's components that the agent sets, and the physical values of all while it does not."""
    names = tuple(actions)
    unknown = [name for name in (*names, *fixed) if name not in ACTIONS]
    if unknown or not names or len(set(names)) < len(names):
        named = unknown[0] if unknown else names
        raise ValueError(f"actions or fixed name {named!r}; give each of these at most once: {', '.join(ACTIONS)}.")
    for name, value in fixed.items():
        if not ACTIONS[name].low <= value <= ACTIONS[name].high:
            raise ValueError(f"fixed {name}={value} is outside [{ACTIONS[name].low:g}, {ACTIONS[name].high:g}].")
    defaults = {name: component.default for name, component in ACTIONS.items()}
    return names, {**defaults, **{name: float(value) for name, value in fixed.items()}}


def features(hidden: Sequence[str]) -> tuple[str, ...]:
    """Names of features of the observation."""
    nowhere = set(hidden) - {feature.name for feature in OBSERVATIONS}
    if nowhere:
        raise ValueError(f"hidden names {min(map(str, nowhere))!r}, which is no feature of the observation.")
    return tuple(hidden)
