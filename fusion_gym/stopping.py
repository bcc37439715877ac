"""Being asked to stop: Ctrl-C, and the signals by which schedulers and terminals end a process, are all one."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_AGAIN = 3.0  # seconds in which the same request may arrive twice, as `timeout` and schedulers send it
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name))
_USUAL = (signal.SIG_DFL, signal.default_int_handler)


class Stopped(KeyboardInterrupt):
    """A request to stop by a signal; whatever is prepared for Ctrl-C is prepared for it.

    Attributes:
        code: The exit code that tells of it: 128 and the signal's number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.code = 128 + number


class _Requests:
    """The requests of a process."""

    def __init__(self) -> None:
        self.pid, self.held, self.waiting, self.last = os.getpid(), 0, 0, -_AGAIN

    def take(self, number: int, frame: FrameType | None) -> None:
        """Handles a signal."""
        if os.getpid() != self.pid:  # a child that was forked ends as if it had no handler
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        now = time.monotonic()
        if number != signal.SIGINT and now - self.last < _AGAIN:
            return
        self.last = now
        if self.held:
            self.waiting = number
        else:
            raise Stopped(number)


_requests = _Requests()


@contextmanager
def stoppable() -> Iterator[None]:
    """Within the block a request to stop raises `Stopped`, in the main thread.

    Signals that are ignored, as ``nohup`` has it, or that have a handler already, are left as they are.
    """
    global _requests
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before, handlers = _requests, dict[int, Any]()
    _requests = _Requests()
    for number in _SIGNALS:
        if signal.getsignal(number) in _USUAL:
            handlers[number] = signal.signal(number, _requests.take)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        _requests = before


@contextmanager
def whole() -> Iterator[None]:
    """A block that a request to stop does not cut: within `stoppable` it is raised at its end."""
    requests = _requests
    requests.held += 1
    try:
        yield
    finally:
        requests.held -= 1
    if not requests.held and requests.waiting:
        number, requests.waiting = requests.waiting, 0
        raise Stopped(number)


def leave_to_parent() -> None:
    """In a worker process: requests to stop, which a whole group of processes gets, are the parent's to answer."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
