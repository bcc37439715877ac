import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import distill_student
from agents.comparison import entrants, read_instances, search
from agents.comparison.cells import Cell, Judge
from agents.comparison.report import Results, main_table
from agents.environments import make_checked
from fusion_gym.cli import UserError
from fusion_gym.conditions import CONDITIONS, DEPLOYMENTS
from fusion_gym.damages import DAMAGES
from fusion_gym.metrics import ARTEFACTS, REPORTED

MIXED = DEPLOYMENTS["mixed"]
ROOT = Path(__file__).parents[1]
SMALL = {"reference": "rule:max", "deployment": "mixed", "patch_size": 48, "probe_pairs": 2, "probe_size": 64}
INSTANCES = {"max": {"teacher": "rule:max", **SMALL}, "poor": {"teacher": "rule:poor", **SMALL}}
FIGURES = [
    *(f"score_{name}" for name in (*CONDITIONS, *DAMAGES, "unseen")),
    "score",
    "score_hardened",
    *REPORTED,
    *ARTEFACTS,
    *(f"{name}_hardened" for name in (*REPORTED, *ARTEFACTS)),
    "teacher_ratio",
]


class Fragile:
    """Fails on one instance."""

    def __init__(self, env):
        self.shape = env.action_space.shape
        self.good = env.unwrapped.teachers == ("rule:max",)

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        if not self.good:
            raise RuntimeError("out of ideas")
        return np.zeros(self.shape, dtype=np.float32), state


def options(out, *agents, instances=INSTANCES, **more):
    file = out.parent / f"{out.name}.yml"
    file.write_text(yaml.safe_dump(instances))
    settings = {"updates": 4, "decisions": 2, "seeds": 2, "batch-size": 4} | more
    return [
        *("--compare", *agents, "--data", "synthetic-small", "--instances", str(file), "--out", str(out)),
        *("--no-progress", *(text for key, value in settings.items() for text in (f"--{key}", str(value)))),
    ]


def compare(out, *agents, **more):
    return distill_student.main(options(out, *agents, **more))


def rows(out):
    with open(out / "comparison.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "out"
    assert compare(out, "constant", "no-teacher") == 0
    return out


def test_one_row_for_each_cell_and_dataset(made):
    table = rows(made)
    assert list(table[0]) == ["agent", "instance", "dataset", "seed", *FIGURES]
    keys = {(row["agent"], row["instance"], row["dataset"], row["seed"]) for row in table}
    assert len(keys) == len(table) == 2 * 2 * 2
    assert {key[:2] for key in keys} == {(a, i) for a in ("constant", "no-teacher") for i in INSTANCES}
    assert all(np.isfinite([float(row[name]) for name in FIGURES]).all() for row in table)
    assert all(
        float(row["score"]) == pytest.approx(sum(share * float(row[f"score_{name}"]) for name, share in MIXED.items()))
        for row in table
    )


def test_agents_and_instances_make_a_difference(made):
    scores = {(row["agent"], row["instance"], row["seed"]): row["score"] for row in rows(made)}
    for seed in ("1000", "1001"):
        assert scores["constant", "max", seed] != scores["constant", "poor", seed]
        assert scores["no-teacher", "max", seed] == scores["no-teacher", "poor", seed]  # the teacher has no say
    assert len(set(scores.values())) == 6


def test_tables_and_pictures_are_there(made):
    text = (made / "comparison.md").read_text(encoding="utf-8")
    assert "less constant" in text and "no-teacher" in text
    for name in ("intervals", "improvement", "scores", "actions", "contact_sheet_synthetic_small"):
        assert (made / f"{name}.png").stat().st_size > 5000


def test_equal_seeds_give_equal_cells(made, tmp_path):
    assert compare(tmp_path / "again", "no-teacher", "constant") == 0  # in another order
    assert sorted(map(str, rows(made))) == sorted(map(str, rows(tmp_path / "again")))


def test_more_agents_and_seeds_are_added_to_what_is_there(made, tmp_path):
    out = tmp_path / "out"
    assert compare(out, "constant", seeds=1) == 0
    before = {path: path.stat().st_mtime_ns for path in (out / "cells").glob("*.json")}
    assert compare(out, "constant", "no-teacher") == 0
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())
    assert rows(out) == rows(made)


def test_a_killed_run_continues_to_the_same_result(made, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "distill_student.py", *options(out, "constant", "no-teacher", workers=2)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not any((out / "cells").glob("*.json")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL
    kept = {path: path.stat().st_mtime_ns for path in (out / "cells").glob("*.json")}
    assert 0 < len(kept) < 8
    assert compare(out, "constant", "no-teacher") == 0
    assert (out / "comparison.csv").read_bytes() == (made / "comparison.csv").read_bytes()
    assert all(path.stat().st_mtime_ns == then for path, then in kept.items())


def test_a_cell_that_fails_is_named_and_the_others_go_on(tmp_path, capsys):
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as stopped:
        compare(out, "constant", f"fragile={__name__}:Fragile", seeds=1)
    assert stopped.value.code == 1
    assert "fragile on poor, seed 1000: RuntimeError: out of ideas" in capsys.readouterr().err
    assert {(row["agent"], row["instance"]) for row in rows(out)} == {
        ("constant", "max"),
        ("constant", "poor"),
        ("fragile", "max"),
    }
    assert "constant" in (out / "comparison.md").read_text(encoding="utf-8")


def test_searched_rivals_resume_and_never_see_test_pairs(tmp_path, monkeypatch):
    monkeypatch.setattr(search, "GRIDS", (((0.0, 1.0), (0.2,), (0.5,)),))
    monkeypatch.setattr(search, "POPULATION", 3)
    agents = ("best-constant", "best-constant-per-instance", "open-loop")
    one = {"max": INSTANCES["max"]}
    more = {"instances": one, "seeds": 1, "search-runs": 4}
    out, other = tmp_path / "out", tmp_path / "other"
    assert compare(out, *agents, **more) == 0
    trials = sorted((out / "search" / "cells").glob("*.json"))
    assert all(set(json.loads(path.read_text())) == {"score", "diverged"} for path in trials)
    assert {int(path.name.split("-")[2]) for path in trials}.isdisjoint({int(row["seed"]) for row in rows(out)})
    assert compare(other, *agents, **more) == 0
    for path in [*(other / "search").glob("*.json"), *(other / "search" / "cells").glob("*.json")][1::2]:
        path.unlink()  # as if the run had been killed on the way
    assert compare(other, *agents, **more) == 0
    for file in ("comparison.csv", "search/best-constant.json", "search/open-loop-max.json"):
        assert (other / file).read_bytes() == (out / file).read_bytes()
    found = json.loads((out / "search" / "best-constant.json").read_text())
    assert found["schedule"]["guidance"] in ([[0.0, 0.0]], [[0.0, 1.0]])
    assert compare(tmp_path / "used", f"piecewise:{out}/search/open-loop-max.yml", **more) == 0


def mistakes(tmp_path):
    good = tmp_path / "good.yml"
    good.write_text(yaml.safe_dump(INSTANCES))
    bad = tmp_path / "bad.yml"
    bad.write_text("a: {teachr: rule:max}")
    used = tmp_path / "used"
    used.mkdir()
    (used / "thesis.tex").write_text("mine")
    return {
        "no schedule or rule of this name": ["constnt"],
        "did you mean 'teacher'": ["constant", "--instances", str(bad)],
        "cannot be read": ["constant", "--instances", str(tmp_path / "none.yml")],
        "Two agents are named constant": ["constant", "constant"],
        "--seeds 0": ["constant", "--seeds", "0"],
        "--workers -1": ["constant", "--workers", "-1"],
        "at least one for each": ["constant", "--updates", "1", "--decisions", "2"],
        "does not exist": ["constant", "--instances", str(good), "--test", str(tmp_path / "nowhere")],
        "did you mean 'patch_size'": ["constant", "--env-kwargs", "patchsize=3"],
        "--resume is not for comparisons": ["constant", "--resume", str(used)],
        "holds no comparison": ["constant", "--instances", str(good), "--out", str(used)],
    }


@pytest.mark.parametrize("position", range(11))
def test_a_mistake_gives_one_sentence_and_leaves_everything_as_it_was(position, tmp_path, capsys):
    message, arguments = list(mistakes(tmp_path).items())[position]
    before = sorted(tmp_path.rglob("*"))
    command = ["--data", "synthetic-small", "--no-progress", "--out", str(tmp_path / "new"), "--compare", *arguments]
    assert distill_student.main(command) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_changed_configuration_is_refused(made, capsys):
    changed = {**INSTANCES, "poor": {**INSTANCES["poor"], "learning_rate": 1e-2}}
    content = (made / "comparison.csv").read_bytes()
    for instances, message in ((changed, "poor's learning_rate 0.002, not 0.01"), (INSTANCES, "updates_per_step")):
        updates = 4 if instances is changed else 8
        assert compare(made, "constant", instances=instances, updates=updates) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert (made / "comparison.csv").read_bytes() == content


def test_a_cells_file_tells_apart_all_that_its_result_depends_on(tmp_path, monkeypatch):
    file = tmp_path / "schedule.yml"
    file.write_text("guidance: [[0, 1]]")
    spec = f"piecewise:{file}"
    cells = [
        Cell("a", agent, "i", arguments, 1, tests)
        for agent in ("constant", {"guidance": [(0.0, 1.0)]}, spec)
        for arguments in ({}, {"student_width": 8})
        for tests in ((), ("synthetic",))
    ]
    paths = [cell.path(tmp_path) for cell in cells]
    file.write_text("guidance: [[0, 0]]")
    paths += [cell.path(tmp_path) for cell in cells if cell.agent == spec]
    assert len(set(paths)) == len(paths)
    (tmp_path / "of_mine.py").write_text("first = 1")
    monkeypatch.syspath_prepend(str(tmp_path))
    own = [Cell("a", "constant", "i", {name: "of_mine:Net:width=4"}, 1) for name in ("student", "teacher")]
    before = [cell.path(tmp_path) for cell in own]
    assert before == [cell.path(tmp_path) for cell in own]
    (tmp_path / "of_mine.py").write_text("second = 2")
    assert not set(before) & {cell.path(tmp_path) for cell in own} and "of_mine" not in sys.modules
    as_lists = Cell("a", {"guidance": [[0.0, 1.0]]}, "i", {}, 1)  # as read from a file
    assert as_lists.path(tmp_path) == Cell("a", {"guidance": [(0.0, 1.0)]}, "i", {}, 1).path(tmp_path)


def test_judge_gives_the_reference_its_own_score():
    figures = Judge("synthetic-small", "rule:max", "cpu").figures(torch.maximum, "rule:max", MIXED)
    assert figures["score_clean"] == pytest.approx(1) and figures["teacher_ratio"] == pytest.approx(1)
    assert figures["score_hardened"] < 1 and figures["VIF_hardened"] < figures["VIF"]


def test_judge_knows_the_students_teacher():
    judge = Judge("synthetic-small", "rule:max", "cpu")
    by_max, by_poor = (judge.figures(torch.maximum, teacher, MIXED) for teacher in ("rule:max", "rule:poor"))
    assert by_poor.pop("teacher_ratio") > by_max.pop("teacher_ratio") + 0.1
    assert by_poor == by_max


def test_judge_takes_a_broken_student():
    figures = Judge("synthetic-small", "rule:max", "cpu").figures(lambda ir, vi: ir * torch.nan, "rule:max", MIXED)
    assert np.isfinite(list(figures.values())).all() and figures["score"] < 0.3


def test_agents_from_a_file_bring_arguments_along(tmp_path):
    file = tmp_path / "agents.yml"
    file.write_text("flat: constant\nlambda-only: {agent: linear, actions: [guidance]}\n")
    found = entrants([str(file), "mine=constant:guidance=0.3", "constant:guidance=0.4"])
    assert [(e.name, e.spec, dict(e.arguments)) for e in found] == [
        ("flat", "constant", {}),
        ("lambda-only", "linear", {"actions": ["guidance"]}),
        ("mine", "constant:guidance=0.3", {}),
        ("constant:guidance=0.4", "constant:guidance=0.4", {}),
    ]


def test_the_budget_is_no_matter_of_an_instance(tmp_path):
    file = tmp_path / "instances.yml"
    file.write_text("long: {episode_steps: 99}")
    with pytest.raises(UserError, match="episode_steps"):
        read_instances(str(file))


@pytest.mark.parametrize("file", sorted((ROOT / "benchmarks").glob("*.yml")), ids=lambda path: path.stem)
def test_the_projects_own_instances_can_be_made(file):
    for arguments in read_instances(str(file)).values():
        quick = {"data": "synthetic-small", "probe_pairs": 1, "probe_size": 64}
        env = make_checked("FusionDistill-v0", {**quick, **arguments})
        env.reset(seed=0)
        allowed = arguments["teacher"]
        assert env.unwrapped.instance["teacher"] in ([allowed] if isinstance(allowed, str) else allowed)
        env.close()


def test_table_against_figures_made_by_hand():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 1e-3, (10, 2))
    gains = {"best-constant": 0.0, "best-constant-per-instance": 0.04, "ppo": 0.03}
    cells = {
        (agent, instance, seed): {
            "tests": {
                "set": {
                    "score": 0.7 + 0.1 * column + gain + noise[seed, column],
                    "score_clean": 0.8,
                    "score_hardened": 0.6,
                    "score_unseen": 0.5,
                    "teacher_ratio": 0.9,
                }
            },
            "diverged": False,
        }
        for agent, gain in gains.items()
        for column, instance in enumerate(("a", "b"))
        for seed in range(10)
    }
    del cells["ppo", "a", 9]  # a cell that failed: its seed is left out everywhere
    results = Results(list(gains), ["a", "b"], list(range(10)), ["set"], cells)
    assert results.base == "best-constant" and results.complete == list(range(9))
    base, oracle, ppo = main_table(results, ["set"])
    assert base[2:6] == ["", "", "", ""]
    assert ppo[2] == ppo[5] == "+0.030 [+0.030, +0.030]"
    assert (oracle[3], ppo[3]) == ("100 %", "75 %")
    assert ppo[4] == "1.000 [1.000, 1.000]"
    assert ppo[6:] == ["0.800 [0.800, 0.800]", "0.600 [0.600, 0.600]", "0.500 [0.500, 0.500]", "0.900"]
