"""A batch of images that keeps whatever has been derived from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor

from fusion_gym.modes import settled

Value = TypeVar("Value")


class Batch:
    """Images on the scale from 0 to 255, with their features: each is derived once, when it is first asked for.

    Args:
        pixels: Values from 0 to 255, (N, C, H, W) float: C is 1 for fused images and 2 for pairs of sources.
        constant: Whether features carry no gradient and serve in training, in whatever mode they are first asked for.

    Attributes:
        pixels: The images as given.
    """

    def __init__(self, pixels: Tensor, constant: bool = False) -> None:
        self.pixels = pixels
        self._constant = constant
        self._derived: dict[Any, Any] = {}

    def like(self, pixels: Tensor) -> Batch:
        """A batch of other images, made from these."""
        return Batch(pixels, self._constant)

    def of(self, derive: Callable[..., Value], *arguments: Any) -> Value:
        """``derive(self, *arguments)``, from memory from the second time on.

        Args:
            derive: A function of a module (not a closure, so that a batch can be pickled).
            arguments: Further hashable arguments.
        """
        key = (derive, *arguments)
        if key not in self._derived:
            with ordinary() if self._constant and not _is_ordinary() else nullcontext():
                self._derived[key] = derive(self, *arguments)
        return self._derived[key]


def _is_ordinary() -> bool:
    """Whether tensors made now are as `ordinary` makes them."""
    return not (torch.is_grad_enabled() or torch.is_inference_mode_enabled())


@contextmanager
def ordinary() -> Iterator[None]:
    """Makes ordinary tensors without a gradient, whatever mode is on: they may be kept and used in any mode."""
    with settled(), torch.no_grad():
        yield


class Sources(Batch):
    """The two sources of a batch of fused images; what depends on them alone is computed once.

    Make it once for a set of pairs and evaluate any number of fused images against it. Copies and pickles keep what
    has been computed. No gradient flows into the sources.

    Args:
        ir: Infrared, (N, 1, H, W) float in [0, 1].
        vi: Visible luminance, the same shape, dtype and device.

    Raises:
        ValueError: If the shapes, dtypes or devices differ or do not fit.
    """

    def __init__(self, ir: Tensor, vi: Tensor) -> None:
        check_images("ir", ir)
        check_images("vi", vi)
        if (ir.shape, ir.dtype, ir.device) != (vi.shape, vi.dtype, vi.device):
            raise ValueError(
                f"ir is {tuple(ir.shape)} {ir.dtype} on {ir.device}, vi {tuple(vi.shape)} {vi.dtype} on {vi.device}; "
                "give both the same shape, dtype and device."
            )
        with ordinary():
            super().__init__(torch.cat((ir, vi), dim=1) * 255, constant=True)


def check_images(name: str, images: Tensor) -> None:
    """Checks that a tensor can be a batch of gray images.

    Raises:
        ValueError: If it is not (N, 1, H, W), not float32 or float64, or empty.
    """
    if images.dim() != 4 or images.shape[1] != 1 or images.numel() == 0:
        raise ValueError(f"{name} has shape {tuple(images.shape)}; (N, 1, H, W) is needed, with no side 0.")
    if images.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"{name} is {images.dtype}; give float32 or float64 values in [0, 1].")


def root(values: Tensor) -> Tensor:
    """Square root of values from 0 on, whose gradient at 0 is 0 instead of infinite."""
    if not (torch.is_grad_enabled() and values.requires_grad):
        return values.sqrt()
    positive = values > 0
    return torch.where(positive, torch.where(positive, values, 1.0).sqrt(), 0.0)


def means(batch: Batch) -> Tensor:
    """Mean of each image, (N, C)."""
    return batch.pixels.mean((-2, -1))


def centred(batch: Batch) -> Tensor:
    """The images less their means, which count as constants: squares of these lose least in float32."""
    return batch.pixels - batch.of(means).detach()[..., None, None]


def quantised(batch: Batch) -> Batch:
    """The images at their 8-bit levels, as floats without a gradient."""
    return batch.like((batch.pixels.detach() + 0.5).floor_().clamp_(0, 255))
