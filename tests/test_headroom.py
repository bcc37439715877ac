import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
headroom = pytest.importorskip("headroom", reason="benchmarks/ is absent")
one_line = pytest.importorskip("one_line", reason="benchmarks/ is absent")

from fusion_gym.cli import UserError  # noqa: E402
from fusion_gym.observations import OBSERVATIONS  # noqa: E402


def test_spread_is_what_neither_agent_nor_seed_explains():
    rng = np.random.default_rng(0)
    agents, seeds = rng.normal(0, 5, (40, 1)), rng.normal(0, 10, (1, 30))
    noise = rng.normal(0, 0.5, (40, 30))
    gains = dict(zip(map(str, range(40)), agents + seeds + noise, strict=True))
    assert headroom.spread(gains) == pytest.approx(0.5, rel=0.1)
    assert headroom.spread({**gains, "greedy": np.array([1.0])}) == headroom.spread(gains)


def test_agents_are_compared_with_the_shared_constant_on_the_same_seeds():
    names = [*headroom.CONSTANTS, *headroom.SCHEDULES, *headroom.RULES, *headroom.LEARNED]
    seeds = np.array([1.0, 20.0, 300.0])
    gains = {name: seeds + number for number, name in enumerate(names)} | {"greedy": np.array([5.0])}
    shared = names[3]
    row = headroom.row(gains, shared)
    assert row["greedy"] == pytest.approx(5 - 4)  # on the first seed, where the shared constant has 1 + 3
    assert row["constant"] == pytest.approx(len(headroom.CONSTANTS) - 1 - 3)
    assert row["± an episode"] == pytest.approx(0, abs=1e-9)


def test_figures_of_other_settings_are_not_gone_on_from(tmp_path):
    file = tmp_path / "headroom.json"
    file.write_text(json.dumps({"settings": {"seeds": 2}, "gains": {"one": {"constant": [1.0, 2.0]}}}))
    assert headroom.earlier(file, {"seeds": 2})["one"]["constant"].tolist() == [1.0, 2.0]
    with pytest.raises(UserError, match="other settings"):
        headroom.earlier(file, {"seeds": 3})


def test_one_line_finds_the_rule_that_made_the_decisions():
    rng = np.random.default_rng(0)
    observations = rng.uniform(0, 1, (300, len(OBSERVATIONS)))
    at = one_line.NAMES.index("teacher_score")
    line = one_line.fitted(observations, np.where(observations[:, at] > 0.5, 0.8, -0.4))
    assert line["feature"] == "teacher_score" and line["explained"] > 0.9
    sloping = one_line.fitted(observations, 0.3 - 0.5 * observations[:, at])
    assert sloping["feature"] == "teacher_score" and sloping["slope"] == pytest.approx(-0.5)
    action, _ = one_line.OneLine([line, sloping]).predict(observations.astype(np.float32)[:2])
    assert action.shape == (2, 2) and action.dtype == np.float32
