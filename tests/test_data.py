import os
import warnings

import cv2
import numpy as np
import pytest
from tiffs import tiff

from fusion_gym.data import (
    DataError,
    cache_dir,
    cached_array,
    find_pairs,
    fingerprint,
    images_in,
    load_pairs,
    load_splits,
    natural,
    pair_folders,
    patch_bank,
    probe_crops,
    sets_of,
    short_names,
)
from fusion_gym.images import ImageError
from fusion_gym.synthetic import KINDS, generate_scene, generate_scenes
from fusion_gym.teachers import TeacherError, check_folder, fused_pairs
from fusion_gym.text import Notice


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


@pytest.mark.parametrize("count", [3, 4, 5, 6])
def test_every_block_of_a_small_folder_has_a_pair(tmp_path, count):
    pairs_in(tmp_path, "ir", "vi", [f"{i:02d}.png" for i in range(count)])
    splits = load_splits(str(tmp_path))
    assert [len(splits.train), len(splits.val), len(splits.test)] == [count - 2, 1, 1]


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


# --- names and identities of pairs


def joined(root, *sets, names=("0.png", "1.png", "2.png", "3.png", "4.png", "5.png")):
    """Sets of pairs with equal file names and unlike pixels, each in a folder."""
    for number, group in enumerate(sets):
        for seed, name in enumerate(names):
            write(root / group / "ir" / name, seed=100 * number + seed)
            write(root / group / "vi" / name, (40, 48, 3), seed=100 * number + seed + 50)
    return ",".join(str(root / group) for group in sets)


def names_of(splits):
    return [[pair.name for pair in part] for part in (splits.train, splits.val, splits.test)]


def test_pairs_of_equal_names_in_several_sets_are_told_apart(tmp_path):
    splits = load_splits(joined(tmp_path, "a", "b", "c"))
    assert names_of(splits)[2] == ["a/5.png", "b/5.png", "c/5.png"]
    assert len({name for part in names_of(splits) for name in part}) == 18
    assert names_of(load_splits(str(tmp_path / "a")))[2] == ["5.png"]


def test_sets_of_unlike_names_keep_them(tmp_path):
    data = joined(tmp_path, "a") + "," + joined(tmp_path, "b", names=[f"x{i}.png" for i in range(6)])
    assert names_of(load_splits(data))[2] == ["5.png", "x5.png"]


def test_sets_whose_folders_have_one_name_are_told_apart(tmp_path):
    joined(tmp_path / "x", "set")
    joined(tmp_path / "y", "set")
    assert names_of(load_splits(f"{tmp_path / 'x/set'},{tmp_path / 'y/set'}"))[2] == ["x/set/5.png", "y/set/5.png"]


def test_suffixes_alone_tell_no_pairs_apart(tmp_path):
    data = joined(tmp_path, "a") + "," + joined(tmp_path, "b", names=[f"{i}.bmp" for i in range(6)])
    assert names_of(load_splits(data))[2] == ["a/5.png", "b/5.bmp"]


def test_synthetic_sets_are_told_apart():
    names = [pair.name for pair in load_splits("synthetic,synthetic-small").test]
    assert names[0] == "synthetic/scene_2_000.png" and names[-1] == "synthetic-small/scene_2_003.png"
    assert len(set(names)) == 20


def test_splits_with_equal_names_are_told_apart(tmp_path):
    for split in ("train", "val", "test"):
        pairs_in(tmp_path / "s" / split, "ir", "vi")
    assert names_of(load_splits(str(tmp_path / "s")))[2][0] == "test/a.png"
    pairs_in(tmp_path / "t" / "test", "ir", "vi")
    both = load_splits(f"{tmp_path / 's'},{tmp_path / 't'}")
    assert names_of(both)[2][0] == "s/test/a.png" and names_of(both)[2][-1] == "t/test/d.png"


def test_a_set_is_not_given_twice(tmp_path):
    data = joined(tmp_path, "a")
    for again in (data, f"{data}/../a", "synthetic,synthetic"):
        with pytest.raises(DataError, match="given twice"):
            load_splits(f"{data},{again}")


def fused_folder(root, pairs, names=None):
    """A folder of fused images, each of its own gray."""
    for number, pair in enumerate(pairs):
        path = root / (names or [pair.name for pair in pairs])[number]
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((40, 48), 10 * number, np.uint8))
    return str(root)


def test_each_pair_learns_from_its_own_fused_image(tmp_path):
    pairs = load_splits(joined(tmp_path, "a", "b")).train
    teacher = fused_folder(tmp_path / "teacher", pairs)
    assert [int(image[0, 0]) for image in fused_pairs(teacher, pairs)] == [10 * number for number in range(8)]
    alone = load_splits(str(tmp_path / "b")).train
    assert [int(image[0, 0]) for image in fused_pairs(teacher, alone)] == [40, 50, 60, 70]


def test_a_folder_that_does_not_tell_pairs_apart_is_no_teacher_for_them(tmp_path):
    data = joined(tmp_path, "a", "b")
    flat = fused_folder(
        tmp_path / "flat", load_splits(str(tmp_path / "a")).train + load_splits(str(tmp_path / "a")).test
    )
    with pytest.raises(TeacherError, match=r"no fused image for a/0\.png"):
        fused_pairs(flat, load_splits(data).train)
    fused_pairs(flat, load_splits(str(tmp_path / "b")).test)  # alone it is the only one that can be meant
    with pytest.raises(TeacherError, match=r"no fused image for a/5\.png"):
        check_folder(flat, [str(tmp_path / "a"), str(tmp_path / "b")])


def test_a_teachers_images_of_several_splits_are_told_apart(tmp_path):
    for split in ("train", "test"):
        pairs_in(tmp_path / "s" / split, "ir", "vi")
    splits = load_splits(str(tmp_path / "s"))
    flat = fused_folder(tmp_path / "flat", splits.test, ["a.png", "b.png", "c.png", "d.png"])
    with pytest.raises(TeacherError, match=r"no fused image for test/a\.png"):
        fused_pairs(flat, splits.test)
    teacher = fused_folder(tmp_path / "teacher", splits.test)
    assert [int(image[0, 0]) for image in fused_pairs(teacher, splits.test)] == [0, 10, 20, 30]


def test_a_fingerprint_is_of_pixels_not_of_names(tmp_path):
    one, two = (load_splits(joined(tmp_path / name, "a")).train for name in ("x", "y"))
    assert fingerprint(one) == fingerprint(two) != fingerprint(one[::-1])


@pytest.mark.parametrize("other", ["1.jpg", "1.PNG", "1.tiff"])
@pytest.mark.parametrize("folder", ["ir", "vi"])
def test_two_images_of_one_name_are_refused(tmp_path, folder, other):
    joined(tmp_path, "a")
    write((tmp_path / "a" / folder / other).with_suffix(".png"), seed=1)
    (tmp_path / "a" / folder / "1.png").rename(tmp_path / "a" / folder / other)
    write(tmp_path / "a" / folder / "1.png")
    with pytest.raises(DataError, match=rf"{folder} holds 1.* and 1.*; remove or rename one"):
        load_splits(str(tmp_path / "a"))
    with pytest.raises(DataError, match="remove or rename one"):
        fused_pairs(str(tmp_path / "a" / folder), load_splits("synthetic-small").test[:1])


def test_two_folders_of_one_name_but_for_case_are_refused(tmp_path):
    joined(tmp_path, "a")
    try:
        (tmp_path / "a" / "IR").mkdir()
    except FileExistsError:
        pytest.skip("this file system ignores case")
    with pytest.raises(DataError, match="holds IR and ir; remove or rename one"):
        load_splits(str(tmp_path / "a"))


def test_numbers_in_names_are_in_their_own_order(tmp_path):
    names = [f"f{number}.png" for number in (1, 2, 9, 10, 11, 20, 100, 101, 110, 1000)]
    joined(tmp_path, "a", names=names)
    assert [name for part in names_of(load_splits(str(tmp_path / "a"))) for name in part] == names
    assert list(images_in(tmp_path / "a" / "ir")) == [name[:-4] for name in names]
    mixed = ["007a.png", "7.png", "a-02b1.png", "a-1b2.png", "a-1b10.png", "²3.png"]
    assert sorted(sorted(mixed, reverse=True), key=natural) == sorted(mixed, key=natural)


def test_hidden_files_and_folders_are_no_images(tmp_path):
    data = joined(tmp_path, "a")
    for folder in ("ir", "vi"):
        place = tmp_path / "a" / folder
        for name in ("._0.png", "._x.tif", ".DS_Store", ".1.png", "Thumbs.db", ".3f.0a1b.png"):
            (place / name).write_bytes(b"\0\5\x16\7")
        (place / "folder.png").mkdir()
    assert sum(map(len, names_of(load_splits(data)))) == 6


def test_a_folder_with_commas_in_its_name_is_one_set_where_it_exists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("night, Paris", "a,b,c", "a", "c"):
        joined(tmp_path, name)
    assert sets_of("night, Paris") == ["night, Paris"]
    assert sets_of("a,b,c") == ["a,b,c"]
    assert sets_of("c,night, Paris , a,synthetic") == ["c", "night, Paris", "a", "synthetic"]
    assert sets_of("a, c") == ["a", "c"]
    assert len(load_splits("night, Paris").train) == 4
    with pytest.raises(DataError, match="empty"):
        sets_of(" , ")


def test_loops_of_links_are_folders_that_do_not_exist(tmp_path):
    try:
        (tmp_path / "loop").symlink_to(tmp_path / "loop")
    except OSError:
        pytest.skip("this system lets us make no symbolic links")
    for use in (images_in, find_pairs, lambda path: load_splits(str(path)), lambda path: pair_folders(path, path)):
        with pytest.raises(DataError, match="does not exist"):
            use(tmp_path / "loop")
    assert short_names([tmp_path / "loop", tmp_path / "other"]) == ["loop", "other"]


# --- what the owner of the data should know


def notices(use):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = use()
    return result, [str(warning.message) for warning in caught if warning.category is Notice]


def raw(root, counts, dtype=np.uint16):
    """A set whose infrared images are as given."""
    joined(root, "raw")
    for number, image in enumerate(counts):
        cv2.imwrite(str(root / "raw" / "ir" / f"{number}.png"), image.astype(dtype))
    return str(root / "raw")


@pytest.mark.parametrize(("low", "high"), [(0, 1023), (0, 4095), (2960, 3521), (0, 16383), (30000, 38000)])
def test_raw_counts_are_told_of_and_shown_by_their_range(tmp_path, low, high):
    scene = np.linspace(low, high, 40 * 48).reshape(40, 48).round()
    data = raw(tmp_path, [scene] * 6)
    splits, said = notices(lambda: load_splits(data))
    assert len(said) == 1 and f"0.png and 5 more: the infrared uses the counts {low} to {high} only" in said[0]
    assert "--ir-range" in said[0] and np.ptp(splits.train[0].ir) <= 64
    splits, said = notices(lambda: load_splits(data, (low, high)))
    assert said == []
    wanted = np.rint((scene - low) / (high - low) * 255)
    assert np.abs(splits.train[0].ir.astype(int) - wanted).max() <= 1
    assert (splits.train[0].ir.min(), splits.train[0].ir.max()) == (0, 255)


def test_a_range_that_has_no_effect_and_mixed_depths_are_told_of(tmp_path):
    scene = np.linspace(0, 255, 40 * 48).reshape(40, 48).round()
    eight = joined(tmp_path, "eight")
    _, said = notices(lambda: load_splits(eight, (0, 4095)))
    assert (
        len(said) == 1
        and "infrared range has no effect on images of 8 bit" in said[0]
        and "0.png and 5 more" in said[0]
    )
    _, said = notices(lambda: load_splits("synthetic-small", (0, 4095)))
    assert said == ["The infrared range has no effect, for no infrared image of 16 bit was read."]
    mixed = raw(tmp_path, [scene * 257] * 3)
    _, said = notices(lambda: load_splits(mixed))
    assert len(said) == 1 and "Some infrared images have 8 bit" in said[0] and "3.png and 2 more" in said[0]
    _, said = notices(lambda: load_splits(str(tmp_path / "eight")))
    assert said == []


def test_false_colours_and_pages_are_told_of_once(tmp_path):
    scene = np.linspace(0, 255, 40 * 48).reshape(40, 48).astype(np.uint8)
    data = raw(tmp_path, [cv2.applyColorMap(scene, cv2.COLORMAP_JET)] * 6, np.uint8)
    _, said = notices(lambda: load_splits(data))
    assert len(said) == 1 and "0.png and 5 more: the infrared is in colour" in said[0]
    data = raw(tmp_path, [np.dstack([scene] * 3)] * 6, np.uint8)  # gray in three channels
    assert notices(lambda: load_splits(data))[1] == []
    for number in range(6):
        (tmp_path / "raw" / "ir" / f"{number}.png").write_bytes(tiff(scene, following=[(scene, [])]))
    _, said = notices(lambda: load_splits(data))
    assert len(said) == 1 and "0.png and 5 more: of several pages" in said[0]


@pytest.mark.parametrize("bad", [(5, 5), (9, 3), (-1, 5), (0, 65536), (1,), (0.5, 3), "ab", (True, 5), 7])
def test_a_range_that_does_not_rise_is_refused(bad):
    with pytest.raises(ValueError, match=r"ir_range.*must rise within 0 to 65535"):
        load_splits("synthetic-small", bad)


# --- the cache


@pytest.mark.parametrize(
    "stored",
    [
        np.arange(5, dtype=np.int32),
        np.arange(6, dtype=np.int64),
        np.arange(5, dtype=np.float64),
        np.arange(1, 6, dtype=np.int64),
        np.arange(5, dtype=np.int64).reshape(5, 1),
    ],
)
def test_another_array_in_the_cache_is_not_taken(tmp_path, monkeypatch, stored):
    monkeypatch.setenv("FUSION_GYM_CACHE", str(tmp_path))
    wanted = cached_array("key", lambda: np.arange(5, dtype=np.int64))
    np.save(tmp_path / "key.npy", stored)
    assert cached_array("key", lambda: wanted).tolist() == [0, 1, 2, 3, 4]
    cached_array("other", lambda: stored)
    (tmp_path / "other.npy").replace(tmp_path / "key.npy")
    assert cached_array("key", lambda: wanted).tolist() == [0, 1, 2, 3, 4]


def test_every_changed_byte_of_a_cached_array_is_seen(tmp_path, monkeypatch):
    monkeypatch.setenv("FUSION_GYM_CACHE", str(tmp_path))
    cached_array("key", lambda: np.arange(5, dtype=np.int64))
    whole = (tmp_path / "key.npy").read_bytes()
    for place in range(0, len(whole), 7):
        (tmp_path / "key.npy").write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        assert cached_array("key", lambda: np.arange(5, dtype=np.int64)).tolist() == [0, 1, 2, 3, 4]
    assert (tmp_path / "key.npy").read_bytes() == whole  # mended


def test_a_cached_array_outlives_its_file(tmp_path, monkeypatch):
    monkeypatch.setenv("FUSION_GYM_CACHE", str(tmp_path))
    cached_array("key", lambda: np.arange(10**6))
    array = cached_array("key", lambda: pytest.fail("it is there"))
    os.truncate(tmp_path / "key.npy", 100)
    assert int(array.sum()) == 499999500000
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1


def test_a_tilde_of_the_cache_is_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("FUSION_GYM_CACHE", "~/c")
    assert cache_dir() == tmp_path / "c"


def no_home(monkeypatch, tmp_path):
    monkeypatch.delenv("FUSION_GYM_CACHE", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as it is for a user of a number only


def a_file(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("FUSION_GYM_CACHE", str(tmp_path / "file"))


def a_loop(monkeypatch, tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    monkeypatch.setenv("FUSION_GYM_CACHE", str(tmp_path / "loop" / "cache"))


def read_only(monkeypatch, tmp_path):
    monkeypatch.setenv("FUSION_GYM_CACHE", str(tmp_path / "cache"))

    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("fusion_gym.files.os.replace", refuse)


@pytest.mark.skipif(os.name == "nt", reason="Windows has other homes and links")
@pytest.mark.parametrize("cache", [no_home, a_file, a_loop, read_only])
def test_without_a_cache_everything_goes_on(tmp_path, monkeypatch, cache):
    cache(monkeypatch, tmp_path)
    made = [cached_array("key", lambda: np.arange(3)).tolist() for _ in range(2)]
    assert made == [[0, 1, 2]] * 2
    assert not any(path.name == "~" for path in tmp_path.iterdir()) and not os.path.exists("~")
