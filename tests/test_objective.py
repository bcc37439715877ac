import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fusion_gym.closed import MEASURES, know, measure
from fusion_gym.data import load_splits
from fusion_gym.objective import GOALS, keep, metric_loss, objective
from fusion_gym.teachers import builtin_teacher
from fusion_gym.tensors import mapped

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))
plain = pytest.importorskip("plain_objective", reason="benchmarks/ is absent")


def scenes(count, height, width, dtype=torch.float64, seed=0):
    """A fused image and its sources, with areas and grain; the fused one has structure and grain of its own too."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(3, count, height, width, generator=generator, dtype=torch.float64)
    areas = F.avg_pool2d(noise, 5, 1, 2)
    ir, vi, own = (0.3 * noise + 0.35 + 2 * (areas - 0.5)).clamp(0, 1)[:, :, None]
    ramp = torch.linspace(0, 0.5, width, dtype=torch.float64)
    grain = 0.6 * (noise[2, :, None] - 0.5) * (ramp > 0.3)
    fused = (0.3 * ir + 0.3 * vi + 0.1 * own + 0.8 * ramp - 0.1 + 1.5 * grain).clamp(0, 1)
    return fused.to(dtype), ir.to(dtype), vi.to(dtype)


def slopes(values, fused):
    """Values and the gradient in the fused image of their sum, each weighted differently."""
    leaf = fused.clone().requires_grad_()
    value = values(leaf)
    (value * torch.linspace(0.5, 2, value.numel(), dtype=value.dtype).view_as(value)).sum().backward()
    return value.detach(), leaf.grad


@pytest.mark.parametrize("size", [(3, 44, 49), (1, 151, 64)], ids=["small", "large"])
@pytest.mark.parametrize("name", MEASURES)
def test_measures_and_their_gradients_are_those_of_the_plain_metrics(name, size):
    fused, ir, vi = scenes(*size)
    known = know(ir, vi)
    ours = slopes(lambda x: measure(x, known, (name,))[name], fused)
    theirs = slopes(lambda x: plain.measure(x, ir, vi)[name], fused)
    assert float(theirs[1].abs().max()) > 1e-4
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9 * float(other.abs().max()))


def test_the_loss_and_its_gradient_are_those_of_the_plain_objective():
    fused, ir, vi = scenes(3, 44, 49)
    ours = slopes(lambda x: metric_loss(x, ir, vi), fused)
    theirs = slopes(lambda x: plain.metric_loss(x, ir, vi), fused)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9 * float(other.abs().max()))


def test_what_is_kept_of_sources_is_what_would_be_computed():
    fused, ir, vi = scenes(3, 44, 49)
    torch.testing.assert_close(metric_loss(fused, ir, vi, keep(ir, vi)), metric_loss(fused, ir, vi), rtol=0, atol=0)


def test_single_precision_is_close_to_double():
    double = slopes(lambda x: metric_loss(x, *scenes(2, 64, 64)[1:]), scenes(2, 64, 64)[0])
    fused, ir, vi = scenes(2, 64, 64, torch.float32)
    single = slopes(lambda x: metric_loss(x, ir, vi), fused)
    torch.testing.assert_close(single[0].double(), double[0], rtol=1e-5, atol=1e-6)
    assert float((single[1] - double[1]).norm() / double[1].norm()) < 1e-3


def test_gradients_pass_the_numerical_check():
    fused, ir, vi = scenes(1, 41, 41, seed=1)
    known = know(ir, vi)
    names = [name for name in MEASURES if name != "information"]  # it bends wherever a pixel lies on a bin
    assert torch.autograd.gradcheck(
        lambda x: tuple(measure(x, known, names).values()), fused.requires_grad_(), fast_mode=True
    )


def test_what_is_known_of_pairs_can_be_picked_by_index():
    fused, ir, vi = scenes(4, 44, 49)
    index = torch.tensor([2, 0])
    picked = measure(fused[index], mapped(lambda tensor: tensor[index], know(ir, vi)))
    for name, value in measure(fused[index], know(ir[index], vi[index])).items():
        torch.testing.assert_close(picked[name], value, rtol=1e-12, atol=1e-12)


def test_images_too_small_for_a_metric_are_refused():
    with pytest.raises(ValueError, match="VIF needs images of at least 41x41 pixels, these are 64x40"):
        objective(*torch.rand(3, 1, 1, 40, 64))


def test_entropies_agree_with_histograms_on_whole_bins():
    rng = np.random.default_rng(0)
    fused, *sources = rng.integers(0, 64, (3, 1, 1, 50, 50))
    images = [torch.from_numpy(x / 63) for x in (fused, *sources)]
    values = measure(images[0], know(*images[1:]), ("information",))["information"][0]
    for source, shared in zip(sources, values[1:], strict=True):
        joint = np.histogram2d(fused.ravel(), source.ravel(), bins=64, range=[[0, 64], [0, 64]])[0] / 2500
        p, q = joint.sum(1), joint.sum(0)
        expected = [-(x[x > 0] * np.log2(x[x > 0])).sum() for x in (p, q, joint)]
        assert float(values[0]) == pytest.approx(expected[0], abs=1e-4)
        assert float(shared) == pytest.approx(expected[0] + expected[1] - expected[2], abs=1e-4)


def test_objective_is_finite_and_has_finite_slopes_on_flat_images():
    flat = torch.full((2, 1, 48, 48), 0.5)
    fused = flat.clone().requires_grad_()
    worth = objective(fused, flat, torch.rand(2, 1, 48, 48))
    assert set(worth) == set(GOALS)
    torch.stack(list(worth.values())).sum().backward()
    assert torch.isfinite(fused.grad).all()


def test_the_loss_of_a_sample_does_not_depend_on_the_others():
    ir, vi, fused = torch.rand(3, 3, 1, 48, 48, generator=torch.Generator().manual_seed(0))
    together = metric_loss(fused, ir, vi)
    alone = [metric_loss(*(image[i : i + 1] for image in (fused, ir, vi))) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)


def test_serving_both_sources_loses_less_than_copies_flat_images_and_noise():
    pair = load_splits("synthetic-small").val[0]
    ir, vi = (torch.from_numpy(image).float()[None, None] / 255 for image in (pair.ir, pair.vi))
    with torch.no_grad():
        fused = builtin_teacher()(ir, vi)
    noisy = (fused + 0.1 * torch.randn(ir.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    for worse in (ir, vi, torch.full_like(ir, 0.5), noisy, fused / 2):
        assert float(metric_loss(fused, ir, vi)) < float(metric_loss(worse, ir, vi))


def test_following_its_slope_lowers_the_loss():
    ir, vi = torch.rand(2, 1, 1, 48, 48, generator=torch.Generator().manual_seed(1))
    fused = ((ir + vi) / 2).requires_grad_()
    before = metric_loss(fused, ir, vi).sum()
    before.backward()
    with torch.no_grad():
        assert float(metric_loss(fused - 0.05 * fused.grad / fused.grad.abs().max(), ir, vi)) < float(before)
