import copy
import pickle
import random
import re
import sys
import types
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import fusion_gym
from agents.comparison import command as compare
from agents.distilling import command as distill
from agents.training import command as train_agent
from examples.unet import UNet
from fusion_gym import export, fuse
from fusion_gym.models.agentfuse import AgentFuse
from fusion_gym.models.student import NEW, StudentError, begin, find_student, read_student, save_student
from fusion_gym.population import FusionDistillVectorEnv, _as_one

FAST = "FusionDistillFast-v0"
SETTINGS = {"teacher": "rule:max", "reference": "rule:max", "episode_steps": 3, "updates_per_step": 2}
MIXTURE, NET = "mine:Mixture", "mine:Net:width=6"
SMALL = ["--no-progress", "--seed", "1", "--data", "synthetic-small", "--teacher", "rule:max", "--updates", "4"]
SMALL += ["--decisions", "2", "--self-loss", "simple", "--env-kwargs", "patch_size=32", "reference=rule:max"]
SMALL += ["probe_pairs=2", "probe_size=64"]
UNET = "examples.unet:UNet:width=4"


class Mixture(nn.Module):
    """The smallest network that fuses."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.rand(1))

    def forward(self, ir, vi):
        return torch.sigmoid(self.gain) * ir + (1 - torch.sigmoid(self.gain)) * vi


class Net(Mixture):
    """With all that has a state or takes chance, weights that nothing is done with, and some that are frozen."""

    def __init__(self, width=4, rate=0.2):
        super().__init__()
        self.first, self.norm = nn.Conv2d(2, width, 3, padding=1), nn.BatchNorm2d(width)
        self.last = nn.Conv2d(width, 1, 1)
        self.unused, self.rate = nn.Linear(2, 2), rate
        self.frozen = nn.Conv2d(width, width, 1).requires_grad_(False)

    def forward(self, ir, vi):
        x = F.dropout(torch.relu(self.norm(self.first(torch.cat((ir, vi), 1)))), self.rate, self.training)
        return torch.lerp(vi, ir, torch.sigmoid(self.last(self.frozen(x))))


@pytest.fixture(autouse=True)
def mine(monkeypatch):
    module = types.ModuleType("mine")
    module.Mixture, module.Net, module.made = Mixture, Net, lambda: Mixture()
    monkeypatch.setitem(sys.modules, "mine", module)
    return module


def made(**more):
    env = gym.make(FAST, **{**SETTINGS, "student": NET, **more}).unwrapped
    env.reset(seed=3)
    return env


def actions(env, count=3):
    return np.random.default_rng(0).uniform(-1, 1, (count, *env.action_space.shape)).astype(np.float32)


def played(env, steps):
    return [env.step(action)[:3] for action in steps]


def same(one, other):
    for (a, *rest), (b, *others) in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert rest == others
    return True


def weights(env):
    return {name: value.clone() for name, value in env.distiller.student.state_dict().items()}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_fork_a_pickle_and_a_saved_state_go_on_bit_for_bit_with_buffers_and_dropout():
    env = made()
    steps = actions(env)
    env.step(steps[0])
    state, fork, pickled = env.save_state(), env.fork(), pickle.loads(pickle.dumps(env))
    again = made()
    again.reset(seed=9)
    again.load_state(state)
    wanted = played(env, steps[1:])
    for other in (fork, pickled, again):
        assert same(played(other, steps[1:]), wanted) and equal(weights(other), weights(env))
    assert int(env.distiller.student.net.norm.num_batches_tracked) == 6  # as many as updates: readings leave it


def test_a_training_follows_from_its_seed_and_leaves_the_global_generators_alone():
    runs = []
    for seed in (0, 1):
        torch.manual_seed(seed), np.random.seed(seed), random.seed(seed)
        before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
        env = made()
        runs.append((played(env, actions(env)), weights(env)))
        assert torch.equal(torch.get_rng_state(), before[0])
        assert (np.random.get_state()[1] == before[1]).all() and random.getstate() == before[2]
    assert same(runs[0][0], runs[1][0]) and equal(runs[0][1], runs[1][1])
    env.reset(seed=4)
    assert not equal(weights(env), runs[0][1])


def test_dropout_is_in_the_updates_and_not_in_the_readings():
    env = made()
    ir, vi = torch.rand(2, 1, 1, 16, 16)
    assert torch.equal(env.distiller.student(ir, vi), env.distiller.student(ir, vi))
    without = made(student="mine:Net:width=6,rate=0.0")
    assert played(env, actions(env, 1))[0][0].tolist() != played(without, actions(env, 1))[0][0].tolist()


def test_frozen_weights_stay_and_unused_ones_do_no_harm():
    env = made()
    before = weights(env)
    env.step(actions(env, 1)[0])
    changed = {name for name, value in weights(env).items() if not torch.equal(value, before[name])}
    assert {"net.first.weight", "net.last.bias", "net.norm.running_mean"} <= changed
    assert not any("frozen" in name or "unused" in name for name in changed)


@pytest.mark.parametrize(("spec", "one_by_one"), [(MIXTURE, False), (NET, True)])
def test_a_population_trains_them_as_alone_and_says_once_if_one_by_one(spec, one_by_one, recwarn):
    _as_one.cache_clear()
    settings = {**gym.spec(FAST).kwargs, **SETTINGS, "student": spec}
    together = FusionDistillVectorEnv(2, **settings)
    together.reset(seed=3)
    steps = actions(together.envs[0])
    results = [together.step(np.stack((action, action))) for action in steps]
    said = [str(warning.message) for warning in recwarn if "one by one" in str(warning.message)]
    assert len(said) == one_by_one and all("buffers" in text and spec in text for text in said)
    env = made(student=spec)
    for (observation, reward, *_), (wanted, gain, _) in zip(results, played(env, steps), strict=True):
        np.testing.assert_allclose(observation[0], wanted, atol=2e-3)
        assert reward[0] == pytest.approx(gain, abs=2e-3)
    assert torch.equal(together.envs[0].unwrapped.distiller.generator.get_state(), env.distiller.generator.get_state())


def test_a_training_goes_on_from_a_checkpoint_of_the_same_class_and_arguments_only(tmp_path):
    env = made()
    env.step(actions(env, 1)[0])
    path = str(tmp_path / "student.pt")
    save_student(env.distiller.student, path)
    began = begin(path, 16, NET, torch.Generator())
    assert equal(began.state_dict(), weights(env))
    assert [name for name, weight in began.net.frozen.named_parameters() if not weight.requires_grad] == [
        "weight",
        "bias",
    ]
    made(start=["new", path]).step(actions(env, 1)[0])
    for other in ("mine:Net:width=5", MIXTURE):
        with pytest.raises(StudentError, match=r"student\.pt is of mine:Net:width=6, not of mine"):
            begin(path, 16, other, torch.Generator())
    with pytest.raises(StudentError, match="There is no start 'clean'"):
        begin("clean", 16, NET, torch.Generator())


def test_a_checkpoint_names_its_class_and_is_read_without_running_what_nobody_named(tmp_path, mine):
    student = begin(NEW, 16, NET, torch.Generator().manual_seed(1))
    path = tmp_path / "student.pt"
    save_student(student, path)
    saved = torch.load(path, weights_only=True)
    assert saved["class"] == "mine:Net" and saved["arguments"] == {"width": 6}
    Net(**saved["arguments"]).load_state_dict(saved["weights"])  # the user's own code reads it too
    with pytest.raises(StudentError, match=rf"of the class mine:Net, .* give mine:Net:{path}"):
        read_student(path)
    for read in (read_student(path, {"mine:Net"}), find_student(f"mine:Net:{path}"), find_student(f"{NET}:{path}")):
        assert equal(read.state_dict(), student.state_dict()) and not read.training
    torch.save(student.net.state_dict(), tmp_path / "plain.pt")
    assert equal(find_student(f"{NET}:{tmp_path / 'plain.pt'}").state_dict(), student.state_dict())
    torch.save({**saved, "class": "os:abort"}, path)
    for spec in (str(path), f"mine:Net:{path}"):
        with pytest.raises(StudentError, match="os:abort"):
            find_student(spec)


def test_a_function_a_nested_name_and_the_working_folder_name_students_too(tmp_path, monkeypatch, mine):
    assert isinstance(begin(NEW, 16, "mine:made", torch.Generator()).net, Mixture)
    mine.inner = types.SimpleNamespace(Deep=Mixture)
    assert isinstance(begin(NEW, 16, "mine:inner.Deep", torch.Generator()).net, Mixture)
    (tmp_path / "just_here.py").write_text("from tests.test_own import Mixture as Here\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    assert isinstance(begin(NEW, 16, "just_here:Here", torch.Generator()).net, nn.Module)


def test_an_own_student_fuses_images_of_any_size_and_clips_them(tmp_path):
    student = begin(NEW, 16, UNET, torch.Generator().manual_seed(0))
    save_student(student, tmp_path / "s.pt")
    fuser = fusion_gym.load_student(f"{UNET}:{tmp_path / 's.pt'}")
    ir, vi = (np.random.default_rng(seed).integers(0, 256, (37, 51), np.uint8) for seed in (0, 1))
    fused = fuser(ir, vi)
    assert fused.shape == ir.shape and fused.dtype == np.uint8
    with pytest.raises(StudentError, match="`reach`"):
        fusion_gym.load_student(f"{UNET}:{tmp_path / 's.pt'}", tile=32)
    with pytest.warns(match="as its class makes it"):
        fusion_gym.load_student(MIXTURE)


def test_tiles_give_what_the_whole_image_gives_where_the_class_says_how_far_it_sees(mine):
    mine.Far = type("Far", (Mixture,), {"reach": 1})
    ir, vi = (np.random.default_rng(seed).integers(0, 256, (37, 51), np.uint8) for seed in (0, 1))
    with pytest.warns(match="as its class makes it"):
        whole, tiled = (fusion_gym.load_student("mine:Far", tile=tile)(ir, vi) for tile in (None, 16))
    np.testing.assert_array_equal(whole, tiled)


def test_a_torchscript_file_agrees_with_torch_at_odd_sizes(tmp_path):
    student = begin(NEW, 16, UNET, torch.Generator().manual_seed(0)).requires_grad_(False)
    assert export.export_torchscript(student, tmp_path / "s.ts") < 1e-4


def test_a_network_that_torchscript_cannot_read_is_traced_and_one_that_onnx_cannot_hold_is_kept(
    tmp_path, monkeypatch, mine, capsys
):
    mine.Odd = net(lambda x, *_: x)  # takes any number of images
    student = begin(NEW, 16, "mine:Odd", torch.Generator().manual_seed(0)).requires_grad_(False)
    assert export.export_torchscript(student, tmp_path / "s.ts") < 1e-4
    pytest.importorskip("onnxscript")

    def cannot(*_, **__):
        raise RuntimeError("no such\noperator")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.onnx, "export", cannot)
    assert distill.main(["--student", "mine:Odd", *SMALL, "--out", "a"]) == 0
    assert (
        "No ONNX file: torch cannot write the network as ONNX: RuntimeError: no such operator."
        in capsys.readouterr().out
    )
    assert export.main(["--student", "mine:Odd:a/student.pt", "--out", "b.onnx"]) == 2
    assert capsys.readouterr().err.count("\n") == 1 and not Path("b.onnx").exists()


def test_agentfuse_has_the_published_number_of_weights_and_operations():
    net = AgentFuse()
    assert sum(weight.numel() for weight in net.parameters()) == 652_385
    assert export.macs_per_pixel(net) * 640 * 480 / 1e9 == pytest.approx(5.79, abs=0.01)


def test_the_commands_take_the_example_from_training_to_fusing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert distill.main(["--student", UNET, *SMALL, "--out", "a"]) == 0
    onnx, weights = Path("a/student.onnx"), f"{UNET}:a/student.pt"
    ir, vi = (np.random.default_rng(seed).integers(0, 256, (37, 51), np.uint8) for seed in (0, 1))
    if onnx.is_file():  # it was held to torch as it was written
        by_onnx, by_torch = (fusion_gym.load_student(spec)(ir, vi).astype(int) for spec in (str(onnx), weights))
        assert np.abs(by_onnx - by_torch).max() <= 1
    assert fuse.main(["--student", weights, "--samples", "--out", "fused", "--no-progress"]) == 0
    assert train_agent.main(["--student", UNET, "--dry-run"]) == 0
    assert f"student: {UNET}" in capsys.readouterr().out


def test_a_comparison_takes_it_and_draws_what_it_fuses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named = ["--student", MIXTURE, "--no-progress", "--seed", "1", "--data", "synthetic-small", "--teacher", "rule:max"]
    short = ["--updates", "1", "--decisions", "1", "--self-loss", "simple", "--seeds", "1", "--env-kwargs"]
    short += ["reference=rule:max", "probe_pairs=2", "probe_size=64", "patch_size=32"]
    assert compare.main(["constant", *named, *short, "--out", "c"]) == 0
    assert (tmp_path / "c" / "report.html").is_file() and list(tmp_path.glob("c/contact_sheet*.png"))


def net(forward, **attributes):
    """A network that does that."""

    class Wrong(Mixture):
        def forward(self, *images):
            return forward(super().forward(*images), *images)

    for name, value in attributes.items():
        setattr(Wrong, name, value)
    return Wrong


def _raise(error):
    raise error


def _frozen():
    return Mixture().requires_grad_(False)


def _nan(*_):
    made = Mixture()
    made.gain.data.fill_(torch.nan)
    return made


class _One(Mixture):
    def forward(self, image):
        return image * self.gain


WRONG = {
    "its values leave the range": (net(lambda x, *_: 2 * x - 1), "gives values from"),
    "its values are levels": (net(lambda x, *_: 255 * x), "gives values from"),
    "not finite": (net(lambda x, *_: x / 0), "not finite"),
    "weights not finite": (_nan, "not finite"),
    "complex": (net(lambda x, *_: torch.complex(x, x)), "complex64"),
    "integers": (net(lambda x, *_: (255 * x).to(torch.uint8)), "uint8"),
    "double": (lambda: Mixture().double(), "float64 weights"),
    "half": (net(lambda x, *_: x.half()), "gives float16"),
    "two outputs": (net(lambda x, *_: (x, x)), "gives a tuple"),
    "a mapping": (net(lambda x, *_: {"fused": x}), "gives a dict"),
    "nothing": (net(lambda *_: None), "gives a NoneType"),
    "three channels": (net(lambda x, *_: x.expand(-1, 3, -1, -1)), r"gives \(2, 3, 64, 64\)"),
    "no channel": (net(lambda x, *_: x[:, 0]), r"gives \(2, 64, 64\)"),
    "half the size": (net(lambda x, *_: F.avg_pool2d(x, 2)), r"gives \(2, 1, 32, 32\)"),
    "odd sizes": (net(lambda x, *_: F.interpolate(F.avg_pool2d(x, 4), scale_factor=4)), "multiple"),
    "the batch's mean": (net(lambda x, *_: x.mean(0, keepdim=True)), r"gives \(1, 1, 64, 64\)"),
    "pairs that see each other": (net(lambda x, *_: 0.5 * (x + x.flip(0))), "alone and in a batch"),
    "no weights": (nn.Identity, "no weights to train"),
    "frozen weights": (_frozen, "all are frozen"),
    "no gradient": (net(lambda x, *_: x.detach()), "cannot be trained"),
    "weights of no effect": (net(lambda x, ir, vi: 0 * x + ir), "no gradient reaches"),
    "in place": (net(lambda x, ir, vi: x + 0 * ir.mul_(0.5)), "in place"),
    "another device": (net(lambda x, *_: x.to("meta")), "on meta"),
    "weights elsewhere": (lambda: Mixture().to("meta"), "on meta"),
    "chance in evaluation": (net(lambda x, *_: x * (0.9 + 0.1 * torch.rand(1))), "chance in evaluation mode"),
    "a seed of its own": (net(lambda x, *_: (torch.manual_seed(0), x)[1]), "seed nothing"),
    "a state that no file holds": (net(lambda x, *_: x, get_extra_state=lambda self: object()), "files of weights"),
    "one image": (_One, "fails on two tensors"),
    "fails": (net(lambda *_: _raise(RuntimeError("no\nreason"))), "RuntimeError: no reason"),
    "exits": (net(lambda *_: _raise(SystemExit(0))), "SystemExit"),
    "a wrong multiple": (net(lambda x, *_: x, multiple=0.5), "multiple=0.5"),
    "no copy": (net(lambda x, *_: x, __deepcopy__=lambda *_: _raise(TypeError("mine alone"))), "cannot be copied"),
    "needs arguments": (lambda width: Mixture(), "cannot be made without arguments"),
    "no network": (lambda: torch.relu, "it has to be a torch.nn.Module"),
    "a failing class": (lambda: 1 / 0, "ZeroDivisionError"),
}


@pytest.mark.parametrize(("wrong", "says"), WRONG.values(), ids=WRONG)
def test_a_wrong_network_is_refused_in_one_sentence(wrong, says, mine, capsys, tmp_path):
    mine.Wrong = wrong
    out = tmp_path / "out"
    small = ["--data", "synthetic-small", "--teacher", "rule:max", "--out", str(out), "--no-progress"]
    assert distill.main(["--student", "mine:Wrong", *small]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and len(said) < 400 and "'mine:Wrong'" in said
    assert re.search(says, said), said
    assert not out.exists()


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("nobody_has:This", "No module named"),
        ("mine:Nothing", "Nothing"),
        ("mine:Net:depth=3", "unexpected keyword"),
        ("mine:Net:width=[", "not YAML"),
        ("mine:Net:width=4:weights.pt", "give it as start"),
        ("mine:Net:tiny", "give it as start"),
        ("unet", "There is no student 'unet'"),
        ("torch.nn:Conv2d", "cannot be made without arguments"),
    ],
)
def test_a_wrong_name_is_refused_in_one_sentence(spec, says, capsys, tmp_path):
    assert distill.main(["--student", spec, "--data", "synthetic-small", "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and says in said and not (tmp_path / "out").exists()
    with pytest.raises(ValueError):
        gym.make(FAST, **SETTINGS, student=spec)


def test_a_network_whose_output_is_not_contiguous_trains_as_its_twin(mine):
    mine.Other = net(lambda x, *_: x.transpose(2, 3).contiguous().transpose(2, 3))
    one, other = made(student=MIXTURE), made(student="mine:Other")
    assert same(played(one, actions(one)), played(other, actions(one)))


def test_weights_that_wait_for_a_first_image_and_one_network_for_all_are_made_anew_from_the_seed(mine):
    class Lazy(Mixture):
        def __init__(self):
            super().__init__()
            self.share = nn.LazyConv2d(1, 3, padding=1)

        def forward(self, ir, vi):
            return torch.lerp(vi, ir, torch.sigmoid(self.share(torch.cat((ir, vi), 1))))

    shared = Mixture()
    mine.Lazy, mine.shared = Lazy, lambda: shared
    for spec in ("mine:Lazy", "mine:shared"):
        env = made(student=spec)
        wanted = played(env, actions(env))
        env.reset(seed=3)
        assert same(played(env, actions(env)), wanted)


def test_the_example_is_short():
    source = Path(sys.modules[UNet.__module__].__file__).read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 45
    assert copy.deepcopy(UNet()).multiple == 4
