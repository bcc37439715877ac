"""torch's modes that a program may have set around a call: what is computed here does not depend on them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

_DEVICES = ("cpu", "cuda", "mps")


class _Float32:
    """The default dtype, which is one for all threads: float32 from the first that needs it to the last."""

    def __init__(self) -> None:
        self._lock, self._inside, self._before = threading.Lock(), 0, torch.float32

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._before = torch.get_default_dtype()
                torch.set_default_dtype(torch.float32)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                torch.set_default_dtype(self._before)


_float32 = _Float32()


@contextmanager
def settled() -> Iterator[None]:
    """Within it torch has its usual modes: float32 and the processor by default, no autocast, ordinary tensors.

    ``torch.set_default_dtype``, ``set_default_device``, ``autocast`` and ``inference_mode`` of the caller are
    suspended; whether gradients are recorded stays as it is. It serves as a decorator too: ``@settled()``.
    """
    with ExitStack() as stack:
        if torch.get_default_dtype() != torch.float32 or _float32._inside:
            stack.enter_context(_float32)
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.no_grad())  # which leaving the other mode has ended too
        for device in _DEVICES:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield
