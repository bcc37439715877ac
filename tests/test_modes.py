"""What is computed does not depend on torch's modes that a program has set around a call."""

import copy
import pickle
import threading
from contextlib import ExitStack, contextmanager, nullcontext

import gymnasium as gym
import numpy as np
import pytest
import torch

import fusion_gym
from agents import load_agent
from fusion_gym import task
from fusion_gym.export import export_torchscript, onnx_deviation, onnx_model
from fusion_gym.metrics import REPORTED, Sources, amplified_excess, evaluate, invented_excess
from fusion_gym.models.student import Student
from fusion_gym.modes import settled
from fusion_gym.objective import metric_loss
from fusion_gym.teachers import load_teacher
from fusion_gym.wrappers import RecordEpisode

FAST = "FusionDistillFast-v0"
SMALL = {"teacher": "rule:max", "reference": "rule:max", "episode_steps": 3, "updates_per_step": 2}


@contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def default_device(device):
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


MODES = {
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "set_default_device": lambda: default_device("meta"),
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "inference_mode": torch.inference_mode,
    "no_grad": torch.no_grad,
}
in_each_mode = pytest.mark.parametrize("mode", MODES.values(), ids=MODES)


def episode(around):
    """Figures of an episode each of whose calls is made inside of ``around(number of the call)``."""
    with around(0):
        env = gym.make(FAST, **SMALL)
        seen = [env.reset(seed=5)[0]]
    for call in (1, 2):
        with around(call):
            seen.append(env.step(np.full(env.action_space.shape, 0.1, np.float32))[0])
    plain = env.unwrapped
    with around(3):
        state, fork = plain.save_state(), plain.fork()
    with around(4):
        seen.append(fork.step(np.zeros(env.action_space.shape, np.float32))[0])
    with around(5):
        env.reset(seed=6)
        plain.load_state(state)
    with around(6):
        seen.append(env.step(np.zeros(env.action_space.shape, np.float32))[0])
    return np.stack(seen)


@pytest.fixture(scope="module")
def usual():
    return episode(lambda _: nullcontext())


@in_each_mode
@pytest.mark.parametrize("inside", [(0, 3, 5), (1, 2, 4, 6)], ids=["not the steps", "the steps"])
def test_an_episode_is_the_same_whichever_calls_are_made_in_a_mode(mode, inside, usual):
    task._load.cache_clear()  # the probe is made in the mode too
    assert np.array_equal(episode(lambda call: mode() if call in inside else nullcontext()), usual)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))], ids=["copy", "pickle"])
@in_each_mode
def test_copies_made_in_a_mode_are_trained_outside(copied, mode):
    env = gym.make(FAST, **SMALL).unwrapped
    env.reset(seed=1)
    action = np.zeros(env.action_space.shape, np.float32)
    with mode():
        other = copied(env)
    assert np.array_equal(other.step(action)[0], env.step(action)[0])


@in_each_mode
def test_a_trained_agent_is_loaded_and_acts_the_same_in_any_mode(mode):
    pytest.importorskip("stable_baselines3")
    env = gym.make(FAST, **SMALL)
    observation, _ = env.reset(seed=1)
    agent = load_agent("ppo", env)
    wanted = agent.predict(observation, deterministic=True)[0]
    with mode():
        for one in (agent, load_agent("ppo", env)):
            assert np.array_equal(one.predict(observation, deterministic=True)[0], wanted)


@in_each_mode
def test_a_population_is_trained_in_any_mode(mode):
    def figures(around):
        with around():
            envs = gym.make_vec(FAST, num_envs=2, vectorization_mode="vector_entry_point", **SMALL)
            envs.reset(seed=1)
            return envs.step(np.zeros(envs.action_space.shape, np.float32))[0]

    assert np.array_equal(figures(mode), figures(nullcontext))


@in_each_mode
@pytest.mark.parametrize("student", ["tiny", "base", "rule:guided", "rule:laplacian"])
def test_images_are_fused_the_same_in_any_mode(mode, student):
    ir, vi = np.random.default_rng(0).integers(0, 256, (2, 40, 56), dtype=np.uint8)
    fuse = fusion_gym.load_student(student)
    tensors = [torch.from_numpy(image)[None, None] / 255 for image in (ir, vi)]
    with mode():
        again = fusion_gym.load_student(student)
        shown, values = fuse(ir, vi), fuse(*tensors)
        assert np.array_equal(again(ir, vi), shown)
    assert np.array_equal(fuse(ir, vi), shown) and torch.equal(fuse(*tensors), values)
    assert values.dtype == torch.float32 and not values.is_inference()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_tensors_are_fused_in_float32_and_come_back_in_their_dtype(dtype):
    fuse = fusion_gym.load_student("tiny")
    ir, vi = torch.rand(2, 1, 1, 24, 32, generator=torch.Generator().manual_seed(0)).to(dtype).unbind()
    fused = fuse(ir.requires_grad_(), vi)
    assert fused.dtype == dtype and not fused.requires_grad
    assert torch.equal(fused, fuse(ir.detach().float(), vi.float()).to(dtype))
    with pytest.raises(ValueError, match="give tensors of floats"):
        fuse((255 * ir.detach()).byte(), vi)


@in_each_mode
def test_metrics_and_losses_have_the_same_values_in_any_mode(mode):
    ir, vi, fused = torch.rand(3, 2, 1, 48, 48, generator=torch.Generator().manual_seed(0)).unbind()

    def figures():
        sources = Sources(ir, vi)
        trained_by = invented_excess(fused, sources), amplified_excess(fused, sources), metric_loss(fused, ir, vi)
        return [*evaluate(fused, sources, REPORTED).values(), *trained_by]

    usual = figures()
    with mode():
        inside = figures()
    assert all(map(torch.equal, inside, usual))


@in_each_mode
def test_what_is_kept_in_a_mode_serves_in_training_later(mode):
    ir, vi, fused = torch.rand(3, 1, 1, 50, 70, generator=torch.Generator().manual_seed(0)).unbind()
    with mode():
        sources = Sources(ir, vi)
        evaluate(fused, sources, REPORTED)
    fused.requires_grad_()
    evaluate(fused, sources, ("SSIM", "VIF", "Qabf", "SCD"))["VIF"].sum().backward()
    assert bool(fused.grad.isfinite().all()) and bool(fused.grad.any())


def test_models_are_exported_and_teachers_loaded_with_all_modes_at_once(tmp_path):
    pytest.importorskip("onnxruntime")
    student = Student(4, generator=torch.Generator().manual_seed(0)).eval()
    with ExitStack() as stack:
        for mode in MODES.values():
            stack.enter_context(mode())
        assert export_torchscript(student, tmp_path / "student.ts") < 1e-5
        assert onnx_deviation(onnx_model(student, {}).SerializeToString(), student) < 1e-5
        teacher = load_teacher("builtin")
    assert {weight.dtype for weight in teacher.parameters()} == {torch.float32}


@in_each_mode
def test_the_modes_of_the_program_are_back_afterwards(mode):
    def modes():
        made = torch.ones(1)
        kinds = torch.is_autocast_enabled("cpu"), torch.is_inference_mode_enabled(), torch.is_grad_enabled()
        return made.dtype, made.device, made.is_inference(), *kinds

    with mode():
        before = modes()
        with pytest.raises(KeyError), settled():
            assert modes()[:-1] == (torch.float32, torch.device("cpu"), False, False, False)
            assert torch.is_grad_enabled() == before[-1]
            raise KeyError
        assert modes() == before


def test_the_default_dtype_is_back_once_the_last_of_several_threads_is_done():
    entered, left = threading.Event(), threading.Event()
    inside = []

    def other():
        with settled():
            entered.set()
            left.wait(5)
            inside.append(torch.get_default_dtype())

    with default_dtype(torch.float64):
        with settled():
            thread = threading.Thread(target=other)
            thread.start()
            entered.wait(5)
        left.set()
        thread.join()
        assert inside == [torch.float32] and torch.get_default_dtype() == torch.float64


ACTION = [0.5, -0.25, 0.0, 1.0, -1.0, 0.125, 0.75]
HOLDERS = {
    "list": list,
    "float64": lambda values: np.array(values),
    "float16": lambda values: np.array(values, np.float16),
    "tensor": torch.tensor,
    "gradient": lambda values: torch.tensor(values, requires_grad=True),
    "computed": lambda values: torch.tensor(values, requires_grad=True) * 1.0,
    "double": lambda values: torch.tensor(values, dtype=torch.float64, requires_grad=True),
    "half": lambda values: torch.tensor(values, dtype=torch.float16),
    "bfloat16": lambda values: torch.tensor(values, dtype=torch.bfloat16, requires_grad=True),
    "conjugate view": lambda values: torch.tensor(values).flip(0).neg().neg().flip(0),
}


@pytest.mark.parametrize("holder", HOLDERS.values(), ids=HOLDERS)
def test_an_action_means_the_same_whatever_holds_it(holder, tmp_path):
    def outcome(action):
        env = RecordEpisode(gym.make(FAST, **SMALL, disable_env_checker=True), tmp_path)
        env.reset(seed=2)
        result = env.step(action)
        env.close()
        return result

    action = ACTION[: gym.make(FAST, **SMALL).action_space.shape[0]]
    (one, reward, *_, info), (other, again, *_, same) = outcome(np.array(action, np.float32)), outcome(holder(action))
    assert np.array_equal(one, other) and reward == again and info == same
    records = [path.read_text() for path in tmp_path.glob("*.json")]
    assert len(records) == 2 and records[0] == records[1]


@pytest.mark.parametrize(
    "action",
    [
        torch.zeros(7, device="meta"),
        torch.zeros(7, dtype=torch.complex64),
        torch.full((7,), float("nan"), requires_grad=True),
        [[0.0], [0.0, 1.0]],
    ],
    ids=["meta", "complex", "NaN", "ragged"],
)
def test_an_action_that_is_none_gives_a_sentence_and_changes_nothing(action):
    env = gym.make(FAST, **SMALL, disable_env_checker=True)
    env.reset(seed=2)
    with pytest.raises(ValueError, match="action"):
        env.step(action)
    assert env.unwrapped.distiller.updates == 0
