import cv2
import numpy as np
import pytest

from fusion_gym.check_data import check, main, shift
from fusion_gym.images import write_image


def scene(seed, shape=(80, 100)):
    blobs = cv2.GaussianBlur(np.random.default_rng(seed).random(shape), (0, 0), 4)
    return np.rint(255 * (blobs > blobs.mean())).astype(np.uint8)


def fill(root, split, seeds, change=lambda vi: vi):
    for seed in seeds:
        for kind, image in (("ir", scene(seed)), ("vi", change(255 - scene(seed)))):
            (root / split / kind).mkdir(parents=True, exist_ok=True)
            write_image(root / split / kind / f"{seed}.png", image)


def told(capsys, *folders):
    code = None
    try:
        code = main([*map(str, folders), "--no-progress"])
    except SystemExit as stop:
        code = stop.code
    return code, capsys.readouterr().out


def test_sound_data_is_called_so_with_its_sizes_and_depths(tmp_path, capsys):
    fill(tmp_path, "train", range(3))
    fill(tmp_path, "test", range(3, 5))
    code, said = told(capsys, tmp_path)
    assert code == 0 and "5 pairs, train (3), test (2)." in said
    assert "100x80 (5)" in said and "8 (10)" in said and "median 0.0 pixels" in said
    assert said.splitlines()[-1] == "Nothing stands in the way of a training."


@pytest.mark.parametrize("pixels", [(0, 0), (7, 0), (-4, 3)])
def test_a_shift_between_the_two_is_estimated_to_a_pixel(pixels):
    moved = np.roll(scene(1), pixels, (1, 0))
    assert shift(scene(1), 255 - moved) == pytest.approx(np.hypot(*pixels), abs=1)


def test_nothing_is_said_of_a_shift_where_there_is_nothing_in_common():
    assert shift(scene(1), np.full((80, 100), 7, np.uint8)) is None


def test_an_image_in_two_splits_is_named(tmp_path, capsys):
    fill(tmp_path, "train", [1, 2])
    fill(tmp_path, "test", [2, 3])
    code, said = told(capsys, tmp_path)
    assert code == 1 and "one image in several splits: train/2.png, test/2.png." in said
    assert len(check(tmp_path).leaks) == 2  # its infrared and its visible


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (lambda folder: (folder / "vi" / "1.png").write_bytes(b"no image"), "unusable: "),
        (lambda folder: write_image(folder / "vi" / "1.png", scene(1, (60, 100))), "register and scale them"),
        (lambda folder: (folder / "vi" / "1.png").unlink(), "missing in vi: 1.png"),
    ],
)
def test_what_a_training_would_stumble_over_is_named(harm, sentence, tmp_path, capsys):
    fill(tmp_path, "train", [1, 2])
    harm(tmp_path / "train")
    code, said = told(capsys, tmp_path)
    assert code == 1 and sentence in said and said.splitlines()[-1] == "Something has to be mended first."


def test_a_folder_that_is_not_there_is_named(tmp_path, capsys):
    code, said = told(capsys, tmp_path / "none")
    assert code == 1 and "does not exist" in said


def test_what_a_training_would_say_of_the_data_is_said(tmp_path, capsys):
    fill(tmp_path, "train", [1, 2])
    write_image(tmp_path / "train" / "ir" / "2.png", 3000 + 2 * scene(2).astype(np.uint16))
    code, said = told(capsys, tmp_path)
    assert code == 0 and "to know: Some infrared images have 8 bit" in said
    assert "2.png: the infrared uses the counts 3000 to 3510 only; --ir-range" in said
