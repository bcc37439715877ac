import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from fusion_gym.data import load_splits
from fusion_gym.images import ImageError
from fusion_gym.models.teacher import Teacher
from fusion_gym.objective import objective
from fusion_gym.rules import RULES
from fusion_gym.teachers import (
    BUILTIN,
    TeacherError,
    builtin_teacher,
    content,
    external_data,
    fuse_pair,
    fused_pairs,
    load_teacher,
)
from fusion_gym.train_teacher import Crops, main


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


def test_what_is_equal_stays_equal_under_the_teacher():
    textured = torch.rand(1, 1, 90, 107, generator=torch.Generator().manual_seed(0))
    for image in (torch.full((1, 1, 100, 131), 127 / 255), textured, textured**3):
        with torch.no_grad():
            assert float((builtin_teacher()(image, image) - image).abs().max()) < 1e-5


def test_weights_that_know_of_no_context_are_a_teacher_and_a_file_of_others_is_none(tmp_path):
    net = Teacher(generator=torch.Generator().manual_seed(1)).eval()
    known = {name: value for name, value in net.state_dict().items() if not name.startswith("context.")}
    torch.save(known, tmp_path / "teacher.pt")
    ir, vi = torch.rand(2, 1, 1, 40, 70, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert torch.equal(load_teacher(str(tmp_path / "teacher.pt"))(ir, vi), net(ir, vi))
    torch.save(dict(list(known.items())[1:]), tmp_path / "other.pt")
    with pytest.raises(TeacherError):
        load_teacher(str(tmp_path / "other.pt"))


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


def test_a_share_of_the_crops_is_fused_in_bad_light_and_none_where_none_is_asked_for():
    pairs = load_splits("synthetic-small").train
    crops = Crops([pairs], 32, seed=0)
    vi = 0.2 + 0.6 * torch.rand(400, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    assert crops.unlit(vi, 0.0) is vi
    made = crops.unlit(vi, 0.3)
    changed = (made != vi).flatten(1).any(1)
    assert 0.2 < changed.float().mean() < 0.4
    mean = (made - vi).mean((1, 2, 3))[changed]
    assert (mean > 0.05).any() and (mean < -0.05).any() and 0 <= made.min() <= made.max() <= 1


def test_resuming_nothing_is_a_mistake(tmp_path, capsys):
    assert main(["--out", str(tmp_path), "--resume", "--data", "synthetic-small"]) == 2
    assert "checkpoint.pt does not exist" in capsys.readouterr().err


def _fails(ir, vi):
    raise KeyError("gain")


class Mute(Exception):
    def __str__(self):
        raise ValueError("no text")


def _raises(error):
    def fuse(ir, vi):
        raise error

    return fuse


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (_raises(SystemExit(0)), "fails on scene.*: SystemExit: 0"),
        (_raises(Mute()), r"fails on scene[\w.]*: Mute\.$"),
        (_raises(RuntimeError("one\ntwo")), "fails on scene.*: RuntimeError: one two"),
        (_fails, "fails on scene.*: KeyError: 'gain'"),
        (lambda ir, vi: ir @ vi.flatten(), "fails on scene.*: RuntimeError"),
        (lambda ir: ir, "fails on scene.*: TypeError"),
        (lambda ir, vi: None, "gives a NoneType for scene"),
        (lambda ir, vi: (ir, vi), "gives a tuple for scene"),
        (lambda ir, vi: [[0.5]], "gives a list for scene"),
        (lambda ir, vi: ir.numpy(), "gives a ndarray for scene"),
        (lambda ir, vi: (ir * 255).byte(), r"gives uint8 \(1, 1, 96, 96\) for scene"),
        (lambda ir, vi: ir > 0.5, "gives bool"),
        (lambda ir, vi: ir.to(torch.complex64), "gives complex64"),
        (lambda ir, vi: ir[0], r"gives float32 \(1, 96, 96\)"),
        (lambda ir, vi: ir[..., 1:], "gives float32"),
        (lambda ir, vi: ir.expand(1, 3, -1, -1), "gives float32"),
        (lambda ir, vi: ir.to("meta"), ".*without values"),
        (lambda ir, vi: ir / 0, ".*not finite"),
    ],
)
def test_a_teacher_that_fails_when_it_runs_is_named_in_one_sentence(answer, says, pairs, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "mine", SimpleNamespace(Teacher=lambda: answer))
    with pytest.raises(TeacherError, match=f"The teacher 'mine:Teacher' {says}") as caught:
        fused_pairs("mine:Teacher", pairs[:1])
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_teacher_may_answer_in_any_precision_and_with_a_gradient(dtype, pairs, monkeypatch):
    weight = torch.nn.Parameter(torch.ones(()))
    monkeypatch.setitem(sys.modules, "mine", SimpleNamespace(T=lambda: lambda ir, vi: (weight * vi).to(dtype)))
    with torch.enable_grad():
        fused = fused_pairs("mine:T", pairs[:1])[0]
    assert np.abs(fused.astype(int) - pairs[0].vi).max() <= 1


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda: None, "is a NoneType"),
        (lambda: "text", "is a str"),
        (lambda name: None, "cannot be made without arguments: TypeError"),
        (lambda: 1 / 0, "cannot be made without arguments: ZeroDivisionError"),
    ],
)
def test_a_class_that_makes_no_teacher_is_named(made, says, monkeypatch):
    monkeypatch.setitem(sys.modules, "mine", SimpleNamespace(Teacher=made))
    with pytest.raises(TeacherError, match=f"The teacher 'mine:Teacher' {says}"):
        load_teacher("mine:Teacher")


def test_an_environment_with_a_failing_teacher_names_the_teacher(monkeypatch):
    from agents.environments import make_checked

    for answer in (_fails, lambda ir, vi: None, lambda ir, vi: (ir, vi)):
        monkeypatch.setitem(sys.modules, "mine", SimpleNamespace(Teacher=lambda answer=answer: answer))
        with pytest.raises(TeacherError, match="The teacher 'mine:Teacher'"):
            make_checked("FusionDistillFast-v0", {"teacher": "mine:Teacher", "reference": "rule:max"})


def external(folder, value, files=("a.bin", "deep/b.bin")):
    """An ONNX model that adds numbers which are in other files, one of them in a branch of the graph."""
    pytest.importorskip("onnx", reason="ONNX needs the extra 'deploy'")
    from onnx import TensorProto, helper
    from onnx.external_data_helper import set_external_data

    def outside(name, file):
        tensor = helper.make_tensor(name, TensorProto.FLOAT, [1], np.float32([value / 2]).tobytes(), raw=True)
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(tensor.raw_data)
        set_external_data(tensor, file)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        return tensor

    shape = [1, 1, "h", "w"]
    sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("ir", "vi")]
    result = helper.make_tensor_value_info("fused", TensorProto.FLOAT, shape)
    inner = helper.make_node("Identity", ["b"], ["b2"])
    branch = helper.make_graph(
        [inner],
        "branch",
        [],
        [helper.make_tensor_value_info("b2", TensorProto.FLOAT, [1])],
        [outside("b", files[1])],
    )
    nodes = [
        helper.make_node("If", ["yes"], ["c"], then_branch=branch, else_branch=branch),
        helper.make_node("Add", ["a", "c"], ["sum"]),
        helper.make_node("Mul", ["vi", "zero"], ["none"]),
        helper.make_node("Add", ["none", "sum"], ["fused"]),
    ]
    constants = [
        outside("a", files[0]),
        helper.make_tensor("yes", TensorProto.BOOL, [], [True]),
        helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0]),
    ]
    graph = helper.make_graph(nodes, "graph", sides, [result], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    (folder / "t.onnx").write_bytes(model.SerializeToString())
    return str(folder / "t.onnx")


def test_what_an_onnx_teacher_keeps_in_other_files_counts(tmp_path, cache, pairs):
    pytest.importorskip("onnxruntime", reason="ONNX needs the extra 'deploy'")
    spec = external(tmp_path, 0.2)
    assert external_data((tmp_path / "t.onnx").read_bytes()) == ["a.bin", "deep/b.bin"]
    assert np.unique(fused_pairs(spec, pairs[:1])[0]).tolist() == [51]
    before = (tmp_path / "t.onnx").read_bytes()
    for name in ("a.bin", "deep/b.bin"):
        (tmp_path / name).write_bytes(np.float32([0.5]).tobytes())
        assert (tmp_path / "t.onnx").read_bytes() == before
    assert np.unique(fused_pairs(spec, pairs[:1])[0]).tolist() == [255]
    (tmp_path / "deep" / "b.bin").unlink()
    with pytest.raises(TeacherError, match=r"t\.onnx"):
        fused_pairs(spec, pairs[:1])


@pytest.mark.parametrize("name", ["/dev/zero", "x" * 5000, "a\0b", "..", "absent.bin"])
def test_other_files_of_an_onnx_model_that_are_none_do_no_harm(name, tmp_path):
    field = name.encode()
    length = bytes([len(field) & 0x7F | 0x80, len(field) >> 7])
    (tmp_path / "t.onnx").write_bytes(b"\x0a\x08location\x12" + length + field)
    assert len(content(tmp_path / "t.onnx")) == 64


SMALL = ["--data", "synthetic-small", "--crop", "48", "--batch-size", "2", "--no-progress"]


def test_a_second_training_does_not_replace_the_first(tmp_path, capsys):
    (tmp_path / "teacher.pt").write_bytes(b"first")
    assert main([*SMALL, "--updates", "1", "--out", str(tmp_path)]) == 2
    assert "is in use" in capsys.readouterr().err
    assert (tmp_path / "teacher.pt").read_bytes() == b"first"


def test_no_updates_are_no_training_and_no_weights(tmp_path, capsys):
    assert main([*SMALL, "--updates", "0", "--out", str(tmp_path / "t")]) == 0
    said = capsys.readouterr().out
    assert said == "Nothing was trained: --updates is 0.\n"
    assert not (tmp_path / "t").exists()


def test_a_request_to_stop_saves_between_two_updates(tmp_path, monkeypatch, capsys):
    count = []

    def stopping(*images):
        count.append(1)
        if len(count) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return objective(*images)

    with monkeypatch.context() as patch:
        patch.setattr("fusion_gym.train_teacher.objective", stopping)
        assert main([*SMALL, "--updates", "3", "--out", str(tmp_path / "t")]) == 143
    assert torch.load(tmp_path / "t" / "checkpoint.pt", weights_only=True)["done"] == 2
    assert main([*SMALL, "--updates", "3", "--out", str(tmp_path / "t"), "--resume"]) == 0
    assert main([*SMALL, "--updates", "3", "--out", str(tmp_path / "t"), "--resume"]) == 0
    assert "Nothing was trained: the checkpoint" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--start", "absent.pt"], "absent.pt cannot be read: No such file"),
        (["--start", "pointer.pt"], "pointer.pt is a pointer of Git LFS"),
        (["--start", "cut.pt"], "cut.pt is damaged"),
        (["--start", "other.pt"], "other.pt holds no weights"),
        (["--device", "mps"], "device='mps' is not available here"),
        (["--device", "nonsense"], "device='nonsense' is not available here"),
        (["--updates", "-1"], "--updates -1 is not allowed"),
        (["--crop", "40"], "--crop 40 is too small for the metrics of the objective; give 41 or more"),
        (["--batch-size", "0"], "--batch-size 0 is not allowed"),
        (["--save-freq", "0"], "--save-freq 0 is not allowed"),
        (["--unlit", "1.5"], "--unlit 1.5 is not allowed; give a share from 0 to 1"),
        (["--learning-rate", "nan"], "--learning-rate nan is not allowed"),
        (["--seed", "-1"], "seed=-1 is not allowed"),
    ],
)
def test_a_mistake_of_a_training_is_one_sentence_and_leaves_nothing(options, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pointer.pt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    (tmp_path / "cut.pt").write_bytes(BUILTIN.read_bytes()[:1000])
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pt")
    assert main([*SMALL, "--updates", "1", "--out", "t", *options]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
    assert not (tmp_path / "t").exists()


def test_a_damaged_checkpoint_is_named(tmp_path, capsys):
    for damage in (b"", b"PK", BUILTIN.read_bytes()[:1000], BUILTIN.read_bytes()):
        (tmp_path / "checkpoint.pt").write_bytes(damage)
        assert main([*SMALL, "--updates", "1", "--out", str(tmp_path), "--resume"]) == 2
        error = capsys.readouterr().err
        assert "checkpoint.pt is damaged" in error and error.count("\n") == 1


def test_one_command_makes_the_builtin_teacher_and_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    make_teacher = pytest.importorskip("make_teacher", reason="benchmarks/ is absent")
    args = make_teacher.parse(["--data", "synthetic", "--share", "1e-4", "--out", str(tmp_path)])
    make_teacher.run(args)
    made = {name: torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("mean", "teacher")}
    for name, (first, second) in {"mean": (4, 5), "teacher": (6, 7)}.items():
        both = [torch.load(tmp_path / str(number) / "teacher.pt", weights_only=True) for number in (first, second)]
        for key, value in made[name].items():
            torch.testing.assert_close(value, (both[0][key] + both[1][key]) / 2)
    sixth = torch.load(tmp_path / "6" / "teacher.pt", weights_only=True)
    for key, value in made["mean"].items():
        torch.testing.assert_close(sixth[key], value, atol=1e-3, rtol=0)  # an update away
    load_teacher(str(tmp_path / "teacher.pt"))

    monkeypatch.setattr(make_teacher.train_teacher.Training, "update", lambda *_: pytest.fail("it trained again"))
    (tmp_path / "teacher.pt").unlink()
    make_teacher.run(args)
    again = torch.load(tmp_path / "teacher.pt", weights_only=True)
    assert all(torch.equal(again[key], value) for key, value in made["teacher"].items())
