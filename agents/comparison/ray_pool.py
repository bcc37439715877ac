"""The jobs of a comparison on a Ray cluster; what they give is stored here, whatever machine it comes from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import ray
import torch
from ray.exceptions import RayError, RayTaskError

from ..ray_cluster import connect
from .cells import Cell, run, store
from .workers import Failure

RETRIES = 3  # of a cell whose process or machine is lost


@ray.remote(num_cpus=1, max_retries=RETRIES)
def _run(cell: Cell) -> tuple[dict[str, Any], torch.nn.Module]:
    return run(cell)


class RayPool:
    """Runs cells on all cores of a cluster; it goes where `agents.comparison.workers.Pool` goes.

    The cluster is the one that runs on this machine, or one of this machine alone. Files that cells name, data and
    agents for instance, have to be found under the same names on every machine.
    """

    def __init__(self) -> None:
        connect()
        self._waiting: dict[Any, int] = {}

    def run(self, jobs: Sequence[tuple[Cell, Path]]) -> Iterator[tuple[int, Any]]:
        """Runs cells and stores their results.

        Args:
            jobs: Cells and the folders of their results.

        Yields:
            Position of a job and its result or `Failure`, in the order in which they end.
        """
        self._waiting = {_run.remote(cell): index for index, (cell, _) in enumerate(jobs)}
        while self._waiting:
            (reference, *_), _ = ray.wait(list(self._waiting))
            index = self._waiting.pop(reference)
            try:
                result, student = ray.get(reference)
                store(*jobs[index], result, student)
            except RayTaskError as error:
                reason = f"{type(error.cause).__name__}: {' '.join(str(error.cause).split())}"
                yield index, Failure(reason)
            except RayError as error:
                yield index, Failure(f"its process or machine was lost ({type(error).__name__})")
            else:
                yield index, result

    def __enter__(self) -> RayPool:
        """The pool itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Takes back what is not done; the cluster stays."""
        for reference in self._waiting:
            with suppress(RayError):
                ray.cancel(reference, force=True)
        self._waiting = {}
