import copy
import math

import numpy as np
import pytest
import torch

from fusion_gym.actions import ACTIONS
from fusion_gym.distiller import (
    FINAL_LEARNING_RATE,
    KEPT_AT_MOST,
    SELF_LOSSES,
    WARM_UP,
    Batch,
    Distiller,
    SelfLoss,
    batch_losses,
)
from fusion_gym.hardening import draw, harden
from fusion_gym.losses import guide_loss, self_loss, self_targets, sobel
from fusion_gym.models.student import Student

PLAIN = dict.fromkeys(ACTIONS, 0.0) | {"guidance": 0.5, "rate": 1.0}
HARD = dict.fromkeys(ACTIONS, 0.5) | {"guidance": 0.3, "clean": 0.1, "rate": 2.0}


def some_bank(patches=24, side=16, seed=0):
    """Smooth patches whose teacher is the brighter source."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (patches, 2, side // 4, side // 4), dtype=np.uint8)
    sources = coarse.repeat(4, axis=2).repeat(4, axis=3)
    return np.concatenate((sources, sources.max(1, keepdims=True)), axis=1)


def make(bank=None, seed=0, total_updates=40, learning_rate=3e-3, self_loss="simple"):
    generator = torch.Generator().manual_seed(seed)
    student = Student(4, generator=generator)
    bank = some_bank(side=16 if self_loss == "simple" else 44) if bank is None else bank
    return Distiller(bank, student, learning_rate, 4, total_updates, generator, self_loss)


def batch_of(images, generator):
    count = len(images)
    return Batch(images, torch.arange(count) % 2 == 0, draw(count, generator))


def weights(distiller):
    return torch.cat([p.detach().flatten() for p in distiller.student.parameters()])


@pytest.mark.parametrize("self_loss", SELF_LOSSES)
@pytest.mark.parametrize("how", ["state", "file", "deepcopy"])
def test_resumed_is_uninterrupted_bit_for_bit(how, self_loss, tmp_path):
    whole = make(self_loss=self_loss)
    whole.advance(PLAIN, 3)
    expected = [whole.advance(HARD, 5), whole.advance(PLAIN, 3)]

    first = make(self_loss=self_loss)
    first.advance(PLAIN, 3)
    if how == "deepcopy":
        second = copy.deepcopy(first)
    else:
        state = first.state_dict()
        if how == "file":
            torch.save(state, tmp_path / "state.pt")
            state = torch.load(tmp_path / "state.pt", weights_only=True)
        second = make(seed=1, self_loss=self_loss)
        second.load_state_dict(state)
    first.advance(HARD, 2)  # what was saved does not change with what it was saved from
    assert [second.advance(HARD, 5), second.advance(PLAIN, 3)] == expected
    assert torch.equal(weights(second), weights(whole))


def test_two_short_calls_are_one_long_call():
    one, two = make(), make()
    one.advance(HARD, 6)
    two.advance(HARD, 4)
    two.advance(HARD, 2)
    assert torch.equal(weights(one), weights(two))


def test_what_is_kept_of_patches_belongs_to_those_of_the_batch():
    distiller = make(self_loss="metrics")
    for _ in range(3):
        batch = distiller.batch()
        expected = distiller.self_loss.keep(*batch.images[:, :2].split(1, dim=1))
        torch.testing.assert_close(batch.kept, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("limit", [0, KEPT_AT_MOST], ids=["nothing", "all"])
def test_what_is_kept_changes_no_training_but_by_rounding(limit, monkeypatch):
    expected = make(self_loss="metrics").advance(HARD, 3)
    monkeypatch.setattr("fusion_gym.distiller.KEPT_AT_MOST", limit)
    distiller = make(self_loss="metrics")
    assert bool(distiller.batch().kept) == bool(limit)
    distiller = make(self_loss="metrics")
    assert distiller.advance(HARD, 3).as_tuple() == pytest.approx(expected.as_tuple(), rel=1e-4)


def test_what_is_kept_of_a_patch_is_computed_once_for_all_who_learn_from_it():
    computed = []

    def keep(ir, vi):
        computed.append(ir)
        return (torch.cat((ir, vi), dim=1),)

    one = make()
    one.self_loss = SelfLoss(one.self_loss.loss, keep)
    batch, again = one.batch(), copy.deepcopy(one)
    again.generator.set_state(make().generator.get_state())
    for other in (batch, again.batch()):
        assert torch.equal(other.kept[0], other.images[:, :2])
    assert len(computed) == len(torch.unique(torch.cat((batch.images, other.images)), dim=0))


def test_copies_share_the_patches_and_keep_their_class():
    class Special(Distiller):
        pass

    generator = torch.Generator().manual_seed(0)
    distiller = Special(some_bank(), Student(4, generator=generator), 1e-3, 4, 40, generator)
    copied = copy.deepcopy(distiller)
    assert copied.bank is distiller.bank
    assert type(copied) is Special


def test_the_stream_of_random_numbers_does_not_depend_on_the_settings():
    one, two = make(), make()
    one.advance(PLAIN, 3)
    two.advance(HARD, 3)
    assert torch.equal(one.generator.get_state(), two.generator.get_state())


@pytest.mark.parametrize(("guidance", "kind"), [(1.0, 1), (0.0, 2)])
def test_training_reduces_the_loss_that_it_is_asked_to_reduce(guidance, kind):
    distiller = make(total_updates=60)
    images = torch.from_numpy(distiller.bank).float() / 255
    batch = batch_of(images, torch.Generator().manual_seed(1))

    @torch.no_grad()
    def loss():
        return float(batch_losses(distiller.student, batch, PLAIN)[kind].mean())

    before = loss()
    distiller.advance({**PLAIN, "guidance": guidance}, 60)
    assert loss() < 0.95 * before


def test_without_guidance_the_teacher_does_not_matter():
    other = some_bank()
    other[:, 2] = 0
    one, two = make(), make(other)
    settings = {**HARD, "guidance": 0.0}
    one.advance(settings, 4)
    two.advance(settings, 4)
    assert torch.equal(weights(one), weights(two))


def test_the_loss_of_a_batch_is_the_mixture_of_its_parts():
    generator = torch.Generator().manual_seed(0)
    batch = batch_of(torch.rand(4, 3, 16, 16, generator=generator), generator)
    ir, vi, teacher = batch.images.split(1, dim=1)
    mixed, guide, own = batch_losses(torch.maximum, batch, HARD)
    hard = torch.maximum(*harden(ir, vi, HARD, batch.drawn))
    assert not torch.equal(torch.maximum(ir, vi), hard)
    torch.testing.assert_close(guide, guide_loss(hard, teacher, sobel(teacher)))
    torch.testing.assert_close(own, self_loss(hard, self_targets(ir, vi)))
    torch.testing.assert_close(mixed, 0.3 * guide + 0.7 * own)


@pytest.mark.parametrize("name", ACTIONS)
def test_each_setting_changes_the_training(name):
    common = {**PLAIN, "noise": 0.2} if name == "clean" else PLAIN
    one, two = make(), make()
    one.advance(common, 4)
    two.advance({**common, name: HARD[name]}, 4)
    assert not torch.equal(weights(one), weights(two))


def test_at_a_rate_of_nothing_nothing_is_learnt():
    distiller = make()
    before = weights(distiller).clone()
    distiller.advance({**HARD, "rate": 0.0}, 3)
    assert torch.equal(weights(distiller), before)


def test_patches_are_seen_mirrored_half_of_the_time_and_judged_as_they_are():
    distiller = make()
    mirrored = 0
    for _ in range(50):
        batch, seen = distiller.batch(), []

        def fuse(ir, vi, seen=seen):
            seen.append(torch.cat((ir, vi), dim=1))
            return torch.maximum(ir, vi)

        figures = batch_losses(fuse, batch, PLAIN)
        straight = batch_losses(torch.maximum, batch._replace(mirrored=torch.zeros(4, dtype=torch.bool)), PLAIN)
        assert all(map(torch.equal, figures, straight))
        for image, original in zip(*seen, batch.images[:, :2], strict=True):
            assert torch.equal(image, original) or torch.equal(image, original.flip(2))
            mirrored += not torch.equal(image, original)
    assert 60 < mirrored < 140  # of 200


def test_the_learning_rate_rises_then_falls_by_a_cosine():
    distiller = make(total_updates=4 * WARM_UP, learning_rate=1e-2)
    rates = []
    for distiller.updates in range(4 * WARM_UP + 1):
        rates.append(distiller.rate)
    assert rates[0] == pytest.approx(1e-2 / WARM_UP, rel=1e-3)
    assert rates[: WARM_UP // 2] == sorted(rates[: WARM_UP // 2])
    assert rates[2 * WARM_UP] == pytest.approx(1e-2 * (FINAL_LEARNING_RATE + (1 - FINAL_LEARNING_RATE) / 2))
    assert rates[-1] == pytest.approx(1e-2 * FINAL_LEARNING_RATE)
    assert rates[WARM_UP:] == sorted(rates[WARM_UP:], reverse=True)


def test_a_diverged_student_shows_in_the_figures():
    distiller = make()
    with torch.no_grad():
        distiller.student.head.weight.fill_(math.nan)
    assert not distiller.advance(HARD, 2).finite


def test_measuring_trains_nothing():
    distiller = make()
    before = weights(distiller).clone()
    stats = distiller.measure(HARD)
    assert stats.finite
    assert torch.equal(weights(distiller), before)
    assert distiller.updates == 0
