"""Random numbers of other people's code: torch's default generators, seeded for a while and then put back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def a_seed(generator: torch.Generator) -> int:
    """Draws a seed."""
    return int(torch.randint(2**62, (1,), generator=generator))


@contextmanager
def seeded(seed: int, device: str | torch.device = "cpu") -> Iterator[None]:
    """Within it what torch draws from its default generators follows from a seed; outside nothing has changed.

    Args:
        seed: The seed.
        device: Where the numbers are drawn, beside the processor.
    """
    device = torch.device(device)
    generators = [torch.default_generator]
    if device.type == "cuda":
        torch.cuda.init()
        number = torch.cuda.current_device() if device.index is None else device.index
        generators.append(torch.cuda.default_generators[number])
    before = [generator.get_state() for generator in generators]
    for generator in generators:
        generator.manual_seed(seed)
    try:
        yield
    finally:
        for generator, state in zip(generators, before, strict=True):
            generator.set_state(state)


@contextmanager
def all_seeded(seed: int) -> Iterator[None]:
    """`seeded`, with the default generators of NumPy and of Python too: 0.4 ms, where `seeded` takes 0.01."""
    states = np.random.get_state(), random.getstate()
    np.random.seed(seed % 2**32)
    random.seed(seed)
    try:
        with seeded(seed):
            yield
    finally:
        np.random.set_state(states[0])
        random.setstate(states[1])
