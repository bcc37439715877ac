"""Damages for judging only: no student, teacher or agent is ever trained on them, as pure batched tensor functions.

Each takes infrared and visible luminance, (N, 1, H, W) in [0, 1], a strength in [0, 1], one for all pairs or (N,), and
the generator that everything random comes from, and gives the damaged pair. Strength 0 is the exact identity, the
damage grows with the strength, the result stays in [0, 1], and a source that is not concerned is given back as it is.
The draws do not depend on the strength: generators in the same state give the same haze, rain, stripes and lamps.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Strength = float | Tensor
Pair = tuple[Tensor, Tensor]

EXTINCTION = 2.5  # of haze over the longest distance of the scene, at strength 1: 8 % of the light there gets through
RAINDROPS, STREAK, RAIN, VEIL = 0.02, 17, 0.8, 0.25  # share of pixels, pixels, brightness and lost contrast
SLANT = 0.35  # of rain: at most as many pixels to the side for each one down
OFFSETS, GAINS = 0.07, 0.12  # standard deviations of the columns' offsets, of full scale, and of their gains
EXPOSURE, OVERFLOW, SPILL = 1.0, 0.8, 0.5  # exposure gained; where a pixel overflows; share of it that neighbours get
LAMPS, SPREAD = 3, (3.0, 9.0, 27.0)  # lamps in an image; standard deviations of the parts of the glare, in pixels


def _of_each(strength: Strength, image: Tensor) -> Tensor:
    return torch.as_tensor(strength, dtype=image.dtype, device=image.device).expand(len(image)).view(-1, 1, 1, 1)


def _uniform(shape: tuple[int, ...], image: Tensor, generator: torch.Generator) -> Tensor:
    """Random numbers in [0, 1), of the image's dtype and on its device."""
    return torch.rand(shape, generator=generator, device=generator.device, dtype=image.dtype).to(image.device)


def haze(ir: Tensor, vi: Tensor, strength: Strength, generator: torch.Generator) -> Pair:
    """Haze over the visible image, thicker with the distance; long-wave infrared passes through it.

    Koschmieder's law (Narasimhan and Nayar 2002, "Vision and the atmosphere"): what is seen is J t + A (1 − t), with
    t = exp(−`EXTINCTION` · strength · distance). The distance grows from the lower border to the upper one, as on
    level ground, and varies smoothly; the airlight A is drawn from 0.75 to 0.95.
    """
    count, height, width = len(vi), *vi.shape[-2:]
    air = 0.75 + 0.2 * _uniform((count, 1, 1, 1), vi, generator)
    clouds = _uniform((count, 1, 4, 4), vi, generator)
    clouds = F.interpolate(clouds, size=(height, width), mode="bilinear", align_corners=True)
    ground = torch.linspace(1, 0, height, dtype=vi.dtype, device=vi.device).view(1, 1, -1, 1)
    through = torch.exp(-EXTINCTION * _of_each(strength, vi) * (0.1 + 0.6 * ground + 0.3 * clouds))
    return ir, vi * through + air * (1 - through)


def rain(ir: Tensor, vi: Tensor, strength: Strength, generator: torch.Generator) -> Pair:
    """Bright streaks of one direction in each visible image, and the veil of the rain further away.

    Drops are specks, drawn out along their fall (Garg and Nayar 2006, "Photorealistic rendering of rain streaks", in
    the simple form that deraining is trained on since Yang et al. 2017), and added as light that cannot pass white.
    """
    count, strength = len(vi), _of_each(strength, vi)
    slant = SLANT * (2 * _uniform((count, 1, 1, 1), vi, generator) - 1)
    specks = _uniform((2, *vi.shape), vi, generator)
    drops = (specks[0] < RAINDROPS).to(vi.dtype) * (0.3 + 0.7 * specks[1])
    at = torch.arange(STREAK, dtype=vi.dtype, device=vi.device) - STREAK // 2
    window = (1 - (at.view(1, 1, 1, -1) - slant * at.view(1, 1, -1, 1)).abs()).clamp_min(0)  # a line, anti-aliased
    streaks = F.conv2d(drops.transpose(0, 1), window, padding=STREAK // 2, groups=count).transpose(0, 1).clamp(0, 1)
    veiled = vi + VEIL * strength * (0.7 - vi)
    return ir, veiled + RAIN * strength * streaks * (1 - veiled)


def stripes(ir: Tensor, vi: Tensor, strength: Strength, generator: torch.Generator) -> Pair:
    """Stripes of an uncooled infrared sensor: each column has an offset and a gain of its own.

    The model of fixed-pattern noise of Perry and Dereniak 1993, "Linear theory of nonuniformity correction in infrared
    staring sensors", by columns, for they share their amplifiers.
    """
    shape = (2, len(ir), 1, 1, ir.shape[-1])
    drawn = torch.randn(shape, generator=generator, device=generator.device, dtype=ir.dtype).to(ir.device)
    return (ir + _of_each(strength, ir) * (OFFSETS * drawn[0] + GAINS * drawn[1] * ir)).clamp(0, 1), vi


def bloom(ir: Tensor, vi: Tensor, strength: Strength, generator: torch.Generator) -> Pair:
    """Saturation and glare: the visible image is exposed too long, and what overflows spills into the neighbourhood.

    `LAMPS` lamps are drawn into each image, so that there is always something to overflow. The glare is a sum of
    Gaussians, near, wide and wider, as the spread of light in eyes and lenses is modelled (Spencer et al. 1995,
    "Physically-based glare effects for digital images").
    """
    count, height, width = len(vi), *vi.shape[-2:]
    strength = _of_each(strength, vi)
    across, down, size = _uniform((3, count, LAMPS, 1, 1), vi, generator)
    x, y = (torch.arange(length, dtype=vi.dtype, device=vi.device) for length in (width, height))
    distance = (x - across * width).square() + (y[:, None] - down * height).square()
    lamps = 4 * torch.exp(-0.5 * distance / (1 + 2 * size) ** 2).amax(1, keepdim=True)
    exposed = (1 + EXPOSURE * strength) * vi + strength * lamps
    overflow = (exposed - OVERFLOW).clamp_min(0) * strength
    glare = torch.stack([_blurred(overflow, sigma) for sigma in SPREAD]).mean(0)
    return ir, (exposed + SPILL * glare).clamp(0, 1)


def _blurred(image: Tensor, sigma: float) -> Tensor:
    """Gaussian blur; beyond the border there is no light."""
    for dim in (2, 3):
        at = torch.arange(image.shape[dim], dtype=image.dtype, device=image.device)
        window = torch.exp(-0.5 * ((at - at[:, None]) / sigma) ** 2) / (sigma * (2 * torch.pi) ** 0.5)
        image = window @ image if dim == 2 else image @ window
    return image


DAMAGES: dict[str, Callable[[Tensor, Tensor, Strength, torch.Generator], Pair]] = {
    "haze": haze,
    "rain": rain,
    "stripes": stripes,
    "bloom": bloom,
}


def damage(kind: str, ir: Tensor, vi: Tensor, strength: Strength, generator: torch.Generator) -> Pair:
    """One of `DAMAGES`, by its name.

    Args:
        kind: Name of the damage.
        ir: Infrared, (N, 1, H, W) in [0, 1].
        vi: Visible luminance, same shape and range.
        strength: In [0, 1], for all pairs or (N,).
        generator: Where every random number comes from.

    Returns:
        The damaged infrared and visible images.

    Raises:
        ValueError: If there is no such damage.
    """
    if kind not in DAMAGES:
        raise ValueError(f"There is no damage {kind!r}; there are {', '.join(DAMAGES)}.")
    return DAMAGES[kind](ir, vi, strength, generator)
