"""The built-in teacher: a residual U-Net at full resolution, some forty times the student's weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusion_gym.models.student import pad_to_multiple


def blend(ir: Tensor, vi: Tensor, mix: Tensor, detail: Tensor) -> Tensor:
    """The fused image: a per-pixel mixture of the sources plus a correction, clipped to [0, 1].

    Args:
        ir: Infrared, (N, 1, H, W) in [0, 1].
        vi: Visible luminance, same shape and range.
        mix: Logit of the infrared's weight, same shape.
        detail: Correction that is added, same shape.
    """
    return (vi + torch.sigmoid(mix) * (ir - vi) + detail).clamp(0.0, 1.0)


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
    """A U-Net of four resolutions that predicts the two maps of `blend`.

    Args:
        widths: Channels at full, half, quarter and eighth resolution.
    """

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64, 128)) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.encoder = nn.ModuleList(_Block(a, b) for a, b in zip((2, *widths[:-1]), widths, strict=True))
        self.up = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in zip(widths[:-1], widths[1:], strict=True))
        self.decoder = nn.ModuleList(_Block(2 * a, a) for a in widths[:-1])
        self.head = nn.Conv2d(widths[0], 2, 3, padding=1)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def forward(self, ir: Tensor, vi: Tensor) -> Tensor:
        """Fuses infrared and visible luminance, (N, 1, H, W) in [0, 1] each, into the same shape and range."""
        height, width = ir.shape[-2:]
        x = pad_to_multiple(torch.cat((ir, vi), dim=1), 2 ** (len(self.widths) - 1))
        skips = []
        for level, block in enumerate(self.encoder):
            x = block(F.avg_pool2d(x, 2) if level else x)
            skips.append(x)
        for level in reversed(range(len(self.decoder))):
            below = F.interpolate(self.up[level](x), scale_factor=2.0, mode="bilinear", align_corners=False)
            x = self.decoder[level](torch.cat((skips[level], below), dim=1))
        maps = self.head(x)[..., :height, :width]
        return blend(ir, vi, maps[:, :1], maps[:, 1:])
