"""The action of FusionDistill: named physical settings, and their encoding in [-1, 1].

The table `ACTIONS` drives the action space, its decoding, the documentation and the scripted agents.
Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class ActionComponent:
    """One component of the action.

    Attributes:
        name: The key under which the component is selected and reported.
        low: Physical value at action -1.
        default: Physical value at action 0, the default constant schedule.
        high: Physical value at action +1.
        unit: Unit of the physical value, for the documentation.
        doc: What the component does, in one sentence.
    """

    name: str
    low: float
    default: float
    high: float
    unit: str
    doc: str


ACTIONS: dict[str, ActionComponent] = {
    component.name: component
    for component in (
        ActionComponent("guidance", 0.0, 0.2, 1.0, "weight", "Weight of the teacher against self-learning."),
        ActionComponent("blur", 0.0, 0.5, 1.0, "strength", "Largest blur of both sources."),
        ActionComponent("noise", 0.0, 0.5, 1.0, "strength", "Largest sensor noise of both sources."),
        ActionComponent(
            "illumination",
            0.0,
            0.5,
            1.0,
            "strength",
            "Largest darkening or over-exposure of the visible image.",
        ),
        ActionComponent("contrast", 0.0, 0.5, 1.0, "strength", "Largest loss of thermal contrast."),
        ActionComponent("clean", 0.0, 0.5, 1.0, "share", "Share of the samples that are not hardened."),
        ActionComponent("rate", 0.0, 1.0, 3.0, "factor", "Multiplies the learning rate; at 0 nothing is learnt."),
    )
}


def array_of(action: Any) -> np.ndarray:
    """An action as an array of its own, whatever holds it.

    Args:
        action: An array, a list, or a tensor of any dtype and device, with or without a gradient.

    Raises:
        ValueError: If it holds no values that an array can take.
    """
    try:
        return np.array(action.tolist() if hasattr(action, "detach") else action)  # NumPy has no bfloat16, no gradient
    except (RuntimeError, TypeError, ValueError) as error:  # lists of unequal lengths; a tensor of the meta device
        raise ValueError("The action is not an array of numbers in [-1, 1].") from error


def decode(action: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """Turns an action into physical settings, one per name.

    The map is linear from -1 to 0 (low to default) and from 0 to 1 (default to high), so it is
    monotone and 0 decodes to the default exactly. Values outside [-1, 1] are clipped.

    Args:
        action: Array of shape (len(names),).
        names: The selected components, in the order of the action.

    Returns:
        Physical value by name.

    Raises:
        ValueError: If the shape does not fit or a value is NaN.
    """
    given = array_of(action)
    if given.shape != (len(names),):
        raise ValueError(f"The action has shape {given.shape}; this environment takes ({len(names)},).")
    if given.dtype.kind not in "fiub":
        raise ValueError(f"The action holds values of type {given.dtype}; it takes numbers in [-1, 1].")
    values = given.astype(np.float64)
    if np.isnan(values).any():
        raise ValueError(f"The action holds NaN ({values.tolist()}); it takes finite values in [-1, 1].")
    settings = {}
    for name, value in zip(names, np.clip(values, -1.0, 1.0), strict=True):
        component = ACTIONS[name]
        end = component.high if value > 0 else component.low
        settings[name] = float(component.default + abs(value) * (end - component.default))
    return settings


def encode(settings: Mapping[str, float], names: Sequence[str]) -> np.ndarray:
    """The inverse of `decode`: the action that asks for the given physical settings.

    Args:
        settings: Physical value by name; a component that is not named is encoded at its default.
        names: The selected components, in the order of the action.

    Returns:
        float32 array of shape (len(names),) in [-1, 1].

    Raises:
        ValueError: If a name is not among the selected ones or a value is outside its range.
    """
    unknown = sorted(set(settings) - set(names))
    if unknown:
        raise ValueError(f"No action component {', '.join(unknown)}; there are: {', '.join(names)}.")
    action = np.zeros(len(names), dtype=np.float32)
    for index, name in enumerate(names):
        component = ACTIONS[name]
        value = settings.get(name, component.default)
        if not component.low <= value <= component.high:
            raise ValueError(f"{name}={value} is outside [{component.low:g}, {component.high:g}].")
        end = component.high if value > component.default else component.low
        action[index] = (
            np.sign(value - component.default) * abs((value - component.default) / (end - component.default))
            if value != component.default
            else 0.0
        )
    return action
