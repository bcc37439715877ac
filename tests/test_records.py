"""What Gymnasium and Stable-Baselines3 record around the environment."""

import cv2
import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from agents import load_agent
from fusion_gym.actions import ACTIONS
from fusion_gym.env import POINTS

FAST = "FusionDistillFast-v0"
TINY = {"teacher": "rule:max", "reference": "rule:max", "episode_steps": 3, "updates_per_step": 1}


def act(env):
    return env.step(np.zeros(env.action_space.shape, np.float32))


def frames(path):
    return int(cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT))


def test_record_episode_statistics():
    env = gym.wrappers.RecordEpisodeStatistics(gym.make(FAST, **TINY))
    env.reset(seed=0)
    rewards, over = [], False
    while not over:
        _, reward, over, _, info = act(env)
        rewards.append(reward)
    assert info["episode"]["r"] == pytest.approx(sum(rewards))
    assert info["episode"]["l"] == 3
    assert POINTS * info["gain"] == pytest.approx(sum(rewards))


def test_time_limit_truncates_and_is_not_the_environments_end():
    env = gym.make(FAST, max_episode_steps=2, **TINY)
    env.reset(seed=0)
    assert act(env)[2:4] == (False, False)
    assert act(env)[2:4] == (False, True)


def test_record_video(tmp_path):
    pytest.importorskip("moviepy", reason="RecordVideo needs the extra 'video'")
    env = gym.make(FAST, render_mode="rgb_array", **TINY)
    env = gym.wrappers.RecordVideo(env, str(tmp_path / "films"), episode_trigger=lambda _: True, disable_logger=True)
    env.reset(seed=0)
    while not act(env)[2]:
        pass
    env.close()
    (film,) = (tmp_path / "films").glob("*.mp4")
    assert frames(film) == 4


def test_vec_video_recorder(tmp_path):
    pytest.importorskip("moviepy", reason="VecVideoRecorder needs the extra 'video'")
    from stable_baselines3.common.vec_env import VecVideoRecorder

    envs = make_vec_env(f"fusion_gym:{FAST}", 2, 0, env_kwargs={"render_mode": "rgb_array", **TINY})
    envs = VecVideoRecorder(envs, str(tmp_path), lambda step: step == 0, video_length=2)
    envs.reset()
    for _ in range(3):
        envs.step(np.zeros((2, len(ACTIONS)), np.float32))
    envs.close()
    (film,) = tmp_path.glob("*.mp4")
    assert frames(film) >= 2


def test_evaluate_policy_gives_the_returns_that_the_episodes_have():
    envs = make_vec_env(f"fusion_gym:{FAST}", 2, env_kwargs=TINY)
    agent = load_agent("linear", gym.make(FAST, **TINY))
    envs.seed(4)
    returns, lengths = evaluate_policy(agent, envs, 2, return_episode_rewards=True)
    env, expected = gym.make(FAST, **TINY), []
    for seed in (4, 5):
        observation, _ = env.reset(seed=seed)
        over, total = False, 0.0
        while not over:
            observation, reward, over, _, _ = env.step(agent.predict(observation)[0])
            total += reward
        expected.append(total)
    assert returns == pytest.approx(expected, abs=1e-5)
    assert lengths == [3, 3]
