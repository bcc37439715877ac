"""The distiller: one student, its optimiser and its stream of patches, advanced under given settings."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusion_gym.hardening import Draw, draw, harden
from fusion_gym.losses import guide_loss, self_loss, self_targets, sobel
from fusion_gym.metrics import METRICS
from fusion_gym.models.student import Student
from fusion_gym.modes import settled
from fusion_gym.objective import floor_of, metric_loss
from fusion_gym.optimizer import Adam
from fusion_gym.tensors import unit


def _simple_loss(fused: Tensor, ir: Tensor, vi: Tensor, kept: Tensor) -> Tensor:
    return self_loss(fused, self_targets(ir, vi))


def _nothing(ir: Tensor, vi: Tensor) -> Tensor:
    return ir.new_empty(len(ir), 0)


@dataclass(frozen=True)
class SelfLoss:
    """What a student learns by itself from.

    Attributes:
        loss: Loss per sample, (N,), of the fused images, their clean sources, and what is kept of these.
        keep: What is worth keeping of sources, (N, K): numbers that stay when both are mirrored.
    """

    loss: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    keep: Callable[[Tensor, Tensor], Tensor]


SELF_LOSSES: dict[str, SelfLoss] = {
    "simple": SelfLoss(_simple_loss, _nothing),
    "metrics": SelfLoss(metric_loss, floor_of),
}
KEPT_AT_ONCE = 32  # patches in one computation of what is kept
LEAST_PATCH = {"simple": 16, "metrics": METRICS["VIF"].min_side}  # sides of the patches, in pixels
GRADIENT_LIMIT = 5.0
FINAL_LEARNING_RATE = 0.05  # of the initial one, reached by a cosine
WARM_UP = 40  # updates over which the rate rises: Adam's first steps know nothing of the gradients' size


@dataclass(frozen=True)
class Stats:
    """Means over the updates of one call of `Distiller.advance`.

    Attributes:
        loss_guide: Guidance loss.
        loss_self: Self-learning loss on the hardened batch.
        grad_norm: Norm of the gradient before clipping.
    """

    loss_guide: float
    loss_self: float
    grad_norm: float

    @property
    def finite(self) -> bool:
        """Whether every figure is finite."""
        return all(math.isfinite(value) for value in self.as_tuple())

    def as_tuple(self) -> tuple[float, float, float]:
        """The figures in the order of the constructor."""
        return self.loss_guide, self.loss_self, self.grad_norm


class Distiller:
    """Trains a student on patches of source pairs with a teacher's outputs.

    The loss of one update is ``guidance · L_guide(s(H(x)), t(x)) + (1 − guidance) · L_self(s(H(x)), x)``: on a batch of
    which H leaves a share clean, the student follows the teacher's clean output and learns by itself, held to the
    clean sources.

    Args:
        bank: Patches, uint8 (M, 3, P, P): infrared, visible luminance, the teacher's output.
        student: The network; it is trained in place, on its device.
        learning_rate: Initial rate of Adam.
        batch_size: Patches per update.
        total_updates: Budget over which the learning rate falls.
        generator: Where every random number comes from (a CPU generator).
        self_loss: L_self, one of `SELF_LOSSES`: "metrics" takes several times as long as "simple".
    """

    @settled()
    def __init__(
        self,
        bank: np.ndarray,
        student: Student,
        learning_rate: float,
        batch_size: int,
        total_updates: int,
        generator: torch.Generator,
        self_loss: str = "simple",
    ) -> None:
        self.bank, self.student, self.generator = bank, student, generator
        self.learning_rate, self.batch_size, self.total_updates = learning_rate, batch_size, total_updates
        self.self_loss = SELF_LOSSES[self_loss]
        self.updates = 0
        self.optimizer = Adam(student.parameters(), GRADIENT_LIMIT)
        self._device = next(student.parameters()).device
        self.kept = self._keep()

    @settled()
    def _keep(self) -> Tensor:
        parts = []
        for start in range(0, len(self.bank), KEPT_AT_ONCE):
            ir, vi = unit(self.bank[start : start + KEPT_AT_ONCE, :2], self._device).split(1, dim=1)
            parts.append(self.self_loss.keep(ir, vi))
        return torch.cat(parts)

    def batch(self) -> tuple[Tensor, Tensor, Draw]:
        """Draws a batch; what it takes from the generator does not depend on the settings.

        Returns:
            Images, float (B, 3, P, P) in [0, 1], mirrored at random; what is kept of them, (B, K); the random part of
            the hardening.
        """
        where, mirror = torch.rand((2, self.batch_size), generator=self.generator, dtype=torch.float64)
        index = (where * len(self.bank)).long()
        patches, mirrored = self.bank[index.numpy()], (mirror < 0.5).numpy()
        patches[mirrored] = patches[mirrored, ..., ::-1]
        return unit(patches, self._device), self.kept[index.to(self._device)], draw(self.batch_size, self.generator)

    @settled()
    @torch.enable_grad()  # an agent may step the environment inside torch.no_grad, as ARS does
    def advance(self, settings: Mapping[str, float], updates: int) -> Stats:
        """Makes some updates under constant settings.

        Args:
            settings: Physical values by name (`fusion_gym.actions.ACTIONS`).
            updates: Number of optimiser updates.

        Returns:
            Means over these updates; not finite where the student diverged.
        """
        sums = torch.zeros(3, device=self._device)
        for _ in range(updates):
            images, kept, drawn = self.batch()
            losses, guide, own = batch_losses(self.student, images, settings, drawn, self.self_loss, kept)
            losses.mean().backward()
            norm = self.descend(settings["rate"])
            sums += torch.stack((guide.mean(), own.mean(), norm)).detach()
        return Stats(*(sums / updates).tolist())

    def descend(self, factor: float) -> Tensor:
        """Makes the update that the student's present gradients ask for.

        Args:
            factor: Multiplies the learning rate.

        Returns:
            Norm of the gradient before clipping, a scalar.
        """
        norm = self.optimizer.step(self.rate * factor)
        self.updates += 1
        return norm

    @property
    def rate(self) -> float:
        """The learning rate of the next update, before its factor."""
        share = min(1.0, self.updates / self.total_updates)
        falling = 0.5 * (1 + math.cos(math.pi * share))
        rising = min(1.0, (self.updates + 1) / WARM_UP)
        return self.learning_rate * rising * (FINAL_LEARNING_RATE + (1 - FINAL_LEARNING_RATE) * falling)

    @settled()
    def measure(self, settings: Mapping[str, float]) -> Stats:
        """The losses of one batch without an update; the gradient norm is given as 1."""
        images, kept, drawn = self.batch()
        with torch.no_grad():
            _, guide, own = batch_losses(self.student, images, settings, drawn, self.self_loss, kept)
        return Stats(float(guide.mean()), float(own.mean()), 1.0)

    @settled()
    def __deepcopy__(self, memo: dict[int, Any]) -> Distiller:
        """An independent distiller in the same state; the patches and what is kept of them never change: shared."""
        memo[id(self.bank)], memo[id(self.kept)] = self.bank, self.kept
        copied = memo[id(self)] = type(self).__new__(type(self))
        copied.__dict__ = copy.deepcopy(self.__dict__, memo)
        return copied

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Takes what was pickled; what `torch.inference_mode` makes of it could not be trained on."""
        self.__dict__ = state
        if torch.is_inference_mode_enabled():
            self.__dict__ = copy.deepcopy(self).__dict__

    @settled()
    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the training depends on, as copies."""
        return {
            "student": copy.deepcopy(dict(self.student.state_dict())),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "updates": self.updates,
        }

    @settled()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave, for a student of the same shape on the same patches."""
        self.student.load_state_dict(state["student"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.updates = state["updates"]


def batch_losses(
    fuse: Callable[[Tensor, Tensor], Tensor],
    images: Tensor,
    settings: Mapping[str, float | Tensor],
    drawn: Draw,
    self_loss: SelfLoss = SELF_LOSSES["simple"],
    kept: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The losses of a batch.

    Args:
        fuse: The student.
        images: Infrared, visible luminance and the teacher's output, (N, 3, H, W) in [0, 1].
        settings: Guidance and the hardenings' strengths by name, for all samples or (N,).
        drawn: The random part of the hardening.
        self_loss: The self-learning loss.
        kept: What it keeps of the sources, (N, K), where it is at hand.

    Returns:
        The mixed, the guidance and the self-learning loss of each sample, (N,).
    """
    ir, vi, teacher = images.split(1, dim=1)
    fused = fuse(*harden(ir, vi, settings, drawn))
    guide = guide_loss(fused, teacher, sobel(teacher))
    own = self_loss.loss(fused, ir, vi, self_loss.keep(ir, vi) if kept is None else kept)
    return settings["guidance"] * guide + (1 - settings["guidance"]) * own, guide, own
