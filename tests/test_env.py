import copy
import multiprocessing
import pickle
import warnings
from typing import get_type_hints

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

import fusion_gym
from fusion_gym.images import write_image
from fusion_gym.models.student import Student, save_student
from fusion_gym.observations import OBSERVATIONS, index
from fusion_gym.probe import Probe
from fusion_gym.text import Notice

FAST = "FusionDistillFast-v0"


def rollout(env, actions, seed=None):
    trace = [env.reset(seed=seed)]
    for action in actions:
        trace.append(env.step(action))
        if trace[-1][2]:
            break
    return trace


def same(a, b):
    return len(a) == len(b) and all(np.array_equal(x[0], y[0]) and x[1:] == y[1:] for x, y in zip(a, b, strict=True))


def some_actions(env, count=8, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, (count, *env.action_space.shape)).astype(np.float32)


@pytest.mark.parametrize("env_id", [FAST, "FusionDistill-v0"])
def test_gymnasium_checker_has_nothing_to_say(env_id):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gym.make(env_id, render_mode="rgb_array").unwrapped)


@pytest.mark.parametrize("env_id", [FAST, "FusionDistill-v0"])
def test_sb3_checker_has_nothing_to_say(env_id):
    from stable_baselines3.common.env_checker import check_env as check_sb3

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_sb3(gym.make(env_id).unwrapped)


def test_same_seed_same_trajectory_also_interleaved():
    a, b = gym.make(FAST), gym.make(FAST)
    actions = some_actions(a)
    alone = rollout(a, actions, seed=3)
    first, second = [a.reset(seed=3)], [b.reset(seed=3)]
    for action in actions:
        first.append(a.step(action))
        second.append(b.step(action))
    assert same(first, alone)
    assert same(first, second)


def test_other_seed_other_trajectory():
    env = gym.make(FAST)
    actions = some_actions(env)
    assert not same(rollout(env, actions, seed=1), rollout(env, actions, seed=2))


def test_global_random_state_is_untouched():
    env = gym.make(FAST)
    torch_state, numpy_state = torch.random.get_rng_state(), np.random.get_state()
    rollout(env, some_actions(env), seed=0)
    assert torch.equal(torch_state, torch.random.get_rng_state())
    assert np.array_equal(numpy_state[1], np.random.get_state()[1])


def test_return_telescopes_and_observation_stays_inside():
    env = gym.make(FAST)
    trace = rollout(env, some_actions(env), seed=5)
    gain = trace[-1][4]["score"] - trace[0][1]["score"]
    assert sum(step[1] for step in trace[1:]) == pytest.approx(100 * gain, abs=1e-9)
    assert all(env.observation_space.contains(step[0]) for step in trace)
    assert trace[-1][2] is True
    assert trace[-1][3] is False


def test_hidden_features_read_zero_and_a_sparse_reward_pays_the_same_at_the_end():
    plain = gym.make("FusionDistillFast-v0")
    masked = gym.make("FusionDistillFast-v0", hidden=["lead", "gap_structure"], sparse_reward=True)
    hidden = [index("lead"), index("gap_structure")]
    seen, full = masked.reset(seed=4)[0], plain.reset(seed=4)[0]
    dense, rewards, over = 0.0, [], False
    while not over:
        assert (full[hidden] != 0).all() and (seen[hidden] == 0).all()
        assert np.array_equal(np.delete(seen, hidden), np.delete(full, hidden))
        action = np.full(plain.action_space.shape, 0.2, dtype=np.float32)
        seen, reward, over, _, _ = masked.step(action)
        full, gain, _, _, _ = plain.step(action)
        rewards.append(reward)
        dense += gain
    assert rewards[:-1] == [0.0] * (len(rewards) - 1)
    assert rewards[-1] == pytest.approx(dense, abs=1e-9)


def test_info_is_flat_and_keeps_its_keys_and_types():
    env = gym.make(FAST)
    trace = rollout(env, some_actions(env), seed=5)
    first = trace[0][1]
    for *_, info in trace[1:]:
        assert {key: type(value) for key, value in info.items()} == {key: type(value) for key, value in first.items()}


def test_info_and_instance_have_the_types_that_the_package_names():
    env = gym.make(FAST)
    _, first = env.reset(seed=0)
    for info in (first, env.step(env.action_space.sample())[4]):
        assert {key: type(value) for key, value in info.items()} == get_type_hints(fusion_gym.Info)
    instance = env.unwrapped.instance
    assert {key: type(value) for key, value in instance.items()} == get_type_hints(fusion_gym.Instance)


@pytest.mark.parametrize("how", ["fork", "deepcopy", "pickle", "save_state"])
def test_copies_in_mid_episode_continue_alike(how):
    env = gym.make(FAST).unwrapped
    actions = some_actions(env)
    rollout(env, actions[:3], seed=7)
    if how == "fork":
        other = env.fork()
    elif how == "deepcopy":
        other = copy.deepcopy(env)
    elif how == "pickle":
        other = pickle.loads(pickle.dumps(env))
    else:
        other = gym.make(FAST).unwrapped
        other.load_state(env.save_state())
    mine = [env.step(action) for action in actions[3:]]
    theirs = [other.step(action) for action in actions[3:]]
    assert same(mine, theirs)
    assert same(rollout(env, actions[:2]), rollout(other, actions[:2]))  # the generator of later episodes too


def test_saved_state_needs_no_pickled_code(tmp_path):
    env = gym.make(FAST).unwrapped
    rollout(env, some_actions(env)[:2], seed=0)
    torch.save(env.save_state(), tmp_path / "state.pt")
    torch.load(tmp_path / "state.pt", weights_only=True)


@pytest.mark.parametrize(("layer", "value"), [("head.weight", float("nan")), ("head.bias", -100.0)])
def test_diverged_student_ends_its_episode_with_the_documented_reward(layer, value):
    env = gym.make(FAST).unwrapped
    trace = rollout(env, some_actions(env)[:2], seed=0)
    earned = sum(step[1] for step in trace[1:])
    with torch.no_grad():
        env.distiller.student.get_parameter(layer).fill_(value)
    observation, reward, terminated, truncated, info = env.step(np.zeros(env.action_space.shape, np.float32))
    assert (terminated, truncated) == (True, False)
    assert reward == pytest.approx(-earned - 100)
    assert info["diverged"] == 1
    assert env.observation_space.contains(observation)


@pytest.mark.parametrize(
    "ask",
    [
        lambda env: env.step(np.zeros(env.action_space.shape, np.float32)),
        lambda env: env.decide(np.zeros(env.action_space.shape, np.float32)),
        lambda env: env.render(),
        lambda env: env.save_state(),
        lambda env: env.instance,
        lambda env: env.episode,
        lambda env: env.task,
        lambda env: env.distiller,
    ],
)
def test_what_needs_an_episode_is_refused_before_one_begins(ask):
    env = gym.make(FAST, render_mode="rgb_array").unwrapped
    with pytest.raises(gym.error.ResetNeeded, match="reset"):
        ask(env)


@pytest.mark.parametrize("action", [np.full(6, np.nan, np.float32), np.zeros(5, np.float32)])
def test_bad_action_is_refused(action):
    env = gym.make(FAST).unwrapped
    env.reset(seed=0)
    with pytest.raises(ValueError, match="action"):
        env.step(action)


def test_a_subset_of_actions_leaves_the_others_fixed():
    env = gym.make(FAST, actions=("guidance",), fixed={"noise": 0.75})
    env.reset(seed=0)
    info = env.step(np.array([1.0], np.float32))[4]
    assert info["action/guidance"] == 1.0
    assert info["action/noise"] == 0.75
    assert env.observation_space.shape == (len(OBSERVATIONS),)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"learning_rate": float("nan")},
        {"actions": ("guidence",)},
        {"fixed": {"noise": 2.0}},
        {"hidden": ("gap",)},
        {"episode_steps": 0},
        {"teacher": "nobody"},
        {"data": "/does/not/exist"},
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(kwargs):
    with pytest.raises(ValueError) as caught:
        gym.make(FAST, **kwargs)
    assert "\n" not in str(caught.value)


def test_frame_has_a_constant_shape():
    env = gym.make(FAST, render_mode="rgb_array")
    env.reset(seed=0)
    first = env.render()
    env.step(env.action_space.sample())
    assert env.render().shape == first.shape
    assert first.dtype == np.uint8


def test_the_pair_that_is_shown_has_something_to_see_in_both_sources():
    flat, textured = (
        torch.full((1, 1, 48, 48), 0.5),
        torch.rand(1, 1, 48, 48, generator=torch.Generator().manual_seed(0)),
    )
    ir, vi = torch.cat((textured, flat, textured)), torch.cat((flat, textured, textured))
    assert Probe(ir, vi, teacher=vi, reference=vi).telling == 2


@pytest.mark.parametrize("start_method", ["spawn", "forkserver"])
def test_other_processes_give_the_same(start_method):
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import SubprocVecEnv

    if start_method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {start_method}")
    local = make_vec_env(f"fusion_gym:{FAST}", 2, seed=3)
    others = make_vec_env(
        f"fusion_gym:{FAST}", 2, seed=3, vec_env_cls=SubprocVecEnv, vec_env_kwargs={"start_method": start_method}
    )
    try:
        np.testing.assert_array_equal(others.reset(), local.reset())
        actions = some_actions(local, 2)
        for mine, wanted in zip(others.step(actions)[:3], local.step(actions)[:3], strict=True):
            np.testing.assert_array_equal(mine.astype(wanted.dtype), wanted)  # DummyVecEnv keeps rewards in float32
    finally:
        others.close()


def test_importing_the_package_does_not_import_torch():
    import subprocess
    import sys

    code = "import fusion_gym, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_trained_start_is_ahead_and_a_file_gives_its_own_shape(tmp_path):
    new, trained = (
        gym.make(FAST, start=start, deployment="fair").reset(seed=0)[1]["score"] for start in ("new", "trained")
    )
    assert trained > new + 0.05
    path = tmp_path / "mine.pt"
    save_student(Student(6, depth=1, generator=torch.Generator().manual_seed(0)), path)
    env = gym.make(FAST, start=str(path)).unwrapped
    rollout(env, some_actions(env, 2), seed=0)
    assert env.distiller.student.settings["width"] == 6
    weights = [weight.clone() for weight in env.distiller.student.parameters()]
    env.reset(seed=0)
    assert not all(torch.equal(a, b) for a, b in zip(weights, env.distiller.student.parameters(), strict=True))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"start": "nowhere.pt"}, "nowhere.pt"),
        ({"start": "trained", "student_width": 9}, "width 9"),
        ({"start": "tiny", "student": "small"}, "another shape"),
    ],
)
def test_a_start_that_does_not_fit_is_named(settings, said):
    with pytest.raises(ValueError, match=said):
        gym.make(FAST, **settings)


def test_learning_by_the_metrics_themselves():
    env = gym.make(FAST, self_loss="metrics", teacher="rule:max", patch_size=48)
    actions = some_actions(env, 3)
    trace = rollout(env, actions, seed=0)
    assert same(trace, rollout(gym.make(FAST, self_loss="metrics", teacher="rule:max", patch_size=48), actions, seed=0))
    simple = rollout(gym.make(FAST, teacher="rule:max", patch_size=48), actions, seed=0)
    assert trace[-1][4]["student/loss_self"] != simple[-1][4]["student/loss_self"]
    with pytest.raises(ValueError, match="self_loss"):
        gym.make(FAST, self_loss="metric")


def test_raw_counts_become_all_levels_by_their_range(tmp_path):
    for folder, kind in (("ir", np.uint16), ("vi", np.uint8)):
        (tmp_path / folder).mkdir()
        for number in range(4):
            scene = np.add.outer(np.arange(96), np.arange(96)) * (3 if folder == "ir" else 1) + number
            write_image(tmp_path / folder / f"{number}.png", (scene + (3000 if folder == "ir" else 0)).astype(kind))
    settings = {"data": str(tmp_path), "teacher": "rule:max", "reference": "rule:max", "updates_per_step": 1}
    with pytest.warns(Notice, match="uses the counts 3000 to 3570 only"):
        dull = gym.make(FAST, **settings).unwrapped
    dull.reset(seed=0)
    assert np.ptp(dull.task.bank[:, 0]) <= 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clear = gym.make(FAST, **settings, ir_range=[3000, 3570]).unwrapped
    clear.reset(seed=0)
    assert (clear.task.bank[:, 0].min(), clear.task.bank[:, 0].max()) == (0, 255)
    assert np.array_equal(pickle.loads(pickle.dumps(clear)).task.bank, clear.task.bank)
    with pytest.raises(ValueError, match="ir_range"):
        gym.make(FAST, **settings, ir_range=[3570, 3000])


def test_a_student_may_be_judged_where_it_did_not_learn():
    at_home, elsewhere = (gym.make(FAST, probe_data=data).unwrapped for data in (None, "synthetic"))
    for env in (at_home, elsewhere):
        env.reset(seed=0)
    assert np.array_equal(at_home.task.bank, elsewhere.task.bank)
    assert not torch.equal(at_home.task.probe.ir, elsewhere.task.probe.ir)
    same_data = gym.make(FAST, probe_data=at_home.data[0]).unwrapped
    same_data.reset(seed=0)
    assert same_data.task is at_home.task
