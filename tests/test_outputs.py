"""No command writes over what it reads, nor puts beside it what would be read the next time."""

import os
import time

import cv2
import numpy as np
import pytest

import distill_student
import train_agent
from agents import cem
from fusion_gym import export, fuse, replay, train_light, train_teacher
from fusion_gym.cli import UserError
from fusion_gym.metrics.__main__ import main as metrics
from fusion_gym.models.student import STUDENTS, Student, save_student
from fusion_gym.outputs import check_outputs


@pytest.fixture
def root(tmp_path):
    """Data: four pairs in DATA/ir and DATA/vi."""
    rng = np.random.default_rng(0)
    for folder in ("ir", "vi"):
        (tmp_path / "data" / folder).mkdir(parents=True)
        for number in range(4):
            pixels = rng.integers(0, 256, (48, 64), np.uint8)
            cv2.imwrite(str(tmp_path / "data" / folder / f"{number}.{'png' if folder == 'ir' else 'bmp'}"), pixels)
    return tmp_path


def link(path, target, hard=False):
    try:
        os.link(target, path) if hard else os.symlink(target, path)
    except OSError:
        pytest.skip("this file system takes no links")
    return path


def test_an_output_is_no_input_by_whatever_path(root, monkeypatch):
    source = root / "data" / "ir" / "0.png"
    (root / "data" / "ir" / "sub").mkdir()
    monkeypatch.chdir(root / "data")
    for out in (
        source,
        root / "data" / "vi" / ".." / "ir" / "0.png",
        source.relative_to(root / "data"),
        link(root / "link.png", source),
        link(root / "chain.png", root / "link.png"),
        link(root / "hard.png", source, hard=True),
        link(root / "folder", root / "data" / "ir") / "0.png",
    ):
        with pytest.raises(UserError, match="is one of the sources"):
            check_outputs([out], [source])
    check_outputs([root / "other.png", None], [source, root / "absent.png"])


def test_no_image_is_put_among_those_that_are_read(root):
    folder = root / "data" / "ir"
    dangling = link(root / "dangling.png", folder / "new.png")
    for out in (folder / "new.png", folder / "NEW.TIF", link(root / "f", folder) / "a.jpg", dangling):
        with pytest.raises(UserError, match="would be an image among the sources"):
            check_outputs([out], folders=[folder])
    with pytest.raises(UserError, match="is one of the sources"):
        check_outputs([folder], folders=[folder])
    check_outputs([folder / "scores.csv", folder / "fused" / "a.png", root / "data" / "fused"], folders=[folder])


@pytest.mark.parametrize("out", ["test", "Val", "test/deep/run", "ir/test", "vi/train/run", "infrared", "thermal/x"])
def test_no_folder_is_made_that_would_be_read_as_a_part_of_the_data(root, out):
    with pytest.raises(UserError, match="would be read as a part of the data"):
        check_outputs([root / "data" / out], data=[f"synthetic,{root / 'data'}"])


@pytest.mark.parametrize("out", ["runs/student", "train/run", "fused", "ir/fused", "mytest"])
def test_other_folders_may_be_made_in_the_data(root, out):
    (root / "data" / "train").mkdir()
    check_outputs([root / "data" / out], data=[str(root / "data")], folders=[root / "data" / "ir"])


def test_two_outputs_have_two_names(root):
    link(root / "b", root)
    for pair in ((root / "x.csv", root / "x.csv"), (root / "x.csv", root / "b" / "x.csv")):
        with pytest.raises(UserError, match="written twice"):
            check_outputs(pair)


def test_a_loop_of_links_is_no_reason_to_stop(root):
    loop = link(root / "loop", root / "loop")
    check_outputs([root / "out.png"], [loop], [loop], [str(loop)])


COMMANDS = {
    "fuse a source": lambda r: fuse.main(FUSE(r, r / "data/ir", r / "data/vi", r / "data/vi")),
    "fuse into a source": lambda r: fuse.main(FUSE(r, r / "data/ir", r / "data/vi", r / "data/ir")),
    "fuse a new split": lambda r: fuse.main(FUSE(r, r / "data/ir", r / "data/vi", r / "data/test")),
    "fuse one": lambda r: fuse.main(FUSE(r, r / "data/ir/0.png", r / "data/vi/0.bmp", r / "data/vi/0.bmp")),
    "fuse a pattern": lambda r: fuse.main(FUSE(r, r / "data/ir/%d.png", r / "data/vi/%d.bmp", r / "data/ir/%d.png")),
    "metrics over an image": lambda r: metrics(SCORE(r, "--csv", r / "data/ir/0.png")),
    "metrics among images": lambda r: metrics(SCORE(r, "--json", r / "data/vi/new.png")),
    "metrics twice": lambda r: metrics(SCORE(r, "--json", r / "x", "--csv", r / "data/../x")),
    "replay": lambda r: replay.main([str(r / "data/ir/0.png"), "--render", str(r / "data/ir/0.png")]),
    "export": lambda r: export.main(["--student", str(link(r / "w.ts", r / "w.pt", True)), "--out", str(r / "w.ts")]),
    "light": lambda r: train_light.main(["--student", str(r / "w.pt"), "--out", str(r / "w.pt")]),
    "light in data": lambda r: train_light.main(
        ["--student", str(r / "w.pt"), "--data", str(r / "data"), "--out", str(r / "data/test/w.pt")]
    ),
    "teacher": lambda r: train_teacher.main(TEACHER(r, r, "--start", str(r / "teacher.pt"))),
    "teacher in data": lambda r: train_teacher.main(TEACHER(r, r / "data/val")),
    "agent in data": lambda r: train_agent.main([*AGENT(r), "--out", str(r / "data/train"), "-n", "8"]),
    "search in data": lambda r: cem.main([*AGENT(r)[2:], "--out", str(r / "data/test/cem.npz")]),
    "student in data": lambda r: distill_student.main(
        ["--data", str(r / "data"), "--out", str(r / "data/test"), "--updates", "16", *STUDENT]
    ),
}
STUDENT = ["--teacher", "rule:max", "--env-kwargs", "reference=rule:max", "patch_size=48", "probe_size=48"]


def FUSE(root, ir, vi, out):
    return [
        "--ir",
        str(ir),
        "--vi",
        str(vi),
        "--out",
        str(out),
        "--student",
        "rule:max",
        "--overwrite",
        "--no-progress",
    ]


def AGENT(root):
    small = ["teacher=rule:max", "reference=rule:max", "patch_size=48", "probe_pairs=1", "probe_size=48"]
    return ["--data", str(root / "data"), "--env-kwargs", *small, f"data={root / 'data'}"]


def SCORE(root, *more):
    folders = ["--ir", root / "data/ir", "--vi", root / "data/vi", "--fused", root / "data/ir"]
    return [str(text) for text in (*folders, "--metrics", "EN", *more)]


def TEACHER(root, out, *more):
    return ["--data", str(root / "data"), "--out", str(out), "--updates", "1", "--crop", "48", *more]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_refuses_before_anything_is_written(root, capsys, command):
    save_student(Student(**STUDENTS["tiny"]), root / "w.pt")
    (root / "teacher.pt").write_bytes(b"weights")

    def state():
        return {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.name != "w.ts"}

    before = state()
    time.sleep(0.01)
    assert COMMANDS[command](root) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "Traceback" not in error
    words = ("one of the sources", "among the sources", "part of the data", "twice", "is in use")
    assert any(word in error for word in words)
    assert state() == before
