import sys

import cv2
import numpy as np
import pytest
import torch

from fusion_gym.data import load_splits
from fusion_gym.images import ImageError
from fusion_gym.models.teacher import Teacher
from fusion_gym.objective import objective
from fusion_gym.rules import RULES
from fusion_gym.teachers import TeacherError, builtin_teacher, fuse_pair, fused_pairs, load_teacher
from fusion_gym.train_teacher import main


class Mixture(torch.nn.Module):
    def forward(self, ir: torch.Tensor, vi: torch.Tensor) -> torch.Tensor:
        return 0.25 * ir + 0.75 * vi


@pytest.fixture(scope="module")
def pairs():
    return load_splits("synthetic-small").val


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FUSION_GYM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_builtin_teacher_keeps_shape_and_range_at_odd_sizes():
    teacher = builtin_teacher()
    ir, vi = torch.rand(2, 1, 37, 51), torch.rand(2, 1, 37, 51)
    fused = teacher(ir, vi)
    assert fused.shape == ir.shape
    assert 0 <= float(fused.min()) <= float(fused.max()) <= 1


@pytest.mark.parametrize("name", RULES)
def test_rules_are_teachers(name, pairs):
    assert fused_pairs(name, pairs)[0].dtype == np.uint8


def test_files_of_either_kind_and_a_class_give_the_same(tmp_path, cache, pairs, monkeypatch):
    pytest.importorskip("onnx")
    example = torch.rand(1, 1, 32, 32), torch.rand(1, 1, 32, 32)
    torch.jit.trace(Mixture(), example).save(str(tmp_path / "mixture.pt"))
    shape = {2: torch.export.Dim("h"), 3: torch.export.Dim("w")}
    program = torch.onnx.export(Mixture(), example, dynamo=True, dynamic_shapes=(shape, shape), verbose=False)
    program.save(str(tmp_path / "mixture.onnx"))
    monkeypatch.setitem(sys.modules, "of_mine", sys.modules[__name__])
    wanted = fuse_pair(Mixture(), pairs[0])
    for spec in (str(tmp_path / "mixture.pt"), str(tmp_path / "mixture.onnx"), "of_mine:Mixture"):
        assert np.array_equal(fused_pairs(spec, pairs)[0], wanted), spec


def test_weights_of_a_training_are_a_teacher(tmp_path):
    net = Teacher(generator=torch.Generator().manual_seed(1)).eval()
    torch.save(net.state_dict(), tmp_path / "teacher.pt")
    ir, vi = torch.rand(2, 1, 1, 32, 40, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert torch.equal(load_teacher(str(tmp_path / "teacher.pt"))(ir, vi), net(ir, vi))


def test_a_folder_of_results_is_a_teacher(tmp_path, pairs):
    for pair in pairs:
        cv2.imwrite(str(tmp_path / pair.name), pair.ir)
    assert all(np.array_equal(out, pair.ir) for out, pair in zip(fused_pairs(str(tmp_path), pairs), pairs, strict=True))
    cv2.imwrite(str(tmp_path / pairs[0].name), pairs[0].ir[:-1])
    with pytest.raises(ImageError, match="its sources are"):
        fused_pairs(str(tmp_path), pairs)
    (tmp_path / pairs[0].name).unlink()
    with pytest.raises(TeacherError, match=pairs[0].name):
        fused_pairs(str(tmp_path), pairs)


def test_outputs_are_computed_once(cache, pairs):
    first = fused_pairs("rule:max", pairs)
    files = {file: file.stat().st_mtime_ns for file in cache.iterdir()}
    again = fused_pairs("rule:max", pairs)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert {file: file.stat().st_mtime_ns for file in cache.iterdir()} == files


@pytest.mark.parametrize("spec", ["nobody", "missing.pt", "missing.onnx", "no_module:Class", "torch:NoClass"])
def test_unknown_teachers_get_one_sentence(spec):
    with pytest.raises(TeacherError) as caught:
        load_teacher(spec)
    assert spec.split(":")[0] in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["damaged.pt", "damaged.onnx"])
def test_damaged_files_get_one_sentence(tmp_path, name):
    (tmp_path / name).write_bytes(b"nothing of use")
    with pytest.raises(TeacherError, match="damaged"):
        load_teacher(str(tmp_path / name))


def test_whatever_torch_raises_for_a_damaged_file_is_one_sentence(tmp_path, monkeypatch):
    def load(*_, **__):
        raise IndexError("Argument passed to at() was not in the map.")

    (tmp_path / "bad.pt").write_bytes(b"PK")
    monkeypatch.setattr(torch.jit, "load", load)
    with pytest.raises(TeacherError, match=r"bad\.pt is neither"):
        load_teacher(str(tmp_path / "bad.pt"))


def test_results_of_a_wrong_size_or_not_finite_are_refused(pairs):
    with pytest.raises(TeacherError, match="shape"):
        fuse_pair(lambda ir, vi: ir[..., 1:], pairs[0])
    with pytest.raises(TeacherError, match="not finite"):
        fuse_pair(lambda ir, vi: ir * float("nan"), pairs[0])


def test_interrupted_training_resumes_to_the_same_weights(tmp_path, monkeypatch):
    arguments = ["--data", "synthetic-small", "--crop", "48", "--batch-size", "2", "--no-progress", "--save-freq", "2"]
    arguments += ["--updates", "4", "--out"]
    assert main([*arguments, str(tmp_path / "whole")]) == 0
    calls = []

    def interrupted(*images):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return objective(*images)

    with monkeypatch.context() as patch:
        patch.setattr("fusion_gym.train_teacher.objective", interrupted)
        assert main([*arguments, str(tmp_path / "cut")]) == 130
    assert main([*arguments, str(tmp_path / "cut"), "--resume"]) == 0
    whole, cut = (torch.load(tmp_path / run / "teacher.pt", weights_only=True) for run in ("whole", "cut"))
    Teacher().load_state_dict(whole)
    assert all(torch.equal(cut[name], whole[name]) for name in whole)


def test_resuming_nothing_is_a_mistake(tmp_path, capsys):
    assert main(["--out", str(tmp_path), "--resume", "--data", "synthetic-small"]) == 2
    assert "checkpoint.pt does not exist" in capsys.readouterr().err
