import copy
import pickle
import re
import sys
import types

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn

import fusion_gym  # noqa: F401  (registers the ids)
from agents.distilling import command as distill
from examples.random_features import RandomFeatures
from fusion_gym import hints
from fusion_gym.actions import ACTIONS
from fusion_gym.distiller import batch_losses
from fusion_gym.features import FeatureError, Vgg19, _load, load_guide
from fusion_gym.losses import FEATURE_WEIGHT, feature_loss, hint_loss
from fusion_gym.population import FusionDistillVectorEnv, _as_one

FAST, RANDOM = "FusionDistillFast-v0", "examples.random_features:RandomFeatures"
SETTINGS = {"teacher": "rule:max", "reference": "rule:max", "episode_steps": 2, "updates_per_step": 2}
FEATURES = {**SETTINGS, "guide": "features", "features": RANDOM, "actions": ["guidance"]}


def images(seed=0, count=2):
    return torch.rand(2, count, 1, 64, 64, generator=torch.Generator().manual_seed(seed)).unbind(0)


def test_the_loss_is_the_share_of_the_teachers_features_that_is_missed():
    teacher = [torch.full((2, 3, 4, 4), 2.0), torch.ones(2, 5)]
    fused = [torch.full((2, 3, 4, 4), 3.0), torch.zeros(2, 5)]
    assert feature_loss(fused, teacher).tolist() == pytest.approx([FEATURE_WEIGHT * (0.25 + 1) / 2] * 2)
    assert feature_loss(teacher, teacher).tolist() == [0, 0]


def test_the_example_is_the_same_everywhere_and_a_guide_one_for_all():
    one, other = RandomFeatures(), RandomFeatures()
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    guide = load_guide(RANDOM)
    assert guide is load_guide(RANDOM) is copy.deepcopy(guide) is pickle.loads(pickle.dumps(guide))
    fused, teacher = images()
    slope = torch.autograd.grad(guide(fused.requires_grad_(), teacher).sum(), fused)[0]
    assert slope.abs().sum() > 0 and not any(weight.requires_grad for weight in guide.network.parameters())


def test_vgg19_reads_torchvisions_names_and_sees_four_blocks(tmp_path):
    net = Vgg19()
    for weight in net.parameters():
        nn.init.normal_(weight, std=0.05, generator=torch.Generator().manual_seed(1))
    weights = net.state_dict()
    assert len(weights) == 24 and weights["features.25.weight"].shape == (512, 512, 3, 3)  # conv4_4
    torch.save({**weights, "classifier.0.weight": torch.zeros(1)}, tmp_path / "vgg19.pth")
    guide = load_guide(str(tmp_path / "vgg19.pth"))
    found = guide.network(images(count=1)[0])
    assert [tuple(layer.shape[1:]) for layer in found] == [(64, 64, 64), (128, 32, 32), (256, 16, 16), (512, 8, 8)]
    assert all(float(layer.min()) >= 0 for layer in found)  # behind the activations
    torch.save({name: value for name, value in weights.items() if "25" not in name}, tmp_path / "other.pth")
    with pytest.raises(FeatureError, match=r"other\.pth is neither TorchScript nor torchvision's weights"):
        load_guide(str(tmp_path / "other.pth"))


class Edges(nn.Module):
    def __init__(self, gain: float = 1.0):
        super().__init__()
        self.gain = gain

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.gain * (image[..., 1:] - image[..., :-1])


def test_a_script_and_a_class_see_the_same(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "seen", types.SimpleNamespace(Edges=Edges))
    torch.jit.script(Edges(2.0)).save(str(tmp_path / "edges.ts"))
    wanted = feature_loss([Edges()(images()[0])], [Edges()(images()[1])])
    for spec in (str(tmp_path / "edges.ts"), "seen:Edges", "seen:Edges:gain=3.0"):
        torch.testing.assert_close(load_guide(spec)(*images()), wanted)


def test_students_that_follow_features_come_closer_in_them_and_are_repeated_and_copied():
    env = gym.make(FAST, **{**FEATURES, "updates_per_step": 15}).unwrapped
    env.reset(seed=0)
    fork, pickled = env.fork(), pickle.loads(pickle.dumps(env))
    follow = np.ones(1, np.float32)
    first, *_ = env.step(follow)
    for other in (fork, pickled):
        np.testing.assert_array_equal(other.step(follow)[0], first)
    _, _, _, _, info = env.step(follow)
    plain = gym.make(FAST, **{**FEATURES, "guide": "pixels", "features": None}).unwrapped
    plain.reset(seed=0)
    assert plain.distiller.measure(plain.fixed).loss_guide != env.distiller.measure(env.fixed).loss_guide
    assert info["student/loss_guide"] < 0.9 * fork.episode.stats.loss_guide


def test_a_population_follows_features_as_each_alone():
    together = FusionDistillVectorEnv(2, **{**gym.spec(FAST).kwargs, **FEATURES})
    alone = gym.make(FAST, **FEATURES)
    together.reset(seed=3), alone.reset(seed=3)
    action = np.full(1, 0.5, np.float32)
    wanted = alone.step(action)[4]["student/loss_guide"]
    assert together.step(np.stack((action, action)))[4]["student/loss_guide"][0] == pytest.approx(wanted, rel=1e-4)


WRONG = {
    "no tensor": (lambda: lambda image: "a text", "are str"),
    "nothing": (lambda: lambda image: [], "are nothing"),
    "integers": (lambda: lambda image: (255 * image).long(), "one tensor of floats"),
    "one for all": (lambda: lambda image: image.mean(0), r"give \(2, ...\)"),
    "no slope": (lambda: lambda image: image.detach(), "cannot be learned from"),
    "blind": (lambda: lambda image: 0 * image, "are alike for different images"),
    "not finite": (lambda: lambda image: image / 0, "not finite"),
    "three channels": (lambda: nn.Conv2d(3, 4, 3), "fail on tensors"),
    "a failing class": (lambda: 1 / 0, "ZeroDivisionError"),
    "changing number": (lambda: lambda image: [image] * (1 + image.requires_grad), "cannot be learned from"),
}


@pytest.mark.parametrize(("wrong", "says"), WRONG.values(), ids=WRONG)
def test_a_wrong_network_of_features_is_refused_in_one_sentence(wrong, says, monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "seen", types.SimpleNamespace(Wrong=wrong))
    _load.cache_clear()
    command = ["--guide", "features", "--features", "seen:Wrong", "--data", "synthetic-small", "--teacher", "rule:max"]
    assert distill.main([*command, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and re.search(says, said), said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"guide": "features"}, "go together"),
        ({"features": RANDOM}, "go together"),
        ({"guide": "edges"}, "one of pixels, features"),
        ({"guide": "features", "features": "missing.pth"}, "There are no features 'missing.pth'"),
        ({"guide": "features", "features": "vgg"}, "There are no features 'vgg'"),
        ({"guide": "features", "features": "mine:Net:file.pt"}, "There are no features"),
        ({"guide": "features", "features": "nowhere:Net"}, "No module named 'nowhere'"),
    ],
)
def test_guides_and_features_that_do_not_fit_are_refused(given, says):
    with pytest.raises(ValueError, match=says):
        gym.make(FAST, **SETTINGS, **given)


class Fusing(nn.Module):
    """A teacher and a student, alike: features in two widths, and what is fused of them."""

    def __init__(self, width=4, chance=False):
        super().__init__()
        self.first, self.second = nn.Conv2d(2, width, 3, padding=1), nn.Conv2d(width, 6, 3, stride=2, padding=1)
        self.last = nn.Conv2d(width, 1, 1)
        self.between = nn.Sequential(nn.BatchNorm2d(width), nn.Dropout(0.3)) if chance else nn.Identity()

    def seen(self, ir, vi):
        first = self.between(torch.tanh(self.first(torch.cat((ir, vi), 1))))
        return first, self.second(first)

    def features(self, ir, vi):
        return self.seen(ir, vi)

    def forward(self, ir, vi):
        return torch.lerp(ir, vi, torch.sigmoid(self.last(self.seen(ir, vi)[0])))


HINTS = {**SETTINGS, "guide": "features", "features": "teacher", "actions": ["guidance"], "teacher": "hinting:Fusing"}
HINTS |= {"data": "synthetic-small", "student": "hinting:Fusing"}


@pytest.fixture
def hinting(monkeypatch):
    module = types.ModuleType("hinting")
    module.Fusing = Fusing
    monkeypatch.setitem(sys.modules, "hinting", module)
    hints._load.cache_clear(), _as_one.cache_clear()
    return module


def test_hints_are_mean_squared_distances_in_each_layers_own_measure():
    student, teacher = [torch.full((2, 3, 4, 4), 3.0), torch.ones(2, 5)], [torch.zeros(2, 3, 4, 4), torch.zeros(2, 5)]
    assert hint_loss(student, teacher, [9.0, 4.0]).tolist() == pytest.approx([FEATURE_WEIGHT * (1 + 0.25) / 2] * 2)
    assert hint_loss(teacher, teacher, [9.0, 4.0]).tolist() == [0, 0]


def test_hints_hold_what_a_student_sees_to_what_its_teacher_sees_of_the_clean_pairs(hinting):
    env = gym.make(FAST, **HINTS).unwrapped
    env.reset(seed=0)
    student, guide, batch = env.distiller.student, env.distiller.guide, env.distiller.batch()
    assert guide is hints.load_hints("hinting:Fusing", env.distiller.bank.shape[3])
    assert 0 < int(batch.mirrored.sum()) < len(batch.mirrored)
    teacher = guide._features.__self__
    assert not teacher.training and teacher is not student.net
    student.net.load_state_dict(teacher.state_dict())
    plain = {action.name: action.default for action in ACTIONS.values()} | dict.fromkeys(
        ("blur", "noise", "illumination", "contrast"), 0.0
    )
    clean, blurred = (batch_losses(student, batch, asked, by=guide)[1] for asked in (plain, {**plain, "blur": 1.0}))
    assert clean.shape == blurred.shape == (len(batch.images),)
    assert float(clean.detach().abs().max()) < 1e-9 and float(blurred.detach().mean()) > 1e-4
    blurred.sum().backward()
    assert student.net.first.weight.grad.any() and all(weight.grad is None for weight in teacher.parameters())


@pytest.mark.parametrize("student", ["hinting:Fusing", "hinting:Fusing:chance=true"])
def test_students_that_follow_hints_come_closer_and_are_repeated_copied_and_restored(student, hinting):
    before = torch.get_rng_state()
    env = gym.make(FAST, **{**HINTS, "student": student, "updates_per_step": 30}).unwrapped
    env.reset(seed=0)
    restored = gym.make(FAST, **{**HINTS, "student": student, "updates_per_step": 30}).unwrapped
    restored.load_state(env.save_state())
    others = [env.fork(), pickle.loads(pickle.dumps(env)), restored]
    follow = np.ones(1, np.float32)
    first, *_ = env.step(follow)
    for other in others:
        np.testing.assert_array_equal(other.step(follow)[0], first)
        assert other.distiller.guide is env.distiller.guide
    assert env.step(follow)[4]["student/loss_guide"] < 0.8 * others[0].episode.stats.loss_guide
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("student", "one_by_one"), [("hinting:Fusing", 0), ("hinting:Fusing:chance=true", 1)])
def test_a_population_follows_hints_as_each_alone(student, one_by_one, hinting, recwarn):
    arguments = {**HINTS, "student": student}
    together = FusionDistillVectorEnv(2, **{**gym.spec(FAST).kwargs, **arguments})
    together.reset(seed=3)
    actions = np.array([[0.5], [-0.5]], np.float32)
    figures = together.step(actions)[4]["student/loss_guide"]
    for number, action in enumerate(actions):
        alone = gym.make(FAST, **arguments)
        alone.reset(seed=3 + number)
        assert figures[number] == pytest.approx(alone.step(action)[4]["student/loss_guide"], rel=1e-4)
    assert sum("one by one" in str(warning.message) for warning in recwarn) == one_by_one


def by(features, base=Fusing):
    """A class whose features are what a function makes of the network and the pair."""
    return type("Made", (base,), {"features": features})


def changed(change):
    return by(lambda net, ir, vi: [change(each) for each in net.seen(ir, vi)])


EITHER = {
    "a number": (by(7), r"no method features\(ir, vi\)|has none"),
    "a sequence of layers": (by(nn.Sequential(nn.Conv2d(1, 4, 3))), "fail on tensors"),
    "one image only": (by(lambda net, image: image), "fail on tensors"),
    "failing": (by(lambda net, ir, vi: 1 / 0), "fail on tensors .* ZeroDivisionError"),
    "a text": (by(lambda net, ir, vi: "a text"), "are str"),
    "nothing": (by(lambda net, ir, vi: []), "are nothing"),
    "whole numbers": (changed(lambda each: (9 * each).long()), "one tensor of floats or several"),
    "one for all": (changed(lambda each: each.mean(0)), r"for two images; give \(2, ...\)"),
    "not finite": (changed(lambda each: each / 0), "are not finite"),
    "another device": (changed(lambda each: each.to("meta")), "are not on cpu"),
}
TEACHERS = {
    "chance": (changed(lambda each: each + torch.rand_like(each)), "differ from call to call"),
    "blind": (changed(lambda each: 0 * each), "see no difference"),
}
STUDENTS = {
    "another width": (lambda: Fusing(5), r"are \(2, 5, 64, 64\), .* those of the teacher .* \(2, 4, 64, 64\), "),
    "another number": (by(lambda net, ir, vi: net.seen(ir, vi)[0]), "give the same number and shapes"),
    "no slope": (changed(lambda each: each.detach()), "cannot be learned"),
    "endless slope": (changed(lambda each: torch.where(each > 9, each, (each - each).sqrt())), "no finite gradient"),
}
CASES = [
    *((role, *case) for role in ("Teacher", "Student") for case in EITHER.items()),
    *(("Teacher", *case) for case in TEACHERS.items()),
    *(("Student", *case) for case in STUDENTS.items()),
]


def refused(command, says, capsys, tmp_path):
    shared = ["--guide", "features", "--features", "teacher", "--data", "synthetic-small", "--out"]
    assert distill.main([*shared, str(tmp_path / "out"), *command]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and re.search(says, said), said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("role", "wrong", "says"),
    [(role, *case) for role, _, case in CASES],
    ids=[f"{role} {name}" for role, name, _ in CASES],
)
def test_features_that_cannot_be_followed_are_refused_in_one_sentence(role, wrong, says, hinting, capsys, tmp_path):
    hinting.Teacher = hinting.Student = Fusing
    setattr(hinting, role, wrong)
    refused(["--teacher", "hinting:Teacher", "--student", "hinting:Student"], says, capsys, tmp_path)


@pytest.mark.parametrize(
    ("teacher", "student", "says"),
    [
        ("builtin", "hinting:Fusing", "'builtin' has no features of its own"),
        ("rule:max", "hinting:Fusing", "'rule:max' has no features of its own"),
        ("teacher.onnx", "hinting:Fusing", "'teacher.onnx' has no features of its own"),
        (".", "hinting:Fusing", "'.' has no features of its own"),
        ("nowhere:Net", "hinting:Fusing", "No module named 'nowhere'"),
        ("torch:maximum", "hinting:Fusing", "torch:maximum"),
        ("hinting:Fusing", "tiny", "'tiny' has none"),
        ("hinting:Fusing", "agentfuse", "'agentfuse' has none"),
    ],
)
def test_teachers_and_students_without_features_are_refused(teacher, student, says, hinting, capsys, tmp_path):
    refused(["--teacher", teacher, "--student", student], says, capsys, tmp_path)
