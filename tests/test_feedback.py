import gymnasium as gym
import numpy as np
import pytest

from agents import load_agent
from agents.feedback import GUIDED, LED, RULES, TOO_SHARP, Rule
from fusion_gym.actions import ACTIONS, decode
from fusion_gym.conditions import DEPLOYMENTS, HARDENINGS
from fusion_gym.observations import OBSERVATIONS, index

NAMES = tuple(ACTIONS)


def seen(deployment="mixed", **values):
    """An observation of a student that is worst at noise, under a good teacher."""
    known = {"teacher_score": 1.0, "score_clean": 0.9, **{f"score_{name}": 0.7 for name in HARDENINGS}}
    known |= {f"share_{name}": share for name, share in DEPLOYMENTS[deployment].items()}
    known |= {"score_noise": 0.4, **values}
    observation = np.zeros(len(OBSERVATIONS), np.float32)
    for name, value in known.items():
        observation[index(name)] = value
    return observation


def settings(rule, observation, state=None):
    action, state = Rule(rule, NAMES).predict(observation, state)
    return decode(action, NAMES), state


@pytest.mark.parametrize("rule", ["follow", "hold", "deployed"])
@pytest.mark.parametrize(("teacher", "guidance"), [(1.0, GUIDED), (0.6, LED)])
def test_a_good_teacher_is_followed_more_than_others(rule, teacher, guidance):
    assert settings(rule, seen(teacher_score=teacher))[0]["guidance"] == pytest.approx(guidance, abs=1e-6)


@pytest.mark.parametrize("rule", ["follow", "hold", "deployed"])
def test_a_student_sharper_than_a_good_teacher_is_held_to_it(rule):
    for sharp, guidance in ((0.9, GUIDED), (1.1, GUIDED + 0.1 * TOO_SHARP), (2.0, 1.0)):
        found, _ = settings(rule, seen(teacher_score=1.0, ratio_AG=sharp))
        assert found["guidance"] == pytest.approx(guidance, abs=1e-6)
    assert settings(rule, seen(teacher_score=0.6, ratio_AG=2.0))[0]["guidance"] == pytest.approx(LED, abs=1e-6)


@pytest.mark.parametrize("rule", ["weakest", "hold"])
def test_what_the_student_is_worst_at_is_hardened_alone(rule):
    for worst in HARDENINGS:
        found, _ = settings(rule, seen(**{"score_noise": 0.7, f"score_{worst}": 0.2}))
        assert {name: found[name] for name in HARDENINGS} == {name: float(name == worst) for name in HARDENINGS}


@pytest.mark.parametrize("deployment", DEPLOYMENTS)
def test_hardening_is_what_the_student_will_meet(deployment):
    found, _ = settings("deployed", seen(deployment))
    shares = DEPLOYMENTS[deployment]
    assert found["clean"] == pytest.approx(shares["clean"], abs=1e-6)
    most = max(shares[name] for name in HARDENINGS)
    for name in HARDENINGS:
        share = shares[name] / most if most else 0.0
        assert found[name] == pytest.approx(share, abs=1e-6)


def test_more_samples_stay_clean_where_the_clean_score_has_fallen_from_its_best():
    before, state = settings("hold", seen(score_clean=0.90))
    held, state = settings("hold", seen(score_clean=0.91), state)
    fallen, state = settings("hold", seen(score_clean=0.90), state)
    assert before["clean"] == held["clean"] < fallen["clean"]
    again, _ = Rule("hold", NAMES).predict(seen(score_clean=0.90), state, np.array([True]))
    assert decode(again, NAMES)["clean"] == before["clean"]  # another episode


@pytest.mark.parametrize("rule", RULES)
def test_rules_take_one_observation_or_many_and_only_the_actions_that_there_are(rule):
    env = gym.make("fusion_gym:FusionDistillFast-v0", actions=("noise", "guidance"))
    agent = load_agent(rule, env)
    one, _ = agent.predict(seen())
    many, _ = agent.predict(np.stack([seen(), seen("noise")]))
    assert one.shape == (2,) and many.shape == (2, 2)
    assert np.array_equal(one, many[0])
    assert env.action_space.contains(one)
