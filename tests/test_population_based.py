import sys

import numpy as np
import pytest

from agents.comparison.rivals import PBT, Rivals
from agents.comparison.search import Courses
from agents.scripted import Schedule
from fusion_gym.actions import ACTIONS, decode
from fusion_gym.cli import UserError

START = {"guidance": [(0.0, 0.2)], "noise": [(0.0, 0.5)], "blur": [(0.0, 0.0)], "clean": [(0.0, 0.5)]}


def test_a_lineage_is_a_schedule_that_asks_for_each_decision_what_was_asked_then():
    rows = np.random.default_rng(0).uniform(-1, 1, (4, 3))
    courses = Courses(START, 1)
    schedule = Schedule(courses.lineage(rows), tuple(ACTIONS))
    for decision, row in enumerate(rows):
        asked, wanted = schedule.settings(decision / 4), courses.settings(row)
        assert asked == pytest.approx(wanted)
        assert wanted["guidance"] == pytest.approx(decode(row[1:2], ["guidance"])["guidance"])
        assert wanted["blur"] == 0  # hardening that the start has not


def test_without_ray_the_rival_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "agents.comparison.population_based", raising=False)
    rivals = Rivals(tmp_path, lambda cells, title: [{"score": 0.5}] * len(cells))
    with pytest.raises(UserError, match="scale"):
        rivals.find(PBT, {"one": {}}, {"one": {}}, 4, 4)


def test_the_best_of_start_and_lineages_is_found_within_the_budget():
    pytest.importorskip("ray", reason="population-based training needs the extra 'scale'")
    from agents.comparison.population_based import MEMBERS, population_based

    trained, tried = [], []

    def train(courses, arguments, seed):
        trained.append(seed)
        return np.full((4, len(courses.first)), 0.5)

    def evaluate(asked):
        tried.extend(asked)
        return [candidate["guidance"][0][1] for candidate, _ in asked]

    found = population_based(START, evaluate, 40, {}, 100, train)
    assert trained == [100, 101, 102, 103]
    assert found.score == found.schedule["guidance"][0][1] > 0.2
    assert len(tried) + MEMBERS * len(trained) >= 40
    assert {block for _, block in tried}.isdisjoint(range(len(trained)))  # compared on seeds that trained nobody
    assert (
        population_based(START, lambda asked: [-c["guidance"][0][1] for c, _ in asked], 8, {}, 0, train).schedule
        == START
    )


def test_a_population_is_trained_by_tune(monkeypatch):
    ray = pytest.importorskip("ray", reason="population-based training needs the extra 'scale'")
    from agents.comparison import population_based

    monkeypatch.setattr(population_based, "MEMBERS", 3)
    arguments = {"teacher": "rule:max", "reference": "rule:max", "episode_steps": 4, "updates_per_step": 1}
    try:
        rows = population_based.train(Courses(START, 1), arguments, 3, "FusionDistillFast-v0")
    finally:
        ray.shutdown()
    assert rows.shape == (4, 3)
    assert (np.abs(rows) <= 1).all()
