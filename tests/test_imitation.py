import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.env_util import make_vec_env

from agents import load_agent
from agents.sb3 import make_model
from agents.training.imitation import imitate

FAST = "fusion_gym:FusionDistillFast-v0"
TINY = {"updates_per_step": 1, "probe_pairs": 1, "episode_steps": 4}


@pytest.mark.parametrize("algo", ["ppo", "sac"])
def test_a_policy_does_what_the_rule_does_also_where_it_was_pushed(algo):
    envs = make_vec_env(FAST, 2, seed=0, env_kwargs=TINY)
    rule = load_agent("deployed", gym.make(FAST, **TINY))
    model = make_model(algo, envs, {"policy_kwargs": {"net_arch": [32]}}, seed=0, device="cpu")
    before = [weight.clone() for weight in model.policy.parameters()]
    apart = imitate(model, envs, rule, episodes=12, seed=0)
    assert apart < 0.25
    assert any(
        not np.array_equal(a.detach(), b.detach()) for a, b in zip(before, model.policy.parameters(), strict=True)
    )


@pytest.mark.parametrize("teacher", ["deployed", "search:2:deployed"])
def test_the_command_says_what_a_policy_begins_with(teacher, tmp_path, capsys):
    import train_agent

    command = [
        "--env",
        "FusionDistillFast-v0",
        "--n-envs",
        "1",
        "-n",
        "8",
        "--no-progress",
        "--out",
        str(tmp_path / "run"),
    ]
    tiny = [f"{key}={value}" for key, value in TINY.items()]
    settings = ["n_steps=8", "batch_size=8", "imitate_episodes=2", f"imitate={teacher}"]
    assert train_agent.main([*command, "--eval-episodes", "1", "--env-kwargs", *tiny, "-p", *settings]) == 0
    said = capsys.readouterr().out
    assert f"The policy begins with what {teacher} did in 2 episodes" in said
    assert "0 steps: evaluation return" in said
