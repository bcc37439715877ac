import itertools

import numpy as np
import pytest

from agents.comparison.search import GRIDS, constants, cross_entropy, halving, successive_halving, tree_parzen
from agents.scripted import Schedule
from fusion_gym.actions import ACTIONS, encode

NAMES = tuple(ACTIONS)


def noisy(score, calls):
    """Scores with a noise that candidates of a block share in part, as students of one seed do."""

    def evaluate(asked):
        calls.extend(asked)
        out = []
        for candidate, block in asked:
            rng = np.random.default_rng([block, len(out)])
            out.append(score(candidate) + 0.01 * np.random.default_rng(block).normal() + 0.003 * rng.normal())
        return out

    return evaluate


def hill(candidate):
    """Best at guidance 0.35 and blur alone, at its full strength, throughout."""
    guidance, blur, noise = (np.mean([value for _, value in candidate[name]]) for name in ("guidance", "blur", "noise"))
    return 0.8 - (guidance - 0.35) ** 2 - 0.1 * (blur - 1) ** 2 - 0.1 * noise**2


@pytest.mark.parametrize(("candidates", "blocks"), [(1, 1), (2, 7), (16, 40), (42, 500), (126, 100)])
def test_halving_spends_what_it_is_asked_to(candidates, blocks):
    plan = halving(candidates, blocks)
    assert plan[0][0] == candidates
    assert sum(count * each for count, each in plan) >= blocks
    assert all(later <= max(2, -(-earlier // 2)) for (earlier, _), (later, _) in itertools.pairwise(plan))


def test_grid_is_as_fine_as_the_budget_allows():
    sizes = [len(constants(NAMES, blocks)) for blocks in (1, 150, 10_000)]
    assert sizes == [np.prod([len(axis) for axis in axes]) for axes in GRIDS]


def test_grid_leaves_out_what_cannot_be_set():
    only = constants(("guidance",), 10_000)
    assert [list(candidate) for candidate in only] == [["guidance"]] * len(GRIDS[-1][0])


@pytest.mark.parametrize("blocks", [1, 80, 10_000])
def test_candidates_are_schedules_that_the_environment_takes(blocks):
    observation = np.zeros(100, dtype=np.float32)
    for candidate in constants(NAMES, blocks):
        action, _ = Schedule(candidate, NAMES).predict(observation)
        assert np.array_equal(action, encode({name: points[0][1] for name, points in candidate.items()}, NAMES))


def test_successive_halving_finds_the_best_constant_despite_noise():
    calls = []
    found = successive_halving(constants(NAMES, 400), noisy(hill, calls), 400)
    best = {"guidance": 0.35, "blur": 1.0, "noise": 0.0}
    assert {name: found.schedule[name] for name in best} == {name: [(0.0, value)] for name, value in best.items()}
    assert len(calls) >= 400
    assert found.table[0]["blocks"] == found.blocks == max(row["blocks"] for row in found.table)


def test_candidates_of_a_round_are_tried_on_the_same_blocks():
    calls = []
    successive_halving(constants(NAMES, 1)[:4], noisy(hill, calls), 24)
    first = calls[: len(calls) // 2]
    by_candidate = {}
    for candidate, block in first:
        by_candidate.setdefault(str(candidate), []).append(block)
    assert len(by_candidate) == 4 and len(set(map(tuple, by_candidate.values()))) == 1


def falling(candidate):
    """Best where guidance falls from 0.8 to 0.2."""
    values = np.array([value for _, value in candidate["guidance"]])
    target = np.linspace(0.8, 0.2, len(values))
    return 0.8 - np.mean((values - target) ** 2)


@pytest.mark.parametrize("search", [cross_entropy, tree_parzen])
def test_an_open_loop_beats_the_constant_it_starts_from(search):
    if search is tree_parzen:
        pytest.importorskip("optuna")
    start = constants(NAMES, 1)[8]
    calls = []
    found = search(start, noisy(falling, calls), 240)
    assert len(calls) >= 240
    assert falling(found.schedule) > falling(start) + 0.02
    assert found.schedule["guidance"][0][1] > found.schedule["guidance"][-1][1]


def test_cross_entropy_keeps_the_start_where_nothing_is_better():
    start = constants(NAMES, 1)[5]

    def penalty(candidate):
        return -sum(abs(value - start[name][0][1]) for name, points in candidate.items() for _, value in points)

    assert cross_entropy(start, noisy(penalty, []), 24).schedule == start


def test_searches_repeat_exactly():
    runs = []
    for _ in range(2):
        calls = []
        best = successive_halving(constants(NAMES, 80), noisy(hill, calls), 80)
        runs.append((calls, cross_entropy(best.schedule, noisy(falling, calls), 40)))
    assert runs[0] == runs[1]
