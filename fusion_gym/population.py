"""Population: several students trained in one process, each update one batched computation for all of them.

The way to many students on one GPU, where one student's update is too small to fill it. On a CPU a population takes
about a sixth less time than the same students one by one; one process per core (`AsyncVectorEnv`, SB3's
`SubprocVecEnv`) is faster from two cores on. ``benchmarks/bench_env.py workers`` measures them side by side.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, cast

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit
from torch import Tensor
from torch.func import functional_call, vmap

from fusion_gym.actions import array_of
from fusion_gym.classes import said
from fusion_gym.distiller import Distiller, Stats, batch_losses, learning
from fusion_gym.env import FusionDistillEnv
from fusion_gym.hints import Hints
from fusion_gym.models import own
from fusion_gym.models.own import OwnStudent
from fusion_gym.modes import settled
from fusion_gym.tensors import joined, several
from fusion_gym.text import Notice


def advance(distillers: Sequence[Distiller], settings: Sequence[Mapping[str, float]], updates: int) -> list[Stats]:
    """`Distiller.advance` of several distillers at once, equal to it within rounding.

    Students of the same shape and losses are computed as one; the others form groups. Networks of the
    user's own that cannot be computed as one are trained one by one.

    Args:
        distillers: Independent distillers of one batch size and patch size, on one device.
        settings: The settings of each.
        updates: Number of optimiser updates.

    Returns:
        The figures of each.
    """
    groups: dict[tuple[object, ...], list[int]] = {}
    for position, distiller in enumerate(distillers):
        student = distiller.student
        kind = ""
        if isinstance(student, OwnStudent):
            as_one = _as_one(student.spec, isinstance(distiller.guide, Hints))
            kind = f"{student.spec}{'' if as_one else position}"
        shape = tuple(weight.shape for weight in student.parameters())
        groups.setdefault((distiller.self_loss, distiller.guide, distiller.keeps, kind, *shape), []).append(position)
    stats: dict[int, Stats] = {}
    for members in groups.values():
        alone = len(members) == 1 and isinstance(distillers[members[0]].student, OwnStudent)
        how = _advance_alone if alone else _advance_alike
        figures = how([distillers[i] for i in members], [settings[i] for i in members], updates)
        stats.update(zip(members, figures, strict=True))
    return [stats[position] for position in range(len(distillers))]


@cache
def _as_one(spec: str, hints: bool = False) -> bool:
    """Whether networks of the user's own, or also their features, can be computed as one; that not is said once."""

    def seen(fuse: Any, ir: Tensor, vi: Tensor) -> list[Tensor]:
        return [fuse(ir, vi), *(fuse.features(ir, vi) if hints else ())]

    one, other = (own.begin(None, spec, torch.Generator().manual_seed(seed)).train() for seed in (0, 1))
    try:
        if any(True for _ in one.buffers()):
            raise ValueError("it has buffers, which change as it is trained")
        sources = torch.rand(2, 4, 1, 64, 64, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            together = seen(_Together((one, other), 2), *sources)
            halves = zip((one, other), sources.split(2, dim=1), strict=True)
            apart = zip(*(seen(net, *half) for net, half in halves), strict=True)
        if not all(torch.allclose(a, torch.cat(b), 1e-4, 1e-4) for a, b in zip(together, apart, strict=True)):
            raise ValueError("its results are others then")
    except Exception as error:  # torch.func refuses what it cannot do by errors of many kinds; the network is anyone's
        notice = f"The students {spec} are trained one by one, for they cannot be computed as one: {said(error)}."
        warnings.warn(Notice(notice), stacklevel=2)
        return False
    return True


def _advance_alone(
    distillers: Sequence[Distiller], settings: Sequence[Mapping[str, float]], updates: int
) -> list[Stats]:
    return [distiller.advance(asked, updates) for distiller, asked in zip(distillers, settings, strict=True)]


@settled()
@torch.enable_grad()  # as in `Distiller.advance`
def _advance_alike(
    distillers: Sequence[Distiller], settings: Sequence[Mapping[str, float]], updates: int
) -> list[Stats]:
    count, size = len(distillers), distillers[0].batch_size
    device = next(distillers[0].student.parameters()).device
    each = {name: torch.tensor([one[name] for one in settings]).repeat_interleave(size) for name in settings[0]}
    each["guidance"] = each["guidance"].to(device)
    sums = torch.zeros(count, 3, device=device)
    students = [distiller.student for distiller in distillers]
    with learning(*students):
        for _ in range(updates):
            together = _Together(students, size)
            batch = joined([distiller.batch() for distiller in distillers])
            for distiller in distillers:
                distiller.chance()  # drawn as by each alone; networks that would use it are trained so
            figures = batch_losses(together, batch, each, distillers[0].self_loss, distillers[0].guide)
            losses, guide, own_losses = (figure.view(count, size) for figure in figures)
            losses.mean(1).sum().backward()  # the students share no weight: each gets the gradient of its own loss
            norms = [distiller.descend(one["rate"]) for distiller, one in zip(distillers, settings, strict=True)]
            sums += torch.stack((guide.mean(1), own_losses.mean(1), torch.stack(norms)), dim=1).detach()
    return [Stats(*row) for row in (sums / updates).tolist()]


class _Together:
    """Students of one shape as one student of the images of all: (K·N·B, 1, H, W), ordered (k, student, sample)."""

    def __init__(self, students: Sequence[torch.nn.Module], size: int) -> None:
        self.students, self.size = students, size

    def __call__(self, ir: Tensor, vi: Tensor) -> Tensor:
        return self._all(self.students, ir, vi)[0]

    def features(self, ir: Tensor, vi: Tensor) -> list[Tensor]:
        return self._all([_Features(student) for student in self.students], ir, vi)

    def _all(self, nets: Sequence[torch.nn.Module], ir: Tensor, vi: Tensor) -> list[Tensor]:
        names = [name for name, _ in nets[0].named_parameters()]
        weights = [torch.stack(layer) for layer in zip(*(net.parameters() for net in nets), strict=True)]

        def one(layers: list[Tensor], ir: Tensor, vi: Tensor) -> list[Tensor]:
            pair = (ir.flatten(0, 1), vi.flatten(0, 1))
            given = several(functional_call(nets[0], dict(zip(names, layers, strict=True)), pair))
            return [each.unflatten(0, ir.shape[:2]) for each in given]

        apart = (-1, len(nets), self.size)
        given = vmap(one, in_dims=(0, 1, 1), out_dims=1)(weights, ir.unflatten(0, apart), vi.unflatten(0, apart))
        return [each.flatten(0, 2) for each in given]


class _Features(torch.nn.Module):
    """A student's features as a network, which is what `functional_call` takes."""

    def __init__(self, student: torch.nn.Module) -> None:
        super().__init__()
        self.student = student

    def forward(self, ir: Tensor, vi: Tensor) -> list[Tensor]:
        return cast(OwnStudent, self.student).features(ir, vi)


def train_together(envs: Sequence[gym.Env], actions: Sequence[np.ndarray]) -> None:
    """Takes the actions and does the training of one decision, batched; each environment's `step` then scores it.

    Args:
        envs: `FusionDistillEnv`s with the same arguments, each with an episode under way, in any wrappers that leave
            the action as it is.
        actions: The action of each, as in `FusionDistillEnv.step`.

    Raises:
        ValueError: If an action has a wrong shape or holds NaN, or an environment's training was done ahead already;
            nothing has been trained then.
        gymnasium.error.ResetNeeded: If one has no episode under way.
    """
    plain = [cast(FusionDistillEnv, env.unwrapped) for env in envs]
    settings = [env.decide(action) for env, action in zip(plain, actions, strict=True)]
    if plain:
        figures = advance([env.distiller for env in plain], settings, plain[0].updates_per_step)
        for env, action, stats in zip(plain, actions, figures, strict=True):
            env.ahead = array_of(action), stats


class FusionDistillVectorEnv(SyncVectorEnv):
    """Several episodes in one process, their students trained together.

    What `gymnasium.make_vec(..., vectorization_mode="vector_entry_point")` makes. Seeds, infos and autoreset are those
    of `SyncVectorEnv`, and so are the trajectories, but for rounding, which a training makes larger: those of a student
    whose weights differed by one bit at the start would differ as much.

    Args:
        num_envs: Number of students.
        autoreset_mode: See `gymnasium.vector.AutoresetMode`.
        max_episode_steps: Decisions after which an episode is truncated; None leaves it its own end.
        kwargs: Arguments of `FusionDistillEnv`.
    """

    def __init__(
        self,
        num_envs: int = 1,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        max_episode_steps: int | None = None,
        **kwargs: Any,
    ) -> None:
        def make() -> gym.Env:
            env = FusionDistillEnv(**kwargs)
            return env if max_episode_steps is None else TimeLimit(env, max_episode_steps)

        super().__init__([make] * num_envs, autoreset_mode=autoreset_mode)

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """See `gymnasium.vector.VectorEnv.step`."""
        resets = self._autoreset_envs & (self.autoreset_mode == AutoresetMode.NEXT_STEP)
        acting = np.flatnonzero(~resets)
        train_together([self.envs[i] for i in acting], [actions[i] for i in acting])
        return super().step(actions)

    def _add_info(self, vector_infos: dict[str, Any], env_info: dict[str, Any], env_num: int) -> dict[str, Any]:
        """Of truth values Gymnasium makes an array of bool where they are Python's, else one of objects."""
        plain = {name: bool(value) if isinstance(value, np.bool_) else value for name, value in env_info.items()}
        return super()._add_info(vector_infos, plain, env_num)
