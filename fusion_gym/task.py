"""The task of an episode: patches to learn from and a probe to be scored on, loaded once per process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from fusion_gym.data import cached_array, center_crops, fingerprint, load_splits, patch_bank
from fusion_gym.probe import Probe
from fusion_gym.teachers import fused_pairs


@dataclass(frozen=True, eq=False)
class Task:
    """Data and teacher, ready for training; shared by every environment of the process.

    Attributes:
        spec: The arguments of `load_task` that give this task again.
        bank: Patches, uint8 (M, 3, P, P): infrared, visible luminance, teacher.
        probe: The probe, from pairs that no patch comes from.
    """

    spec: tuple[Any, ...]
    bank: torch.Tensor
    probe: Probe

    def __deepcopy__(self, memo: dict[int, Any]) -> Task:
        """The task itself: nothing in it changes."""
        return self

    def __reduce__(self) -> tuple[Callable[..., Task], tuple[Any, ...]]:
        """Pickles as a reference, so that a worker process maps the same files instead of copying them."""
        return load_task, self.spec


@lru_cache(maxsize=8)
def load_task(data: str, teacher: str, patch_size: int, probe_pairs: int, probe_size: int, device: str) -> Task:
    """Loads data, runs the teacher over it (or finds its outputs in the cache), and prepares the probe.

    Args:
        data: What `fusion_gym.data.load_splits` takes.
        teacher: What `fusion_gym.teachers.fused_pairs` takes.
        patch_size: Side of the patches, in pixels.
        probe_pairs: Number of crops in the probe.
        probe_size: Side of the probe's crops, in pixels.
        device: Where the probe lives.

    Raises:
        ValueError: If the data or the teacher cannot be used; the message is one sentence.
    """
    splits = load_splits(data)
    outputs = fused_pairs(teacher, splits.train)
    stacks = [np.stack((p.ir, p.vi, t)) for p, t in zip(splits.train, outputs, strict=True)]
    digest = torch_digest(stacks)
    bank = cached_array(f"bank-{digest}-{patch_size}", lambda: patch_bank(stacks, patch_size))
    probe_outputs = fused_pairs(teacher, splits.val)
    crops = crops_with_teacher(splits.val, probe_outputs, probe_size, probe_pairs)
    ir, vi, fused = (torch.from_numpy(crops[:, i : i + 1]).to(device, torch.float32) / 255 for i in range(3))
    spec = (data, teacher, patch_size, probe_pairs, probe_size, device)
    return Task(spec, torch.from_numpy(bank), Probe(ir, vi, fused))
