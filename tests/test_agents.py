import copy
import json
import sys
import zipfile

import gymnasium as gym
import numpy as np
import pytest
import torch
import yaml
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from agents import SHIPPED, load_agent, sb3
from agents.environments import make_checked
from agents.scripted import SCHEDULES
from agents.training.agent_run import AgentRun
from agents.training.callbacks import Checkpoint, FusionMetrics, SeededEval, best_of, checkpoints, restore
from agents.training.evaluation import evaluate, extremes
from agents.training.runs import WorkerSetup, make_envs
from fusion_gym.actions import ACTIONS, decode
from fusion_gym.cli import UserError
from fusion_gym.observations import OBSERVATIONS, index
from fusion_gym.wrappers import DiscreteActions

FAST = "FusionDistillFast-v0"
TINY = {"teacher": "rule:max", "reference": "rule:max", "episode_steps": 3, "updates_per_step": 1}
NAMES = tuple(ACTIONS)


@pytest.fixture(scope="module")
def env():
    return make_checked(FAST, TINY)


def at(progress):
    observation = np.zeros(len(OBSERVATIONS), np.float32)
    observation[index("progress")] = progress
    return observation


def settings(agent, progress, names=NAMES):
    return decode(agent.predict(at(progress))[0], names)


@pytest.mark.parametrize("spec", [name for name in SCHEDULES if name != "piecewise"])
def test_every_schedule_plays_an_episode_through_evaluate_policy(spec, env):
    mean, _ = evaluate_policy(load_agent(spec, env), Monitor(env), n_eval_episodes=1)
    assert np.isfinite(mean)


def test_schedules_have_their_shapes(env):
    def guidance(spec):
        return [round(settings(load_agent(spec, env), p)["guidance"], 4) for p in (0, 0.25, 0.5, 1)]

    assert guidance("constant") == [ACTIONS["guidance"].default] * 4
    assert guidance("linear") == [1, 0.75, 0.5, 0]
    assert guidance("cosine") == [1, round(0.5 + 0.5 * np.cos(np.pi / 4), 4), 0.5, 0]
    assert guidance("linear:guidance=0.2..0.6") == [0.2, 0.3, 0.4, 0.6]
    assert guidance("no-teacher") == [0] * 4
    assert guidance("teacher-only") == [1] * 4


def test_curriculum_goes_from_guided_and_easy_to_free_and_hard(env):
    agent = load_agent("curriculum", env)
    begin, end = settings(agent, 0), settings(agent, 1)
    assert begin["guidance"] > end["guidance"]
    assert all(begin[name] == 0 < end[name] for name in ("blur", "noise", "illumination", "contrast"))


def test_cyclic_makes_it_harder_and_easier_again(env):
    agent = load_agent("cyclic:blur=0..1,guidance=0.3..0.5", env)
    chosen = [settings(agent, k / 16) for k in range(16)]
    assert [one["blur"] for one in chosen] == pytest.approx([0, 0.5, 1, 0.5] * 4, abs=1e-6)
    assert [one["noise"] for one in chosen] == pytest.approx([0, 0.25, 0.5, 0.25] * 4, abs=1e-6)
    assert [one["guidance"] for one in chosen] == pytest.approx([0.3, 0.4, 0.5, 0.4] * 4, abs=1e-6)
    quick = load_agent("cyclic:cycles=8,blur=0..1", env)
    assert [settings(quick, k / 16)["blur"] for k in range(16)] == pytest.approx([0, 1] * 8, abs=1e-6)
    for wrong in ("cycles=0", "cycles=2.5", "cycles"):
        with pytest.raises(UserError, match="cyclic takes cycles=N"):
            load_agent(f"cyclic:{wrong}", env)


def test_constant_takes_physical_values(env):
    chosen = settings(load_agent("constant:guidance=0.3,noise=0.7", env), 0.4)
    expected = {name: component.default for name, component in ACTIONS.items()} | {"guidance": 0.3, "noise": 0.7}
    assert chosen == pytest.approx(expected, abs=1e-6)


def test_piecewise_reads_a_file(env, tmp_path):
    (tmp_path / "s.yml").write_text("guidance: [[0, 1], [0.5, 0.8], [1, 0]]\nnoise: [[0.5, 0.1], [1, 0.5]]\n")
    agent = load_agent(f"piecewise:{tmp_path / 's.yml'}", env)
    assert settings(agent, 0.75)["guidance"] == pytest.approx(0.4)
    assert settings(agent, 0.1)["noise"] == pytest.approx(0.1)


def test_schedules_respect_the_selected_actions():
    env = make_checked(FAST, {**TINY, "actions": ["noise", "guidance"]})
    agent = load_agent("curriculum", env)
    assert agent.predict(at(0))[0].shape == (2,)
    assert settings(agent, 0, ("noise", "guidance")) == {"noise": 0, "guidance": 1}
    with pytest.raises(UserError, match="fixed"):
        load_agent("constant:blur=0.1", env)
    with pytest.raises(UserError, match="guidance"):
        load_agent("linear", make_checked(FAST, {**TINY, "actions": ["noise"]}))


def test_batches_of_observations_give_batches_of_actions(env):
    batch = np.stack([at(0), at(0.5)])
    for spec in ("linear", "random"):
        agent = load_agent(spec, env)
        rows = np.stack([agent.predict(row)[0] for row in batch])
        assert np.array_equal(agent.predict(batch)[0], rows)
        assert rows.dtype == np.float32


def test_random_repeats_for_the_same_observation_only(env):
    first, again, other = (load_agent(spec, env) for spec in ("random", "random", "random:seed=1"))
    assert np.array_equal(first.predict(at(0))[0], again.predict(at(0))[0])
    assert not np.array_equal(first.predict(at(0))[0], first.predict(at(0.5))[0])
    assert not np.array_equal(first.predict(at(0))[0], other.predict(at(0))[0])
    many = np.stack([first.predict(at(p))[0] for p in np.linspace(0, 1, 500)])
    assert np.abs(many.mean()) < 0.05
    assert many.std() == pytest.approx(1 / np.sqrt(3), abs=0.03)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("constnat", "constant"),
        ("constant:guidence=1", "guidance"),
        ("constant:guidance=2", "outside"),
        ("constant:guidance", "form"),
        ("linear:guidance=x", "number"),
        ("linear:guidance=nan", "outside"),
        ("random:3", "seed"),
        ("piecewise", "file"),
        ("piecewise:absent.yml", "absent.yml"),
        ("absent.zip", "exist"),
        ("nowhere:Agent", "nowhere"),
        ("agents.scripted:Absent", "Absent"),
        ("agents.scripted:SCHEDULES", "class"),
    ],
)
def test_bad_agents_are_refused_in_one_sentence(spec, words, env):
    with pytest.raises(UserError) as caught:
        load_agent(spec, env)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["guidance: 3", "guidance: [[0, 1], [0, 0]]", "guidance: [[0, 7]]", "guidnce: [[0, 1]]", "a: [", "- 1"]
)
def test_bad_piecewise_files_are_refused(text, env, tmp_path):
    (tmp_path / "s.yml").write_text(text)
    with pytest.raises(UserError):
        load_agent(f"piecewise:{tmp_path / 's.yml'}", env)


def test_scripted_agents_do_not_import_torch():
    import subprocess

    code = "import agents, agents.scripted, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def describe(algo, settings):
    return {"algo": algo, "policy": settings.get("policy", "MlpPolicy"), "actions": list(NAMES)}


@pytest.mark.parametrize("algo", sb3.ALGORITHMS)
def test_every_algorithm_trains_saves_and_loads(algo, env, tmp_path):
    if sb3.ALGORITHMS[algo][0] == "sb3_contrib":
        pytest.importorskip("sb3_contrib")
    short = {"n_steps": 6, "batch_size": 6, "learning_starts": 4, "n_delta": 1, "n_top": 1, "buffer_size": 64}
    known = sb3.hyperparameters(algo, "FusionDistill-v0", {})
    overrides = {key: value for key, value in short.items() if key in known}
    hyperparams = sb3.hyperparameters(algo, FAST, overrides)
    envs = make_vec_env(
        f"fusion_gym:{FAST}", 1, 0, env_kwargs=TINY, wrapper_class=WorkerSetup(hyperparams.get("env_wrapper"))
    )
    untouched = copy.deepcopy(hyperparams)
    model = sb3.make_model(algo, envs, hyperparams, seed=0, device="cpu")
    assert hyperparams == untouched
    before = {name: value.clone() for name, value in model.policy.state_dict().items()}
    model.learn(12)
    assert any(not torch.equal(value, before[name]) for name, value in model.policy.state_dict().items())

    path = tmp_path / f"{algo}.zip"
    sb3.save_model(model, path, describe(algo, hyperparams))
    agent = load_agent(str(path), env)
    observation = env.reset(seed=1)[0]
    action, _ = agent.predict(observation, deterministic=True)
    assert env.action_space.contains(action)
    mine, _ = model.predict(observation, deterministic=True)
    if algo == "dqn":
        mine = DiscreteActions.apply(int(mine), observation, NAMES)
    assert np.array_equal(action, mine)
    assert np.isfinite(evaluate(agent, make_vec_env(f"fusion_gym:{FAST}", 2, env_kwargs=TINY), 2, 0).returns).all()

    # as another program would have saved it: recognised by its content, and only where it is trusted
    foreign = tmp_path / "foreign.zip"
    model.save(foreign)
    with pytest.raises(UserError, match="--trust"):
        load_agent(str(foreign), env)
    assert np.array_equal(load_agent(str(foreign), env, trust=True).predict(observation, deterministic=True)[0], action)


OFTEN = {"learning_starts": 4, "buffer_size": 64, "train_freq": 1, "gradient_steps": 1}


def train(folder, steps, algo="sac"):
    config = AgentRun(env=FAST, env_kwargs=TINY)
    hyperparams = sb3.hyperparameters(algo, FAST, OFTEN if algo == "sac" else {})
    envs, judges = make_envs(config, 0, folder), make_envs(config, 9)
    model = sb3.make_model(algo, envs, hyperparams, seed=0, device="cpu")
    evaluation = SeededEval(judges, 5, folder, lambda: None, 6, 1)
    checkpoint = Checkpoint(6, folder, describe(algo, hyperparams), evaluation)
    saved = checkpoints(folder)
    if saved:
        restore(model, evaluation, saved[-1][1])
    start = model.num_timesteps
    callbacks = [FusionMetrics(), evaluation, checkpoint]
    checkpoint.init_callback(model)
    if steps > start:
        model.learn(steps - start, callbacks, reset_num_timesteps=False)
        checkpoint.save()
    return model, evaluation, start


def test_a_checkpoint_holds_all_that_continuing_needs(tmp_path):
    model, evaluation, start = train(tmp_path, 12)
    assert start == 0
    assert [steps for steps, _ in checkpoints(tmp_path)] == [6, 12]
    again, history, start = train(tmp_path, 12)
    assert start == 12
    assert history.history() == evaluation.history()
    assert np.array_equal(history.evaluations_timesteps, np.load(tmp_path / "evaluations.npz")["timesteps"])
    assert again._n_updates == model._n_updates > 0
    assert torch.equal(again.log_ent_coef, model.log_ent_coef)
    for name, value in model.get_parameters().items():
        assert str(again.get_parameters()[name]) == str(value)
    size = model.replay_buffer.size()
    assert size == again.replay_buffer.size() == 12
    for name in ("observations", "next_observations", "actions", "rewards", "dones"):
        assert np.array_equal(getattr(again.replay_buffer, name)[:size], getattr(model.replay_buffer, name)[:size])
    continued, history, start = train(tmp_path, 18)
    assert (start, continued.num_timesteps) == (12, 18)
    assert history.evaluations_timesteps == [0, 6, 12, 18]
    assert [steps for steps, _ in checkpoints(tmp_path)] == [12, 18]
    assert len((tmp_path / "0.monitor.csv").read_text().splitlines()) == 2 + 6


def test_a_few_lucky_episodes_make_no_policy_the_best():
    first = [1.0, 2.0, 3.0, 4.0]
    lucky = [0.5, 1.5, 2.5, 7.0]  # higher on average, by one episode
    better = [1.5, 2.4, 3.6, 4.5]
    assert best_of([first]) == best_of([first, first]) == best_of([first, lucky]) == 0
    assert best_of([first, lucky, better]) == 2
    assert best_of([[1.0], [1.1]]) == 1


def test_evaluations_see_the_same_students():
    config = AgentRun(env=FAST, env_kwargs=TINY)
    agent = load_agent("constant", make_checked(FAST, TINY))
    envs = make_envs(config, 3)
    assert evaluate(agent, envs, 3, 5) == evaluate(agent, envs, 3, 5)
    assert evaluate(agent, envs, 3, 5) != evaluate(agent, envs, 3, 6)


def test_nothing_in_our_own_zip_is_unpickled(env, tmp_path):
    """A pickle in SB3's entry of a zip that has our description stays unread."""
    hyperparams = sb3.hyperparameters("ppo", FAST, {"n_steps": 6, "batch_size": 6})
    model = sb3.make_model("ppo", make_vec_env(f"fusion_gym:{FAST}", 1, env_kwargs=TINY), hyperparams, device="cpu")
    sb3.save_model(model, tmp_path / "good.zip", describe("ppo", hyperparams))
    with zipfile.ZipFile(tmp_path / "good.zip") as good, zipfile.ZipFile(tmp_path / "evil.zip", "w") as evil:
        for name in good.namelist():
            evil.writestr(name, b"no JSON, no pickle" if name == "data" else good.read(name))
    observation = env.reset(seed=0)[0]
    loaded = [load_agent(str(tmp_path / f"{name}.zip"), env) for name in ("good", "evil")]
    assert np.array_equal(*(agent.predict(observation, deterministic=True)[0] for agent in loaded))


@pytest.mark.parametrize("damage", ["text", "cut", "description", "weights", "shape"])
def test_damaged_agents_are_refused_in_one_sentence(damage, env, tmp_path):
    hyperparams = sb3.hyperparameters("ppo", FAST, {"n_steps": 6, "batch_size": 6})
    model = sb3.make_model("ppo", make_vec_env(f"fusion_gym:{FAST}", 1, env_kwargs=TINY), hyperparams, device="cpu")
    sb3.save_model(model, tmp_path / "good.zip", describe("ppo", hyperparams))
    path, whole = tmp_path / "bad.zip", (tmp_path / "good.zip").read_bytes()
    if damage == "text":
        path.write_text("not a zip")
    elif damage == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    else:
        with zipfile.ZipFile(tmp_path / "good.zip") as good, zipfile.ZipFile(path, "w") as bad:
            for name in good.namelist():
                content = good.read(name)
                if damage == "description" and name == sb3.SIDECAR:
                    content = b"{}"
                if damage == "weights" and name == "policy.pth":
                    content = content[:100]
                if damage == "shape" and name == sb3.SIDECAR:
                    facts = json.loads(content)
                    facts["policy_kwargs"]["net_arch"] = [3]
                    content = json.dumps(facts).encode()
                bad.writestr(name, content)
    with pytest.raises(UserError) as caught:
        load_agent(str(path), env)
    assert "bad.zip" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_agent_of_other_actions_is_refused(tmp_path):
    hyperparams = sb3.hyperparameters("ppo", FAST, {"n_steps": 6, "batch_size": 6})
    model = sb3.make_model("ppo", make_vec_env(f"fusion_gym:{FAST}", 1, env_kwargs=TINY), hyperparams, device="cpu")
    sb3.save_model(model, tmp_path / "a.zip", describe("ppo", hyperparams))
    with pytest.raises(UserError, match="guidance"):
        load_agent(str(tmp_path / "a.zip"), make_checked(FAST, {**TINY, "actions": ["noise"]}))


def test_loading_leaves_the_global_random_state_alone(env, tmp_path):
    hyperparams = sb3.hyperparameters("ppo", FAST, {"n_steps": 6, "batch_size": 6})
    model = sb3.make_model("ppo", make_vec_env(f"fusion_gym:{FAST}", 1, env_kwargs=TINY), hyperparams, device="cpu")
    sb3.save_model(model, tmp_path / "a.zip", describe("ppo", hyperparams))
    before = torch.random.get_rng_state()
    load_agent(str(tmp_path / "a.zip"), env)
    assert torch.equal(before, torch.random.get_rng_state())


def test_hyperparameters_take_overrides_and_files(tmp_path):
    assert sb3.hyperparameters("ppo", FAST, {"gamma": 0.5})["gamma"] == 0.5
    path = tmp_path / "h.yml"
    path.write_text(yaml.safe_dump({"default": {"n_timesteps": 7, "learning_rate": "3e-4"}}))
    assert sb3.hyperparameters("ppo", FAST, {}, path) == {"n_timesteps": 7, "learning_rate": 3e-4}
    with pytest.raises(UserError, match="learning_rate"):
        sb3.hyperparameters("ppo", FAST, {"learning_rat": 1})
    with pytest.raises(UserError, match="finite"):
        sb3.hyperparameters("ppo", FAST, {"learning_rate": float("nan")})
    with pytest.raises(UserError, match="'ppo'"):
        sb3.algorithm("pop")


def test_linear_schedules_fall_to_zero(env):
    model = sb3.make_model("ppo", env, sb3.hyperparameters("ppo", FAST, {"learning_rate": "lin_1e-3"}), device="cpu")
    assert [model.lr_schedule(left) for left in (1.0, 0.5, 0.0)] == pytest.approx([1e-3, 5e-4, 0])


def test_discrete_moves(env):
    moves = DiscreteActions(env)
    observation, _ = moves.reset(seed=0)
    assert moves.action_space.n == 1 + 2 * len(NAMES)
    for move, expected in ((2, 0.5), (2, 1.0), (2, 1.0)):
        observation, *_ = moves.step(move)
        assert observation[index("last_guidance")] == pytest.approx(expected)
    moves.reset(seed=0)
    observation, *_ = moves.step(1)
    assert observation[index("last_guidance")] == -0.5
    observation, _, _, _, info = moves.step(0)
    assert observation[index("last_guidance")] == -0.5
    assert info["action/guidance"] == pytest.approx(0.1)
    with pytest.raises(ValueError, match="outside"):
        moves.step(15)


def test_discrete_twin_passes_the_checker():
    import warnings

    from gymnasium.utils.env_checker import check_env

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*different from the unwrapped version")
        check_env(
            DiscreteActions(gym.make(f"fusion_gym:{FAST}", disable_env_checker=True, **TINY)), skip_render_check=True
        )


def test_extremes_cover_both_ends_of_every_component(env):
    ends = extremes(NAMES)
    assert len(ends) == 2 * len(NAMES) + 2
    decoded = {label: settings(load_agent(spec, env), 0) for label, spec in ends.items()}
    assert decoded["guidance 1"]["guidance"] == 1
    assert all(decoded["all lowest"][name] == ACTIONS[name].low for name in NAMES)


def test_an_agent_of_ones_own_plugs_in(env, tmp_path):
    from agents import cem

    path = tmp_path / "cem.npz"
    assert cem.main(["--env", FAST, "--env-kwargs", *(f"{k}={v}" for k, v in TINY.items()), "--generations", "2",
                     "--population", "4", "--elite", "2", "--out", str(path)]) == 0  # fmt: skip
    fresh, trained = load_agent("agents.cem:Agent", env), load_agent(f"agents.cem:Agent:{path}", env)
    assert np.array_equal(fresh.predict(at(0.5))[0], np.zeros(len(NAMES)))
    assert np.abs(trained.predict(at(0.5))[0]).max() > 0
    assert np.isfinite(evaluate(trained, make_vec_env(f"fusion_gym:{FAST}", 2, env_kwargs=TINY), 2, 0).returns).all()
    with pytest.raises(UserError, match="shape"):
        load_agent(f"agents.cem:Agent:{path}", make_checked(FAST, {**TINY, "actions": ["noise"]}))
    path.write_text("damaged")
    with pytest.raises(UserError, match="damaged"):
        load_agent(f"agents.cem:Agent:{path}", env)


def test_cem_finds_the_best_constant_of_a_known_landscape():
    """The search itself, on an environment whose return is known: minus the distance of the action from 0.6."""
    from agents import cem

    class Known(gym.Env):
        action_names = ("guidance",)
        observation_space = gym.spaces.Box(-1, 1, (len(OBSERVATIONS),))
        action_space = gym.spaces.Box(-1, 1, (1,))

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return at(0), {}

        def step(self, action):
            return at(0), -float(abs(action[0] - 0.6)), True, False, {}

    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        agent = cem.search(Known(), 30, 20, 5, 0, Path(folder) / "a.npz", progress=False)
    assert agent.predict(at(0))[0][0] == pytest.approx(0.6, abs=0.05)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_agents_load_by_name_and_tell_a_good_teacher_from_a_poor_one(name):
    small = {"data": "synthetic-small", "patches": 16, "probe_pairs": 2, "probe_size": 64}
    guidance = []
    for teacher in ("builtin", "rule:poor"):
        env = gym.make("FusionDistill-v0", **small, teacher=teacher, start="trained")
        action, _ = load_agent(name, env).predict(env.reset(seed=0)[0], deterministic=True)
        assert env.action_space.contains(action)
        guidance.append(action[0])
    assert guidance[0] > guidance[1]
