import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import fusion_gym  # noqa: F401  (registers the ids)
from agents.training.population_vec_env import PopulationVecEnv
from fusion_gym.actions import ACTIONS
from fusion_gym.distiller import LEAST_PATCH, SELF_LOSSES, Distiller
from fusion_gym.models.student import Student
from fusion_gym.population import FusionDistillVectorEnv, advance, train_together

FAST = "FusionDistillFast-v0"
SETTINGS = {"teacher": ["rule:max", "rule:mean"], "reference": "rule:max", "episode_steps": 3}
MIXED = {**SETTINGS, "student_width": [6, 8], "learning_rate": [1e-3, 4e-3]}


def distillers(widths, self_loss="simple"):
    rng = np.random.default_rng(0)
    made = []
    for seed, width in enumerate(widths):
        generator = torch.Generator().manual_seed(seed)
        side = LEAST_PATCH[self_loss]
        bank = rng.integers(0, 256, (12, 3, side, side), dtype=np.uint8)
        student = Student(width, generator=generator)
        made.append(Distiller(bank, student, 1e-3 * (1 + seed), 4, 30, generator, self_loss))
    return made


def actions_for(env, count, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (count, *env.action_space.shape)).astype(np.float32)


def close(a, b):
    """Within rounding; the metrics count 8-bit levels, and a pixel at the edge of one may fall to either side."""
    np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-3)


def settings(guidance, noise, **others):
    return {**dict.fromkeys(ACTIONS, 0.0), "rate": 1.0, **others, "guidance": guidance, "noise": noise}


@pytest.mark.parametrize("self_loss", SELF_LOSSES)
@pytest.mark.parametrize("widths", [(6, 6, 6), (4, 8, 4)])
def test_training_together_is_training_alone(widths, self_loss):
    asked = [
        settings(0.2, 0.0, rate=2.0),
        settings(0.9, 0.6, clean=0.3, blur=0.4),
        settings(0.5, 0.1, illumination=0.7),
    ]
    alone, together = distillers(widths, self_loss), distillers(widths, self_loss)
    # Later, rounding decides the sign of some absolute difference, and the optimiser makes much of it.
    for _ in range(2):  # the second time with moments in the optimiser
        expected = [one.advance(one_asked, 1) for one, one_asked in zip(alone, asked, strict=True)]
        for got, want in zip(advance(together, asked, 1), expected, strict=True):
            assert got.as_tuple() == pytest.approx(want.as_tuple(), rel=1e-4)
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one.generator.get_state(), other.generator.get_state())
        assert one.updates == other.updates == 2
        for a, b in zip(one.student.parameters(), other.student.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_students_at_different_stages_keep_their_own_learning_rates():
    alone, together = distillers((6, 6)), distillers((6, 6))
    asked = settings(0.5, 0.2)
    for group in (alone, together):
        group[0].advance(asked, 7)
    for one in alone:
        one.advance(asked, 3)
    advance(together, [asked, asked], 3)
    assert [one.updates for one in together] == [10, 3]
    for one, other in zip(alone, together, strict=True):
        for a, b in zip(one.student.parameters(), other.student.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_a_diverged_student_does_not_spread():
    alone, together = distillers((6, 6)), distillers((6, 6))
    asked = settings(0.5, 0.2)
    with torch.no_grad():
        together[0].student.head.weight.fill_(torch.nan)
    first, second = advance(together, [asked, asked], 2)
    assert not first.finite
    assert second.as_tuple() == pytest.approx(alone[1].advance(asked, 2).as_tuple(), rel=1e-4)


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_trajectories_are_those_of_single_environments(mode):
    population = FusionDistillVectorEnv(3, autoreset_mode=mode, **{**gym.spec(FAST).kwargs, **MIXED})
    single = gym.make_vec(FAST, num_envs=3, vectorization_mode="sync", vector_kwargs={"autoreset_mode": mode}, **MIXED)
    assert isinstance(single, SyncVectorEnv)
    assert population.metadata["autoreset_mode"] is mode
    (ours, our_info), (theirs, their_info) = population.reset(seed=11), single.reset(seed=11)
    np.testing.assert_array_equal(ours, theirs)
    assert our_info.keys() == their_info.keys()
    ended = 0
    for actions in actions_for(single, 5):
        mine, other = population.step(actions), single.step(actions)
        close(mine[0], other[0])
        close(mine[1], other[1])
        np.testing.assert_array_equal(mine[2], other[2])
        np.testing.assert_array_equal(mine[3], other[3])
        assert mine[4].keys() == other[4].keys()
        close(mine[4]["score"], other[4]["score"])
        ended += int(mine[2].sum())
        assert population.observation_space.contains(mine[0])
    assert ended == 3


def test_made_by_its_id():
    env = gym.make_vec(FAST, num_envs=2, vectorization_mode="vector_entry_point", **SETTINGS)
    assert isinstance(env.unwrapped, FusionDistillVectorEnv)
    assert env.num_envs == 2
    assert env.spec is not None
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert gym.make_vec(env.spec).num_envs == 2
    env.close()


def test_disabled_autoreset_takes_a_mask():
    env = FusionDistillVectorEnv(2, autoreset_mode=AutoresetMode.DISABLED, **{**gym.spec(FAST).kwargs, **SETTINGS})
    env.reset(seed=0)
    for actions in actions_for(env, 3):
        _, _, terminated, _, _ = env.step(actions)
    assert terminated.all()
    with pytest.raises(gym.error.ResetNeeded):
        env.step(actions)
    env.reset(options={"reset_mask": np.array([True, True])})
    _, _, terminated, _, info = env.step(actions)
    assert not terminated.any()
    np.testing.assert_array_equal(info["student/updates"], [4, 4])


def test_a_bad_action_trains_nobody():
    env = FusionDistillVectorEnv(2, **{**gym.spec(FAST).kwargs, **SETTINGS})
    env.reset(seed=0)
    actions = np.zeros(env.action_space.shape, np.float32)
    actions[1, 0] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        env.step(actions)
    assert [one.distiller.updates for one in env.envs] == [0, 0]


def test_a_reset_forgets_the_training_done_ahead():
    env = gym.make(FAST, **SETTINGS)
    env.reset(seed=0)
    action = np.zeros(env.action_space.shape, np.float32)
    train_together([env], [action])
    assert env.unwrapped.distiller.updates == 4
    env.reset(seed=0)
    assert env.step(action)[4]["student/updates"] == 4


def test_a_training_done_ahead_belongs_to_its_action():
    env = gym.make(FAST, **SETTINGS)
    env.reset(seed=0)
    first, other = actions_for(env, 2)
    train_together([env], [first])
    with pytest.raises(ValueError, match="trained ahead"):
        env.step(other)
    with pytest.raises(ValueError, match="trained ahead"):
        train_together([env], [other])
    info = env.step(first)[4]
    assert info["student/updates"] == 4
    assert env.step(other)[4]["student/updates"] == 8


def test_a_saved_state_keeps_the_training_done_ahead():
    env, copied = gym.make(FAST, **SETTINGS), gym.make(FAST, **SETTINGS)
    env.reset(seed=0)
    copied.reset(seed=1)
    (action,) = actions_for(env, 1)
    train_together([env], [action])
    copied.unwrapped.load_state(env.unwrapped.save_state())
    mine, theirs = env.step(action), copied.step(action)
    np.testing.assert_array_equal(mine[0], theirs[0])
    assert mine[1:] == theirs[1:]


def test_stable_baselines3_gets_the_same_numbers_with_it():
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import DummyVecEnv

    population, dummy = (
        make_vec_env(FAST, n_envs=3, seed=5, env_kwargs=MIXED, vec_env_cls=cls)
        for cls in (PopulationVecEnv, DummyVecEnv)
    )
    np.testing.assert_array_equal(population.reset(), dummy.reset())
    for actions in actions_for(population, 4).repeat(3, axis=0).reshape(4, 3, -1):
        mine, other = population.step(actions), dummy.step(actions)
        close(mine[0], other[0])
        close(mine[1], other[1])
        np.testing.assert_array_equal(mine[2], other[2])
        assert [info.keys() for info in mine[3]] == [info.keys() for info in other[3]]
        if mine[2].all():
            assert all(info["episode"]["l"] == 3 for info in mine[3])
            close(mine[3][0]["terminal_observation"], other[3][0]["terminal_observation"])


def test_ppo_trains_on_it():
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    envs = make_vec_env(FAST, n_envs=2, seed=0, env_kwargs=SETTINGS, vec_env_cls=PopulationVecEnv)
    model = PPO("MlpPolicy", envs, n_steps=3, batch_size=6, n_epochs=1, seed=0, device="cpu").learn(12)
    assert model.num_timesteps == 12
    assert all(episode["l"] == 3 for episode in model.ep_info_buffer)


def test_a_population_strays_from_single_environments_no_further_than_one_bit_leads():
    made = {mode: gym.make_vec(FAST, num_envs=3, vectorization_mode=mode) for mode in ("vector_entry_point", "sync")}
    made["bit"] = gym.make_vec(FAST, num_envs=3, vectorization_mode="sync")
    for envs in made.values():
        envs.reset(seed=0)
    generator = torch.Generator().manual_seed(0)
    for env in made["bit"].unwrapped.envs:
        for weight in env.unwrapped.distiller.student.parameters():
            moves = torch.randint(-1, 2, weight.shape, generator=generator)
            weight.data *= 1 + torch.finfo(weight.dtype).eps * moves
    strayed = {"vector_entry_point": 0.0, "bit": 0.0}
    for actions in actions_for(made["sync"], 4):
        seen = {mode: envs.step(actions)[0] for mode, envs in made.items()}
        for mode in strayed:
            strayed[mode] = max(strayed[mode], float(np.abs(seen[mode] - seen["sync"]).max()))
    assert 0 < strayed["vector_entry_point"] < 20 * strayed["bit"] < 1


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_success_of_a_population_is_an_array_of_truth_values(mode):
    envs = gym.make_vec(FAST, num_envs=2, autoreset_mode=mode, **{**SETTINGS, "episode_steps": 1})
    assert envs.reset(seed=0)[1]["is_success"].dtype == bool
    info = envs.step(envs.action_space.sample())[4]
    assert (info if mode is AutoresetMode.NEXT_STEP else info["final_info"])["is_success"].dtype == bool
