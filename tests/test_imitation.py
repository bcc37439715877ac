import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.env_util import make_vec_env

from agents import load_agent
from agents.sb3 import make_model
from agents.training.imitation import crossed, imitate

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


def test_a_policy_knows_deployments_apart_also_beside_what_it_never_met_with_them():
    envs = make_vec_env(FAST, 1, seed=0, env_kwargs=TINY)
    rule = load_agent("deployed", gym.make(FAST, **TINY))
    model = make_model("ppo", envs, {"policy_kwargs": {"net_arch": [64, 64]}}, seed=0, device="cpu")
    met = []
    reset, step = envs.reset, envs.step
    envs.reset = lambda: met.append(reset()) or met[-1]
    envs.step = lambda actions: met.append((made := step(actions))[0]) or made
    imitate(model, envs, rule, episodes=24, seed=0)
    never = crossed(np.concatenate(met), 1, np.random.default_rng(9))
    acts, _ = model.predict(never, deterministic=True)
    wanted, _ = rule.predict(never, episode_start=np.ones(len(never), dtype=bool))
    assert float(np.sqrt(np.square(acts - wanted).mean())) < 0.2


def test_crosses_take_neighbouring_features_of_two_states():
    states = np.arange(4)[:, None] * np.ones((1, 9), dtype=np.float32)
    crosses = crossed(states, 50, np.random.default_rng(0))
    assert crosses.shape == (200, 9)
    changes = (np.diff(crosses, axis=1) != 0).sum(1)
    assert changes.max() == 2 and 0.2 < (changes > 0).mean() < 0.9
    assert {len(set(row)) for row in crosses.tolist()} == {1, 2}


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
