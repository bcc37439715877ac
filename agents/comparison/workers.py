"""Worker processes that each take one job at a time; a worker that dies costs its own job only."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, cast

from fusion_gym.stopping import leave_to_parent


@dataclass(frozen=True)
class Failure:
    """What a job that failed gives instead of its result.

    Attributes:
        reason: Class and message of the error, or how the process ended.
    """

    reason: str


def _attempt(function: Callable[[Any], Any], job: Any) -> Any:
    try:
        return function(job)
    except Exception as error:
        return Failure(f"{type(error).__name__}: {' '.join(str(error).split())}")


def _serve(connection: Connection, function: Callable[[Any], Any]) -> None:
    """Life of a worker; it ends when the other side of the connection is gone, also by a kill."""
    leave_to_parent()  # which ends its workers
    while True:
        try:
            connection.send(_attempt(function, connection.recv()))
        except (EOFError, OSError):
            return


class Pool:
    """Runs jobs in parallel processes, started by spawn; with one worker in this process.

    Unlike `concurrent.futures.ProcessPoolExecutor` it names the job that a killed process (out of memory, say) was
    at, replaces the process and goes on.

    Args:
        function: What to do with a job; of a module, so that it can be pickled.
        workers: Number of processes.
    """

    def __init__(self, function: Callable[[Any], Any], workers: int) -> None:
        self.function, self.workers = function, workers
        self._context = multiprocessing.get_context("spawn")
        self._processes: dict[Connection, Any] = {}
        self._idle: list[Connection] = []

    def run(self, jobs: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """Runs the jobs.

        Yields:
            Position of a job and its result or `Failure`, in the order in which they end.
        """
        if self.workers == 1:
            for index, job in enumerate(jobs):
                yield index, _attempt(self.function, job)
            return
        waiting, busy = deque(enumerate(jobs)), dict[Connection, int]()
        while waiting or busy:
            while waiting and len(busy) < self.workers:
                connection = self._idle.pop() if self._idle else self._start()
                index, job = waiting.popleft()
                busy[connection] = index
                connection.send(job)
            for connection in cast(list[Connection], wait(list(busy))):
                index = busy.pop(connection)
                try:
                    answer = connection.recv()
                    self._idle.append(connection)
                except (EOFError, OSError):
                    process = self._processes.pop(connection)
                    process.join()
                    answer = Failure(f"its process ended with exit code {process.exitcode}")
                yield index, answer

    def _start(self) -> Connection:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, self.function), daemon=True)
        process.start()
        theirs.close()  # so that the death of the process ends the connection
        self._processes[ours] = process
        return ours

    def __enter__(self) -> Pool:
        """The pool itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the processes, those at work too."""
        for connection, process in self._processes.items():
            process.kill()
            process.join()
            connection.close()
        self._processes.clear()
        self._idle.clear()
