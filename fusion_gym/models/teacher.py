"""The built-in teacher: a residual U-Net, some forty times the student's weights."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusion_gym.models.layers import pad_to_multiple
from fusion_gym.models.student import Context

NEIGHBOURS = 9  # side of the windows in which the sources are compared, in pixels
ALIKE = 0.02  # difference of the sources, of full scale, around which they begin to count as two


def difference(ir: Tensor, vi: Tensor) -> Tensor:
    """How far two sources are two, from 0 where they are equal all around to 1; (N, 1, H, W)."""
    apart = F.pad((ir - vi).abs(), (NEIGHBOURS // 2,) * 4, mode="replicate")
    return torch.tanh(F.avg_pool2d(apart, NEIGHBOURS, stride=1) / ALIKE)


class _Block(nn.Module):
    """Two 3×3 convolutions; the second one is residual."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.first(x), 0.1)
        return x + F.leaky_relu(self.second(x), 0.1)


class Teacher(nn.Module):
    """A U-Net that predicts a gain for each source and an offset at every pixel.

    The sources are folded from space to depth by two before it and its maps unfolded behind it. Where both sources are
    equal there is nothing to fuse: the gains fade to a half each, and the offset to nothing.

    Args:
        widths: Channels at half, quarter, eighth … of the resolution.
        context: Number of coarser resolutions yet, whose few channels tell of the surroundings, such as a sky.
        generator: Source of the initial weights; none draws them from torch's default generator.
    """

    ADDED = "context."  # how the names of weights begin that earlier files lack; new ones change nothing

    def __init__(
        self, widths: tuple[int, ...] = (32, 64, 128), context: int = 2, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.encoder = nn.ModuleList(_Block(a, b) for a, b in zip((8, *widths[:-1]), widths, strict=True))
        self.up = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in itertools.pairwise(widths))
        self.context = nn.ModuleList([Context(widths[-1], widths[-1] // 2, context)] if context else [])
        self.multiple = 2 ** (len(widths) + context)
        self.decoder = nn.ModuleList(_Block(2 * a, a) for a in widths[:-1])
        self.head = nn.Conv2d(widths[0], 12, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.kaiming_normal_(module.weight, a=0.1, generator=generator)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.head.weight, std=0.001, generator=generator)
        for context_branch in self.context:  # at first it adds nothing
            nn.init.zeros_(context_branch.get_submodule("up").get_parameter("weight"))

    def forward(self, ir: Tensor, vi: Tensor) -> Tensor:
        """Fuses infrared and visible luminance, (N, 1, H, W) in [0, 1] each, into the same shape and range."""
        height, width = ir.shape[-2:]
        x = F.pixel_unshuffle(pad_to_multiple(torch.cat((ir, vi), dim=1), self.multiple), 2)
        skips = []
        for level, block in enumerate(self.encoder):
            x = block(F.avg_pool2d(x, 2) if level else x)
            skips.append(x)
        for around in self.context:
            x = x + around(x)
        for level in reversed(range(len(self.decoder))):
            below = F.interpolate(self.up[level](x), scale_factor=2.0, mode="bilinear", align_corners=False)
            x = self.decoder[level](torch.cat((skips[level], below), dim=1))
        maps = F.pixel_shuffle(self.head(x), 2)[..., :height, :width]
        gain_ir, gain_vi, offset = (maps * difference(ir, vi)).split(1, dim=1)
        return ((0.5 + gain_ir) * ir + (0.5 + gain_vi) * vi + offset).clamp(0.0, 1.0)
