import os
import re
import shutil
import subprocess
import sys
import threading
import time

import cv2
import numpy as np
import pytest
import torch

from fusion_gym.fuse import main
from fusion_gym.images import luminance, read_image, write_image
from fusion_gym.models.student import STUDENTS, Student, save_student
from fusion_gym.video import VideoPair, ahead, write_video


def image(shape=(49, 70), seed=0, dtype=np.uint8):
    smooth = cv2.GaussianBlur(np.random.default_rng(seed).random(shape), (0, 0), 2)
    low, high = smooth.min(), smooth.max()
    return np.rint((smooth - low) / (high - low) * np.iinfo(dtype).max).astype(dtype)


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    path = tmp_path_factory.mktemp("student") / "tiny.pt"
    generator = torch.Generator().manual_seed(0)
    net = Student(**STUDENTS["tiny"], generator=generator)
    for head in (net.head, net.light[0].head):
        torch.nn.init.normal_(head.weight, std=0.05, generator=generator)
    save_student(net, path)
    return str(path)


@pytest.fixture
def pair(tmp_path):
    write_image(tmp_path / "ir.png", image())
    write_image(tmp_path / "vi.png", image((49, 70, 3), seed=1))
    return ["--ir", str(tmp_path / "ir.png"), "--vi", str(tmp_path / "vi.png")]


def fuse(*arguments):
    return main([*map(str, arguments), "--no-progress"])


def refused(capsys, *arguments):
    """The one sentence that a mistake gets."""
    try:
        code = fuse(*arguments)
    except SystemExit as stop:  # argparse
        code = stop.code
    error = capsys.readouterr().err
    assert code == 2 and "Traceback" not in error
    return error


def test_a_pair_of_images_in_colour_and_the_last_line_says_so(pair, tmp_path, student, capsys):
    out = tmp_path / "new" / "fused.png"
    assert fuse(*pair, "--out", out, "--student", student) == 0
    fused = read_image(out)
    assert fused.shape == (49, 70, 3)
    assert capsys.readouterr().out == f"The fused image is {out} (70x49, 8 bit, tiny.pt).\n"
    assert fuse(*pair, "--out", tmp_path / "gray.png", "--student", student, "--no-colour") == 0
    gray = read_image(tmp_path / "gray.png")
    assert gray.shape == (49, 70)
    inside = ((fused > 2) & (fused < 253)).all(2)  # elsewhere colours were clipped
    np.testing.assert_allclose(luminance(fused)[inside], gray[inside], atol=1)


def test_the_result_is_what_the_rule_says(pair, tmp_path):
    assert fuse(*pair, "--out", tmp_path / "max.png", "--student", "rule:max", "--no-colour") == 0
    wanted = np.maximum(image(), luminance(image((49, 70, 3), seed=1)))
    np.testing.assert_array_equal(read_image(tmp_path / "max.png"), wanted)


def test_both_backends_and_tiles_agree(pair, tmp_path, student, monkeypatch):
    pytest.importorskip("onnxscript")
    monkeypatch.setenv("FUSION_GYM_CACHE", str(tmp_path / "cache"))
    made = []
    for name, extra in (("a", []), ("b", ["--backend", "onnx", "--threads", 1]), ("c", ["--tile", 24])):
        assert fuse(*pair, "--out", tmp_path / f"{name}.png", "--student", student, *extra) == 0
        made.append(read_image(tmp_path / f"{name}.png").astype(int))
    assert np.abs(made[1] - made[0]).max() <= 1 and np.abs(made[2] - made[0]).max() <= 1


def folders(root, count=4):
    for folder, shape in (("ir", (49, 70)), ("vi", (49, 70, 3))):
        (root / folder).mkdir(parents=True)
        for number in range(count):
            write_image(root / folder / f"scene_{number:03d}.png", image(shape, number))
    return ["--ir", str(root / "ir"), "--vi", str(root / "vi")]


def test_folders_are_paired_by_name(tmp_path, capsys):
    pair = folders(tmp_path)
    (tmp_path / "vi" / "scene_002.png").rename(tmp_path / "vi" / "scene_002.bmp")
    assert fuse(*pair, "--out", tmp_path / "out", "--student", "rule:max") == 0
    assert sorted(os.listdir(tmp_path / "out")) == [f"scene_{number:03d}.png" for number in range(4)]
    assert re.fullmatch(r"4 fused images are in .*out \(70x49, .* frames per second\)\.\n", capsys.readouterr().out)
    (tmp_path / "vi" / "scene_001.png").unlink()
    assert "missing in vi: scene_001.png" in refused(
        capsys, *pair, "--out", tmp_path / "other", "--student", "rule:max"
    )
    assert not (tmp_path / "other").exists()


def test_numbered_frames(tmp_path, capsys):
    folders(tmp_path)
    patterns = ["--ir", str(tmp_path / "ir" / "scene_%03d.png"), "--vi", str(tmp_path / "vi" / "scene_%03d.png")]
    assert fuse(*patterns, "--out", tmp_path / "out" / "f_%d.png", "--student", "rule:max") == 0
    assert sorted(os.listdir(tmp_path / "out")) == [f"f_{number}.png" for number in range(4)]
    (tmp_path / "vi" / "scene_003.png").unlink()
    error = refused(capsys, *patterns, "--out", tmp_path / "o_%d.png", "--student", "rule:max")
    assert "Frame 3 is missing" in error
    patterns[1] = str(tmp_path / "ir" / "nothing_%03d.png")
    error = refused(capsys, *patterns, "--out", tmp_path / "o_%d.png", "--student", "rule:max")
    assert "No file fits the pattern" in error


@pytest.mark.parametrize(
    ("ir", "vi", "extra", "suffix", "wanted"),
    [
        (np.uint16, np.uint8, [], ".png", np.uint16),
        (np.uint16, np.uint16, [], ".tif", np.uint16),
        (np.uint16, np.uint8, [], ".jpg", np.uint8),
        (np.uint16, np.uint8, ["--depth", 8], ".png", np.uint8),
        (np.uint8, np.uint8, ["--depth", 16], ".png", np.uint16),
        (np.uint8, np.uint8, [], ".png", np.uint8),
    ],
)
def test_depth_is_kept_where_the_format_can(tmp_path, student, ir, vi, extra, suffix, wanted):
    write_image(tmp_path / "ir.png", image(dtype=ir))
    write_image(tmp_path / "vi.png", image((49, 70, 3), 1, vi))
    pair = ["--ir", tmp_path / "ir.png", "--vi", tmp_path / "vi.png"]
    assert fuse(*pair, "--out", tmp_path / f"out{suffix}", "--student", student, *extra) == 0
    fused = read_image(tmp_path / f"out{suffix}", keep_depth=True)
    assert fused.dtype == wanted
    if wanted == np.uint16:
        assert len(np.unique(fused)) > 1000  # not 8 bit, shifted


def test_a_16_bit_infrared_of_few_counts_is_noticed_and_stretched(tmp_path, capsys):
    counts = 7000 + (image().astype(np.uint16) * 4)
    write_image(tmp_path / "ir.png", counts)
    write_image(tmp_path / "vi.png", np.zeros((49, 70), np.uint8))
    pair = ["--ir", tmp_path / "ir.png", "--vi", tmp_path / "vi.png", "--student", "rule:max"]
    assert fuse(*pair, "--out", tmp_path / "dull.png") == 0
    assert "counts 7000 to 8020 only; --ir-range" in capsys.readouterr().err
    assert fuse(*pair, "--out", tmp_path / "clear.png", "--ir-range", 7000, 8020, "--depth", 8) == 0
    assert not capsys.readouterr().err
    np.testing.assert_array_equal(read_image(tmp_path / "clear.png"), image())
    error = refused(capsys, *pair, "--out", tmp_path / "x.png", "--ir-range", 8020, 7000)
    assert "must rise" in error


def test_a_range_that_has_no_effect_is_told_of(pair, tmp_path, capsys):
    arguments = ["--student", "rule:max", "--ir-range", 0, 4095]
    assert fuse(*pair, "--out", tmp_path / "o.png", *arguments) == 0
    assert "no effect on images of 8 bit" in capsys.readouterr().err
    film(tmp_path / "a.avi", 3, 0)
    videos = ["--ir", tmp_path / "a.avi", "--vi", tmp_path / "a.avi"]
    assert fuse(*videos, "--out", tmp_path / "o.avi", *arguments) == 0
    assert "--ir-range has no effect on videos" in capsys.readouterr().err


# --- percent signs


PERCENT = ["ir%20day.png", "50%d.png", "%04d.png", "%d%d_100%.png", "100%.png"]


@pytest.mark.parametrize("name", PERCENT)
@pytest.mark.parametrize("folder", ["plain", "my%20data", "%03d"])
def test_a_percent_sign_in_what_exists_is_literal(pair, tmp_path, folder, name):
    (tmp_path / folder / "ir").mkdir(parents=True)
    (tmp_path / folder / "vi").mkdir()
    ir, vi = (tmp_path / folder / kind / name for kind in ("ir", "vi"))
    shutil.copy(pair[1], ir)
    shutil.copy(pair[3], vi)
    student = ["--student", "rule:max"]
    out = tmp_path / "out%20" / folder
    assert fuse("--ir", ir, "--vi", vi, "--out", out / name, *student) == 0
    assert fuse("--ir", ir.parent, "--vi", vi.parent, "--out", out / "of %d" / "folders", *student) == 0
    assert (out / name).read_bytes() == (out / "of %d" / "folders" / name).read_bytes()


def test_numbers_are_found_beside_percent_signs_that_are_literal(tmp_path):
    folders(tmp_path / "my%20data")
    for kind in ("ir", "vi"):
        for file in list((tmp_path / "my%20data" / kind).iterdir()):
            file.rename(file.with_name(f"100% day%20dusk {file.name[6:]}"))
    patterns = [tmp_path / "my%20data" / kind / "100% day%20dusk %03d.png" for kind in ("ir", "vi")]
    student = ["--student", "rule:max"]
    assert fuse("--ir", patterns[0], "--vi", patterns[1], "--out", tmp_path / "a%20b", *student) == 0
    assert sorted(os.listdir(tmp_path / "a%20b")) == [f"100% day%20dusk {number:03d}.png" for number in range(4)]
    assert (
        fuse("--ir", patterns[0], "--vi", patterns[1], "--out", tmp_path / "c%d" / "50% %20d_%03d.png", *student) == 0
    )
    assert sorted(os.listdir(tmp_path / "c%d")) == [f"50% %20d_{number:03d}.png" for number in range(4)]


def test_films_with_percent_signs_in_their_names(tmp_path):
    (tmp_path / "my%20data").mkdir()
    film(tmp_path / "my%20data" / "ir%03d.avi", 3, 0)
    (tmp_path / "my%20data" / "ir000.avi").write_bytes(b"not this one")
    videos = ["--ir", tmp_path / "my%20data" / "ir%03d.avi", "--vi", tmp_path / "my%20data" / "ir%03d.avi"]
    assert fuse(*videos, "--out", tmp_path / "my%20data" / "out%d.avi", "--student", "rule:max") == 0
    assert len(frames_of(tmp_path / "my%20data" / "out%d.avi")[0]) == 3


# --- what is read, written and told


def test_two_images_of_one_name_are_refused_and_hidden_ones_skipped(tmp_path, capsys):
    pair = folders(tmp_path)
    (tmp_path / "ir" / "._scene_000.png").write_bytes(b"of a Mac")
    assert fuse(*pair, "--out", tmp_path / "out", "--student", "rule:max") == 0
    shutil.copy(tmp_path / "vi" / "scene_001.png", tmp_path / "vi" / "scene_001.bmp")
    error = refused(capsys, *pair, "--out", tmp_path / "other", "--student", "rule:max")
    assert "scene_001.bmp and scene_001.png; remove or rename one" in error and not (tmp_path / "other").exists()


@pytest.mark.parametrize("name", ["夜" * 83 + "ab.png", "n" * 251 + ".png", "ü" * 123 + "x.tiff"])
def test_names_as_long_as_can_be_read_can_be_written(tmp_path, pair, name):
    assert 246 <= len(os.fsencode(name)) <= 255
    for kind, file in (("ir", pair[1]), ("vi", pair[3])):
        (tmp_path / kind).mkdir()
        write_image(tmp_path / kind / name, read_image(file))
    arguments = ["--ir", tmp_path / "ir", "--vi", tmp_path / "vi", "--out", tmp_path / "out", "--student", "rule:max"]
    assert fuse(*arguments) == 0
    assert os.listdir(tmp_path / "out") == [name]
    out = tmp_path / ("f" * 251 + ".avi")
    film(out, 2, 0)
    assert out.is_file()


def test_names_act_on_no_terminal(tmp_path, pair, capsys):
    evil = "\x1b[31m\x07\x9b2J\u202e\x7f"
    shutil.copy(pair[1], tmp_path / f"{evil}.png")
    arguments = ["--ir", tmp_path / f"{evil}.png", *pair[2:], "--student", "rule:max"]
    assert fuse(*arguments, "--out", tmp_path / "o") == 0
    assert fuse(*arguments, "--out", tmp_path / f"{evil}.gifx") == 2
    with pytest.raises(SystemExit):
        fuse(*arguments, "--out", tmp_path / "p", f"--{evil}")  # argparse repeats what it does not know
    told = capsys.readouterr()
    for text in (told.out, told.err):
        assert r"\x1b[31m\x07\x9b2J\u202e\x7f" in text and set(evil) & set(text) <= set("[31m2J")


def test_alpha_is_ignored_and_small_images_are_taken(tmp_path, student):
    with_alpha = np.dstack([image((9, 13, 3)), np.full((9, 13), 7, np.uint8)])
    assert cv2.imwrite(str(tmp_path / "vi.png"), with_alpha)
    write_image(tmp_path / "ir.png", image((9, 13)))
    assert (
        fuse(
            "--ir", tmp_path / "ir.png", "--vi", tmp_path / "vi.png", "--out", tmp_path / "o.png", "--student", student
        )
        == 0
    )
    assert read_image(tmp_path / "o.png", min_side=1).shape == (9, 13, 3)


def test_unequal_sizes_are_refused_unless_they_may_be_aligned(pair, tmp_path, capsys):
    write_image(tmp_path / "ir.png", image((30, 40)))
    arguments = [*pair, "--out", tmp_path / "out.png", "--student", "rule:mean"]
    error = refused(capsys, *arguments)
    assert "40x30 and 70x49" in error and "--align resize" in error and not (tmp_path / "out.png").exists()
    assert fuse(*arguments, "--align", "resize") == 0
    assert read_image(tmp_path / "out.png").shape == (49, 70, 3)


def test_nothing_of_the_users_is_replaced(pair, tmp_path, capsys):
    out = tmp_path / "out.png"
    out.write_text("mine")
    error = refused(capsys, *pair, "--out", out, "--student", "rule:max")
    assert "exists; give --overwrite" in error and out.read_text() == "mine"
    assert fuse(*pair, "--out", out, "--student", "rule:max", "--overwrite") == 0
    before = (tmp_path / "ir.png").read_bytes()
    error = refused(capsys, *pair, "--out", tmp_path / "ir.png", "--student", "rule:max", "--overwrite")
    assert "one of the sources" in error and (tmp_path / "ir.png").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"--ir": "absent.png"}, "absent.png does not exist"),
        ({"--vi": "."}, "not of one kind"),
        ({"--vi": "clip.mp4"}, "not of one kind"),
        ({"--student": "huge"}, "no student 'huge'"),
        ({"--student": "absent.pt"}, "absent.pt"),
        ({"--out": "a.gifx"}, "no known image suffix"),
        ({"--tile": "0"}, "tile=0"),
        ({"--threads": "-1"}, "threads=-1"),
        ({"--backend": "onnx"}, "torch only"),
        ({"--depth": "16", "--out": "a.jpg"}, "cannot hold 16 bit"),
        ({"--ir": "broken.png"}, "broken.png is not a readable"),
    ],
)
def test_a_mistake_gives_one_sentence_and_exit_code_2(pair, tmp_path, monkeypatch, capsys, change, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.png").write_bytes(b"no image")
    arguments = {"--ir": "ir.png", "--vi": "vi.png", "--out": "o.png", "--student": "rule:max"} | change
    error = refused(capsys, *(text for item in arguments.items() for text in item))
    assert says in error and error.strip().count("\n") == 0 and not (tmp_path / "o.png").exists()


def test_the_command_runs_as_a_module(pair, tmp_path):
    command = [
        sys.executable,
        "-m",
        "fusion_gym.fuse",
        *pair,
        "--out",
        str(tmp_path / "o.png"),
        "--student",
        "rule:max",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "o.png" in done.stdout and not done.stderr
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "exists" in done.stderr and "Traceback" not in done.stderr


def film(path, count, seed, rate=12.5, size=(64, 48)):
    """A video whose frames tell their number by the grey of their left half."""
    noise = image((size[1], size[0] // 2), seed)
    frames = [
        np.hstack([np.full((size[1], size[0] // 2), 60 + 4 * number, np.uint8), noise]) for number in range(count)
    ]
    write_video(path, (np.dstack([frame] * 3) for frame in frames), rate)


def frames_of(path):
    capture = cv2.VideoCapture(str(path))
    frames = []
    while True:
        good, frame = capture.read()
        if not good:
            return frames, capture.get(cv2.CAP_PROP_FPS)
        frames.append(frame)


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv"])
def test_videos_keep_order_count_and_rate(tmp_path, student, suffix, capsys):
    film(tmp_path / "ir.avi", 30, 0)
    film(tmp_path / "vi.avi", 34, 1)
    out = tmp_path / f"out{suffix}"
    arguments = ["--ir", tmp_path / "ir.avi", "--vi", tmp_path / "vi.avi", "--out", out]
    assert fuse(*arguments, "--student", "rule:mean") == 0
    frames, rate = frames_of(out)
    assert len(frames) == 30 and rate == pytest.approx(12.5)
    greys = [frame[:, 8:24].mean() for frame in frames]
    np.testing.assert_allclose(greys, 60 + 4 * np.arange(30), atol=7)  # lossy codecs darken by some levels
    np.testing.assert_allclose(np.diff(greys), 4, atol=1.5)
    said = capsys.readouterr()
    assert "30 frames at 12.5 per second" in said.out and "sound" in said.out
    assert "visible video goes on after frame 30" in said.err


def test_sound_is_copied_where_ffmpeg_is(tmp_path):
    if shutil.which("ffmpeg") is None:
        pytest.skip("FFmpeg is not installed")
    film(tmp_path / "silent.mp4", 25, 0, rate=25)
    tone = ["-f", "lavfi", "-i", "sine=frequency=440:duration=1"]
    command = ["ffmpeg", "-loglevel", "error", "-i", str(tmp_path / "silent.mp4"), *tone, "-shortest"]
    subprocess.run([*command, str(tmp_path / "vi.mp4")], check=True)
    arguments = ["--ir", tmp_path / "silent.mp4", "--vi", tmp_path / "vi.mp4", "--out", tmp_path / "out.mp4"]
    assert fuse(*arguments, "--student", "rule:mean") == 0
    probe = subprocess.run(["ffmpeg", "-i", str(tmp_path / "out.mp4")], capture_output=True, text=True, check=False)
    assert "Audio:" in probe.stderr


def test_sound_that_cannot_be_copied_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    film(tmp_path / "ir.avi", 3, 0)
    film(tmp_path / "vi.avi", 3, 1)
    arguments = ["--ir", tmp_path / "ir.avi", "--vi", tmp_path / "vi.avi", "--out", tmp_path / "out.avi"]
    assert fuse(*arguments, "--student", "rule:mean") == 0
    assert "without sound: FFmpeg is not installed" in capsys.readouterr().out


def test_videos_that_do_not_fit_are_refused(tmp_path, capsys):
    film(tmp_path / "ir.avi", 5, 0)
    film(tmp_path / "slow.avi", 5, 1, rate=10)
    film(tmp_path / "large.avi", 5, 1, size=(96, 64))
    (tmp_path / "broken.avi").write_bytes(b"no video")
    out = ["--out", tmp_path / "out.avi", "--student", "rule:mean"]
    for name, says in (
        ("slow.avi", "12.5"),
        ("large.avi", "--align resize"),
        ("broken.avi", "not a video"),
        ("absent.avi", "does not exist"),
    ):
        assert says in refused(capsys, "--ir", tmp_path / "ir.avi", "--vi", tmp_path / name, *out)
        assert not list(tmp_path.glob("*out*"))
    both = ["--ir", tmp_path / "ir.avi", "--vi", tmp_path / "large.avi", "--student", "rule:mean"]
    assert fuse(*both, "--out", tmp_path / "aligned.avi", "--align", "resize") == 0
    assert frames_of(tmp_path / "aligned.avi")[0][0].shape == (64, 96, 3)
    assert "no video suffix" in refused(capsys, *both, "--out", tmp_path / "out.png")
    assert "8 bit" in refused(capsys, *both, "--out", tmp_path / "o.avi", "--depth", 16)


def test_frames_are_no_larger_than_images_may_be(tmp_path, monkeypatch, capsys):
    film(tmp_path / "a.avi", 2, 0)
    gif = b"GIF89a" + np.array([16000, 16000], "<u2").tobytes() + bytes(3) + b","
    cv2.imwrite(str(tmp_path / "p.png"), image())
    for name, data in (("gif.mp4", gif), ("png.avi", (tmp_path / "p.png").read_bytes())):
        (tmp_path / name).write_bytes(data)
        with monkeypatch.context() as patched:
            patched.setattr(cv2, "VideoCapture", lambda *_: pytest.fail("it was opened"))
            error = refused(capsys, "--ir", tmp_path / name, "--vi", tmp_path / name, "--out", tmp_path / "o.avi")
        assert f"{name} is an image, whatever its name says" in error
    monkeypatch.setattr("fusion_gym.video.MAX_PIXELS", 64 * 48 - 1)
    error = refused(capsys, "--ir", tmp_path / "a.avi", "--vi", tmp_path / "a.avi", "--out", tmp_path / "o.avi")
    assert "a.avi claims frames of 64x48 pixels" in error and not (tmp_path / "o.avi").exists()


def test_few_frames_are_held_at_a_time(tmp_path):
    """However long the videos, the reader is never further ahead than its queue."""
    made, used = 0, 0

    def source():
        nonlocal made
        for number in range(200):
            made += 1
            yield number

    furthest = 0
    for number in ahead(source(), 4):
        assert number == used
        used += 1
        furthest = max(furthest, made - used)
        time.sleep(0.001)
    assert used == 200 and 0 < furthest <= 6


def test_an_error_ahead_is_raised_in_its_place_and_the_thread_ends():
    def source():
        yield 1
        yield 2
        raise ValueError("third")

    threads = threading.active_count()
    got = []
    with pytest.raises(ValueError, match="third"):
        for item in ahead(source()):
            got.append(item)
    assert got == [1, 2]
    endless = ahead(iter(int, 1))
    next(endless)
    endless.close()
    assert threading.active_count() == threads


def test_a_pair_of_videos_is_read_in_step(tmp_path):
    film(tmp_path / "a.avi", 6, 0)
    film(tmp_path / "b.avi", 4, 0)
    pair = VideoPair(tmp_path / "a.avi", tmp_path / "b.avi")
    assert pair.count == 4 and pair.rate == pytest.approx(12.5)
    assert all(np.array_equal(ir, vi) for ir, vi in pair)
    assert pair.leftover == "infrared"
    pair.close()


def test_frames_at_a_varying_rate_are_told_of(tmp_path, capsys):
    ffmpeg = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    even, uneven, out = (tmp_path / name for name in ("even.avi", "uneven.mp4", "out.avi"))
    film(even, 24, 0)
    slower = ["-vf", "setpts='if(gt(N,11),(11+(N-11)*3)/12.5/TB,N/12.5/TB)'", "-fps_mode", "vfr", "-c:v", "mpeg4"]
    subprocess.run([ffmpeg, "-loglevel", "error", "-i", even, *slower, uneven], check=True)
    command = ["--student", "rule:max", "--no-progress", "--overwrite", "--out", str(out)]
    assert main(["--ir", str(even), "--vi", str(even), *command]) == 0
    assert "varying rate" not in capsys.readouterr().err
    assert main(["--ir", str(uneven), "--vi", str(uneven), *command]) == 0
    said = capsys.readouterr().err
    # Frame 11 is shown after 0.88 s, and at the mean rate of 24 frames in 3.76 s it would be after 1.72 s.
    assert "The frames of the visible video come at a varying rate" in said
    assert "each up to 0.84 s from their time" in said
