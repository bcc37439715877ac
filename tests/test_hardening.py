import pytest
import torch

from fusion_gym.hardening import (
    HARDENINGS,
    blur,
    concatenate,
    contrast_loss,
    darken,
    draw,
    harden,
    noise,
    overexpose,
    selection_weights,
)


def pair(count=6, side=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(count, 1, side, side, generator=generator) for _ in range(2)]


def full(count, seed=0):
    return draw(count, torch.Generator().manual_seed(seed), full=True)


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


def test_nothing_asked_gives_the_inputs_themselves():
    ir, vi = pair()
    for strengths in ({}, dict.fromkeys(HARDENINGS, 0.0)):
        hard_ir, hard_vi = harden(ir, vi, strengths, full(len(ir)))
        assert hard_ir is ir
        assert hard_vi is vi


@pytest.mark.parametrize("name", HARDENINGS)
def test_each_hardening_acts_on_its_sources_only(name):
    ir, vi = pair()
    hard_ir, hard_vi = harden(ir, vi, {name: 0.5}, full(len(ir)))
    assert (torch.equal(hard_ir, ir), torch.equal(hard_vi, vi)) == {
        "blur": (False, False),
        "noise": (False, False),
        "illumination": (True, False),
        "contrast": (False, True),
    }[name]


def test_all_together_stay_in_range():
    ir, vi = pair()
    for image in harden(ir, vi, dict.fromkeys(HARDENINGS, 1.0), full(len(ir))):
        assert float(image.min()) >= 0
        assert float(image.max()) <= 1


def test_the_same_draw_does_the_same_damage():
    ir, vi = pair()
    strengths = dict.fromkeys(HARDENINGS, 0.7)
    first, second = (harden(ir, vi, strengths, full(len(ir), seed=4)) for _ in range(2))
    other = harden(ir, vi, strengths, full(len(ir), seed=5))
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
    strengths = [{}, {"noise": 0.5, "illumination": 0.2}, dict.fromkeys(HARDENINGS, 0.8)]
    alone = [harden(*one, asked, drawn) for one, asked, drawn in zip(pairs, strengths, draws, strict=True)]
    per_image = {
        name: torch.tensor([asked.get(name, 0.0) for asked in strengths]).repeat_interleave(6) for name in HARDENINGS
    }
    ir, vi = (torch.cat(images) for images in zip(*pairs, strict=True))
    together = harden(ir, vi, per_image, concatenate(draws))
    for side in range(2):
        torch.testing.assert_close(together[side], torch.cat([one[side] for one in alone]), rtol=0, atol=1e-6)


def test_selection_prefers_high_losses_by_its_sharpness():
    losses = torch.tensor([0.1, 0.2, 0.9, torch.nan])
    shares = [selection_weights(losses, sharpness) for sharpness in (0.0, 1.0, 4.0)]
    for share in shares:
        assert float(share.sum()) == pytest.approx(1)
    assert torch.equal(shares[0], torch.full((4,), 0.25))
    assert shares[0][2] < shares[1][2] < shares[2][2]
    known = losses[:3]
    ratio = shares[1][2] / shares[1][3]  # a patch not seen yet counts as average
    assert float(ratio) == pytest.approx(float(torch.exp((known[2] - known.mean()) / known.std())), rel=1e-5)


def test_selection_without_experience_is_uniform():
    assert torch.equal(selection_weights(torch.full((5,), torch.nan), 4.0), torch.full((5,), 0.2))
