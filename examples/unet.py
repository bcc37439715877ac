"""A student of your own: a small U-Net with batch normalisation and dropout.

python distill_student.py --student examples.unet:UNet:width=16 --out runs/unet
python -m fusion_gym.fuse --student examples.unet:UNet:runs/unet/student.pt --samples --out fused
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def block(inputs: int, outputs: int) -> nn.Sequential:
    """A 3x3 convolution, normalised."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


class UNet(nn.Module):
    """Three resolutions; the sources are mixed at each pixel by a weight of its own, so that no value leaves [0, 1]."""

    multiple = 4  # of pixels, to which height and width are padded: they are halved twice

    def __init__(self, width: int = 16, dropout: float = 0.1) -> None:
        super().__init__()
        self.first, self.second = block(2, width), block(width, 2 * width)
        self.deepest = nn.Sequential(block(2 * width, 2 * width), nn.Dropout2d(dropout))
        self.second_up, self.first_up = block(4 * width, width), block(2 * width, width)
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, ir: Tensor, vi: Tensor) -> Tensor:
        """Fuses infrared and visible luminance, (N, 1, H, W) in [0, 1] each, into the same shape and range."""
        first = self.first(torch.cat((ir, vi), dim=1))
        second = self.second(F.max_pool2d(first, 2))
        deepest = self.deepest(F.max_pool2d(second, 2))
        up = self.second_up(torch.cat((second, F.interpolate(deepest, scale_factor=2.0)), dim=1))
        up = self.first_up(torch.cat((first, F.interpolate(up, scale_factor=2.0)), dim=1))
        return torch.lerp(vi, ir, torch.sigmoid(self.head(up)))
