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
from fusion_gym.features import FeatureError, Vgg19, _load, load_guide
from fusion_gym.losses import FEATURE_WEIGHT, feature_loss
from fusion_gym.population import FusionDistillVectorEnv

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
    "no tensor": (lambda: lambda image: "a text", "gives str"),
    "nothing": (lambda: lambda image: [], "gives nothing"),
    "integers": (lambda: lambda image: (255 * image).long(), "one tensor of floats"),
    "one for all": (lambda: lambda image: image.mean(0), r"it has to give \(2, ...\)"),
    "no slope": (lambda: lambda image: image.detach(), "cannot be learned from"),
    "blind": (lambda: lambda image: 0 * image, "sees no difference"),
    "not finite": (lambda: lambda image: image / 0, "not finite"),
    "three channels": (lambda: nn.Conv2d(3, 4, 3), "fails on a tensor"),
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
