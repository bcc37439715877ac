"""What the networks are built of."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

SLOPE = 0.2


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
