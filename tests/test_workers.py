import os
import time

import pytest

from agents.comparison.workers import Failure, Pool


def work(job):
    if job == "raise":
        raise ValueError("of this\nkind")
    if job == "die":
        os._exit(7)
    if job == "slow":
        time.sleep(0.3)
    return f"{job} done"


@pytest.mark.parametrize("workers", [1, 2])
def test_every_job_gives_its_own_result(workers):
    with Pool(work, workers) as pool:
        assert dict(pool.run(["slow", "a", "b"])) == {0: "slow done", 1: "a done", 2: "b done"}
        assert dict(pool.run(["c"])) == {0: "c done"}
        assert list(pool.run([])) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_costs_its_job_only(workers):
    with Pool(work, workers) as pool:
        assert dict(pool.run(["raise", "a"])) == {0: Failure("ValueError: of this kind"), 1: "a done"}


def test_a_process_that_dies_costs_its_job_only():
    with Pool(work, 2) as pool:
        results = dict(pool.run(["a", "die", "b", "c"]))
    assert results == {0: "a done", 1: Failure("its process ended with exit code 7"), 2: "b done", 3: "c done"}


def test_no_process_outlives_the_pool():
    with Pool(work, 2) as pool:
        next(iter(pool.run(["a", "slow", "slow"])))
        processes = list(pool._processes.values())
    assert processes and not any(process.is_alive() for process in processes)
