"""Adam with gradient clipping, on a network's weights as one vector.

The numbers are those of ``torch.nn.utils.clip_grad_norm_`` and ``torch.optim.Adam``. Those two cost more than they
compute here: a student has some ten small tensors, so that their handling by list takes several times as long as the
arithmetic, and the first optimiser of a process imports torch's compiler, 1.2 s and 70 MB in every worker.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

FIRST, SECOND, EPSILON = 0.9, 0.999, 1e-8


class Adam:
    """Adam, arXiv:1412.6980, whose gradient is clipped to a largest norm first.

    Args:
        parameters: The weights, changed in place; those that are frozen are left alone.
        limit: Largest norm of the gradient over all weights.
    """

    def __init__(self, parameters: Iterable[Tensor], limit: float) -> None:
        self.parameters, self.limit = [weight for weight in parameters if weight.requires_grad], limit
        self._sizes = [weight.numel() for weight in self.parameters]
        self.mean = torch.zeros(sum(self._sizes), device=self.parameters[0].device)
        self.square = torch.zeros_like(self.mean)
        self.steps = 0

    @torch.no_grad()
    def step(self, rate: float) -> Tensor:
        """Makes one step down the weights' ``grad``, which is gone afterwards; a weight that has none had no effect.

        Args:
            rate: Learning rate.

        Returns:
            Norm of the gradient before clipping, a scalar.
        """
        gradient = torch.cat([(torch.zeros_like(w) if w.grad is None else w.grad).flatten() for w in self.parameters])
        norm = gradient.norm()
        gradient *= (self.limit / (norm + 1e-6)).clamp_max(1.0)
        self.steps += 1
        self.mean.lerp_(gradient, 1 - FIRST)
        self.square.mul_(SECOND).addcmul_(gradient, gradient, value=1 - SECOND)
        spread = self.square.sqrt().mul_((1 - SECOND**self.steps) ** -0.5).add_(EPSILON)
        change = (self.mean / spread).mul_(-rate / (1 - FIRST**self.steps))
        for weight, part in zip(self.parameters, change.split(self._sizes), strict=True):
            weight += part.view_as(weight)
            weight.grad = None
        return norm

    def state_dict(self) -> dict[str, Any]:
        """Moments and number of steps, as copies."""
        return {"mean": self.mean.clone(), "square": self.square.clone(), "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave, for weights of the same shapes."""
        self.mean.copy_(state["mean"])
        self.square.copy_(state["square"])
        self.steps = state["steps"]
