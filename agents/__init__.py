"""Agents that set guidance and hardening: schedules, Stable-Baselines3 algorithms, and anyone's own.

All of them follow one protocol, SB3's ``predict``; `load_agent` makes one from a text. Importing this package does
not import torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import gymnasium as gym
import numpy as np

from fusion_gym.classes import ClassError, Named
from fusion_gym.cli import UserError, nearest

from .feedback import RULES, Rule
from .forks import Search, is_search, parts, proposer
from .scripted import SCHEDULES, make_schedule

__all__ = ["SHIPPED", "Agent", "load_agent", "settings_of"]

# Trained agents that come with the package, by name.
SHIPPED: dict[str, str] = {name: str(Path(__file__).parent / f"{name}.zip") for name in ("ppo", "sac")}


class Agent(Protocol):
    """What every agent can do; SB3's models and policies do it too."""

    def predict(
        self,
        observation: np.ndarray,
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Chooses an action.

        Args:
            observation: (D,), or (N, D) for N environments.
            state: What the last call gave as memory; None at the start.
            episode_start: Whether an episode begins, (N,).
            deterministic: Whether to take the best action instead of exploring.

        Returns:
            The action, (A,) or (N, A), float32 in [-1, 1], and the memory.
        """
        ...


def load_agent(spec: str, env: gym.Env, trust: bool = False) -> Agent:
    """Makes an agent for an environment.

    Args:
        spec: ``ppo`` or ``sac``, the trained agents that come with the package; a trained agent's zip file; a
            schedule (`agents.scripted`): ``constant``, ``linear``, ``cosine``, ``cyclic``, ``curriculum``,
            ``epsilon``, ``random``, ``no-teacher``, ``teacher-only``, ``hardening-only``, each also with settings
            (``constant:guidance=0.3,noise=0.5``, ``linear:guidance=1..0``), ``piecewise:FILE.yml``; a rule that sees
            the state (`agents.feedback`): ``follow``, ``weakest``, ``hold``, ``deployed``; a search on forks
            (`agents.forks`) among what any of these proposes, ``search:ppo``, or ``search:8:ppo`` for eight
            proposals where four are usual; or ``module:Class``, made as ``Class(env)``, or ``module:Class:FILE``,
            made as ``Class.load(FILE, env)``.
        env: The environment that the agent is to act in.
        trust: Whether a zip file of unknown origin may be unpickled, that is, may run code of its author's.

    Raises:
        UserError: If there is no such agent or it does not fit the environment.
    """
    if is_search(spec) and not Path(spec).exists():
        proposals, other = parts(spec)
        return Search(env, load_agent(other, env, trust), proposals)
    spec = SHIPPED.get(spec, spec)
    name, _, settings = spec.partition(":")
    if name in SCHEDULES:
        return make_schedule(name, settings, env.get_wrapper_attr("action_names"))
    if spec in RULES:
        return Rule(spec, env.get_wrapper_attr("action_names"))
    if Path(spec).suffix == ".zip" or Path(spec).is_file():
        from .sb3 import load_model  # brings torch with it

        return load_model(spec, env, trust)
    if settings and not Path(spec).exists():
        return _own_agent(spec, env)
    known = nearest(name, [*SCHEDULES, *RULES, *SHIPPED])
    raise UserError(f"There is no agent {spec!r}: no such zip file, and no schedule or rule of this name; {known}")


def settings_of(spec: str) -> dict[str, Any]:
    """What a trained agent's file says about the environment that it was trained in.

    Returns:
        The environment's ``actions``, ``fixed`` and ``hidden``, and ``decisions``, the length of an episode; nothing
        for agents that are not files of ours.
    """
    spec = proposer(spec)
    spec = SHIPPED.get(spec, spec)
    if Path(spec).suffix != ".zip":
        return {}
    from .sb3 import read_description  # brings torch with it

    facts = read_description(Path(spec))
    if facts is None:
        return {}
    found = {"actions": list(facts.actions), "hidden": list(facts.hidden)}
    fixed = {key: value for key, value in facts.fixed.items() if key not in facts.actions}
    return {**found, **({} if facts.decisions is None else {"decisions": facts.decisions}), "fixed": fixed}


def _own_agent(spec: str, env: gym.Env) -> Any:
    module, _, rest = spec.partition(":")
    name, _, file = rest.partition(":")
    try:
        made = Named(module, name).find("agent")
    except ClassError as error:
        raise UserError(str(error)) from error
    if not callable(getattr(made, "predict", None)):
        raise UserError(f"{module}:{name} is no class with predict(observation, state, episode_start, deterministic).")
    return made.load(file, env) if file else made(env)
