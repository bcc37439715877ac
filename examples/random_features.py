"""A network of features of your own, for guidance by features: convolutions of fixed random weights.

python distill_student.py --guide features --features examples.random_features:RandomFeatures --out runs/features
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class RandomFeatures(nn.Module):
    """Three convolutions, the same everywhere: at full, at half and at quarter resolution."""

    def __init__(self, widths: tuple[int, ...] = (8, 16, 32)) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.layers = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in itertools.pairwise((1, *widths))
        )
        for layer in self.layers:
            nn.init.kaiming_normal_(layer.weight, generator=generator)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Features of luminance, (N, 1, H, W) in [0, 1], at each resolution."""
        found: list[Tensor] = []
        for layer in self.layers:
            found.append(F.relu(layer(F.avg_pool2d(found[-1], 2) if found else image)))
        return found
