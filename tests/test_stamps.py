"""What was read from files once in a process is read again when they have changed, and only then."""

import os

import cv2
import gymnasium as gym
import numpy as np
import pytest
import torch

import fusion_gym  # noqa: F401  (registers the ids)
from fusion_gym.models.student import Student, save_student
from fusion_gym.stamps import DEEPEST, files_in, stamp

FAST = "FusionDistillFast-v0"
SMALL = {"teacher": "rule:max", "reference": "rule:max", "probe_size": 64}


def grey(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(value).integers(0, 64, (80, 80), dtype=np.uint8)
    cv2.imwrite(str(path), noise + np.uint8(value))


def pairs(folder, value):
    for part in ("ir", "vi"):
        for index in range(8):
            grey(folder / part / f"{index}.png", value + index)


def gain(path, factor):
    class Net(torch.nn.Module):
        def __init__(self, factor: float):
            super().__init__()
            self.factor = factor

        def forward(self, ir, vi):
            return ir * self.factor

    torch.jit.script(Net(factor)).save(str(path))


def student(path, seed):
    save_student(Student(4, generator=torch.Generator().manual_seed(seed)), path)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FUSION_GYM_CACHE", str(tmp_path / "cache"))


def bank(**arguments):
    env = gym.make(FAST, **{**SMALL, **arguments}).unwrapped
    env.reset(seed=0)
    return env.task.bank


def test_changed_data_are_read_again_in_the_same_process(tmp_path, cache):
    pairs(tmp_path / "d", 10)
    data = str(tmp_path / "d")
    first = bank(data=data)
    assert bank(data=data) is first
    pairs(tmp_path / "d", 90)
    again = bank(data=data)
    assert again.mean() > first.mean() + 40


@pytest.mark.parametrize("role", ["teacher", "reference"])
def test_a_changed_teacher_is_run_again_in_the_same_process(role, tmp_path, cache):
    pairs(tmp_path / "d", 60)
    path = tmp_path / "t.ts"
    arguments = {"data": str(tmp_path / "d"), role: str(path)}
    gain(path, 1.0)
    env = gym.make(FAST, **{**SMALL, **arguments}).unwrapped
    gain(path, 0.5)
    other = gym.make(FAST, **{**SMALL, **arguments}).unwrapped
    (one,), (two,) = env._tasks.values(), other._tasks.values()
    if role == "teacher":
        assert two.bank[:, 2].mean() == pytest.approx(one.bank[:, 2].mean() / 2, rel=0.02)
    else:
        assert one.probe.teacher_score != two.probe.teacher_score


def test_a_changed_start_is_read_again_in_the_same_process(tmp_path):
    path = tmp_path / "s.pt"

    def weights():
        env = gym.make(FAST, **SMALL, start=str(path), student=None, student_width=4).unwrapped
        env.reset(seed=0)
        return env.distiller.student.stem.weight.detach().clone()

    student(path, 0)
    first = weights()
    assert torch.equal(weights(), first)
    student(path, 1)
    assert not torch.equal(weights(), first)


def test_a_stamp_changes_with_any_file_and_with_none_that_is_read_only(tmp_path):
    pairs(tmp_path, 10)
    before = stamp([tmp_path])
    (tmp_path / "ir" / "0.png").read_bytes()
    assert stamp([tmp_path]) == before and len(before) == 17  # the folder and sixteen files
    (tmp_path / "ir" / "0.png").unlink()
    assert stamp([tmp_path]) != before
    assert stamp([tmp_path / "absent"]) == stamp([tmp_path / ("x" * 5000)]) == ()


def test_files_are_found_through_links_that_may_lead_round(tmp_path):
    grey(tmp_path / "elsewhere" / "a.png", 1)
    folder = tmp_path / "data"
    folder.mkdir()
    os.symlink(tmp_path / "elsewhere", folder / "ir")
    os.symlink(folder, folder / "round")
    os.symlink(folder / "self", folder / "self")
    deep = folder.joinpath(*["d"] * (DEEPEST + 1))
    grey(deep / "b.png", 1)
    found = [str(file.relative_to(folder)) for file in files_in(folder)]
    assert found == ["self", os.path.join("ir", "a.png")]
