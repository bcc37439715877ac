import copy
import importlib.util
import json
import math
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from fusion_gym.metrics import (
    METRICS,
    Sources,
    amplified_excess,
    available,
    evaluate,
    evaluate_per_source,
    invented_excess,
    invented_structure,
    windows,
)
from fusion_gym.metrics.batch import Batch
from fusion_gym.metrics.table import definitions

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT.parent / "shared" / "golden"
RELATES = [name for name in METRICS if name not in ("EN", "SD", "SF", "AG", "invented", "amplified")]
COUNTED = (
    "EN",
    "CE",
    "MI",
    "NMI",
    "FMI",
    "invented",
    "amplified",
)  # from levels or pixels that are counted: without a gradient

spec = importlib.util.spec_from_file_location("plain_metrics", ROOT / "benchmarks" / "plain_metrics.py")
plain = importlib.util.module_from_spec(spec)
spec.loader.exec_module(plain)


def tensor(*images, dtype=torch.float64):
    return torch.from_numpy(np.stack(images)[:, None]).to(dtype) / 255


def scene(height, width, seed=0):
    """Two images of noise on gradients and blobs, as integers from 0 to 255, and a blend of them with own noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    blob = 120 * ((x - width / 2) ** 2 + (y - height / 3) ** 2 < (height / 4) ** 2)
    ir = np.clip(20 + blob + 8 * rng.standard_normal((height, width)), 0, 255).round()
    vi = np.clip(180 * x / width + 20 * np.sin(y) + 15 * rng.standard_normal((height, width)), 0, 255).round()
    fused = np.clip(0.4 * ir + 0.6 * vi + 5 * rng.standard_normal((height, width)), 0, 255)
    return ir, vi, fused


def suited(height, width, names=tuple(METRICS)):
    return [name for name in names if min(height, width) >= METRICS[name].min_side]


# Golden values of the public evaluator.


def synthetic(name):
    y, x = np.mgrid[:96, :128]
    if name == "lattice":
        return (7 * x + 13 * y + x * y % 31) % 256, (3 * x + 5 * y + (x**2 + 3 * y**2) % 47) % 256
    return (
        20 + 180 * ((x - 64) ** 2 + (y - 48) ** 2 < 900) + (5 * x + 3 * y) % 8,
        40 + x + 60 * ((x // 8 + y // 8) % 2),
    )


def golden_cases():
    reference = json.loads((GOLDEN / "metrics_reference.json").read_text())
    for group in ("roadscene", "synthetic"):
        for name, entry in reference[group].items():
            if group == "synthetic":
                ir, vi = (image.astype(np.uint8) for image in synthetic(name))
            else:
                ir, vi = (cv2.imread(str(GOLDEN / "inputs" / f"{name}_{kind}.png"), 0) for kind in ("ir", "vi"))
            made = {"mean": ((ir.astype(int) + vi + 1) // 2).astype(np.uint8), "max": np.maximum(ir, vi), "copy_ir": ir}
            for kind in made.keys() & entry.keys():
                yield f"{name}/{kind}", ir, vi, made[kind], entry[kind]["reference"]


@pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"there are no golden values in {GOLDEN}")
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-4), (torch.float64, 1e-5)])
def test_public_evaluator_is_reproduced(dtype, bound):
    count = 0
    for case, ir, vi, fused, reference in golden_cases():
        sources = Sources(tensor(ir, dtype=dtype), tensor(vi, dtype=dtype))
        values = evaluate(tensor(fused, dtype=dtype), sources, convention="cddfuse")
        assert values.keys() == reference.keys()
        for name, value in values.items():
            assert math.isfinite(value)
            if reference[name] is not None:  # the evaluator divides 0 by 0: SCD of a copy
                assert float(value) == pytest.approx(reference[name], rel=bound), f"{case} {name}"
                count += 1
    assert count == 26 * 13 - 2


# Independent implementations.


@pytest.mark.parametrize("name", [name for name in METRICS if name != "FMI"])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-4), (torch.float64, 1e-7)])
def test_own_convention_agrees_with_plain_implementations(name, dtype, bound):
    ir, vi, blend = scene(200, 187)
    for fused in (blend, np.maximum(ir, vi), ir):
        value = evaluate(tensor(fused, dtype=dtype), Sources(tensor(ir, dtype=dtype), tensor(vi, dtype=dtype)), [name])
        with np.errstate(divide="ignore", invalid="ignore"):
            expected = plain.OWN[name](fused, ir, vi)
        if math.isfinite(expected):
            assert float(value[name]) == pytest.approx(expected, rel=bound, abs=1e-9)


def test_fmi_agrees_with_the_loops_of_its_authors():
    ir, vi, blend = scene(24, 21)
    ir[:8] = 7  # flat windows
    for fused in (blend, ir, 255 - ir, np.minimum(ir, vi)):
        value = evaluate(tensor(fused), Sources(tensor(ir), tensor(vi)), ["FMI"])["FMI"]
        assert float(value) == pytest.approx(plain.OWN["FMI"](fused, ir, vi), rel=1e-9)


@pytest.mark.parametrize("size", [(1, 1), (5, 90), (16, 16), (96, 96), (140, 201)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_invented_structure_is_that_of_scipy_pixel_by_pixel_at_any_size(size, dtype):
    drawn = torch.rand(3, 1, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ir, vi, fused = (F.interpolate(x, size=size, mode="bicubic").clamp(0, 1) for x in drawn)
    expected = plain.invented_structure(*(255 * x[0, 0].numpy() for x in (fused, ir, vi)))
    assert expected > 0 or max(size) < 90
    found = invented_structure(*(x.to(dtype) for x in (fused, ir, vi)))
    assert float(found) == pytest.approx(expected, abs=1.5 / math.prod(size) if dtype is torch.float32 else 1e-12)


def test_halos_and_dark_corners_are_invented_structure_and_gain_noise_and_copies_are_not():
    """A disc around a lamp and a vignette count; sources, their mean, more contrast by half, noise and edges do not."""
    y, x = torch.meshgrid(torch.arange(120.0), torch.arange(160.0), indexing="ij")
    vi = (0.5 + 0.1 * x / 160 + 0.4 * ((x - 60) ** 2 + (y - 50) ** 2 < 9))[None, None]
    ir = (0.3 + 0.1 * y / 120)[None, None]
    mean, grain = (ir + vi) / 2, torch.randn(vi.shape, generator=torch.Generator().manual_seed(0))
    disc = mean + 0.2 * torch.sigmoid((30 - ((x - 60) ** 2 + (y - 50) ** 2).sqrt()) / 3)
    corners = mean - 0.3 * (((x - 80) / 80) ** 2 + ((y - 60) / 60) ** 2 - 1).clamp_min(0)
    for fused in (ir, vi, mean, 1.5 * (mean - 0.4) + 0.4, mean + 0.05 * grain):
        assert float(invented_structure(fused, ir, vi)) == 0
    for fused, least in ((disc, 0.1), (corners, 0.05)):
        assert float(invented_structure(fused, ir, vi)) > least


@pytest.mark.parametrize("size", [(1, 1), (5, 90), (16, 16), (96, 96), (140, 201)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_amplified_detail_is_that_of_scipy_pixel_by_pixel_at_any_size(size, dtype):
    drawn = torch.rand(3, 1, 1, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ir, vi, fused = 0.1 * drawn[0], 0.1 * drawn[1], (0.2 * drawn[2]).clamp(0.07)
    expected = plain.amplified_detail(*(255 * x[0, 0].numpy() for x in (fused, ir, vi)))
    assert 0 < expected < 1 or max(size) < 90
    found = evaluate(fused.to(dtype), Sources(ir.to(dtype), vi.to(dtype)), ["amplified"])["amplified"]
    assert float(found) == pytest.approx(expected, abs=1.5 / math.prod(size) if dtype is torch.float32 else 1e-12)


def test_the_excess_of_detail_is_nothing_where_nothing_is_amplified_and_its_slope_leads_there():
    noise = torch.rand(3, 1, 1, 48, 48, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ir, vi, own = 0.3 + 0.1 * noise
    sources = Sources(ir, vi)
    for harmless in (ir, vi, (ir + vi) / 2, 1.15 * vi - 0.03):
        assert float(amplified_excess(harmless, sources)) == 0
    fused = (2 * own).requires_grad_()
    before = amplified_excess(fused, sources).sum()
    (slope,) = torch.autograd.grad(before, fused)
    assert before.item() > 0 and float(evaluate(fused, sources, ["amplified"])["amplified"]) > 0
    with torch.no_grad():
        assert float(amplified_excess(fused - 0.02 * slope / slope.abs().max(), sources)) < before.item()
    small = [image[..., 10:26, 10:26].detach() for image in (fused, ir, vi)]
    assert torch.autograd.gradcheck(
        lambda image: amplified_excess(image, Sources(*small[1:])), small[0].requires_grad_()
    )


def test_grain_grids_and_sharpening_are_amplified_detail_and_contrast_by_a_third_is_not():
    """On two textured sources; what a rule makes of them, copies and their mean are not either."""
    ir, vi, _ = scene(120, 160)
    ir, vi = tensor(ir)[..., :], tensor(vi)
    ir, vi = (F.avg_pool2d(F.pad(x, (1, 1, 1, 1), "reflect"), 3, 1) for x in (ir, vi))
    mean, grain = (ir + vi) / 2, torch.randn(vi.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y, x = torch.meshgrid(torch.arange(120), torch.arange(160), indexing="ij")
    grid = mean + 0.05 * ((x + y) % 2)
    sharp = mean + 4 * (vi - F.avg_pool2d(F.pad(vi, (2, 2, 2, 2), "reflect"), 5, 1))
    sources = Sources(ir, vi)
    share = {
        name: float(evaluate(fused, sources, ["amplified"])["amplified"])
        for name, fused in {
            "ir": ir,
            "vi": vi,
            "mean": mean,
            "contrast": 1.3 * (mean - 0.4) + 0.4,
            "grain": mean + 0.05 * grain,
            "grid": grid,
            "sharp": sharp,
        }.items()
    }
    assert max(share[name] for name in ("ir", "vi", "mean", "contrast")) < 0.01
    assert min(share[name] for name in ("grain", "grid", "sharp")) > 0.3


@pytest.mark.parametrize("name", plain.EVALUATOR)
def test_evaluator_convention_agrees_with_plain_implementations(name):
    ir, vi, fused = (image.round() for image in scene(90, 111, seed=1))
    value = evaluate(tensor(fused), Sources(tensor(ir), tensor(vi)), [name], convention="cddfuse")[name]
    assert float(value) == pytest.approx(plain.EVALUATOR[name](fused, ir, vi), rel=1e-9)


def test_torchmetrics_agrees():
    functional = pytest.importorskip("torchmetrics.functional.image")
    ir, vi, fused = (tensor(image) for image in scene(200, 190, seed=2))
    values = evaluate_per_source(fused, Sources(ir, vi), ["VIF", "MS-SSIM", "PSNR", "SSIM"])
    for index, source in enumerate((ir, vi)):
        vif = functional.visual_information_fidelity(fused * 255, source * 255)
        assert float(values["VIF"][0, index]) == pytest.approx(float(vif), rel=1e-6)
        psnr = functional.peak_signal_noise_ratio(fused, source, data_range=1.0)
        assert float(values["PSNR"][0, index]) == pytest.approx(float(psnr), rel=1e-6)


def test_values_do_not_come_from_the_wrong_source():
    ir, vi, _ = (tensor(image) for image in scene(180, 180))
    values = evaluate_per_source(ir, Sources(ir, vi))
    for name, value in values.items():
        if name in RELATES and name != "SCD":  # SCD asks what is left of a source without the other
            better = value[0, 0] > value[0, 1] if METRICS[name].higher_is_better else value[0, 0] < value[0, 1]
            assert better or name == "Nabf", name


# Laws.

KINDS = ("noise", "smooth", "flat", "binary", "stripes", "dark")


def draw_image(kind, height, width, rng):
    y, x = np.mgrid[:height, :width]
    return {
        "noise": lambda: rng.uniform(0, 1, (height, width)),
        "smooth": lambda: 0.5 + 0.5 * np.sin(x / 7 + rng.uniform(0, 6)) * np.cos(y / 9),
        "flat": lambda: np.full((height, width), rng.choice([0.0, 0.2, 0.5, 1.0])),
        "binary": lambda: (rng.uniform(0, 1, (height, width)) > 0.5).astype(float),
        "stripes": lambda: ((x + y) // 3 % 2).astype(float),
        "dark": lambda: rng.uniform(0, 0.02, (height, width)),
    }[kind]()


SIDES = st.sampled_from([1, 2, 3, 6, 7, 16, 17, 40, 41, 48])


@st.composite
def triples(draw):
    height, width = draw(SIDES), draw(SIDES)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    images = [draw_image(draw(st.sampled_from(KINDS)), height, width, rng) for _ in range(3)]
    return [torch.from_numpy(image)[None, None].float() for image in images]


@settings(max_examples=150, deadline=None)
@given(triples())
def test_every_metric_is_finite_and_in_its_range(images):
    ir, vi, fused = images
    names = suited(*fused.shape[2:])
    sources = Sources(ir, vi)
    both = evaluate(fused, sources, names), evaluate_per_source(fused, sources, names)
    for name in names:
        metric = METRICS[name]
        for value in (values[name] for values in both):
            assert torch.isfinite(value).all(), name
            assert (value >= metric.low - 1e-4).all() and (value <= metric.high + 1e-4).all(), (name, value)
    for name, value in evaluate(fused, sources, suited(*fused.shape[2:], available("cddfuse")), "cddfuse").items():
        assert torch.isfinite(value).all(), name


@settings(max_examples=60, deadline=None)
@given(triples())
def test_the_order_of_the_sources_does_not_matter(images):
    ir, vi, fused = images
    names = suited(*fused.shape[2:])
    there, back = Sources(ir, vi), Sources(vi, ir)
    for name in names:
        torch.testing.assert_close(evaluate(fused, there, [name]), evaluate(fused, back, [name]))
        one, other = (evaluate_per_source(fused, sources, [name])[name] for sources in (there, back))
        torch.testing.assert_close(one, other.flip(1) if one.dim() == 2 else other)


@settings(max_examples=8, deadline=None)
@given(st.sampled_from(("noise", "smooth", "binary", "stripes", "dark")), st.integers(0, 999))
def test_a_fused_image_that_equals_both_sources_is_perfect(kind, seed):
    image = torch.from_numpy(draw_image(kind, 180, 177, np.random.default_rng(seed)))[None, None]
    values = {name: float(value) for name, value in evaluate(image, Sources(image, image)).items()}
    best = {"NMI": 1, "CC": 1, "SSIM": 1, "MS-SSIM": 1, "VIF": 1, "FMI": 1, "PSNR": 100, "Qabf": METRICS["Qabf"].high}
    best |= {"MI": values["EN"], "SCD": 0, "CE": 0, "MSE": 0, "Nabf": 0, "Qcv": 0, "invented": 0, "amplified": 0}
    for name, value in best.items():
        assert values[name] == pytest.approx(value, rel=1e-6, abs=1e-6), name


def test_constant_images_have_documented_values():
    flat = torch.full((1, 1, 180, 180), 0.3)
    textured = torch.from_numpy(scene(180, 180)[1])[None, None].float() / 255
    values = evaluate(flat, Sources(flat, textured), ["EN", "SD", "SF", "AG", "MI", "NMI", "CC", "SCD"])
    assert all(abs(float(values[name])) < 1e-5 for name in ("EN", "SD", "SF", "AG", "MI", "CC", "SCD"))
    assert float(values["NMI"]) == 0.5  # 1 with the constant source, 0 with the other
    alone = evaluate_per_source(flat, Sources(flat, textured), ["VIF", "SSIM", "Qabf"])
    assert float(alone["VIF"][0, 0]) == 1 and float(alone["VIF"][0, 1]) == pytest.approx(0, abs=1e-6)
    assert float(alone["SSIM"][0, 0]) == pytest.approx(1, abs=1e-5)


def test_more_noise_is_worse():
    ir, vi, _ = (tensor(image) for image in scene(180, 180))
    rng = torch.Generator().manual_seed(0)
    noise = torch.randn(ir.shape, generator=rng, dtype=ir.dtype)
    sources = Sources(ir, vi)
    levels = [evaluate(((ir + vi) / 2 + sigma * noise).clamp(0, 1), sources) for sigma in (0.01, 0.05, 0.2)]
    for name in ("MI", "NMI", "CC", "SCD", "PSNR", "SSIM", "MS-SSIM", "VIF", "Qabf"):
        assert levels[0][name] > levels[1][name] > levels[2][name], name
    for name in ("MSE", "Nabf", "Qcv"):
        assert levels[0][name] < levels[1][name] < levels[2][name], name


@pytest.mark.parametrize("size", [(1, 1), (1, 64), (64, 1), (2, 2), (6, 50), (40, 90), (90, 175)])
def test_images_too_small_for_a_metric_give_one_clear_error(size):
    image = torch.rand(1, 1, *size, generator=torch.Generator().manual_seed(0))
    sources = Sources(image, image.flip(3))
    for name, metric in METRICS.items():
        if min(size) >= metric.min_side:
            assert torch.isfinite(evaluate(image, sources, [name])[name]).all()
        else:
            with pytest.raises(ValueError, match=f"{name} needs images of at least {metric.min_side}x"):
                evaluate(image, sources, [name])


@pytest.mark.parametrize("name", METRICS)
def test_least_sizes_are_enough_in_any_proportion(name):
    side = METRICS[name].min_side
    for shape in ((side, side), (side, side + 29), (side + 30, side)):
        ir, vi, fused = torch.rand(3, 1, 1, *shape, generator=torch.Generator().manual_seed(1)).unbind(0)
        assert torch.isfinite(evaluate(fused, Sources(ir, vi), [name])[name]).all()


def test_a_batch_gives_what_its_images_give_one_by_one():
    images = [scene(177, 180, seed) for seed in range(3)]
    ir, vi, fused = (tensor(*each, dtype=torch.float32) for each in zip(*images, strict=True))
    for convention in ("fusiongym", "cddfuse"):
        together = evaluate(fused, Sources(ir, vi), convention=convention)
        for index in range(3):
            one = slice(index, index + 1)
            alone = evaluate(fused[one], Sources(ir[one], vi[one]), convention=convention)
            for name, value in alone.items():
                assert float(together[name][index]) == pytest.approx(float(value), rel=1e-5, abs=1e-6), name


@pytest.mark.parametrize("side", [250, 260])
def test_information_is_the_same_with_fewer_and_more_pixels_than_pairs_of_levels(side):
    images = [scene(side, side, seed) for seed in range(2)]
    ir, vi, fused = (tensor(*each) for each in zip(*images, strict=True))
    for name in ("MI", "NMI"):
        values = evaluate(fused, Sources(ir, vi), [name])[name]
        for value, (a, b, f) in zip(values, images, strict=True):
            assert float(value) == pytest.approx(plain.OWN[name](f, a, b), rel=1e-9), name


def test_results_do_not_depend_on_the_number_of_threads():
    images = [scene(180, 180, seed) for seed in range(2)]
    ir, vi, fused = (tensor(*each, dtype=torch.float32) for each in zip(*images, strict=True))
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(evaluate(fused, Sources(ir, vi)))
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)


def test_values_outside_the_range_count_as_they_are_but_levels_are_clipped():
    ir, vi, _ = (tensor(image) for image in scene(64, 64))
    sources, names = Sources(ir, vi), ["EN", "MI", "SD"]
    outside, clipped = evaluate(3 * ir - 1, sources, names), evaluate((3 * ir - 1).clamp(0, 1), sources, names)
    assert outside["EN"] == clipped["EN"] and outside["MI"] == clipped["MI"] and outside["SD"] > clipped["SD"]


# Gradients.


@pytest.mark.parametrize("name", [name for name in METRICS if name not in COUNTED])
def test_gradients_are_those_of_finite_differences(name):
    ir, vi, fused = (tensor(image) for image in scene(178, 180, seed=4))
    sources = Sources(ir, vi)
    fused.requires_grad_()
    (gradient,) = torch.autograd.grad(evaluate(fused, sources, [name])[name].sum(), fused)
    step = 1e-6 * torch.randn(fused.shape, generator=torch.Generator().manual_seed(0), dtype=fused.dtype)
    with torch.no_grad():
        up, down = (evaluate(fused + sign * step, sources, [name])[name].sum() for sign in (1, -1))
    assert float((gradient * step).sum()) == pytest.approx(float(up - down) / 2, rel=2e-3, abs=1e-12)


@pytest.mark.parametrize("kind", ["flat fused", "flat sources", "all flat", "equal"])
def test_gradients_are_finite_on_degenerate_images(kind):
    ir, vi, fused = (tensor(image, dtype=torch.float32) for image in scene(180, 180))
    flat = torch.full_like(ir, 0.4)
    if kind in ("flat fused", "all flat"):
        fused = flat.clone()
    if kind in ("flat sources", "all flat"):
        ir = vi = flat
    if kind == "equal":
        vi, fused = ir, ir.clone()
    fused.requires_grad_()
    for name in METRICS:
        values = evaluate_per_source(fused, Sources(ir, vi), [name])[name]
        if values.requires_grad:
            (gradient,) = torch.autograd.grad(values.sum(), fused)
            assert torch.isfinite(gradient).all(), name


def test_gradients_do_not_change_the_values():
    ir, vi, fused = (tensor(image, dtype=torch.float32) for image in scene(180, 180))
    fused[..., :40, :] = 0.5
    sources = Sources(ir, vi)
    torch.testing.assert_close(
        {name: value.detach() for name, value in evaluate(fused.clone().requires_grad_(), sources).items()},
        evaluate(fused, sources),
    )


# Sources.


def test_sources_are_computed_once_and_survive_copies():
    ir, vi, fused = (tensor(image, dtype=torch.float32) for image in scene(180, 180))
    sources = Sources(ir, vi)
    expected = evaluate(fused, sources)
    known = len(sources._derived)
    for other in (sources, copy.deepcopy(sources), pickle.loads(pickle.dumps(sources))):
        torch.testing.assert_close(evaluate(fused, other), expected, rtol=0, atol=0)
        assert len(other._derived) == known


def test_sources_made_in_inference_mode_serve_training():
    ir, vi, fused = (tensor(image, dtype=torch.float32) for image in scene(64, 64))
    names = ["SSIM", "VIF", "Qabf", "SCD"]
    with torch.inference_mode():
        sources = Sources(ir, vi)
        evaluate(fused, sources, names)
    fused.requires_grad_()
    for _ in range(2):
        sum(value.sum() for value in evaluate(fused, sources, names).values()).backward()
    assert torch.isfinite(fused.grad).all() and fused.grad.abs().max() > 0


def test_sources_pass_no_gradient_on():
    ir, vi, fused = (tensor(image, dtype=torch.float32).requires_grad_() for image in scene(64, 64))
    sources = Sources(ir, vi)
    for _ in range(2):
        evaluate(fused, sources, ["SSIM"])["SSIM"].sum().backward()
    assert ir.grad is None and vi.grad is None


# Mistakes and documents.


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a, s: evaluate(a, s, ["SIM"]), "There is no metric 'SIM'"),
        (lambda a, s: evaluate(a, s, ["FMI"], "cddfuse"), "There is no metric 'FMI' in the convention 'cddfuse'"),
        (lambda a, s: evaluate(a, s, convention="nats"), "There is no convention 'nats'"),
        (lambda a, s: evaluate(a[..., 1:], s), "give one fused image for each pair"),
        (lambda a, s: evaluate(a[0], s), r"fused has shape \(1, 64, 64\)"),
        (lambda a, s: evaluate((a * 255).byte(), s), "fused is torch.uint8"),
        (lambda a, s: Sources(a, a[..., 1:]), "give both the same shape"),
        (lambda a, s: Sources(a.repeat(1, 3, 1, 1), a), "ir has shape"),
        (lambda a, s: evaluate_per_source(a[:0], s), "with no side 0"),
    ],
)
def test_mistakes_are_named(call, message):
    image = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=message):
        call(image, Sources(image, image))


def test_conventions_differ_as_documented():
    ir, vi, fused = (tensor(image.round()) for image in scene(180, 180))
    sources = Sources(ir, vi)
    own, public = evaluate(fused, sources), evaluate(fused, sources, convention="cddfuse")
    for name in ("SSIM", "VIF", "SCD"):
        assert float(public[name]) == pytest.approx(2 * float(own[name]), rel=1e-9)
    assert float(public["MI"]) == pytest.approx(2 * math.log(2) * float(own["MI"]), rel=1e-9)
    for name in ("EN", "SD", "SF", "AG", "CC", "MSE"):
        assert float(public[name]) == pytest.approx(float(own[name]), rel=1e-9)
    assert "SSIM_dr2" in public and "SSIM_dr2" not in own


def test_the_page_of_definitions_is_the_table():
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert definitions() in page, "docs/metrics.md is out of date: run python -m fusion_gym.metrics --list"
    for metric in METRICS.values():
        assert metric.formula and metric.paper and metric.low < metric.high


@pytest.mark.parametrize("shape", [(20, 31), (96, 96), (150, 141), (147, 400), (401, 150), (333, 502)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-13)])
def test_images_halved_by_their_tiles_are_those_halved_whole(shape, dtype, tolerance):
    pixels = 255 * torch.rand(2, 2, *shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
    window = windows.gaussian(9, 1.8)
    halved = windows.halved(Batch(pixels), 17, window)
    torch.testing.assert_close(halved, windows.slide(pixels, window, stride=2), rtol=tolerance, atol=0)


def test_the_excess_is_nothing_where_nothing_is_invented_and_its_slope_leads_there():
    y, x = torch.meshgrid(2 * [torch.arange(96, dtype=torch.float64)], indexing="ij")
    ir, vi = (0.3 + 0.1 * y / 96)[None, None], (0.5 + 0.1 * x / 96)[None, None]
    halo = 0.2 * torch.exp(-((x - 40) ** 2 + (y - 50) ** 2) / (2 * 12**2))
    sources = Sources(ir, vi)
    for harmless in (ir, vi, (ir + vi) / 2, 1.5 * vi - 0.25):
        assert float(invented_excess(harmless, sources)) == 0
    fused = ((ir + vi) / 2 + halo).requires_grad_()
    before = invented_excess(fused, sources).sum()
    (slope,) = torch.autograd.grad(before, fused)
    assert before.item() > 0 and float(invented_structure(fused, ir, vi)) > 0
    with torch.no_grad():
        assert float(invented_excess(fused - 0.02 * slope / slope.abs().max(), sources)) < before.item()
    small = [image[..., 30:50, 30:50].detach() for image in (fused, ir, vi)]
    assert torch.autograd.gradcheck(
        lambda image: invented_excess(image, Sources(*small[1:])), small[0].requires_grad_()
    )
