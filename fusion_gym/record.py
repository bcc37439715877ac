"""Records of episodes: all that is needed to play one again, and what was claimed of it, as JSON."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import gymnasium as gym

from fusion_gym.files import write_json
from fusion_gym.headers import pointer_at

FORMAT = "fusion-gym episode 1"
ENDS = ("terminated", "truncated", "unfinished")


class RecordError(ValueError):
    """A record that cannot be made, read or played; the message is one sentence."""


def versions() -> dict[str, str]:
    """Versions of what an episode's figures depend on, by name."""
    found = {"python": sys.version.split()[0]}
    for name in ("fusion-gym", "gymnasium", "torch", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@dataclass(frozen=True)
class Record:
    """An episode.

    Attributes:
        env: Id of the environment.
        kwargs: Its arguments, as for `gymnasium.make`.
        actions: The action of each decision.
        rewards: What each gave.
        claimed: The return that is claimed.
        end: How the episode ended, one of `ENDS`.
        seed: What `reset` was called with.
        generator: State of the environment's generator before a reset without a seed; None where there was one.
        versions: What it was played with.
    """

    env: str
    kwargs: dict[str, Any]
    actions: list[list[float]]
    rewards: list[float]
    claimed: float
    end: str
    seed: int | None = None
    generator: dict[str, Any] | None = None
    versions: dict[str, str] = field(default_factory=versions)

    def save(self, path: str | Path) -> None:
        """Writes the record, whole or not at all.

        Raises:
            fusion_gym.files.FileError: If the file cannot be written.
        """
        facts = asdict(self)
        facts["return"] = facts.pop("claimed")
        write_json(path, {"format": FORMAT, **facts})

    @classmethod
    def load(cls, path: str | Path) -> Record:
        """Reads a record and checks its form.

        Raises:
            RecordError: If the file cannot be read or is no record.
        """
        try:
            facts = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise RecordError(f"{path} cannot be read: {error.strerror}.") from error
        except (ValueError, RecursionError) as error:
            said = pointer_at(path) or f"{path} is not an episode's record: it is not JSON."
            raise RecordError(said) from error
        if not isinstance(facts, dict) or facts.get("format") != FORMAT:
            raise RecordError(f"{path} is not an episode's record: it does not say format {FORMAT!r}.")
        facts = {"claimed" if key == "return" else key: value for key, value in facts.items() if key != "format"}
        fault = _fault(facts)
        if fault:
            raise RecordError(f"{path} is a damaged record: {fault}.")
        return cls(**facts)


def _fault(facts: Mapping[str, Any]) -> str | None:
    """What is wrong with the contents of a record; None where nothing is."""
    checks: dict[str, Callable[[Any], bool]] = {
        "env": lambda value: isinstance(value, str),
        "kwargs": lambda value: isinstance(value, dict),
        "actions": lambda value: isinstance(value, list) and all(_numbers(action) for action in value),
        "rewards": _numbers,
        "claimed": _number,
        "end": lambda value: value in ENDS,
        "seed": lambda value: value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0),
        "generator": lambda value: value is None or isinstance(value, dict),
        "versions": lambda value: isinstance(value, dict),
    }
    if set(facts) != set(checks):
        return f"it should have the entries {', '.join(checks)}"
    wrong = next((name for name, check in checks.items() if not check(facts[name])), None)
    if wrong is not None:
        return f"its entry {'return' if wrong == 'claimed' else wrong} is not of the right kind"
    if len(facts["actions"]) != len(facts["rewards"]):
        return f"it has {len(facts['actions'])} actions and {len(facts['rewards'])} rewards"
    if (facts["seed"] is None) == (facts["generator"] is None):
        return "it should have either a seed or a generator"
    return None


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _numbers(values: Any) -> bool:
    return isinstance(values, list) and all(_number(value) for value in values)


def identity(env: gym.Env) -> tuple[str, dict[str, Any]]:
    """Id and arguments of an environment, by which `gymnasium.make` makes it again.

    Raises:
        RecordError: If it was not made by `gymnasium.make`.
    """
    spec = env.unwrapped.spec
    if spec is None:
        raise RecordError("An episode can be recorded only in an environment made by gymnasium.make, by its id.")
    return spec.id, {name: value for name, value in spec.kwargs.items() if name != "render_mode"}


def of_episode(
    env: gym.Env, seed: int, actions: Sequence[Sequence[float]], rewards: Sequence[float], end: str = "terminated"
) -> Record:
    """The record of an episode that began by ``env.reset(seed=seed)``."""
    env_id, kwargs = identity(env)
    played = [[float(value) for value in action] for action in actions]
    return Record(env_id, kwargs, played, [float(reward) for reward in rewards], sum(map(float, rewards)), end, seed)
