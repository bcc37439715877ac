"""The light student: most of its work at a quarter of the resolution, its output at the full one."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STRIDE = 4


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Pads (N, C, H, W) at the right and the bottom, by repetition, to multiples of ``multiple``."""
    height, width = image.shape[-2:]
    return F.pad(image, (0, -width % multiple, 0, -height % multiple), mode="replicate")


def bounded(image: Tensor) -> Tensor:
    """Clips to [0, 1] with a slope of one everywhere: behind a plain clip a pixel that left the range never returns.

    Straight-through estimator, Bengio et al., arXiv:1308.3432.
    """
    clipped = image.clamp(0.0, 1.0)
    return image + (clipped - image).detach() if torch.is_grad_enabled() else clipped


class _Convolution(nn.Conv2d):
    """A convolution that draws no weights of its own, so that nothing is taken from torch's default generator."""

    def reset_parameters(self) -> None:
        """Leaves the weights as they are."""


class Student(nn.Module):
    """A fusion network that is cheap per pixel on a CPU.

    Both sources are folded from space to depth by four, so that every convolution runs on a sixteenth of
    the pixels; the last one gives three maps of full resolution: a gain for each source and an offset.
    Fine detail thus comes from the sources themselves.

    Args:
        width: Number of channels.
        depth: Number of residual convolutions between the first and the last one.
        generator: Source of the initial weights; none draws them from torch's default generator.

    Raises:
        ValueError: If width is not in 2..256 or depth not in 0..16.
    """

    def __init__(self, width: int = 16, depth: int = 2, generator: torch.Generator | None = None) -> None:
        super().__init__()
        if not 2 <= width <= 256:
            raise ValueError(f"The student's width is {width}; it takes 2 to 256 channels.")
        if not 0 <= depth <= 16:
            raise ValueError(f"The student's depth is {depth}; it takes 0 to 16 convolutions.")
        self.width, self.depth = width, depth
        folded = 2 * STRIDE**2
        self.stem = _Convolution(folded, width, 3, padding=1)
        self.body = nn.ModuleList(_Convolution(width, width, 3, padding=1) for _ in range(depth))
        self.head = _Convolution(width, 3 * STRIDE**2, 3, padding=1)
        self.reset_parameters(generator)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draws new weights: He's normal distribution inside, a head near zero, so that it starts as a mean."""
        for conv in (self.stem, *self.body):
            nn.init.kaiming_normal_(conv.weight, a=0.01, generator=generator)
            nn.init.zeros_(conv.get_parameter("bias"))
        nn.init.normal_(self.head.weight, std=0.001, generator=generator)
        nn.init.zeros_(self.head.get_parameter("bias"))

    def forward(self, ir: Tensor, vi: Tensor) -> Tensor:
        """Fuses infrared and visible luminance, (N, 1, H, W) in [0, 1] each, into the same shape and range."""
        height, width = ir.shape[-2:]
        sources = pad_to_multiple(torch.cat((ir, vi), dim=1), STRIDE)
        folded = F.pixel_unshuffle(sources, STRIDE)
        x = F.leaky_relu(self.stem(folded))
        for conv in self.body:
            x = x + F.leaky_relu(conv(x))
        gains, offset = self.head(x).split((2 * STRIDE**2, STRIDE**2), dim=1)
        part_ir, part_vi = ((0.5 + gains) * folded).chunk(2, dim=1)
        fused = bounded(part_ir + part_vi + offset)  # still folded, so that one map is unfolded, not three
        return F.pixel_shuffle(fused, STRIDE)[..., :height, :width]
