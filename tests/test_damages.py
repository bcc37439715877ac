import pytest
import torch

from fusion_gym.damages import DAMAGES, damage

CONCERNED = {"haze": 1, "rain": 1, "stripes": 0, "bloom": 1}  # 0 infrared, 1 visible


def pair(count=5, size=(40, 56), dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(count, 1, *size, generator=generator, dtype=dtype) for _ in range(2)]


def seeded(seed=1):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("kind", DAMAGES)
def test_strength_zero_is_the_exact_identity(kind):
    for image, same in zip(pair(), damage(kind, *pair(), 0.0, seeded()), strict=True):
        assert torch.equal(image, same)


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("size", [(1, 1), (9, 64), (40, 56)])
def test_damage_grows_with_strength_in_one_source_and_stays_in_range(kind, size):
    given, damages = pair(size=size), []
    for strength in (0.0, 0.1, 0.3, 0.6, 1.0):
        made = damage(kind, *given, strength, seeded())
        assert made[1 - CONCERNED[kind]] is given[1 - CONCERNED[kind]]
        hard, image = made[CONCERNED[kind]], given[CONCERNED[kind]]
        assert hard.shape == image.shape and hard.dtype == image.dtype
        assert float(hard.min()) >= 0 and float(hard.max()) <= 1
        damages.append((hard - image).square().mean())
    assert (torch.stack(damages).diff() >= 0).all()
    assert size == (1, 1) or (torch.stack(damages).diff() > 0).all()


@pytest.mark.parametrize("kind", DAMAGES)
def test_each_pair_gets_its_own_strength_and_its_own_draw(kind):
    ir, vi = pair()
    strength = torch.tensor([0.0, 0.2, 0.4, 0.8, 1.0])
    made = damage(kind, ir, vi, strength, seeded())
    for index, one in enumerate(strength.tolist()):
        alone = damage(kind, ir, vi, one, seeded())
        for together, single in zip(made, alone, strict=True):
            torch.testing.assert_close(together[index], single[index])
    same = [image[:1].expand(2, -1, -1, -1) for image in (ir, vi)]
    first, second = damage(kind, *same, 1.0, seeded())[CONCERNED[kind]]
    assert not torch.allclose(first, second, atol=0.01)


@pytest.mark.parametrize("kind", DAMAGES)
def test_the_generator_decides_and_torch_s_own_is_left_alone(kind):
    before = torch.random.get_rng_state()
    first, again, other = (damage(kind, *pair(), 0.7, seeded(seed))[CONCERNED[kind]] for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(before, torch.random.get_rng_state())


def test_haze_follows_koschmieder_s_law_and_is_thickest_far_away():
    """Each pixel lies between itself and one airlight for the image, nearer to it at the top than at the bottom."""
    vi = torch.zeros(3, 1, 50, 30), torch.ones(3, 1, 50, 30)
    dark, bright = (damage("haze", image, image, 0.8, seeded())[1] for image in vi)
    through = bright - dark
    air = dark / (1 - through)
    assert float(air.flatten(1).std(1).max()) < 1e-5 and 0.75 <= float(air.min()) <= float(air.max()) <= 0.95
    rows = through.mean((0, 1, 3))
    assert rows[-1] > 2 * rows[0]


def test_stripes_are_the_same_all_along_a_column():
    flat = torch.full((2, 1, 30, 40), 0.5)
    made = damage("stripes", flat, flat, 1.0, seeded())[0]
    assert torch.equal(made, made[..., :1, :].expand_as(made)) and float(made[0, 0, 0].std()) > 0.05


def test_rain_runs_down_and_bloom_surrounds_lamps_with_light():
    dark = torch.zeros(4, 1, 80, 80)
    fallen = damage("rain", dark, dark, 1.0, seeded())[1]
    down, across = (fallen.diff(dim=dim).abs().mean() for dim in (2, 3))
    assert 2 * down < across
    lit = damage("bloom", dark, dark, 1.0, seeded())[1]
    for image in lit[:, 0]:
        assert (image == 1).any() and ((image > 0.02) & (image < 1)).sum() > 4 * (image == 1).sum()


def test_an_unknown_damage_is_named():
    with pytest.raises(ValueError, match="There is no damage 'snow'; there are haze, rain, stripes, bloom"):
        damage("snow", *pair(), 0.5, seeded())
