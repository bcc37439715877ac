"""The distiller: one student, its optimiser and its stream of patches, advanced under given settings."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fusion_gym.hardening import Draw, draw, harden
from fusion_gym.hints import Hints
from fusion_gym.losses import by_pixels, self_loss, self_targets
from fusion_gym.metrics import METRICS
from fusion_gym.models.own import OwnStudent
from fusion_gym.models.student import Student
from fusion_gym.modes import settled
from fusion_gym.objective import keep, metric_loss
from fusion_gym.optimizer import Adam
from fusion_gym.randomness import a_seed, seeded
from fusion_gym.tensors import Fuse, joined, unit


def _simple_loss(fused: Tensor, ir: Tensor, vi: Tensor, kept: Any) -> Tensor:
    return self_loss(fused, self_targets(ir, vi))


@dataclass(frozen=True)
class SelfLoss:
    """What a student learns by itself from.

    Attributes:
        loss: Loss per sample, (N,), of the fused images, their clean sources, and what is kept of these, or ().
        keep: What is worth keeping of sources: nested tuples of tensors, (N, ...).
    """

    loss: Callable[[Tensor, Tensor, Tensor, Any], Tensor]
    keep: Callable[[Tensor, Tensor], Any] | None = None


GuideLoss = Callable[[Tensor, Tensor], Tensor]
SELF_LOSSES: dict[str, SelfLoss] = {
    "simple": SelfLoss(_simple_loss),
    "metrics": SelfLoss(metric_loss, keep),
}
KEPT_AT_MOST = 2**23  # pixels of patches in one process, at some 55 bytes each; of a larger bank nothing is kept
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


@lru_cache(maxsize=4)
def _keeper(self_loss: SelfLoss, side: int, device: torch.device) -> Callable[[bytes], Any]:
    """What gives what is kept of a patch's sources, uint8: computed once for all who learn from it.

    Each patch is computed by itself, so that what comes out does not depend on what was computed with it.
    """

    @lru_cache(maxsize=KEPT_AT_MOST // side**2)
    @settled()
    def kept(sources: bytes) -> Any:
        pixels = np.frombuffer(sources, np.uint8).reshape(1, 2, side, side)
        assert self_loss.keep is not None
        return self_loss.keep(*unit(pixels, device).split(1, dim=1))

    return kept


class Batch(NamedTuple):
    """What one update learns from.

    Attributes:
        images: Infrared, visible luminance and the teacher's output, (N, 3, H, W) in [0, 1].
        mirrored: Which of them the student sees mirrored, bool (N,).
        drawn: The random part of the hardening.
        kept: What the self-learning loss keeps of the sources; () for nothing.
    """

    images: Tensor
    mirrored: Tensor
    drawn: Draw
    kept: Any = ()


class Distiller:
    """Trains a student on patches of source pairs with a teacher's outputs.

    The loss of one update is ``guidance · L_guide(s(H(x)), t(x)) + (1 − guidance) · L_self(s(H(x)), x)``: on a batch of
    which H leaves a share clean, the student follows the teacher's clean output and learns by itself, held to the
    clean sources.

    Args:
        bank: Patches, uint8 (M, 3, P, P): infrared, visible luminance, the teacher's output.
        student: The network; it is trained in place, on its device. But for its updates it is in evaluation mode.
        learning_rate: Initial rate of Adam.
        batch_size: Patches per update.
        total_updates: Budget over which the learning rate falls.
        generator: Where every random number comes from (a CPU generator).
        self_loss: L_self, one of `SELF_LOSSES`: "metrics" takes several times as long as "simple".
        guide: L_guide, per sample, (N,), of the student's and the teacher's outputs, or by the teacher's features.
    """

    @settled()
    def __init__(
        self,
        bank: np.ndarray,
        student: Student | OwnStudent,
        learning_rate: float,
        batch_size: int,
        total_updates: int,
        generator: torch.Generator,
        self_loss: str = "simple",
        guide: GuideLoss | Hints = by_pixels,
    ) -> None:
        self.bank, self.student, self.generator = bank, student.eval(), generator
        self.learning_rate, self.batch_size, self.total_updates = learning_rate, batch_size, total_updates
        self.self_loss, self.guide = SELF_LOSSES[self_loss], guide
        self.updates = 0
        self.optimizer = Adam(student.parameters(), GRADIENT_LIMIT)
        self._device = next(student.parameters()).device

    @property
    def keeps(self) -> bool:
        """Whether something of the patches is worth keeping, and they are not too many for it."""
        return self.self_loss.keep is not None and self.bank[:, 0].size <= KEPT_AT_MOST

    def batch(self) -> Batch:
        """Draws a batch; what it takes from the generator does not depend on the settings."""
        where, mirrored = torch.rand((2, self.batch_size), generator=self.generator, dtype=torch.float64)
        patches, kept = self.bank[(where * len(self.bank)).long().numpy()], ()
        if self.keeps:
            keep = _keeper(self.self_loss, patches.shape[3], self._device)
            kept = joined([keep(patch[:2].tobytes()) for patch in patches])
        drawn = draw(self.batch_size, self.generator)
        return Batch(unit(patches, self._device), (mirrored < 0.5).to(self._device), drawn, kept)

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
        with learning(self.student):
            for _ in range(updates):
                batch = self.batch()
                with self.chance():
                    losses, guide, own = batch_losses(self.student, batch, settings, self.self_loss, self.guide)
                    losses.mean().backward()
                norm = self.descend(settings["rate"])
                sums += torch.stack((guide.mean(), own.mean(), norm)).detach()
        return Stats(*(sums / updates).tolist())

    def chance(self) -> AbstractContextManager[None]:
        """What an update is made in: there dropout of a network of the user's own follows from the generator."""
        return seeded(a_seed(self.generator), self._device) if isinstance(self.student, OwnStudent) else nullcontext()

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
        with torch.no_grad():
            _, guide, own = batch_losses(self.student, self.batch(), settings, self.self_loss, self.guide)
        return Stats(float(guide.mean()), float(own.mean()), 1.0)

    @settled()
    def __deepcopy__(self, memo: dict[int, Any]) -> Distiller:
        """An independent distiller in the same state; the patches, which never change, are shared."""
        memo[id(self.bank)] = self.bank
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


@contextmanager
def learning(*students: torch.nn.Module) -> Iterator[None]:
    """Within it networks are in training mode; before and after it they are as they fuse."""
    for student in students:
        student.train()
    try:
        yield
    finally:
        for student in students:
            student.eval()


def batch_losses(
    fuse: Fuse,
    batch: Batch,
    settings: Mapping[str, float | Tensor],
    self_loss: SelfLoss = SELF_LOSSES["simple"],
    by: GuideLoss | Hints = by_pixels,
) -> tuple[Tensor, Tensor, Tensor]:
    """The losses of a batch.

    A student that sees mirrored images is judged by its outputs mirrored back, for what is kept is of patches as they
    are.

    Args:
        fuse: The student; with hints it has its features too.
        batch: The batch.
        settings: Guidance and the hardenings' strengths by name, for all samples or (N,).
        self_loss: The self-learning loss.
        by: The guidance loss.

    Returns:
        The mixed, the guidance and the self-learning loss of each sample, (N,).
    """
    ir, vi, teacher = batch.images.split(1, dim=1)
    hard = [mirror(image, batch.mirrored) for image in harden(ir, vi, settings, batch.drawn)]
    fused = mirror(fuse(*hard), batch.mirrored)
    if isinstance(by, Hints):  # features need not be mirrored where their images are: both see them alike
        guide = by.of(fuse, hard, [mirror(image, batch.mirrored) for image in (ir, vi)])
    else:
        guide = by(fused, teacher)
    own = self_loss.loss(fused, ir, vi, batch.kept)
    return settings["guidance"] * guide + (1 - settings["guidance"]) * own, guide, own


def mirror(images: Tensor, mirrored: Tensor) -> Tensor:
    """Images, (N, C, H, W), of which those that a mask, (N,), names are mirrored from left to right."""
    return torch.where(mirrored.view(-1, 1, 1, 1), images.flip(3), images)
