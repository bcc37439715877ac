import importlib.util
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch

from agents import load_agent
from agents.environments import make_checked
from examples import lookahead, ppo_single_file, reinforce, rllib_ppo

ROOT = Path(__file__).parent.parent
FAST = "FusionDistillFast-v0"
TINY = {"teacher": "rule:max", "reference": "rule:max", "episode_steps": 3, "updates_per_step": 1}


class Known(gym.Env):
    """An environment whose best action is known: 0.6."""

    observation_space = gym.spaces.Box(0, 1, (1,))
    action_space = gym.spaces.Box(-1, 1, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = 2
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.left -= 1
        return np.full(1, 0.5, np.float32), -float(abs(action[0] - 0.6)), self.left == 0, False, {}


@pytest.fixture
def known():
    gym.register("Known-v0", Known)
    yield gym.make("Known-v0")
    del gym.registry["Known-v0"]


def best_action(agent):
    return agent.predict(np.zeros((1, 1), np.float32), deterministic=True)[0].item()


def test_reinforce_finds_the_best_action(known, tmp_path):
    args = ["--env", "Known-v0", "--iterations", "60", "--episodes", "16", "--out", str(tmp_path / "a.pt")]
    agent = reinforce.train(reinforce.parse(args))
    assert best_action(agent) == pytest.approx(0.6, abs=0.15)
    assert best_action(reinforce.Agent.load(str(tmp_path / "a.pt"), known)) == best_action(agent)


def test_ppo_finds_the_best_action(known, tmp_path):
    args = ["--env", "Known-v0", "--timesteps", "2048", "--out", str(tmp_path / "a.pt"), "--learning-rate", "0.003"]
    agent = ppo_single_file.train(ppo_single_file.parse(args))
    assert best_action(agent) == pytest.approx(0.6, abs=0.15)


def test_ppos_advantages_are_rewards_to_go_without_discount():
    rewards = torch.tensor([[1.0], [2.0], [4.0], [8.0]])
    values, last = torch.full((4, 1), 0.5), torch.tensor([0.25])
    dones = torch.tensor([[0.0], [1.0], [0.0], [0.0]])
    gains = ppo_single_file.advantages(rewards, values, dones, last, gamma=1.0, lam=1.0)
    assert gains.flatten().tolist() == [2.5, 1.5, 11.75, 7.75]
    one_step = ppo_single_file.advantages(rewards, values, dones, last, gamma=0.5, lam=0.0)
    assert one_step.flatten().tolist() == [0.75, 1.5, 3.75, 7.625]


@pytest.mark.parametrize(
    ("module", "short"),
    [
        (reinforce, ["--iterations", "1", "--episodes", "2"]),
        (ppo_single_file, ["--timesteps", "32", "--num-steps", "16"]),
    ],
)
def test_they_train_on_the_fast_environment_and_plug_into_the_commands(module, short, tmp_path, capsys):
    path = tmp_path / "a.pt"
    module.train(module.parse([*short, "--out", str(path)]))
    assert "mean return" in capsys.readouterr().out
    env = make_checked(FAST, TINY)
    agent = load_agent(f"{module.__name__}:Agent:{path}", env)
    fresh = load_agent(f"{module.__name__}:Agent", env)
    action, _ = agent.predict(env.reset(seed=0)[0], deterministic=True)
    assert env.action_space.contains(action)
    assert not torch.equal(agent.log_std, fresh.log_std)


def test_lookahead_knows_what_an_action_will_give():
    env = make_checked(FAST, TINY)
    agent = load_agent("examples.lookahead:Agent", env)
    observation, _ = env.reset(seed=2)
    action, _ = agent.predict(observation)
    expected = agent.gain(action)
    assert expected == pytest.approx(env.step(action)[1] + env.step(action)[1], abs=1e-12)


def test_lookahead_gains_more_than_the_default_schedule():
    results = lookahead.main(["--episodes", "2", "--tries", "4"])
    assert np.mean([mine - default for mine, default in results]) > 0


def test_rllib_says_what_to_install():
    if importlib.util.find_spec("ray") and importlib.util.find_spec("tree"):
        pytest.skip("RLlib is installed")
    with pytest.raises(SystemExit, match=r"ray\[rllib\]"):
        rllib_ppo.main([])


@pytest.mark.slow
def test_rllib_trains():
    pytest.importorskip("ray.rllib", reason="RLlib lives in a Python environment of its own", exc_type=ImportError)
    assert np.isfinite(rllib_ppo.main(["--iterations", "1"])).all()


@pytest.mark.slow
@pytest.mark.parametrize("algo", ["ppo", "dqn"])
def test_rl_zoo3_trains_with_our_files(algo, tmp_path):
    pytest.importorskip("rl_zoo3", reason="rl_zoo3 is not installed")
    command = [sys.executable, "-m", "rl_zoo3.train", "--algo", algo, "--env", FAST, "--gym-packages", "fusion_gym"]
    options = ["--conf-file", f"agents/hyperparams/{algo}.yml", "-n", "64", "-f", str(tmp_path), "--eval-freq", "-1"]
    result = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert list(tmp_path.rglob(f"{FAST}.zip"))
