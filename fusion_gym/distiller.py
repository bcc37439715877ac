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

from fusion_gym.hardening import Draw, draw, harden, selection_weights
from fusion_gym.losses import guide_loss, self_loss, self_targets, sobel
from fusion_gym.models.student import Student
from fusion_gym.objective import metric_loss
from fusion_gym.optimizer import Adam
from fusion_gym.tensors import unit


def _simple_loss(fused: Tensor, ir: Tensor, vi: Tensor) -> Tensor:
    return self_loss(fused, self_targets(ir, vi))


SelfLoss = Callable[[Tensor, Tensor, Tensor], Tensor]  # of the fused images and their clean sources
# What a student learns by itself from, by name.
SELF_LOSSES: dict[str, SelfLoss] = {
    "simple": _simple_loss,
    "metrics": metric_loss,
}
GRADIENT_LIMIT = 5.0
FINAL_LEARNING_RATE = 0.05  # of the initial one, reached by a cosine


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

    The loss of one update is ``guidance · (L_guide(s(x), t(x)) + L_guide(s(H(x)), t(x))) / 2 + (1 − guidance) ·
    L_self(s(H(x)), x)``: the student follows the teacher's clean output on the clean and on the hardened pair, and
    learns by itself on the hardened one, held to the clean sources.

    Args:
        bank: Patches, uint8 (M, 3, P, P): infrared, visible luminance, the teacher's output.
        student: The network; it is trained in place, on its device.
        learning_rate: Initial rate of Adam.
        batch_size: Patches per update.
        total_updates: Budget over which the learning rate falls.
        generator: Where every random number comes from (a CPU generator).
        self_loss: L_self, one of `SELF_LOSSES`: "metrics" takes several times as long as "simple".
    """

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
        self.patch_losses = torch.full((len(bank),), math.nan)
        self.optimizer = Adam(student.parameters(), GRADIENT_LIMIT)
        self._device = next(student.parameters()).device

    def batch(self, sharpness: float) -> tuple[Tensor, Tensor, Draw]:
        """Draws a batch; what it takes from the generator does not depend on the settings.

        Args:
            sharpness: How strongly patches of a high present loss are preferred; 0 is uniform.

        Returns:
            Indices, (B,); images, float (B, 3, P, P) in [0, 1], mirrored at random; the random part of the hardening.
        """
        where, mirror = torch.rand((2, self.batch_size), generator=self.generator, dtype=torch.float64)
        if sharpness > 0:
            edges = selection_weights(self.patch_losses, sharpness).cumsum(0, dtype=torch.float64)
            index = torch.searchsorted(edges, where * edges[-1], right=True).clamp_max(len(edges) - 1)
        else:
            index = (where * len(self.bank)).long()
        patches, mirrored = self.bank[index.numpy()], (mirror < 0.5).numpy()
        patches[mirrored] = patches[mirrored, ..., ::-1]
        images = unit(patches, self._device)
        return index, images, draw(self.batch_size, self.generator)

    @torch.enable_grad()  # an agent may step the environment inside torch.no_grad, as ARS does
    def advance(self, settings: Mapping[str, float], updates: int) -> Stats:
        """Makes some updates under constant settings.

        Args:
            settings: Physical values by name: guidance, selection, and the hardenings' strengths.
            updates: Number of optimiser updates.

        Returns:
            Means over these updates; not finite where the student diverged.
        """
        sums = torch.zeros(3, device=self._device)
        for _ in range(updates):
            index, images, drawn = self.batch(settings["selection"])
            losses, guide, own = batch_losses(self.student, images, settings, drawn, self.self_loss)
            losses.mean().backward()
            norm = self.descend(index, losses)
            sums += torch.stack((guide.mean(), own.mean(), norm)).detach()
        return Stats(*(sums / updates).tolist())

    def descend(self, index: Tensor, losses: Tensor) -> Tensor:
        """Makes the update that the student's present gradients ask for.

        Args:
            index: The patches that the gradients come from, (B,).
            losses: The loss of each, (B,); it decides how often the patch is selected.

        Returns:
            Norm of the gradient before clipping, a scalar.
        """
        norm = self.optimizer.step(self.rate)
        self.patch_losses[index] = losses.detach().cpu()
        self.updates += 1
        return norm

    @property
    def rate(self) -> float:
        """The learning rate of the next update."""
        share = min(1.0, self.updates / self.total_updates)
        falling = 0.5 * (1 + math.cos(math.pi * share))
        return self.learning_rate * (FINAL_LEARNING_RATE + (1 - FINAL_LEARNING_RATE) * falling)

    def measure(self, settings: Mapping[str, float]) -> Stats:
        """The losses of one batch without an update; the gradient norm is given as 1."""
        _, images, drawn = self.batch(settings["selection"])
        with torch.no_grad():
            _, guide, own = batch_losses(self.student, images, settings, drawn, self.self_loss)
        return Stats(float(guide.mean()), float(own.mean()), 1.0)

    def __deepcopy__(self, memo: dict[int, Any]) -> Distiller:
        """An independent distiller in the same state; the patches, which never change, are shared."""
        memo[id(self.bank)] = self.bank
        copied = memo[id(self)] = type(self).__new__(type(self))
        copied.__dict__ = copy.deepcopy(self.__dict__, memo)
        return copied

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the training depends on, as copies."""
        return {
            "student": copy.deepcopy(dict(self.student.state_dict())),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "patch_losses": self.patch_losses.clone(),
            "updates": self.updates,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave, for a student of the same shape on the same patches."""
        self.student.load_state_dict(state["student"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.patch_losses = state["patch_losses"].clone()
        self.updates = state["updates"]


def batch_losses(
    fuse: Callable[[Tensor, Tensor], Tensor],
    images: Tensor,
    settings: Mapping[str, float | Tensor],
    drawn: Draw,
    self_loss: SelfLoss = SELF_LOSSES["simple"],
) -> tuple[Tensor, Tensor, Tensor]:
    """The losses of a batch.

    Args:
        fuse: The student.
        images: Infrared, visible luminance and the teacher's output, (N, 3, H, W) in [0, 1].
        settings: Guidance and the hardenings' strengths by name, for all samples or (N,).
        drawn: The random part of the hardening.
        self_loss: The self-learning loss.

    Returns:
        The mixed, the guidance and the self-learning loss of each sample, (N,).
    """
    ir, vi, teacher = images.split(1, dim=1)
    hard_ir, hard_vi = harden(ir, vi, settings, drawn)
    edges = sobel(teacher)
    if hard_ir is ir and hard_vi is vi:
        hard_fused = fuse(ir, vi)
        guide = guide_loss(hard_fused, teacher, edges)
    else:
        both = fuse(torch.cat((ir, hard_ir)), torch.cat((vi, hard_vi)))
        hard_fused = both.chunk(2)[1]
        guide = guide_loss(both, teacher.repeat(2, 1, 1, 1), edges.repeat(2, 1, 1, 1)).view(2, -1).mean(0)
    own = self_loss(hard_fused, ir, vi)
    return settings["guidance"] * guide + (1 - settings["guidance"]) * own, guide, own
