"""Hardening: degradations that make a sample harder, as pure batched tensor functions.

Every degradation takes images (N, 1, H, W) in [0, 1] and one strength per image, (N,) in [0, 1]. Strength 0 is
the exact identity, the damage grows with the strength, and the result stays in [0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fusion_gym.conditions import HARDENINGS

BLUR_SIGMA = 2.5  # pixels, at strength 1
NOISE_STD = 0.15  # of full scale, at strength 1
DIMMING, GLARE, FADING = 0.85, 2.0, 0.9  # gain lost in the dark, gained in the glare, contrast lost, at strength 1


def _per_image(strength: Tensor) -> Tensor:
    return strength.view(-1, 1, 1, 1)


def blur(image: Tensor, strength: Tensor) -> Tensor:
    """Gaussian blur of standard deviation `BLUR_SIGMA` · strength pixels (defocus, motion, diffusion of heat)."""
    reach = int(3 * BLUR_SIGMA)
    offsets = torch.arange(-reach, reach + 1, device=image.device, dtype=image.dtype)
    sigma = (BLUR_SIGMA * strength).clamp_min(1e-3).view(-1, 1)
    window = torch.exp(-0.5 * (offsets / sigma) ** 2)
    window = (window / window.sum(1, keepdim=True)).view(-1, 1, 1, 2 * reach + 1)
    count = image.shape[0]
    x = image.transpose(0, 1)  # (1, N, H, W): every image is a channel with a kernel of its own
    x = F.conv2d(F.pad(x, (reach, reach, 0, 0), mode="replicate"), window, groups=count)
    x = F.conv2d(F.pad(x, (0, 0, reach, reach), mode="replicate"), window.transpose(2, 3), groups=count)
    return x.transpose(0, 1).clamp(0, 1)


def noise(image: Tensor, strength: Tensor, unit_noise: Tensor) -> Tensor:
    """Additive sensor noise of standard deviation `NOISE_STD` · strength; ``unit_noise`` is N(0, 1), like image."""
    return (image + NOISE_STD * _per_image(strength) * unit_noise).clamp(0, 1)


def darken(image: Tensor, strength: Tensor) -> Tensor:
    """Under-exposure: gain down to 0.15 and a gamma up to 1.5."""
    s = _per_image(strength)
    return (1 - DIMMING * s) * image.clamp(0, 1).pow(1 + 0.5 * s)


def overexpose(image: Tensor, strength: Tensor) -> Tensor:
    """Over-exposure: gain up to 3 and a lifted black, clipped at white."""
    s = _per_image(strength)
    return ((1 + GLARE * s) * image + 0.15 * s).clamp(0, 1)


def illumination(image: Tensor, strength: Tensor, dark: Tensor) -> Tensor:
    """Darkens the images where the boolean ``dark``, (N,), is true and over-exposes the others."""
    return torch.where(_per_image(dark), darken(image, strength), overexpose(image, strength))


def contrast_loss(image: Tensor, strength: Tensor) -> Tensor:
    """Loss of thermal contrast: values move towards the image's mean, at strength 1 by nine tenths."""
    mean = image.mean(dim=(2, 3), keepdim=True)
    return image + FADING * _per_image(strength) * (mean - image)


class Draw(NamedTuple):
    """The random part of one hardening, so that the same damage can be applied to the same batch again.

    Attributes:
        spared: What decides whether an image stays clean, (N,) in [0, 1).
        kind: What decides which hardening it gets, (N,) in [0, 1).
        share: Share of the asked strength that it gets, (N,) in [0, 1].
        dark: Whether the visible image is darkened, else over-exposed, (N,).
        seeds: Seed of each image's sensor noise, (N,); it is drawn only where asked for.
    """

    spared: Tensor
    kind: Tensor
    share: Tensor
    dark: Tensor
    seeds: Tensor

    def amounts(self, settings: Mapping[str, float | Tensor]) -> Tensor:
        """Strength of each hardening that each image gets, (len(HARDENINGS), N).

        An image gets one hardening at most: all at once would leave little to learn from. Which one is drawn in
        proportion to the strengths, so that a strength says how often as well as how much.

        Args:
            settings: Largest strength by name (`HARDENINGS`) and the share of images that stay ``clean``, for all
                images or (N,); what is missing is 0.
        """
        asked = [torch.as_tensor(settings.get(name, 0.0)).expand_as(self.kind) for name in HARDENINGS]
        edges = torch.stack(asked).to(self.kind).cumsum(0)
        chosen = (self.kind * edges[-1] >= edges).sum(0)
        given = torch.where(self.spared < settings.get("clean", 0.0), 0.0, self.share)
        return torch.stack([torch.where(chosen == at, given * strength, 0.0) for at, strength in enumerate(asked)])


def unit_noise(seeds: Tensor, image: Tensor) -> Tensor:
    """Noise for both sources, N(0, 1), (2, N, 1, H, W): infrared first.

    Args:
        seeds: Seed of each pair, (N,).
        image: An image, (1, H, W), of the wanted size, dtype and device.
    """
    drawn = []
    for seed in seeds.tolist():
        generator = torch.Generator(image.device).manual_seed(seed)
        drawn.append(torch.randn((2, *image.shape), generator=generator, dtype=image.dtype, device=image.device))
    return torch.stack(drawn, dim=1)


def draw(count: int, generator: torch.Generator) -> Draw:
    """Draws the random part for a batch; what it takes from the generator depends on nothing but ``count``.

    Args:
        count: Number of pairs.
        generator: Where every random number comes from.
    """
    device = generator.device
    spared, kind, share, dark = torch.rand((4, count), generator=generator, device=device)
    seeds = torch.randint(2**31, (count,), generator=generator, device=device)
    return Draw(spared, kind, share, dark < 0.5, seeds)


def harden(ir: Tensor, vi: Tensor, settings: Mapping[str, float | Tensor], drawn: Draw) -> tuple[Tensor, Tensor]:
    """Degrades a batch of pairs to learn from, each at random; see `Draw.amounts` and `damage`.

    Args:
        ir: Infrared, (N, 1, H, W) in [0, 1].
        vi: Visible luminance, same shape and range.
        settings: Largest strengths, and the share that stays clean, as in `Draw.amounts`.
        drawn: The random part, from `draw`.

    Returns:
        The degraded infrared and visible images; where no image is degraded the inputs themselves.
    """
    return damage(ir, vi, dict(zip(HARDENINGS, drawn.amounts(settings), strict=True)), drawn)


def damage(ir: Tensor, vi: Tensor, strengths: Mapping[str, float | Tensor], drawn: Draw) -> tuple[Tensor, Tensor]:
    """Degrades pairs by exactly the given strengths.

    In the order of an image's way: light (visible) and heat (infrared), then optics, then sensor noise.

    Args:
        ir: Infrared, (N, 1, H, W) in [0, 1].
        vi: Visible luminance, same shape and range.
        strengths: Strength in [0, 1] by name (`HARDENINGS`), for all images or (N,); a missing one is 0.
        drawn: Where the noise, and the direction that light goes wrong in, come from.

    Returns:
        The degraded infrared and visible images; where no image is degraded the inputs themselves.
    """
    pair, untouched = torch.stack((ir, vi)), True
    for name, degrade in _WAY.items():
        amount = torch.as_tensor(strengths.get(name, 0.0)).expand_as(drawn.share)
        index = amount.nonzero().squeeze(1)
        if len(index):  # mostly a few images: the others cost nothing
            pair[:, index] = degrade(pair[:, index], amount[index].to(ir), drawn, index)
            untouched = False
    return (ir, vi) if untouched else (pair[0], pair[1])


def _illumination(pair: Tensor, amount: Tensor, drawn: Draw, index: Tensor) -> Tensor:
    return torch.stack((pair[0], illumination(pair[1], amount, drawn.dark[index].to(pair.device))))


def _contrast(pair: Tensor, amount: Tensor, drawn: Draw, index: Tensor) -> Tensor:
    return torch.stack((contrast_loss(pair[0], amount), pair[1]))


def _blur(pair: Tensor, amount: Tensor, drawn: Draw, index: Tensor) -> Tensor:
    return blur(pair.flatten(0, 1), amount.repeat(2)).view_as(pair)


def _noise(pair: Tensor, amount: Tensor, drawn: Draw, index: Tensor) -> Tensor:
    unit = unit_noise(drawn.seeds[index], pair[0, 0])
    return noise(pair.flatten(0, 1), amount.repeat(2), unit.flatten(0, 1)).view_as(pair)


# In the order of an image's way, on the chosen pairs, (2, n, 1, H, W).
_WAY = {"illumination": _illumination, "contrast": _contrast, "blur": _blur, "noise": _noise}
