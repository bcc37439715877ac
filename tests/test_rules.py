import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from fusion_gym.data import find_pairs, load_pairs
from fusion_gym.fuser import load_student
from fusion_gym.metrics import Sources, evaluate
from fusion_gym.rules import RULES, TILING, guided, laplacian

SHARED = Path(__file__).resolve().parents[2] / "shared"
PEERS = {
    "rule:mean": "rule: mean",
    "rule:max": "rule: max",
    "rule:laplacian": "rule: Laplacian pyramid",
    "rule:guided": "rule: guided filter",
}


def pair(size, count=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 1, *size, generator=generator), torch.rand(count, 1, *size, generator=generator)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("size", [(1, 1), (3, 100), (16, 16), (31, 33), (64, 48)])
def test_any_size_and_batch_gives_the_same_shape_in_range(rule, size):
    ir, vi = pair(size, 2)
    fused = RULES[rule](ir, vi)
    assert fused.shape == ir.shape and fused.dtype == ir.dtype and fused.min() >= 0 and fused.max() <= 1
    torch.testing.assert_close(fused[1:], RULES[rule](ir[1:], vi[1:]))


@pytest.mark.parametrize("rule", ["rule:mean", "rule:max", "rule:laplacian", "rule:guided"])
def test_two_equal_sources_are_left_as_they_are(rule):
    image, _ = pair((40, 56))
    torch.testing.assert_close(RULES[rule](image, image), image, atol=1e-5, rtol=0)


def test_the_laplacian_pyramid_is_opencvs():
    def pyramid(image):
        details = []
        for _ in range(5):
            smaller = cv2.pyrDown(image)
            details.append(image - cv2.pyrUp(smaller, dstsize=image.shape[::-1]))
            image = smaller
        return details, image

    for size in ((64, 96), (101, 75), (33, 47)):
        ir, vi = pair(size)
        (ours, base), (theirs, other) = pyramid(ir[0, 0].numpy()), pyramid(vi[0, 0].numpy())
        fused = (base + other) / 2
        for a, b in zip(ours[::-1], theirs[::-1], strict=True):
            fused = cv2.pyrUp(fused, dstsize=a.shape[::-1]) + np.where(abs(a) >= abs(b), a, b)
        np.testing.assert_allclose(laplacian(ir, vi)[0, 0].numpy(), fused.clip(0, 1), atol=1e-5)


def test_the_guided_filter_takes_the_sharp_side_of_each_source():
    sharp = torch.rand(1, 1, 64, 128, generator=torch.Generator().manual_seed(0))
    flat = torch.full_like(sharp, 0.5)
    left = torch.arange(128) < 64
    ir, vi = torch.where(left, sharp, flat), torch.where(left, flat, sharp)
    error = (guided(ir, vi) - sharp).abs().mean((0, 1, 2))
    assert error[:48].mean() < 0.02 and error[80:].mean() < 0.02 and (flat - sharp).abs().mean() > 0.2


def test_every_rule_says_how_it_may_be_cut_into_tiles():
    assert TILING.keys() == RULES.keys()


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "peers.json").is_file(), reason="needs ../shared with the peers' figures")
@pytest.mark.parametrize("rule", PEERS)
@pytest.mark.parametrize("dataset", ["tno", "m3fd"])
def test_rules_have_the_figures_that_were_measured_for_their_peers(rule, dataset):
    names = ("EN", "SD", "SF", "AG", "MI", "SCD", "CC")
    rows = []
    for one in load_pairs(find_pairs(SHARED / "data" / dataset, "test")):
        images = one.ir, one.vi, load_student(rule)(one.ir, one.vi)
        ir, vi, fused = (torch.from_numpy(np.array(image))[None, None] / 255.0 for image in images)
        rows.append({name: float(v) for name, v in evaluate(fused, Sources(ir, vi), names, "cddfuse").items()})
    theirs = json.loads((SHARED / "peers.json").read_text())["means"][dataset][PEERS[rule]]
    for name in names:
        assert np.mean([row[name] for row in rows]) == pytest.approx(theirs[name], rel=1e-3), name
