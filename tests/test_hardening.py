import pytest
import torch

from fusion_gym.hardening import (
    HARDENINGS,
    blur,
    contrast_loss,
    damage,
    darken,
    draw,
    harden,
    noise,
    overexpose,
)
from fusion_gym.tensors import joined


def pair(count=6, side=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(count, 1, side, side, generator=generator) for _ in range(2)]


def drawing(count, seed=0):
    return draw(count, torch.Generator().manual_seed(seed))


def unit_noise(image):
    return torch.randn(image.shape, generator=torch.Generator().manual_seed(9))


DEGRADATIONS = {
    "blur": blur,
    "noise": lambda image, strength: noise(image, strength, unit_noise(image)),
    "darken": darken,
    "overexpose": overexpose,
    "contrast": contrast_loss,
}


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_strength_zero_is_the_exact_identity(name):
    image = pair()[0]
    assert torch.equal(DEGRADATIONS[name](image, torch.zeros(len(image))), image)


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_damage_grows_with_strength_and_stays_in_range(name):
    image = pair()[0]
    damages = []
    for strength in (0.0, 0.1, 0.3, 0.6, 1.0):
        hard = DEGRADATIONS[name](image, torch.full((len(image),), strength))
        assert hard.shape == image.shape
        assert float(hard.min()) >= 0
        assert float(hard.max()) <= 1
        damages.append((hard - image).square().mean((1, 2, 3)))
    assert (torch.stack(damages).diff(dim=0) > 0).all()


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_each_image_gets_its_own_strength(name):
    image = pair()[0]
    strength = torch.linspace(0, 1, len(image))
    together = DEGRADATIONS[name](image, strength)
    if name == "noise":
        parts = [noise(image[i : i + 1], strength[i : i + 1], unit_noise(image)[i : i + 1]) for i in range(len(image))]
    else:
        parts = [DEGRADATIONS[name](image[i : i + 1], strength[i : i + 1]) for i in range(len(image))]
    torch.testing.assert_close(together, torch.cat(parts), rtol=0, atol=1e-6)


@pytest.mark.parametrize("settings", [{}, dict.fromkeys(HARDENINGS, 0.0), {"noise": 1.0, "clean": 1.0}])
def test_nothing_asked_gives_the_inputs_themselves(settings):
    ir, vi = pair()
    hard_ir, hard_vi = harden(ir, vi, settings, drawing(len(ir)))
    assert hard_ir is ir
    assert hard_vi is vi


@pytest.mark.parametrize("name", HARDENINGS)
def test_each_hardening_acts_on_its_sources_only(name):
    ir, vi = pair()
    for hard_ir, hard_vi in (
        damage(ir, vi, {name: 0.5}, drawing(len(ir))),
        harden(ir, vi, {name: 0.5}, drawing(len(ir))),
    ):
        assert (torch.equal(hard_ir, ir), torch.equal(hard_vi, vi)) == {
            "blur": (False, False),
            "noise": (False, False),
            "illumination": (True, False),
            "contrast": (False, True),
        }[name]


def test_all_together_stay_in_range():
    ir, vi = pair()
    for image in damage(ir, vi, dict.fromkeys(HARDENINGS, 1.0), drawing(len(ir))):
        assert float(image.min()) >= 0
        assert float(image.max()) <= 1


def test_an_image_gets_one_hardening_as_often_and_as_strongly_as_asked():
    asked = {"blur": 0.2, "noise": 0.6, "contrast": 0.0, "illumination": 0.0, "clean": 0.25}
    amounts = drawing(20_000).amounts(asked)
    given = amounts > 0
    assert (given.sum(0) <= 1).all()
    shares = dict(zip(HARDENINGS, given.float().mean(1).tolist(), strict=True))
    assert shares == pytest.approx({"blur": 0.1875, "noise": 0.5625, "illumination": 0, "contrast": 0}, abs=0.01)
    for name, amount in zip(HARDENINGS, amounts, strict=True):
        if asked[name]:
            drawn = amount[amount > 0]
            assert float(drawn.max()) == pytest.approx(asked[name], abs=1e-3)
            assert float(drawn.mean()) == pytest.approx(asked[name] / 2, rel=0.02)


def test_the_same_draw_does_the_same_damage():
    ir, vi = pair()
    strengths = dict.fromkeys(HARDENINGS, 0.7)
    first, second = (harden(ir, vi, strengths, drawing(len(ir), seed=4)) for _ in range(2))
    other = harden(ir, vi, strengths, drawing(len(ir), seed=5))
    assert torch.equal(first[0], second[0])
    assert not torch.equal(first[0], other[0])


def test_drawing_takes_the_same_numbers_whatever_is_asked():
    ir, vi = pair()
    states = []
    for strengths in ({}, {"noise": 1.0}, dict.fromkeys(HARDENINGS, 0.3)):
        generator = torch.Generator().manual_seed(2)
        harden(ir, vi, strengths, draw(len(ir), generator))
        states.append(generator.get_state())
    assert torch.equal(states[0], states[1])
    assert torch.equal(states[0], states[2])


def test_batches_hardened_as_one_are_those_hardened_one_by_one():
    generator = torch.Generator().manual_seed(3)
    pairs = [pair(seed=seed) for seed in range(3)]
    draws = [draw(6, generator) for _ in pairs]
    strengths = [{}, {"noise": 0.5, "illumination": 0.2, "clean": 0.3}, dict.fromkeys(HARDENINGS, 0.8)]
    alone = [harden(*one, asked, drawn) for one, asked, drawn in zip(pairs, strengths, draws, strict=True)]
    per_image = {
        name: torch.tensor([asked.get(name, 0.0) for asked in strengths]).repeat_interleave(6)
        for name in (*HARDENINGS, "clean")
    }
    ir, vi = (torch.cat(images) for images in zip(*pairs, strict=True))
    together = harden(ir, vi, per_image, joined(draws))
    for side in range(2):
        torch.testing.assert_close(together[side], torch.cat([one[side] for one in alone]), rtol=0, atol=1e-6)
