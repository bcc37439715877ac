import gymnasium as gym
import numpy as np
import pytest

from agents import load_agent
from agents.playing import play

FAST = "fusion_gym:FusionDistillFast-v0"
TINY = {"teacher": "rule:max", "reference": "rule:max", "episode_steps": 3, "updates_per_step": 1}


@pytest.mark.parametrize("spec", ["linear", "hold"])
def test_what_was_met_is_kept_and_repeats_with_the_seed(spec):
    env = gym.make(FAST, **TINY)
    played, again, other = (play(env, load_agent(spec, env), seed) for seed in (3, 3, 4))
    assert [len(part) for part in played] == [3, 3, 4]
    assert played.infos[0]["student/updates"] == 0 and played.infos[-1]["student/updates"] == 3
    assert played.infos == again.infos and played.infos != other.infos
    env.reset(seed=3)
    for observation, action, info in zip(played.observations[1:], played.actions, played.infos[1:], strict=False):
        seen, _, _, _, said = env.step(action)
        assert np.array_equal(seen, observation) and said == info


def test_an_agent_with_a_memory_is_told_where_an_episode_begins():
    asked = []

    class Counting:
        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            asked.append((state, bool(episode_start[0])))
            return np.zeros(7, dtype=np.float32), (state or 0) + 1

    play(gym.make(FAST, **TINY), Counting(), 0)
    assert asked == [(None, True), (1, False), (2, False)]
