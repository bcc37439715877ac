from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fusion_gym.data import load_splits, probe_crops
from fusion_gym.metrics import Sources
from fusion_gym.score import CAP, SCORE_WEIGHTS, balanced, measure, ratios, score
from fusion_gym.teachers import fused_pairs

SHARED = Path(__file__).parents[2] / "shared" / "data"
SETS = ["synthetic", "roadscene", "msrs"]


@pytest.fixture(scope="module", params=SETS)
def crops(request):
    """Infrared, visible and the built-in teacher's output on validation crops, (N, 1, H, W)."""
    data = request.param
    if data != "synthetic":
        if not (SHARED / data).is_dir():
            pytest.skip(f"real pairs are not in {SHARED}")
        data = str(SHARED / data)
    pairs = load_splits(data).val
    outputs = fused_pairs("builtin", pairs)
    stacks = [np.stack((pair.ir, pair.vi, fused)) for pair, fused in zip(pairs, outputs, strict=True)]
    images = torch.from_numpy(probe_crops(stacks, 160, 16)).float() / 255
    return images.split(1, dim=1)


def mean_score(fused, crops):
    ir, vi, teacher = crops
    sources = Sources(ir, vi)
    return float(score(ratios(measure(fused, sources), measure(teacher, sources))).mean())


def noisy(image, strength):
    return (image + strength * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)


WORSE = {
    "copy infrared": lambda ir, vi, teacher: ir,
    "copy visible": lambda ir, vi, teacher: vi,
    "mean": lambda ir, vi, teacher: (ir + vi) / 2,
    "max": lambda ir, vi, teacher: torch.maximum(ir, vi),
    "mean with noise": lambda ir, vi, teacher: noisy((ir + vi) / 2, 0.05),
    "teacher with noise": lambda ir, vi, teacher: noisy(teacher, 0.05),
    "teacher, a little blurred": lambda ir, vi, teacher: F.avg_pool2d(F.pad(teacher, (1, 1, 1, 1), "replicate"), 3, 1),
    "teacher, a little darker": lambda ir, vi, teacher: 0.85 * teacher,
    "teacher, flatter": lambda ir, vi, teacher: 0.5 + 0.8 * (teacher - 0.5),
    "black": lambda ir, vi, teacher: torch.zeros_like(ir),
}


@pytest.mark.parametrize("name", WORSE)
def test_what_is_worse_than_the_teacher_scores_below_it(crops, name):
    assert mean_score(crops[2], crops) == pytest.approx(1, abs=1e-4)
    assert mean_score(WORSE[name](*crops), crops) < 0.99


def test_more_damage_scores_less(crops):
    scores = [mean_score(noisy(crops[2], strength), crops) for strength in (0.02, 0.05, 0.1, 0.2)]
    assert scores == sorted(scores, reverse=True)


def test_balance_pays_little_for_serving_one_source():
    values = torch.tensor([[1.0, 1.0], [1.9, 0.1], [2.0, 0.0], [1.0, -1.0]])
    assert balanced(values).tolist() == pytest.approx([1.0, 0.19, 0.0, 0.0])
    assert balanced(torch.tensor([3.0])).tolist() == [3.0]


def test_ratios_are_capped_and_the_score_is_their_weighted_mean():
    reference = {name: torch.ones(2) for name in SCORE_WEIGHTS}
    relative = ratios({name: torch.tensor([5.0, 0.5]) for name in SCORE_WEIGHTS}, reference)
    assert score(relative).tolist() == pytest.approx([CAP, 0.5])
