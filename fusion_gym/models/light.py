"""The light of a pair of images: what is known of it, and how it is evened before they are fused."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fusion_gym.models import WEIGHTS
from fusion_gym.models.layers import Convolution, leaky

TAUGHT = WEIGHTS / "light.pt"  # what new students begin with, `benchmarks/make_light.py`
EVENING = 4  # gains and offsets, one of each for a source
EVERY = 4  # the rows and columns that statistics are taken from; it divides every `multiple` of a student


def grids(sources: Tensor, every: int = EVERY) -> tuple[Tensor, Tensor]:
    """Pixels on a coarse grid, and their diagonal neighbours: all that `scene_statistics` takes of images.

    The distance of the grid's rows and columns is an argument, for TorchScript takes no global numbers.
    """
    return sources[..., ::every, ::every], sources[..., 1::every, 1::every]


def scene_statistics(pixels: Tensor, neighbours: Tensor) -> Tensor:
    """What is known of the light in whole images: brightness, contrast, noise or sharpness, and exposure.

    That is the mean; the covariance of pixels with their neighbours, to which noise adds nothing; the mean square of
    their difference, to which noise adds and from which blur takes; the darkest and the brightest pixel, which tell an
    under-exposed scene from a dark one with lamps in it, and fog from a raised black; and the share of white pixels.

    Args:
        pixels: (N, C, H, W) in [0, 1], as `grids` gives them.
        neighbours: Their neighbours, of the same shape.

    Returns:
        (N, 6 C, 1, 1): the means, the logarithms of the four others, scaled to about one, then the shares.
    """
    mean, mean_near = _mean(pixels), _mean(neighbours)
    contrast = _mean((pixels - mean) * (neighbours - mean_near)).clamp_min(0.0)
    difference = _mean((pixels - neighbours).square())
    darkest, brightest = pixels.amin(dim=(2, 3), keepdim=True), pixels.amax(dim=(2, 3), keepdim=True)
    white = _mean((20.0 * pixels - 19.0).clamp(0.0, 1.0))  # none at 0.95, so that rounding changes little
    logarithms = torch.log(torch.cat((contrast + 1e-5, difference + 1e-6, darkest + 1e-3, brightest + 1e-3), dim=1))
    return torch.cat((0.5 * (mean + mean_near), 1.0 + 0.2 * logarithms, white), dim=1)


def _mean(image: Tensor) -> Tensor:
    return image.mean(dim=(2, 3), keepdim=True)


class Light(nn.Module):
    """Evens the light of the sources: a gain and an offset for each, for the whole image, as a camera sets them.

    So a thermal image of little contrast, or an under-exposed one, is fused like any other.

    Args:
        conditioning: Number of channels that condition the network on the image's `scene_statistics`.
    """

    def __init__(self, conditioning: int, inner: int = 32) -> None:
        super().__init__()
        self.first, self.second = Convolution(12, inner, 1), Convolution(inner, inner, 1)
        self.head = Convolution(inner, EVENING + conditioning, 1)

    def answer(self, seen: Tensor) -> Tensor:
        """What to do about `scene_statistics`: log gains by a third, offsets and conditioning, (N, 4 + C, 1, 1)."""
        return self.head(leaky(self.second(leaky(self.first(seen)))))

    @property
    def knowledge(self) -> dict[str, Tensor]:
        """The weights that gains and offsets come from; the same in students of all widths."""
        return {name: value[:EVENING] if "head" in name else value for name, value in self.state_dict().items()}

    @torch.no_grad()
    def take_over(self, knowledge: Mapping[str, Tensor]) -> None:
        """Begins with what was taught, `knowledge`; it does not condition the network yet."""
        for name, value in self.state_dict().items():
            value[: len(knowledge[name])] = knowledge[name]

    def forward(self, sources: Tensor, seen: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """What evens the light of the sources, (N, 2, H, W), and what conditions the network.

        Parts of an image need the `scene_statistics` of the whole one, ``seen``, (N, 12, 1, 1).

        Returns:
            Gains and offsets, (N, 2, 1, 1) each, and (N, conditioning, 1, 1).
        """
        if seen is None:
            seen = scene_statistics(*grids(sources))
        found = self.answer(seen)
        gain = torch.exp((3.0 * found[:, :2]).clamp(-2.0, 3.0))
        return gain, seen[:, :2] * (1.0 - gain) + found[:, 2:4], found[:, 4:]
