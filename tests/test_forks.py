import gymnasium as gym
import numpy as np
import pytest

from agents import load_agent, settings_of
from agents.distilling import training
from agents.distilling.student_run import StudentRun
from agents.environments import make_checked
from agents.forks import PROPOSALS
from agents.sb3 import make_model
from agents.training.imitation import imitate
from fusion_gym.cli import UserError

FAST = "fusion_gym:FusionDistillFast-v0"
TINY = {"updates_per_step": 2, "probe_pairs": 1, "episode_steps": 3}


def episode(spec, seed=0, **arguments):
    """Return, actions, and the agent."""
    env = gym.make(FAST, **{**TINY, **arguments})
    agent = load_agent(spec, env)
    observation, _ = env.reset(seed=seed)
    total, taken, state, over = 0.0, [], None, False
    while not over:
        action, state = agent.predict(observation, state, np.array([not taken]), deterministic=True)
        observation, reward, over, _, _ = env.step(action)
        total, taken = total + float(reward), [*taken, action]
    return total, np.stack(taken), agent


def test_a_search_takes_what_is_best_on_a_copy_and_leaves_the_environment_as_it_was():
    env = gym.make(FAST, **TINY)
    agent = load_agent("search:constant", env)
    observation, _ = env.reset(seed=3)
    before = env.unwrapped.distiller.updates
    action, _ = agent.predict(observation, None, np.array([True]), deterministic=True)
    assert env.unwrapped.distiller.updates == before
    assert agent.updates == PROPOSALS * TINY["updates_per_step"]
    gains = [env.unwrapped.fork().step(tried)[1] for tried in (action, np.zeros_like(action))]
    assert gains[0] >= gains[1]  # the proposer's own action is among those that were tried


def test_a_search_repeats_exactly_and_is_ahead_of_its_proposer_where_it_looks():
    total, actions, _ = episode("search:6:constant")
    again, same, _ = episode("search:6:constant")
    assert total == again
    assert np.array_equal(actions, same)
    assert total > episode("constant")[0]


def test_what_was_taken_last_is_proposed_again():
    env = gym.make(FAST, **TINY)
    agent = load_agent("search:2:constant:guidance=1", env)
    observation, _ = env.reset(seed=0)
    first = np.full(env.action_space.shape, 0.5, dtype=np.float32)
    observation, *_ = env.step(first)
    action, _ = agent.predict(observation)
    own, _ = load_agent("constant:guidance=1", env).predict(observation)
    assert any(np.array_equal(action, tried) for tried in (first, own))


def test_random_proposals_are_drawn_from_everywhere():
    env = gym.make(FAST, **TINY)
    agent = load_agent("search:40:random", env)
    env.reset(seed=0)
    proposed = np.stack(agent._proposals(np.zeros(env.action_space.shape), np.random.default_rng(0)))
    assert proposed.min() < -0.9 and proposed.max() > 0.9
    assert all(env.action_space.contains(action.astype(np.float32)) for action in proposed)


def test_a_state_that_is_past_is_answered_without_a_search():
    env = gym.make(FAST, **TINY)
    agent = load_agent("search:constant:guidance=0.4", env)
    past, _ = env.reset(seed=0)
    env.step(env.action_space.sample())
    action, _ = agent.predict(past)
    assert agent.updates == 0
    assert np.array_equal(action, load_agent("constant:guidance=0.4", env).predict(past)[0])


@pytest.mark.parametrize("spec", ["search:", "search:1:ppo", "search:4:", "search:search:ppo", "search:nobody"])
def test_what_is_no_search_is_refused(spec):
    with pytest.raises(UserError):
        load_agent(spec, gym.make(FAST, **TINY))


def test_several_environments_at_once_are_refused():
    env = gym.make(FAST, **TINY)
    agent = load_agent("search:constant", env)
    observation, _ = env.reset(seed=0)
    with pytest.raises(UserError, match="one environment"):
        agent.predict(np.stack([observation, observation]))


def test_a_search_brings_along_what_its_proposer_was_trained_for():
    assert settings_of("search:ppo") == settings_of("ppo") == settings_of("search:8:ppo")


def test_a_policy_learns_from_a_search():
    from stable_baselines3.common.vec_env import DummyVecEnv

    env = gym.make(FAST, **TINY)
    envs = DummyVecEnv([lambda: env])
    envs.seed(0)
    agent = load_agent("search:2:deployed", env)
    model = make_model("ppo", envs, {"policy_kwargs": {"net_arch": [32]}, "n_steps": 8}, seed=0, device="cpu")
    assert imitate(model, envs, agent, episodes=2, seed=0) < 0.5
    assert agent.updates > 0


def test_a_student_under_a_search_resumes_as_if_it_had_not_been_killed(tmp_path, monkeypatch):
    given = {"agent": "search:2:deployed", "data": "synthetic-small", "student": "tiny", "seed": 1, "batch_size": 2}
    run = StudentRun.begin({**given, "updates": 12, "decisions": 3, "env_kwargs": {"probe_pairs": 1}})

    def trained(name):
        env = make_checked("FusionDistill-v0", run.arguments())
        (tmp_path / name).mkdir(exist_ok=True)
        return training.train(env.unwrapped, load_agent(run.agent, env), run, tmp_path / name, progress=False)

    whole, written, count = trained("whole"), training.write_tensors, 0

    def stop_after_two(path, state):
        nonlocal count
        written(path, state)
        count += 1
        if count == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "write_tensors", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        trained("killed")
    monkeypatch.setattr(training, "write_tensors", written)
    assert trained("killed") == whole
