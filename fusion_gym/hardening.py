"""Hardening: degradations that make a sample harder, as pure batched tensor functions.

Every degradation takes images (N, 1, H, W) in [0, 1] and one strength per image, (N,) in [0, 1]. Strength 0 is
the exact identity, the damage grows with the strength, and the result stays in [0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

HARDENINGS = ("blur", "noise", "illumination", "contrast")
BLUR_SIGMA = 2.5  # pixels, at strength 1
NOISE_STD = 0.15  # of full scale, at strength 1


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
    return torch.where(_per_image(strength) > 0, x.transpose(0, 1).clamp(0, 1), image)


def noise(image: Tensor, strength: Tensor, unit_noise: Tensor) -> Tensor:
    """Additive sensor noise of standard deviation `NOISE_STD` · strength; ``unit_noise`` is N(0, 1), like image."""
    return torch.where(
        _per_image(strength) > 0, (image + NOISE_STD * _per_image(strength) * unit_noise).clamp(0, 1), image
    )


def darken(image: Tensor, strength: Tensor) -> Tensor:
    """Under-exposure: gain down to 0.15 and a gamma up to 1.5."""
    s = _per_image(strength)
    return (1 - 0.85 * s) * image.clamp(0, 1).pow(1 + 0.5 * s)


def overexpose(image: Tensor, strength: Tensor) -> Tensor:
    """Over-exposure: gain up to 3 and a lifted black, clipped at white."""
    s = _per_image(strength)
    return ((1 + 2 * s) * image + 0.15 * s).clamp(0, 1)


def illumination(image: Tensor, strength: Tensor, dark: Tensor) -> Tensor:
    """Darkens the images where the boolean ``dark``, (N,), is true and over-exposes the others."""
    return torch.where(_per_image(dark), darken(image, strength), overexpose(image, strength))


def contrast_loss(image: Tensor, strength: Tensor) -> Tensor:
    """Loss of thermal contrast: values move towards the image's mean, at strength 1 by nine tenths."""
    mean = image.mean(dim=(2, 3), keepdim=True)
    return image + 0.9 * _per_image(strength) * (mean - image)


@dataclass(frozen=True)
class Draw:
    """The random part of one hardening, so that the same damage can be applied to the same batch again.

    Attributes:
        share: Share of the asked strength that each image gets, by hardening, (N,) in [0, 1].
        dark: Whether the visible image is darkened, else over-exposed, (N,).
        unit_noise: Noise of both sources, (2N, 1, H, W), N(0, 1): infrared first.
    """

    share: Mapping[str, Tensor]
    dark: Tensor
    unit_noise: Tensor


def draw(shape: torch.Size, generator: torch.Generator, uniform: bool = True) -> Draw:
    """Draws the random part for a batch.

    Args:
        shape: Shape (N, 1, H, W) of one source.
        generator: Where every random number comes from; it decides the device too.
        uniform: Whether shares are drawn from U(0, 1); otherwise every image gets the full strength.
    """
    count, device = shape[0], generator.device
    shares = torch.rand((len(HARDENINGS), count), generator=generator, device=device)
    if not uniform:
        shares = torch.ones_like(shares)
    dark = torch.rand(count, generator=generator, device=device) < 0.5
    unit = torch.randn((2 * count, *shape[1:]), generator=generator, device=device)
    return Draw(dict(zip(HARDENINGS, shares, strict=True)), dark, unit)


def harden(ir: Tensor, vi: Tensor, strengths: Mapping[str, float], drawn: Draw) -> tuple[Tensor, Tensor]:
    """Degrades a batch of pairs.

    In the order of an image's way: light (visible) and heat (infrared), then optics, then sensor noise.

    Args:
        ir: Infrared, (N, 1, H, W) in [0, 1].
        vi: Visible luminance, same shape and range.
        strengths: Strength in [0, 1] by name (`HARDENINGS`); a missing one is 0.
        drawn: The random part, from `draw`.

    Returns:
        The degraded infrared and visible images; with all strengths 0 the inputs themselves.
    """
    amount = {name: strengths.get(name, 0.0) * drawn.share[name] for name in HARDENINGS}
    active = {name for name in HARDENINGS if strengths.get(name, 0.0) > 0}
    if "illumination" in active:
        vi = illumination(vi, amount["illumination"], drawn.dark)
    if "contrast" in active:
        ir = contrast_loss(ir, amount["contrast"])
    if active & {"blur", "noise"}:
        both = torch.cat((ir, vi))
        if "blur" in active:
            both = blur(both, amount["blur"].repeat(2))
        if "noise" in active:
            both = noise(both, amount["noise"].repeat(2), drawn.unit_noise)
        ir, vi = both.chunk(2)
    return ir, vi


def selection_weights(losses: Tensor, sharpness: float) -> Tensor:
    """Probability with which each patch is sampled: softmax of the standardised loss times the sharpness.

    Args:
        losses: Present loss of each patch, (M,); NaN marks a patch not seen yet, which counts as average.
        sharpness: 0 is uniform; at 1 a patch one standard deviation above the mean is e times as likely.

    Returns:
        Weights (M,), non-negative, summing to 1.
    """
    seen = ~torch.isnan(losses)
    if sharpness == 0 or int(seen.sum()) < 2:
        return torch.full_like(losses, 1 / losses.numel())
    known = losses[seen]
    score = torch.nan_to_num((losses - known.mean()) / known.std().clamp_min(1e-8), nan=0.0)
    return torch.softmax(sharpness * score.clamp(-3, 3), dim=0)
