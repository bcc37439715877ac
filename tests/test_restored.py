"""The bound of `benchmarks/bench_hardened.py`: what can be undone by something that knows the damage is undone."""

import sys
from pathlib import Path

import pytest
import torch

from fusion_gym.data import load_splits
from fusion_gym.hardening import HARDENINGS, damage, draw

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))
bench = pytest.importorskip("bench_hardened", reason="benchmarks/ or its package (SciPy) is absent")


@pytest.fixture(scope="module")
def pairs():
    images = [
        torch.from_numpy(image)[None] for pair in load_splits("synthetic-small").val for image in (pair.ir, pair.vi)
    ]
    stack = torch.stack(images).float() / 255
    return stack[::2], stack[1::2]


@pytest.mark.parametrize("name", HARDENINGS)
@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_restored_pairs_are_nearer_to_the_clean_ones(pairs, name, strength):
    drawn = draw(len(pairs[0]), torch.Generator().manual_seed(0))
    hard = damage(*pairs, {name: strength}, drawn)
    again = bench.restored(name, strength, *hard, drawn)
    before, after = (
        sum(float((x - y).square().mean()) for x, y in zip(some, pairs, strict=True)) for some in (hard, again)
    )
    assert before > 0 and after < 0.7 * before


def test_lost_contrast_and_dark_pictures_are_restored_to_rounding(pairs):
    drawn = draw(len(pairs[0]), torch.Generator().manual_seed(0))
    ir, _ = bench.restored("contrast", 1.0, *damage(*pairs, {"contrast": 1.0}, drawn), drawn)
    torch.testing.assert_close(ir, pairs[0], atol=1e-5, rtol=0)
    _, vi = bench.restored("illumination", 0.5, *damage(*pairs, {"illumination": 0.5}, drawn), drawn)
    torch.testing.assert_close(vi[drawn.dark], pairs[1][drawn.dark], atol=1e-5, rtol=0)
    assert drawn.dark.any()


def test_clean_pairs_are_left_alone(pairs):
    drawn = draw(len(pairs[0]), torch.Generator().manual_seed(0))
    for image, same in zip(bench.restored("clean", 0.0, *pairs, drawn), pairs, strict=True):
        assert image is same
