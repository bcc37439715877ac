import json

import pytest
import yaml

from agents.comparison.rivals import CONSTANT, FIRST_SEED, OPEN_LOOP, ORACLE, Rivals
from agents.scripted import make_schedule
from fusion_gym.actions import ACTIONS
from fusion_gym.cli import UserError

INSTANCES = {"strong": {"teacher": "a"}, "weak": {"teacher": "b"}}
BEST = {"a": 0.8, "b": 0.0}  # guidance by teacher


class Students:
    """Pretends to train: the score falls with the distance of guidance from what is best for the teacher."""

    def __init__(self):
        self.cells = []

    def __call__(self, cells, title):
        self.cells.extend(cells)
        return [{"score": 0.8 - abs(cell.agent["guidance"][0][1] - BEST[cell.arguments["teacher"]])} for cell in cells]


def find(folder, kind, students, tuning=INSTANCES, runs=64, **more):
    return Rivals(folder, students).find(kind, INSTANCES, tuning, runs, 32, **more)


def test_best_constant_is_one_for_all_and_the_oracle_one_for_each(tmp_path):
    constant = find(tmp_path, CONSTANT, Students())
    oracle = find(tmp_path, ORACLE, Students())
    assert constant["strong"] == constant["weak"]
    assert {name: schedule["guidance"][0][1] for name, schedule in oracle.items()} == {"strong": 0.8, "weak": 0.0}


def test_searches_spend_what_they_are_told_to(tmp_path):
    students = Students()
    find(tmp_path, CONSTANT, students, runs=100)
    assert len(students.cells) >= 100
    by_instance = [cell.instance for cell in students.cells]
    assert by_instance.count("strong") == by_instance.count("weak")
    alone = Students()
    find(tmp_path, ORACLE, alone)
    assert all([cell.instance for cell in alone.cells].count(name) >= 32 for name in INSTANCES)


def test_searches_use_seeds_of_their_own_and_judge_on_no_test_data(tmp_path):
    students = Students()
    for kind in (CONSTANT, ORACLE, OPEN_LOOP):
        find(tmp_path, kind, students)
    assert all(cell.seed >= FIRST_SEED and cell.tests == () for cell in students.cells)


def test_best_constant_is_tuned_on_the_tuning_instances(tmp_path):
    found = find(tmp_path, CONSTANT, Students(), tuning={"other": {"teacher": "b"}})
    assert found["strong"]["guidance"][0][1] == 0.0


def test_a_finished_search_is_read_and_not_run_again(tmp_path):
    first = find(tmp_path, OPEN_LOOP, Students())
    students = Students()
    assert json.dumps(find(tmp_path, OPEN_LOOP, students)) == json.dumps(first)
    assert students.cells == []


def test_a_finished_search_of_other_settings_is_refused(tmp_path):
    find(tmp_path, CONSTANT, Students())
    with pytest.raises(UserError, match="found with other runs"):
        find(tmp_path, CONSTANT, Students(), runs=99)
    find(tmp_path, CONSTANT, Students(), runs=99, label="of another kind")


def test_only_what_the_agent_may_set_is_searched(tmp_path):
    tuning = {name: {**arguments, "actions": ["guidance", "blur"]} for name, arguments in INSTANCES.items()}
    assert list(find(tmp_path, CONSTANT, Students(), tuning=tuning)["strong"]) == ["guidance", "blur"]


def test_what_was_found_can_be_used_as_a_schedule(tmp_path):
    found = find(tmp_path, OPEN_LOOP, Students())["strong"]
    schedule = make_schedule("piecewise", str(tmp_path / "open-loop-strong.yml"), tuple(ACTIONS))
    assert schedule.settings(0.0)["guidance"] == found["guidance"][0][1]
    assert yaml.safe_load((tmp_path / "open-loop-strong.yml").read_text()).keys() == found.keys()
