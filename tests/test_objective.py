import numpy as np
import pytest
import torch

from fusion_gym.data import load_splits
from fusion_gym.objective import GOALS, metric_loss, objective, soft_entropies
from fusion_gym.teachers import builtin_teacher


def test_soft_entropies_agree_with_histograms_on_whole_bins():
    rng = np.random.default_rng(0)
    fused, source = rng.integers(0, 64, (2, 1, 1, 50, 50))
    entropy, shared = soft_entropies(*(torch.from_numpy(x / 63) for x in (fused, source)))
    joint = np.histogram2d(fused.ravel(), source.ravel(), bins=64, range=[[0, 64], [0, 64]])[0] / 2500
    p, q = joint.sum(1), joint.sum(0)
    plain = [-(x[x > 0] * np.log2(x[x > 0])).sum() for x in (p, q, joint)]
    assert float(entropy) == pytest.approx(plain[0], abs=1e-4)
    assert float(shared) == pytest.approx(plain[0] + plain[1] - plain[2], abs=1e-4)


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
