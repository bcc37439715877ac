"""What everything that computes shares: the type of a fusion, where to compute, and pixels as tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Infrared and visible luminance, (N, 1, H, W) in [0, 1], to the fused luminance, the same.
Fuse = Callable[[Tensor, Tensor], Tensor]


def resolve_device(device: str) -> str:
    """A device that is there: "auto" is CUDA where torch finds it, the processor elsewhere.

    Raises:
        ValueError: If torch has no such device here.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=torch.device(str(device))).item()
    except (AssertionError, RuntimeError) as error:
        why = "" if torch.cuda.is_available() else " (torch finds no CUDA device)"
        raise ValueError(f"device={device!r} is not available here{why}; give 'auto', 'cpu' or 'cuda'.") from error
    return device


def unit(pixels: np.ndarray, device: str | torch.device | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
    """Gray levels, uint8, as a tensor in [0, 1] of the same shape."""
    writable = np.require(pixels, requirements="W")  # torch warns of what cannot be written to
    return torch.from_numpy(writable).to(device, dtype) / 255


def several(given: Any) -> list[Tensor]:
    """What a network gives, one tensor or several, as a list."""
    return list(given) if isinstance(given, (list, tuple)) else [given]


def mapped(do: Callable[..., Tensor], *trees: Any) -> Any:
    """Nested tuples, or named ones, of what a function makes of the tensors at each place of some that are alike."""
    first = trees[0]
    if isinstance(first, Tensor):
        return do(*trees)
    made = [mapped(do, *parts) for parts in zip(*trees, strict=True)]
    return tuple(made) if type(first) is tuple else type(first)(*made)


def joined(trees: Sequence[Any]) -> Any:
    """Nested tuples of batches of tensors as one of the whole."""
    return mapped(lambda *tensors: torch.cat(tensors), *trees)
