import os

import cv2
import numpy as np
import pytest

from fusion_gym.data import (
    DataError,
    cached_array,
    find_pairs,
    load_pairs,
    load_splits,
    pair_folders,
    patch_bank,
    probe_crops,
)
from fusion_gym.images import ImageError
from fusion_gym.synthetic import KINDS, generate_scene, generate_scenes


def write(path, shape=(40, 48), dtype=np.uint8, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    top = np.iinfo(dtype).max
    assert cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, top, shape).astype(dtype))


def pairs_in(root, ir, vi, names=("a.png", "b.png", "c.png", "d.png"), suffix=".png"):
    for seed, name in enumerate(names):
        write(root / ir / name, seed=seed)
        write((root / vi / name).with_suffix(suffix), (40, 48, 3), seed=seed + 10)


@pytest.mark.parametrize(
    ("ir", "vi"),
    [
        ("ir", "vi"),
        ("Ir", "Vis"),
        ("infrared", "visible"),
        ("cropinfrared", "crop_LR_visible"),
        ("thermal", "visible"),
    ],
)
def test_public_layouts_are_found(tmp_path, ir, vi):
    pairs_in(tmp_path, ir, vi)
    assert [pair.name for pair in find_pairs(tmp_path)] == ["a.png", "b.png", "c.png", "d.png"]


def test_splits_above_and_below_the_modalities(tmp_path):
    pairs_in(tmp_path / "one" / "train", "ir", "vi")
    pairs_in(tmp_path / "two", "infrared/train", "visible/train")
    pairs_in(tmp_path / "two", "infrared/test", "visible/test", ("x.png",))
    assert len(find_pairs(tmp_path / "one", "train")) == 4
    assert find_pairs(tmp_path / "one", "test") == []
    assert [pair.name for pair in find_pairs(tmp_path / "two", "test")] == ["x.png"]
    assert len(find_pairs(tmp_path / "two")) == 5


def test_suffixes_may_differ_within_a_pair(tmp_path):
    pairs_in(tmp_path, "ir", "vi", suffix=".jpg")
    pair = load_pairs(find_pairs(tmp_path))[0]
    assert pair.ir.shape == pair.vi.shape == (40, 48)
    assert pair.colour().shape == (40, 48, 3)


def test_unequal_names_are_refused_with_the_missing_ones(tmp_path):
    pairs_in(tmp_path, "ir", "vi")
    (tmp_path / "vi" / "c.png").unlink()
    with pytest.raises(DataError, match=r"ir has 4 images, .*vi 3; missing in vi: c\.png"):
        find_pairs(tmp_path)


def test_unequal_sizes_are_refused_with_both_files(tmp_path):
    write(tmp_path / "ir" / "a.png", (40, 48))
    write(tmp_path / "vi" / "a.png", (40, 50))
    with pytest.raises(DataError, match=r"a\.png is 48x40, .*a\.png 50x40"):
        load_pairs(find_pairs(tmp_path))


@pytest.mark.parametrize(("content", "said"), [(b"", "not a readable"), (b"no image", "not a readable")])
def test_damaged_files_are_named(tmp_path, content, said):
    pairs_in(tmp_path, "ir", "vi")
    (tmp_path / "vi" / "b.png").write_bytes(content)
    with pytest.raises(ImageError, match=rf"b\.png.*{said}"):
        load_pairs(find_pairs(tmp_path))


def test_tiny_images_are_refused(tmp_path):
    write(tmp_path / "ir" / "a.png", (3, 3))
    write(tmp_path / "vi" / "a.png", (3, 3))
    with pytest.raises(ImageError, match=r"a\.png is 3x3 pixels"):
        load_pairs(find_pairs(tmp_path))


def test_sixteen_bits_are_scaled_by_their_full_range(tmp_path):
    pixels = np.array([[0, 257, 65535, 32896]] * 16, np.uint16).repeat(8, 1)
    for name in ("ir", "vi"):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "a.png"), pixels)
    assert np.unique(load_pairs(find_pairs(tmp_path))[0].ir).tolist() == [0, 1, 128, 255]


def test_missing_folders_and_unknown_layouts_say_what_to_do(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        find_pairs(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no folders ir/ and vi/"):
        find_pairs(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        pair_folders(tmp_path / "x", tmp_path)


def test_a_plain_folder_is_cut_into_blocks(tmp_path):
    pairs_in(tmp_path, "ir", "vi", [f"{i:02d}.png" for i in range(10)])
    splits = load_splits(str(tmp_path))
    names = [[pair.name for pair in part] for part in (splits.train, splits.val, splits.test)]
    assert [len(part) for part in names] == [7, 1, 2]
    assert [*names[0], *names[1], *names[2]] == [f"{i:02d}.png" for i in range(10)]


def test_several_sets_are_joined(tmp_path):
    pairs_in(tmp_path, "ir", "vi")
    both = load_splits(f"{tmp_path}, synthetic-small")
    assert len(both.train) == 16 + len(load_splits(str(tmp_path)).train)


def test_patches_cover_the_image_and_nothing_else():
    stack = np.arange(3 * 50 * 70, dtype=np.int64).reshape(3, 50, 70)
    patches = patch_bank([stack], 32)
    assert patches.shape == (2 * 3, 3, 32, 32)
    assert set(patches.ravel().tolist()) == set(stack.ravel().tolist())
    with pytest.raises(DataError, match="smaller than patches"):
        patch_bank([stack], 64)


def test_probe_crops_are_distinct_and_the_most_detailed():
    stack = np.zeros((2, 64, 128), np.uint8)
    stack[:, :, 64:] = np.random.default_rng(0).integers(0, 255, (2, 64, 64))
    first, second = probe_crops([stack], 64, 2)
    assert np.array_equal(first, stack[:, :, 64:])
    assert np.array_equal(second, stack[:, :, :64])


def test_cache_gives_the_same_array_and_survives_damage(tmp_path, monkeypatch):
    monkeypatch.setenv("FUSION_GYM_CACHE", str(tmp_path))
    calls = []

    def make():
        calls.append(1)
        return np.arange(5)

    assert cached_array("key", make).tolist() == cached_array("key", make).tolist() == [0, 1, 2, 3, 4]
    assert len(calls) == 1
    (tmp_path / "key.npy").write_bytes(b"damaged")
    assert cached_array("key", make).tolist() == [0, 1, 2, 3, 4]
    assert len(calls) == 2
    assert os.listdir(tmp_path) == ["key.npy"]


def test_scenes_repeat_by_seed_and_disagree_between_the_modalities():
    first, again = (generate_scenes(6, 96, 3) for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, generate_scenes(6, 96, 4))
    gray = first[..., 1:].mean(-1)
    correlation = [np.corrcoef(scene[..., 0].ravel(), g.ravel())[0, 1] for scene, g in zip(first, gray, strict=True)]
    assert max(np.abs(correlation)) < 0.95
    assert first[..., 0].std((1, 2)).min() > 4
    kinds = {generate_scene(np.random.default_rng(seed), 32, 32).kind for seed in range(60)}
    assert kinds == set(KINDS)
