"""The shape of AgentFuse's student (arXiv:2509.02424), to be compared with at equal data; its weights are not public.

Two encoders of width 16, three times halved, with two residual blocks, pruned by half: 652,385 weights, and 5.79 GMAC
at 640x480. Written from the paper's description; what that leaves open is as in the networks that it is built after.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(x)))


class _Encoder(nn.Sequential):
    """A 7x7 stem of 8 channels, three 4x4 convolutions of stride 2 up to 64, and two residual blocks."""

    def __init__(self) -> None:
        layers: list[nn.Module] = [nn.Conv2d(1, 8, 7, padding=3), nn.ReLU()]
        for width in (8, 16, 32):
            layers += [nn.Conv2d(width, 2 * width, 4, stride=2, padding=1), nn.ReLU()]
        super().__init__(*layers, _Residual(64), _Residual(64))


class _LayerNorm(nn.Module):
    """Normalisation over channels and pixels, with a scale and a shift for each channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(width, 1, 1)), nn.Parameter(torch.zeros(width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        mean, deviation = x.mean((1, 2, 3), keepdim=True), x.std((1, 2, 3), keepdim=True)
        return (x - mean) / (deviation + 1e-5) * self.scale + self.shift


class AgentFuse(nn.Module):
    """Two encoders, and a decoder of three 5x5 transposed convolutions of stride 2, each normalised, and a 7x7 head."""

    multiple = 8

    def __init__(self) -> None:
        super().__init__()
        self.ir, self.vi = _Encoder(), _Encoder()
        layers: list[nn.Module] = []
        for inputs, outputs in ((128, 64), (64, 32), (32, 16)):
            up = nn.ConvTranspose2d(inputs, outputs, 5, stride=2, padding=2, output_padding=1)
            layers += [up, _LayerNorm(outputs), nn.ReLU()]
        self.decoder = nn.Sequential(*layers, nn.Conv2d(16, 1, 7, padding=3))

    def forward(self, ir: Tensor, vi: Tensor) -> Tensor:
        """Fuses two images, (N, 1, H, W) in [0, 1] each; H and W are multiples of 8."""
        features = torch.cat((self.ir(2 * ir - 1), self.vi(2 * vi - 1)), dim=1)
        return 0.5 + 0.5 * torch.tanh(self.decoder(features))
