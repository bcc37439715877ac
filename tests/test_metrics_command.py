import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from fusion_gym.metrics import Sources, available, evaluate
from fusion_gym.metrics.__main__ import main
from fusion_gym.metrics.folders import common, ranks, short_names, summarise

ROOT = Path(__file__).parents[1]
NAMES = ["EN", "SD", "MSE", "SSIM"]


def tensor(image):
    return torch.from_numpy(image)[None, None].float() / 255


@pytest.fixture
def folders(tmp_path):
    """Three pairs in ir/ and vi/, fused by two methods in a/ and b/; b/ lacks the last one."""
    rng = np.random.default_rng(0)
    images = {}
    for folder in ("ir", "vi", "a", "b"):
        (tmp_path / folder).mkdir()
    for number in range(3):
        ir, vi = (cv2.GaussianBlur(rng.integers(0, 256, (60, 72), np.uint8), (5, 5), 0) for _ in range(2))
        images[f"{number}"] = ir, vi
        cv2.imwrite(str(tmp_path / "ir" / f"{number}.png"), ir)
        cv2.imwrite(str(tmp_path / "vi" / f"{number}.bmp"), vi)
        cv2.imwrite(str(tmp_path / "a" / f"{number}.png"), ir // 2 + vi // 2)
        if number < 2:
            cv2.imwrite(str(tmp_path / "b" / f"{number}.png"), np.maximum(ir, vi))
    return tmp_path, images


def score(root, *arguments, fused=("a",)):
    paths = [str(root / name) for name in fused]
    return main(["--ir", str(root / "ir"), "--vi", str(root / "vi"), "--fused", *paths, "--no-progress", *arguments])


def test_json_and_csv_hold_what_evaluate_gives(folders, capsys):
    root, images = folders
    out, table = root / "scores.json", root / "scores.csv"
    assert score(root, "--metrics", *NAMES, "--json", str(out), "--csv", str(table), fused=("a", "b")) == 0
    written = json.loads(out.read_text())
    assert list(written) == ["a", "b"] and list(written["a"]) == ["mean", "std", "images"]
    assert list(written["a"]["images"]) == ["0.png", "1.png", "2.png"]
    ir, vi = images["1"]
    expected = evaluate(tensor(ir // 2 + vi // 2), Sources(tensor(ir), tensor(vi)), NAMES)
    for name, value in expected.items():
        assert written["a"]["images"]["1.png"][name] == pytest.approx(float(value), rel=1e-5)
        column = [row[name] for row in written["a"]["images"].values()]
        assert written["a"]["mean"][name] == pytest.approx(np.mean(column))
        assert written["a"]["std"][name] == pytest.approx(np.std(column))
    rows = list(csv.DictReader(table.open()))
    assert len(rows) == 5 and rows[3]["method"] == "b"
    assert float(rows[1]["SSIM"]) == pytest.approx(float(expected["SSIM"]), rel=1e-5)
    shown = capsys.readouterr().out
    assert "a: 3 images" in shown and "b: 2 images" in shown and "over the 2 images that all methods have" in shown
    assert str(out) in shown.splitlines()[-1] and str(table) in shown.splitlines()[-1]


def test_all_metrics_of_both_conventions_are_scored_by_default(folders):
    root, _ = folders
    for file in (
        folder / f"{n}{s}"
        for folder, s in ((root / "ir", ".png"), (root / "vi", ".bmp"), (root / "a", ".png"))
        for n in range(3)
    ):
        cv2.imwrite(str(file), cv2.resize(cv2.imread(str(file), 0), (190, 180)))
    for convention in ("fusiongym", "cddfuse"):
        out = root / f"{convention}.json"
        assert score(root, "--convention", convention, "--json", str(out)) == 0
        assert tuple(json.loads(out.read_text())["a"]["mean"]) == available(convention)


def test_files_left_over_or_missing_are_named_and_not_scored(folders, capsys):
    root, _ = folders
    image = cv2.imread(str(root / "a" / "0.png"), 0)
    cv2.imwrite(str(root / "a" / "stale.png"), image)
    cv2.imwrite(str(root / "ir" / "alone.png"), image)
    out = root / "o.json"
    assert score(root, "--metrics", "EN", "--json", str(out), fused=("a", "b")) == 0
    assert len(json.loads(out.read_text())["a"]["images"]) == 3
    told = capsys.readouterr().err
    for phrase in (
        "alone.png",
        "images of a without a pair of sources: stale.png",
        "pairs without an image in b: 2.png",
    ):
        assert phrase in told


def test_colour_counts_by_its_luminance(folders):
    root, _ = folders
    rng = np.random.default_rng(1)
    (root / "colour").mkdir()
    (root / "gray").mkdir()
    for number in range(3):
        colour = rng.integers(0, 256, (60, 72, 3), np.uint8)
        cv2.imwrite(str(root / "colour" / f"{number}.png"), colour)
        cv2.imwrite(str(root / "gray" / f"{number}.png"), cv2.cvtColor(colour, cv2.COLOR_BGR2GRAY))
    out = root / "o.json"
    assert score(root, "--metrics", *NAMES, "--json", str(out), fused=("colour", "gray")) == 0
    written = json.loads(out.read_text())
    assert written["colour"]["images"] == written["gray"]["images"]


def test_folders_of_one_name_are_told_apart(folders):
    root, _ = folders
    for method in ("first", "second"):
        (root / method).mkdir()

        (root / method / "fused").mkdir()
        cv2.imwrite(str(root / method / "fused" / "0.png"), np.full((60, 72), 9, np.uint8))
    out = root / "o.json"
    assert score(root, "--metrics", "EN", "--json", str(out), fused=("first/fused", "second/fused")) == 0
    assert list(json.loads(out.read_text())) == ["first/fused", "second/fused"]
    with pytest.raises(ValueError, match="given twice"):
        short_names([root / "a", root / "b" / ".." / "a"])


def test_ranks_follow_the_direction_and_share_ties():
    means = {"x": {"SSIM": 0.9, "MSE": 5.0}, "y": {"SSIM": 0.9, "MSE": 3.0}, "z": {"SSIM": 0.1, "MSE": 9.0}}
    assert ranks(means) == {
        "x": {"SSIM": 1.5, "MSE": 2.0},
        "y": {"SSIM": 1.5, "MSE": 1.0},
        "z": {"SSIM": 3.0, "MSE": 3.0},
    }


def test_ranks_are_over_the_images_that_all_methods_have():
    scores = {"x": {"1.png": {"EN": 1.0}, "2.png": {"EN": 9.0}}, "y": {"1.jpg": {"EN": 2.0}}}
    shared = common(scores)
    assert summarise(shared["x"]) == ({"EN": 1.0}, {"EN": 0.0})
    assert ranks({name: summarise(values)[0] for name, values in shared.items()})["y"]["EN"] == 1


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda root: score(root, "--metrics", "SIM"), "There is no metric 'SIM'"),
        (lambda root: score(root, "--metrics", "FMI", "--convention", "cddfuse"), "There is no metric 'FMI' in"),
        (lambda root: score(root, fused=("nowhere",)), "nowhere does not exist"),
        (lambda root: score(root, "--metrics", "MS-SSIM"), "MS-SSIM needs images of at least 176x176 pixels"),
        (lambda root: score(root, "--json", str(root / "no" / "o.json")), "create it first"),
        (lambda root: score(root, fused=("a", "a")), "given twice"),
    ],
)
def test_mistakes_give_one_sentence_and_exit_code_2(folders, capsys, mistake, message):
    root, _ = folders
    assert mistake(root) == 2
    told = capsys.readouterr().err.strip()
    assert message in told and "Traceback" not in told and len(told.splitlines()) == 1


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "a" / "1.png").write_bytes(b"no image"), "1.png is not a readable"),
        (lambda root: cv2.imwrite(str(root / "a" / "1.png"), np.zeros((30, 40), np.uint8)), "1.png is 40x30 pixels"),
        (lambda root: cv2.imwrite(str(root / "vi" / "1.bmp"), np.zeros((60, 70), np.uint8)), "1.bmp is 70x60 pixels"),
        (lambda root: cv2.imwrite(str(root / "a" / "1.bmp"), np.zeros((60, 72), np.uint8)), "1.bmp and 1.png"),
        (lambda root: [file.unlink() for file in (root / "a").iterdir()], "holds no images"),
        (
            lambda root: [file.rename(file.with_stem("x" + file.stem)) for file in sorted((root / "a").iterdir())],
            "same names",
        ),
    ],
)
def test_unusable_files_are_named_and_nothing_is_written(folders, capsys, spoil, message):
    root, _ = folders
    spoil(root)
    assert score(root, "--metrics", "EN", "--json", str(root / "o.json")) == 2
    told = capsys.readouterr().err.strip()
    assert message in told and len(told.splitlines()) == 1
    assert not (root / "o.json").exists()


def test_raw_counts_are_told_of_and_scored_by_their_range(folders, capsys):
    root, images = folders
    for number, (ir, _) in images.items():
        cv2.imwrite(str(root / "ir" / f"{number}.png"), ir.astype(np.uint16) * 2 + 3000)
    out = root / "o.json"
    assert score(root, "--metrics", "SSIM", "--json", str(out)) == 0
    assert "0.png and 2 more: the infrared uses the counts" in capsys.readouterr().err
    dull = json.loads(out.read_text())["a"]["mean"]["SSIM"]
    assert score(root, "--metrics", "SSIM", "--json", str(out), "--ir-range", "3000", "3510") == 0
    assert not capsys.readouterr().err
    ir, vi = images["1"]
    wanted = evaluate(tensor(ir // 2 + vi // 2), Sources(tensor(ir), tensor(vi)), ["SSIM"])["SSIM"]
    written = json.loads(out.read_text())["a"]
    assert written["images"]["1.png"]["SSIM"] == pytest.approx(float(wanted), rel=1e-5)
    assert abs(written["mean"]["SSIM"] - dull) > 0.01


@pytest.mark.skipif(os.name == "nt", reason="Windows takes no such names")
def test_whatever_names_hold_is_written_and_shown_safely(folders, capfd):
    root, _ = folders
    names = [os.fsdecode(b"\xff\xe4.png"), "=1+2.png", "\x1b[31m\n.png", "[bold]:smile:.png", "-x.png"]
    for folder, suffix in (("ir", ".png"), ("vi", ".bmp"), ("a", ".png")):
        for number, name in enumerate(names):
            source = root / folder / f"{number % 3}{suffix}"
            (root / folder / name).with_suffix(suffix).write_bytes(source.read_bytes())
    assert score(root, "--metrics", "EN", "--json", str(root / "o.json"), "--csv", str(root / "o.csv")) == 0
    shown = capfd.readouterr().out
    assert set(names) <= set(json.loads((root / "o.json").read_text())["a"]["images"])
    cells = [row["image"] for row in csv.DictReader((root / "o.csv").open())]
    assert {r"\udcff\udce4.png", "'=1+2.png", r"\x1b[31m\n.png", "[bold]:smile:.png", "'-x.png"} <= set(cells)
    assert (
        r"\x1b[31m\n.png" in shown and "[bold]:smile:.png" in shown and r"\udcff" in shown and "\x1b[31m" not in shown
    )


def test_images_are_shown_in_the_order_of_their_numbers(folders):
    root, _ = folders
    for folder, suffix in (("ir", ".png"), ("vi", ".bmp"), ("a", ".png")):
        (root / folder / f"10{suffix}").write_bytes((root / folder / f"0{suffix}").read_bytes())
        (root / folder / f"._0{suffix}").write_bytes(b"of a Mac")
    assert score(root, "--metrics", "EN", "--json", str(root / "o.json")) == 0
    assert list(json.loads((root / "o.json").read_text())["a"]["images"]) == ["0.png", "1.png", "2.png", "10.png"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such pipes")
@pytest.mark.parametrize("buffer", [1, 10**6])
def test_a_reader_that_goes_away_is_no_error(monkeypatch, capsys, buffer):
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr(sys, "stdout", os.fdopen(writer, "w", buffering=buffer, encoding="utf-8"))
    assert main(["--list"]) == 141
    sys.stdout.close()  # what is left goes nowhere, without an error
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_named(folders, capsys):
    root, _ = folders
    assert score(root, "--device", "cuda") == 2
    assert "no CUDA device" in capsys.readouterr().err


def test_the_module_runs_as_a_command():
    command = [sys.executable, "-m", "fusion_gym.metrics"]
    done = subprocess.run([*command, "--list"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "### Qabf: edge transfer" in done.stdout
    done = subprocess.run([*command, "--ir", "x"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "give --ir, --vi and --fused" in done.stderr
