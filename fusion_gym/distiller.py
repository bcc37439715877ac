"""The distiller: one student, its optimiser and its stream of patches, advanced under given settings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusion_gym.hardening import HARDENINGS, draw, harden, selection_weights
from fusion_gym.losses import guide_loss, self_loss, self_targets, sobel
from fusion_gym.models.student import Student

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

    The loss of one update is ``guidance · L_guide(s(x), t(x)) + (1 − guidance) · L_self(s(H(x)), x)``: the student
    follows the teacher on the clean pair, and learns by itself on the hardened one, held to the clean sources.

    Args:
        bank: Patches, uint8 (M, 3, P, P): infrared, visible luminance, the teacher's output.
        student: The network; it is trained in place, on its device.
        learning_rate: Initial rate of Adam.
        batch_size: Patches per update.
        total_updates: Budget over which the learning rate falls.
        generator: Where every random number comes from (a CPU generator).
    """

    def __init__(
        self,
        bank: np.ndarray,
        student: Student,
        learning_rate: float,
        batch_size: int,
        total_updates: int,
        generator: torch.Generator,
    ) -> None:
        self.bank, self.student, self.generator = bank, student, generator
        self.learning_rate, self.batch_size, self.total_updates = learning_rate, batch_size, total_updates
        self.updates = 0
        self.patch_losses = torch.full((len(bank),), math.nan)
        self.optimizer = torch.optim.Adam(student.parameters(), lr=learning_rate)
        self._device = next(student.parameters()).device

    def sample(self, sharpness: float) -> tuple[Tensor, Tensor]:
        """Draws a batch.

        Args:
            sharpness: How strongly patches of a high present loss are preferred; 0 is uniform.

        Returns:
            Indices, (B,), and images, float (B, 3, P, P) in [0, 1], mirrored at random.
        """
        if sharpness > 0:
            weights = selection_weights(self.patch_losses, sharpness)
            index = torch.multinomial(weights, self.batch_size, replacement=True, generator=self.generator)
        else:
            index = torch.randint(len(self.bank), (self.batch_size,), generator=self.generator)
        images = torch.from_numpy(self.bank[index.numpy()])
        mirror = torch.rand(self.batch_size, generator=self.generator) < 0.5
        images = torch.where(mirror.view(-1, 1, 1, 1), images.flip(3), images)
        return index, images.to(self._device, torch.float32) / 255

    def advance(self, settings: Mapping[str, float], updates: int) -> Stats:
        """Makes some updates under constant settings.

        Args:
            settings: Physical values by name: guidance, selection, and the hardenings' strengths.
            updates: Number of optimiser updates.

        Returns:
            Means over these updates; not finite where the student diverged, and then no further update is made.
        """
        sums = torch.zeros(3)
        for _ in range(updates):
            self._decay()
            index, losses, guide, own = self._losses(settings)
            self.optimizer.zero_grad()
            losses.mean().backward()
            norm = torch.nn.utils.clip_grad_norm_(self.student.parameters(), GRADIENT_LIMIT)
            sums += torch.stack((guide.mean(), own.mean(), norm)).detach().cpu()
            if not torch.isfinite(sums).all():
                break
            self.optimizer.step()
            self.patch_losses[index] = losses.detach().cpu()
            self.updates += 1
        return Stats(*(sums / updates).tolist())

    def measure(self, settings: Mapping[str, float]) -> Stats:
        """The losses of one batch without an update; the gradient norm is given as 1."""
        with torch.no_grad():
            _, _, guide, own = self._losses(settings)
        return Stats(float(guide.mean()), float(own.mean()), 1.0)

    def _losses(self, settings: Mapping[str, float]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Draws a batch; gives its indices and, per sample, the mixed, the guidance and the self-learning loss."""
        guidance = settings["guidance"]
        index, images = self.sample(settings["selection"])
        ir, vi, teacher = images.split(1, dim=1)
        drawn = draw(ir.shape, self.generator)
        hard_ir, hard_vi = harden(ir, vi, {name: settings[name] for name in HARDENINGS}, drawn)
        fused, hard_fused = self.student(torch.cat((ir, hard_ir)), torch.cat((vi, hard_vi))).chunk(2)
        guide = guide_loss(fused, teacher, sobel(teacher))
        own = self_loss(hard_fused, self_targets(ir, vi))
        return index, guidance * guide + (1 - guidance) * own, guide, own

    def _decay(self) -> None:
        share = min(1.0, self.updates / self.total_updates)
        factor = FINAL_LEARNING_RATE + (1 - FINAL_LEARNING_RATE) * 0.5 * (1 + math.cos(math.pi * share))
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * factor

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the training depends on, as copies."""
        return {
            "student": {name: value.clone() for name, value in self.student.state_dict().items()},
            "optimizer": _copied(self.optimizer.state_dict()),
            "generator": self.generator.get_state(),
            "patch_losses": self.patch_losses.clone(),
            "updates": self.updates,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave, for a student of the same shape on the same patches."""
        self.student.load_state_dict(state["student"])
        self.optimizer.load_state_dict(_copied(state["optimizer"]))
        self.generator.set_state(state["generator"])
        self.patch_losses = state["patch_losses"].clone()
        self.updates = state["updates"]


def _copied(value: Any) -> Any:
    """A copy of nested dicts and lists whose tensors are copied too."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copied(item) for item in value]
    return value
