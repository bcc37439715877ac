import pytest
import torch
from torch.nn import functional as F

from fusion_gym.losses import guide_loss, self_loss, self_targets, sobel

SIZES = [(3, 64, 64), (2, 9, 20), (1, 7, 7)]


def images(count, height, width, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(count, 1, height, width, generator=generator, dtype=dtype) for _ in range(4)]


def plain_gradient(image):
    kernel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]], dtype=image.dtype) / 8
    return F.conv2d(image, torch.stack((kernel, kernel.T))[:, None])


def plain_ssim(a, b):
    """Mean SSIM per sample over 7×7 windows, from its definition window by window."""
    a, b = (F.unfold(image, 7) for image in (a, b))  # (N, 49, L)
    mean_a, mean_b = a.mean(1), b.mean(1)
    var_a, var_b = a.var(1, unbiased=False), b.var(1, unbiased=False)
    covariance = ((a - mean_a[:, None]) * (b - mean_b[:, None])).mean(1)
    c1, c2 = 0.01**2, 0.03**2
    light = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return (light * (2 * covariance + c2) / (var_a + var_b + c2)).mean(1)


def plain_self_loss(fused, ir, vi):
    squares = [plain_gradient(image).square().sum(1, keepdim=True) for image in (ir, vi)]
    stronger = squares[0] > squares[1] + 4.5 / 2040**2
    gradient = torch.where(stronger, plain_gradient(ir), plain_gradient(vi))
    return (
        (fused - torch.maximum(ir, vi)).abs().mean((1, 2, 3))
        + 5 * (plain_gradient(fused) - gradient).abs().mean((1, 2, 3))
        + 1
        - (plain_ssim(fused, ir) + plain_ssim(fused, vi)) / 2
    )


def plain_guide_loss(fused, teacher):
    edges = (plain_gradient(fused) - plain_gradient(teacher)).abs().mean((1, 2, 3))
    return 4 * (fused - teacher).abs().mean((1, 2, 3)) + 10 * edges


@pytest.mark.parametrize("size", SIZES)
def test_values_and_gradients_are_those_of_the_plain_formulas(size):
    fused, ir, vi, teacher = images(*size)
    weights = torch.linspace(0.5, 2, size[0], dtype=fused.dtype)
    for ours, plain in (
        (lambda f: self_loss(f, self_targets(ir, vi)), lambda f: plain_self_loss(f, ir, vi)),
        (lambda f: guide_loss(f, teacher, sobel(teacher)), lambda f: plain_guide_loss(f, teacher)),
    ):
        results = []
        for loss in (ours, plain):
            leaf = fused.clone().requires_grad_()
            value = loss(leaf)
            (value * weights).sum().backward()
            results.append((value.detach(), leaf.grad))
        assert results[0][0].shape == (size[0],)
        torch.testing.assert_close(results[0], results[1], rtol=1e-9, atol=1e-12)


def test_gradients_pass_the_numerical_check():
    fused, ir, vi, teacher = images(2, 10, 9, seed=1)
    targets, edges = self_targets(ir, vi), sobel(teacher)
    fused.requires_grad_()
    assert torch.autograd.gradcheck(lambda f: self_loss(f, targets), fused)
    assert torch.autograd.gradcheck(lambda f: guide_loss(f, teacher, edges), fused)


def test_single_precision_is_close_to_double():
    double = images(4, 64, 64)
    single = [image.float() for image in double]
    slopes = []
    for fused, ir, vi, _ in (double, single):
        leaf = fused.clone().requires_grad_()
        value = self_loss(leaf, self_targets(ir, vi))
        value.sum().backward()
        slopes.append((value.detach().double(), leaf.grad.double()))
    torch.testing.assert_close(slopes[1][0], slopes[0][0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(slopes[1][1], slopes[0][1], rtol=1e-3, atol=1e-6)


def test_each_sample_has_its_own_loss():
    fused, ir, vi, teacher = images(3, 16, 16)
    together = self_loss(fused, self_targets(ir, vi)), guide_loss(fused, teacher, sobel(teacher))
    for i in range(3):
        one = slice(i, i + 1)
        alone = self_loss(fused[one], self_targets(ir[one], vi[one]))
        torch.testing.assert_close(together[0][one], alone)
        torch.testing.assert_close(together[1][one], guide_loss(fused[one], teacher[one], sobel(teacher[one])))


def test_the_best_image_has_no_loss():
    _, ir, _, _ = images(2, 16, 16)
    assert self_loss(ir, self_targets(ir, ir)).abs().max() < 1e-12
    assert guide_loss(ir, ir, sobel(ir)).abs().max() == 0


def test_equally_strong_edges_are_taken_from_the_visible_image_whatever_the_rounding():
    generator = torch.Generator().manual_seed(2)
    vi = torch.randint(0, 256, (2, 1, 16, 16), generator=generator).float() / 255
    for ir in (vi.flip(3).flip(3), 1 - vi):  # the same edges, and the opposite ones
        assert torch.equal(self_targets(ir, vi).gradient, sobel(vi))
    steeper = self_targets((2 * vi - 1).clamp(0, 1), vi / 2).gradient
    assert not torch.equal(steeper, sobel(vi / 2))


def test_losses_need_no_gradient_where_none_is_asked_for():
    fused, ir, vi, teacher = images(2, 16, 16)
    with torch.no_grad():
        assert not self_loss(fused, self_targets(ir, vi)).requires_grad
    assert not guide_loss(fused, teacher, sobel(teacher)).requires_grad
