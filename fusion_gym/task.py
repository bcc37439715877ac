"""The task of an episode: patches to learn from and a probe to be scored on, loaded once per process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from fusion_gym.data import ImagePair, check_sides, load_splits, patch_bank, probe_crops, sets_of
from fusion_gym.modes import settled
from fusion_gym.probe import Probe
from fusion_gym.stamps import Stamp, stamp
from fusion_gym.teachers import files_of, fused_pairs
from fusion_gym.tensors import unit


@dataclass(frozen=True, eq=False)
class Task:
    """Data and teacher, ready for training; shared by every environment of the process.

    Attributes:
        spec: The arguments of `load_task` that give this task again.
        bank: Patches, uint8 (M, 3, P, P): infrared, visible luminance, teacher.
        probe: The probe, from pairs that no patch comes from.
    """

    spec: tuple[Any, ...]
    bank: np.ndarray
    probe: Probe

    def __deepcopy__(self, memo: dict[int, Any]) -> Task:
        """The task itself: nothing in it changes."""
        return self

    def __reduce__(self) -> tuple[Callable[..., Task], tuple[Any, ...]]:
        """Pickles as a reference: a worker process loads the task once for all of its environments."""
        return load_task, self.spec


@settled()
def load_task(
    data: str,
    teacher: str,
    reference: str,
    patch_size: int,
    probe_pairs: int,
    probe_size: int,
    device: str,
    ir_range: tuple[int, int] | None = None,
    probe_data: str | None = None,
) -> Task:
    """Loads data, runs the teacher over it (or finds its outputs in the cache), and prepares the probe.

    Once for each process, as long as the files stay as they are.

    Args:
        data: What `fusion_gym.data.load_splits` takes.
        teacher: What `fusion_gym.teachers.fused_pairs` takes; the student learns from it.
        reference: The same; the score's ratios are relative to it.
        patch_size: Side of the patches, in pixels.
        probe_pairs: Number of crops in the probe.
        probe_size: Side of the probe's crops, in pixels.
        device: Where the probe lives.
        ir_range: Counts of 16-bit infrared images that become black and white; None takes the full range.
        probe_data: Whose validation pairs the probe is cut from, like ``data``; None takes ``data`` itself.

    Raises:
        ValueError: If the data or the teacher cannot be used; the message is one sentence.
    """
    probe_data = data if probe_data is None else probe_data
    spec = (data, teacher, reference, patch_size, probe_pairs, probe_size, device, ir_range, probe_data)
    models = (file for name in (teacher, reference) for file in files_of(Path(name)))
    return _load(spec, stamp((*map(Path, (*sets_of(data), *sets_of(probe_data))), *models)))


@lru_cache(maxsize=32)
def _load(spec: tuple[Any, ...], _: Stamp) -> Task:
    data, teacher, reference, patch_size, probe_pairs, probe_size, device, ir_range, probe_data = spec
    splits = load_splits(data, ir_range)
    judges = splits.val if probe_data == data else load_splits(probe_data, ir_range).val
    check_sides(splits.train, patch_size, "patch_size")  # before the teacher's work
    check_sides(judges, probe_size, "probe_size")
    train = _stacks(splits.train, teacher)
    validation = _stacks(judges, teacher, reference)
    bank = patch_bank(train, patch_size)
    crops = unit(probe_crops(validation, probe_size, probe_pairs), device)
    return Task(spec, bank, Probe(*crops.split(1, dim=1)))


def _stacks(pairs: Sequence[ImagePair], *teachers: str) -> list[np.ndarray]:
    """Infrared, visible and the teachers' outputs of each pair, uint8 (2 + len(teachers), H, W)."""
    outputs = [fused_pairs(teacher, pairs) for teacher in teachers]
    return [np.stack((pair.ir, pair.vi, *fused)) for pair, *fused in zip(pairs, *outputs, strict=True)]
