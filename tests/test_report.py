"""What is reported on, and how, where pairs are odd."""

import importlib.util
import math
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

import distill_student
from agents.comparison import cells
from fusion_gym import report
from fusion_gym.data import DataError, ImagePair
from fusion_gym.metrics import REPORTED
from fusion_gym.quantize import metric_ratios
from fusion_gym.task import load_task


def pair(value=None, shape=(96, 96), name="a.png"):
    pixels = np.random.default_rng(0).integers(0, 256, shape) if value is None else np.full(shape, value)
    gray = pixels.astype(np.uint8)
    return ImagePair(name, gray, gray, gray)


def folder(root, value=None, shape=(96, 96), count=3):
    for kind in ("ir", "vi"):
        (root / kind).mkdir(parents=True)
        for number in range(count):
            cv2.imwrite(str(root / kind / f"{number}.png"), pair(value, shape).ir)
    return str(root)


@pytest.mark.parametrize(
    ("value", "whole", "wanted"),
    [(0.5, 2.0, 0.25), (0.0, 0.0, 1.0), (1e-12, -1e-15, 1.0), (0.3, 0.0, math.nan), (0.0, 2.0, 0.0), (-1.0, 2.0, -0.5)],
)
def test_a_share_of_nothing_is_all_or_unknown(value, whole, wanted):
    assert report.share(value, whole) == pytest.approx(wanted, nan_ok=True)


@pytest.mark.parametrize("value", [0, 1, 127, 255])
def test_constant_pairs_have_shares_of_every_metric(value):
    same = SimpleNamespace(run=lambda names, feed: [feed["ir"]])
    assert metric_ratios(same, same, [pair(value)]) == dict.fromkeys(REPORTED, pytest.approx(1.0))


SHORT = ["--width", "4", "--batch-size", "2", "--updates", "2", "--decisions", "1", "--seed", "1", "--no-progress"]
SMALL = ["--teacher", "rule:max", "--env-kwargs", "reference=rule:max", "patch_size=32", "probe_pairs=1"]


def distil(data, out, *more):
    return distill_student.main(["--data", str(data), "--out", str(out), *SHORT, *more, *SMALL, "probe_size=48"])


@pytest.mark.parametrize("value", [0, 255])
def test_a_student_of_constant_pairs_is_reported_on(tmp_path, capsys, monkeypatch, value):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)  # no ONNX file, which takes seconds
    assert distil(folder(tmp_path / "data", value), tmp_path / "out") == 0
    assert (tmp_path / "out" / "metrics.json").is_file() and "nan" not in (tmp_path / "out" / "metrics.csv").read_text()
    assert "of teacher" in capsys.readouterr().out


@pytest.mark.parametrize("shape", [(17, 17), (32, 32), (40, 40), (40, 200)])
def test_pairs_too_small_to_be_reported_on_are_refused_before_the_training(tmp_path, capsys, shape):
    small = folder(tmp_path / "small", shape=shape)
    assert distil("synthetic-small", tmp_path / "out", "--test", small) == 2
    error = capsys.readouterr().err
    assert f"2.png is {shape[1]}x{shape[0]} pixels" in error and "less than 41" in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()
    with pytest.raises(DataError, match="less than 41"):
        cells.Judge(small, "rule:max", "cpu")
    assert distil(small, tmp_path / "out") == 2
    assert "lower " in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_data_without_test_pairs_are_refused_before_the_training(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    folder(tmp_path / "data" / "train", count=1)
    assert distil("synthetic-small", tmp_path / "out", "--test", str(tmp_path / "data")) == 2
    assert "has no test pairs" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_the_smallest_pairs_that_can_be_reported_on_are():
    pairs = [pair(shape=(41, 41))]
    report.check_pairs(pairs, "data")
    table = report.score_outputs({"mean": [pairs[0].ir]}, pairs)
    assert all(math.isfinite(value) for value in table["mean"]["a.png"].values())


def test_pairs_of_one_name_are_not_counted_as_one():
    pairs = [pair(), pair(3)]
    with pytest.raises(ValueError, match="Two pairs have one name"):
        report.score_outputs({"mean": [each.ir for each in pairs]}, pairs)


@pytest.mark.parametrize(("patch", "probe", "setting"), [(64, 48, "patch_size=64"), (32, 64, "probe_size=64")])
def test_pairs_too_small_for_what_is_cut_out_are_named_before_the_teacher_works(tmp_path, patch, probe, setting):
    data = folder(tmp_path / "data", shape=(50, 60))
    with pytest.raises(DataError, match=rf"The pair \d\.png is 60x50 pixels.*less than {setting}; lower"):
        load_task(data, "nobody.onnx", "nobody.onnx", patch, 1, probe, "cpu")


def test_files_of_a_comparison_have_names_of_any_length():
    names = ["夜" * 200, "夜" * 201, "n" * 300, "short"]
    made = [cells.file_name(name) for name in names]
    assert len(set(made)) == 4 and max(len(name.encode()) for name in made) <= 80 and made[-1] == "short"
