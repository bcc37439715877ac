"""What the networks are built of."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SLOPE = 0.2
MARGIN = 0.05  # beyond the range; at its very ends lie whole areas, whose slopes would hang on rounding


def leaky(x: Tensor, slope: float = SLOPE) -> Tensor:
    """The activation; its slope is an argument, for TorchScript takes no global numbers."""
    return F.leaky_relu(x, slope)


class Convolution(nn.Conv2d):
    """A convolution that draws no weights of its own, so that nothing is taken from torch's default generator."""

    def __init__(self, inputs: int, outputs: int, size: int = 3, groups: int = 1) -> None:
        super().__init__(inputs, outputs, size, padding=size // 2, groups=groups)

    def reset_parameters(self) -> None:
        """Leaves the weights as they are."""


def convolution(inputs: int, outputs: int, separable: bool) -> nn.Module:
    """A 3×3 convolution, or the depthwise-separable one, which takes an eighth of the operations."""
    if not separable:
        return Convolution(inputs, outputs)
    return nn.Sequential(Convolution(inputs, inputs, groups=inputs), Convolution(inputs, outputs, 1))


class StudentError(ValueError):
    """A student that cannot be found, loaded or used; the message is one sentence."""


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Pads (N, C, H, W) at the right and the bottom, by repetition, to multiples of ``multiple``."""
    height, width = image.shape[-2:]
    return F.pad(image, (0, -width % multiple, 0, -height % multiple), mode="replicate")


class _Bounded(torch.autograd.Function):
    """A clip to [0, 1] whose slope is lost only where it would drive a pixel further out than `MARGIN`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(image: Tensor) -> Tensor:
        return image.clamp(0.0, 1.0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        (image,) = ctx.saved_tensors
        outwards = ((image < -MARGIN) & (slope > 0.0)) | ((image > 1.0 + MARGIN) & (slope < 0.0))
        return slope.masked_fill(outwards, 0.0)


def bounded(image: Tensor) -> Tensor:
    """Clips to [0, 1]; a pixel that left the range still learns to come back.

    Behind a plain clip it would not, and a whole student can be lost so; with a slope of one everywhere, values
    outside drift away without end.
    """
    if torch.jit.is_scripting() or not torch.is_grad_enabled():
        return image.clamp(0.0, 1.0)
    return _Bounded.apply(image)
