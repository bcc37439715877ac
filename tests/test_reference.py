"""The environment against the plain implementation of the same decision process, `benchmarks/reference.py`."""

import json
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch

import fusion_gym  # noqa: F401  (registers the ids)
from fusion_gym.hardening import HARDENINGS, draw, harden

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
reference = pytest.importorskip("reference", reason="benchmarks/ or its packages (SciPy, scikit-image) are absent")

FAST = "FusionDistillFast-v0"
SETTINGS = {"teacher": ["rule:max", "rule:mean"], "reference": "rule:mean", "episode_steps": 3, "learning_rate": 1e-3}


@pytest.mark.parametrize("seed", [0, 1])
def test_trajectories_agree(seed):
    env = gym.make(FAST, **SETTINGS).unwrapped
    plain = reference.PlainEnv(**{**gym.spec(FAST).kwargs, **SETTINGS})
    actions = np.random.default_rng(seed).uniform(-1, 1, (3, *env.action_space.shape)).astype(np.float32)
    actions[0] = -1  # all strengths zero
    ours, theirs = env.reset(seed=seed), plain.reset(seed=seed)
    for action in [*actions, None]:
        np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-3, atol=1e-3)
        assert ours[-1].keys() == theirs[-1].keys()
        for name, value in ours[-1].items():
            assert value == pytest.approx(theirs[-1][name], rel=2e-3, abs=1e-3), name
        if action is None:
            break
        ours, theirs = env.step(action), plain.step(action)
        assert ours[1] == pytest.approx(theirs[1], abs=5e-2)  # in hundredths of the score
        assert ours[2:4] == theirs[2:4]
    for a, b in zip(env.distiller.student.parameters(), plain.distiller.student.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=2e-4)  # of steps of 1e-3


def test_hardening_in_a_batch_is_the_plain_hardening_of_each_pair():
    generator = torch.Generator().manual_seed(0)
    ir, vi = (torch.rand(6, 1, 24, 32, generator=generator) for _ in range(2))
    strengths = dict(zip(HARDENINGS, (0.7, 0.4, 0.9, 0.6), strict=True))
    drawn = draw(6, generator)
    for ours, plain in zip(harden(ir, vi, strengths, drawn), reference.hardened(ir, vi, strengths, drawn), strict=True):
        torch.testing.assert_close(ours, plain, rtol=0, atol=2e-6)


def test_the_benchmark_writes_its_figures(tmp_path):
    script, figures = BENCHMARKS / "bench_env.py", tmp_path / "figures.json"
    command = [sys.executable, script, "step", "--env", FAST, "--repetitions", "1", "--json", figures]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    written = json.loads(figures.read_text())
    assert written["machine"]["cores"] >= 1
    assert 0 < written["step"]["scoring"]["median"] < written["step"]["step"]["median"] * 2
    unknown = subprocess.run([sys.executable, script, "stepp"], capture_output=True, text=True, check=False)
    assert unknown.returncode == 2
    assert "stepp" in unknown.stderr
