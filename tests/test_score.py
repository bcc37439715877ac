from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fusion_gym.conditions import CLEAN, CONDITIONS, DEPLOYMENTS, HARDENINGS
from fusion_gym.data import load_splits, probe_crops
from fusion_gym.hardening import damage, draw
from fusion_gym.probe import Probe
from fusion_gym.score import CAP, CLEAN_PARTS, DAMAGED_PARTS, Yardstick, balanced, weighted
from fusion_gym.teachers import builtin_teacher, fused_pairs

SHARED = Path(__file__).parents[2] / "shared" / "data"
SETS = ["synthetic", "roadscene", "msrs"]
STRENGTHS = (0.2, 0.5, 0.8, 1.0)


class Crops:
    """Validation crops of a set, the built-in teacher's fusion of them, and of their damaged twins."""

    def __init__(self, data):
        pairs = load_splits(data).val
        outputs = fused_pairs("builtin", pairs)
        stacks = [np.stack((pair.ir, pair.vi, fused)) for pair, fused in zip(pairs, outputs, strict=True)]
        self.ir, self.vi, self.teacher = (torch.from_numpy(probe_crops(stacks, 128, 12)).float() / 255).split(1, dim=1)
        self.yardstick = Yardstick(self.ir, self.vi, self.teacher)
        self._drawn = draw(len(self.ir), torch.Generator().manual_seed(0))
        self._drawn = self._drawn._replace(dark=torch.arange(len(self.ir)) % 2 == 0)
        self._fuse = builtin_teacher()

    def damaged(self, kind, strength):
        return damage(self.ir, self.vi, {kind: strength}, self._drawn)

    @torch.no_grad()
    def fuse(self, ir, vi):
        return self._fuse(ir, vi)

    def score(self, fused, damaged=False):
        return float(self.yardstick.score(fused.clamp(0, 1), damaged).mean())


@pytest.fixture(scope="module", params=SETS)
def crops(request):
    data = request.param
    if data != "synthetic":
        if not (SHARED / data).is_dir():
            pytest.skip(f"real pairs are not in {SHARED}")
        data = str(SHARED / data)
    return Crops(data)


def noisy(image, strength):
    return image + strength * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))


def smooth(image, sigma):
    blurred = [cv2.GaussianBlur(one, (0, 0), sigma) for one in image[:, 0].numpy()]
    return torch.from_numpy(np.stack(blurred))[:, None]


def with_halo(image):
    """A soft bright disc in the emptiest place, as lamps have."""
    rows, columns = torch.meshgrid(*(torch.arange(side) for side in image.shape[2:]), indexing="ij")
    halo = 0.35 * torch.exp(-((rows - 40) ** 2 + (columns - 40) ** 2) / (2 * 14**2))
    return image + halo


def stretched(image):
    mean = image.mean((1, 2, 3), keepdim=True)
    return mean + 1.3 * (image - mean)


MANIPULATIONS = {
    "added noise": lambda image: noisy(image, 0.05),
    "unsharp mask": lambda image: image + 1.0 * (image - smooth(image, 1.5)),
    "contrast stretch": stretched,
    "added halo": with_halo,
}
# What undoes a damage is no fraud: there the manipulated image may be the better one.
RESTORES = {
    ("unsharp mask", "blur"),
    ("contrast stretch", "contrast"),
    ("contrast stretch", "illumination"),
    ("unsharp mask", "contrast"),
    ("unsharp mask", "illumination"),
}
WORSE = {
    "copy infrared": lambda ir, vi, teacher: ir,
    "copy visible": lambda ir, vi, teacher: vi,
    "mean": lambda ir, vi, teacher: (ir + vi) / 2,
    "max": lambda ir, vi, teacher: torch.maximum(ir, vi),
    "mean with noise": lambda ir, vi, teacher: noisy((ir + vi) / 2, 0.05),
    "teacher, a little blurred": lambda ir, vi, teacher: F.avg_pool2d(F.pad(teacher, (1, 1, 1, 1), "replicate"), 3, 1),
    "teacher, a little darker": lambda ir, vi, teacher: 0.85 * teacher,
    "teacher, flatter": lambda ir, vi, teacher: 0.5 + 0.8 * (teacher - 0.5),
    "black": lambda ir, vi, teacher: torch.zeros_like(ir),
    **{name: lambda ir, vi, teacher, change=change: change(teacher) for name, change in MANIPULATIONS.items()},
}


def test_the_reference_itself_scores_one(crops):
    for damaged in (False, True):
        assert crops.score(crops.teacher, damaged) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("name", WORSE)
def test_what_is_worse_than_the_teacher_scores_below_it(crops, name):
    assert crops.score(WORSE[name](crops.ir, crops.vi, crops.teacher)) < 0.99


@pytest.mark.parametrize("kind", HARDENINGS)
def test_the_more_damage_the_lower_the_score(crops, kind):
    scores = [crops.score(crops.fuse(*crops.damaged(kind, strength)), damaged=True) for strength in STRENGTHS]
    assert scores == sorted(scores, reverse=True)
    assert min(-np.diff(scores)) > 1e-3


@pytest.mark.parametrize("strength", [0.3, 0.7, 1.0])
def test_denoised_sources_are_worth_more_than_noisy_ones(crops, strength):
    sources = crops.damaged("noise", strength)
    cleaned = [
        np.stack([cv2.fastNlMeansDenoising(x[0], h=30 * strength) for x in (255 * image).byte().numpy()])
        for image in sources
    ]
    cleaned = [torch.from_numpy(image)[:, None].float() / 255 for image in cleaned]
    assert crops.score(crops.fuse(*cleaned), damaged=True) > crops.score(crops.fuse(*sources), damaged=True) + 0.05


@pytest.mark.parametrize("kind", HARDENINGS)
@pytest.mark.parametrize("strength", [0.3, 0.7])
def test_no_manipulation_of_a_fused_damaged_pair_pays_but_what_restores_it(crops, kind, strength):
    fused = crops.fuse(*crops.damaged(kind, strength))
    known = crops.score(fused, damaged=True)
    for name, change in MANIPULATIONS.items():
        if (name, kind) not in RESTORES:
            assert crops.score(change(fused), damaged=True) < known, name


@pytest.mark.parametrize("kind", HARDENINGS)
@pytest.mark.parametrize("strength", [0.3, 0.7])  # under stronger glare the infrared alone is the better picture
def test_a_copied_source_is_worth_less_than_the_teacher_under_damage_too(crops, kind, strength):
    sources = crops.damaged(kind, strength)
    known = crops.score(crops.fuse(*sources), damaged=True)
    for source in sources:
        assert crops.score(source, damaged=True) < known


def test_balance_pays_little_for_serving_one_source():
    values = torch.tensor([[1.0, 1.0], [1.9, 0.1], [2.0, 0.0], [1.0, -1.0]])
    assert balanced(values).tolist() == pytest.approx([1.0, 0.19, 0.0, 0.0])
    assert balanced(torch.tensor([3.0])).tolist() == [3.0]


@pytest.mark.parametrize(
    ("damaged", "ratio", "statistic", "similarity"),
    [
        (False, 0.5, 0.5, 0.5),
        (False, 1.05, 1.0, 1.05),
        (False, 1.3, 0.8, CAP),
        (False, 3.0, 0.0, CAP),
        (True, 0.9, 0.9, 0.9),
        (True, 1.3, 0.7, CAP),
    ],
)
def test_a_statistic_that_overshoots_loses_and_a_similarity_is_capped(damaged, ratio, statistic, similarity):
    ir, vi = torch.rand(2, 1, 1, 48, 48, generator=torch.Generator().manual_seed(0))
    yardstick = Yardstick(ir, vi, (ir + vi) / 2)
    parts = yardstick.parts(
        yardstick.reference, {name: value * ratio for name, value in yardstick.values.items()}, damaged
    )
    assert set(parts) == set(DAMAGED_PARTS if damaged else CLEAN_PARTS)
    assert float(parts["SF"]) == pytest.approx(statistic, abs=1e-5)
    assert float(parts["VIF"]) == pytest.approx(similarity, abs=1e-5)


def test_the_score_is_the_weighted_mean_of_its_parts():
    parts = {name: torch.tensor([1.0, 0.5]) for name in CLEAN_PARTS} | {"VIF": torch.tensor([0.0, 0.5])}
    total = sum(CLEAN_PARTS.values())
    assert weighted(parts).tolist() == pytest.approx([1 - CLEAN_PARTS["VIF"] / total, 0.5])


@pytest.mark.parametrize("deployment", DEPLOYMENTS)
def test_a_deployment_weighs_the_conditions_of_a_reading(deployment):
    ir, vi = torch.rand(2, 2, 1, 48, 48, generator=torch.Generator().manual_seed(0))
    reading = Probe(ir, vi, (ir + vi) / 2, (ir + vi) / 2).read(lambda a, b: (a + b) / 2)
    shares = DEPLOYMENTS[deployment]
    assert sum(shares.values()) == pytest.approx(1)
    assert reading.scores[CLEAN] == pytest.approx(1, abs=1e-5)
    assert reading.score(shares) == pytest.approx(sum(shares[name] * reading.scores[name] for name in CONDITIONS))
    assert all(reading.scores[name] < 1 for name in HARDENINGS)
