import json

import numpy as np
import pytest
import torch

from fusion_gym import export
from fusion_gym.fuser import load_student
from fusion_gym.models.deploy import Deployed
from fusion_gym.models.student import STUDENTS, Student, StudentError, save_student
from fusion_gym.runtime import onnx_session

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

SIZES = [(16, 16), (17, 16), (31, 45), (120, 161), (240, 320)]
LARGE = [(480, 640), (1081, 1921), (1921, 1081)]


def trained(name, spread=0.05):
    generator = torch.Generator().manual_seed(0)
    student = Student(**STUDENTS[name], generator=generator)
    torch.nn.init.normal_(student.head.weight, std=spread, generator=generator)
    for light in student.light:
        torch.nn.init.normal_(light.head.weight, std=spread, generator=generator)
    return student.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Each student with its ONNX session and its TorchScript."""
    folder = tmp_path_factory.mktemp("export")
    members = {}
    for name in STUDENTS:
        student = trained(name)
        export.export_onnx(student, folder / f"{name}.onnx", export.describe(student))
        export.export_torchscript(student, folder / f"{name}.ts")
        scripted = torch.jit.load(str(folder / f"{name}.ts"))
        members[name] = student, onnx_session(str(folder / f"{name}.onnx"), 1), scripted, folder / f"{name}.onnx"
    return members


def sources(size, channels=1, count=1):
    generator = torch.Generator().manual_seed(sum(size))
    return torch.rand(count, 1, *size, generator=generator), torch.rand(count, channels, *size, generator=generator)


@pytest.mark.parametrize("name", STUDENTS)
@pytest.mark.parametrize("size", [*SIZES, *(pytest.param(size, marks=pytest.mark.slow) for size in LARGE)])
def test_onnx_torchscript_and_torch_agree(made, name, size):
    student, session, scripted, _ = made[name]
    ir, vi = sources(size)
    fused = student(ir, vi)
    assert fused.shape == ir.shape and fused.std() > 0.05
    np.testing.assert_allclose(session.run(None, {"ir": ir.numpy(), "vi": vi.numpy()})[0], fused.numpy(), atol=1e-4)
    torch.testing.assert_close(scripted(ir, vi), fused, atol=1e-4, rtol=0)


def test_an_onnx_file_is_as_documented(made):
    student, session, _, path = made["small"]
    model = onnx.load(str(path))
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", export.OPSET)]
    for value in (*model.graph.input, *model.graph.output):
        sizes = [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        assert sizes[1] == 1 and all(isinstance(size, str) for size in (sizes[0], *sizes[2:]))
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["student"]) == student.settings and about["version"] and "[0, 1]" in about["input"]
    assert b".py" not in path.read_bytes()  # nothing of the machine that made it
    ir, vi = sources((24, 40), count=3)
    np.testing.assert_allclose(
        session.run(None, {"ir": ir.numpy(), "vi": vi.numpy()})[0], student(ir, vi).numpy(), atol=1e-4
    )


def test_the_rgb_variant_fuses_as_the_luminance_one_does_and_keeps_the_colour(tmp_path):
    student = trained("tiny", spread=0.01)
    export.export_onnx(student, tmp_path / "rgb.onnx", colour=True)
    ir, vi = sources((37, 50), channels=3)
    vi = 0.25 + 0.5 * vi  # away from the ends, where colours are clipped
    fused = onnx_session(str(tmp_path / "rgb.onnx")).run(None, {"ir": ir.numpy(), "vi": vi.numpy()})[0]
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    gray = (vi * weights).sum(1, keepdim=True)
    unclipped = ((fused > 0) & (fused < 1)).all(1, keepdims=True)
    assert unclipped.mean() > 0.2
    ours = (fused * weights.numpy()).sum(1, keepdims=True)
    np.testing.assert_allclose(ours[unclipped], student(ir, gray).numpy()[unclipped], atol=1e-4)
    difference = fused - vi.numpy()
    np.testing.assert_allclose((difference - difference[:, :1])[np.repeat(unclipped, 3, 1)], 0, atol=1e-4)


@pytest.mark.parametrize(
    ("detail", "context", "light"), [(False, 0, False), (True, 0, False), (False, 3, True), (True, 1, True)]
)
@pytest.mark.parametrize("stride", [1, 2, 4, 8])
def test_the_arrangement_for_runtimes_computes_the_same(stride, detail, context, light):
    generator = torch.Generator().manual_seed(stride)
    student = Student(6, 2, generator, stride=stride, detail=detail, lean=detail, context=context, light=light)
    student.eval()
    torch.nn.init.normal_(student.head.weight, std=0.05, generator=generator)
    for part in student.light:
        torch.nn.init.normal_(part.head.weight, std=0.05, generator=generator)
    student.double()  # the same sums in another order; in single precision processors round them differently
    for size in ((16, 16), (17, 30), (1, 1), (41, 24)):
        ir, vi = (image.double() for image in sources(size, count=2))
        with torch.no_grad():
            torch.testing.assert_close(Deployed(student).double()(ir, vi), student(ir, vi), atol=1e-5, rtol=0)


class Erratic(torch.nn.Module):
    """A network that no export can follow: it differs from call to call."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, ir, vi):
        self.calls += 1
        return (ir + vi) / 2 + 0.01 * (self.calls % 2)


def test_a_deviation_fails_the_export_and_leaves_nothing(tmp_path, monkeypatch):
    (tmp_path / "a.onnx").write_text("before")
    with pytest.raises(export.ExportError, match=r"deviates from torch by 0\.01"):
        export.export_onnx(Erratic(), tmp_path / "a.onnx")
    assert (tmp_path / "a.onnx").read_text() == "before"
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    with pytest.raises(export.ExportError, match="deviates"):
        export.export_torchscript(trained("tiny"), tmp_path / "a.ts")
    assert [file.name for file in tmp_path.iterdir()] == ["a.onnx"]


def test_int8_keeps_the_quality_and_says_so(tmp_path, capsys):
    save_student(trained("tiny"), tmp_path / "tiny.pt")
    out = tmp_path / "int8.onnx"
    assert (
        export.main(["--student", str(tmp_path / "tiny.pt"), "--out", str(out), "--int8", "--data", "synthetic-small"])
        == 0
    )
    text = capsys.readouterr().out
    assert "of the mean metric on 4 test pairs" in text and str(out) in text
    assert float(text.split("int8 keeps ")[1].split()[0]) > 97
    model = onnx.load(str(out))
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("DequantizeLinear") > 10
    assert {entry.key for entry in model.metadata_props} >= {"multiple", "version"}
    ir, vi = sources((96, 128))
    exact = trained("tiny")(ir, vi).numpy()
    rounded = onnx_session(str(out)).run(None, {"ir": ir.numpy(), "vi": vi.numpy()})[0]
    assert 0 < np.abs(rounded - exact).mean() < 0.02


def test_the_command_exports_and_checks(tmp_path, capsys):
    save_student(trained("tiny"), tmp_path / "tiny.pt")
    out = tmp_path / "tiny.onnx"
    assert export.main(["--student", str(tmp_path / "tiny.pt"), "--out", str(out), "--check"]) == 0
    text = capsys.readouterr().out
    weights = sum(p.numel() for p in trained("tiny").parameters())
    assert f"{weights:,} weights" in text and "GMAC per megapixel" in text and "ms" in text and str(out) in text
    ir, vi = np.random.default_rng(0).integers(0, 256, (2, 40, 56), dtype=np.uint8)
    by_torch, by_onnx = (load_student(str(path))(ir, vi) for path in (tmp_path / "tiny.pt", out))
    np.testing.assert_allclose(by_torch, by_onnx, atol=1)
    with pytest.raises(StudentError, match="leave out --tile, or give it and the student in torch"):
        load_student(str(out), tile=24)


def test_a_file_without_light_fuses_tiles(tmp_path):
    student = Student(**(STUDENTS["tiny"] | {"light": False}), generator=torch.Generator().manual_seed(0)).eval()
    torch.nn.init.normal_(student.head.weight, std=0.05, generator=torch.Generator().manual_seed(1))
    export.export_onnx(student, tmp_path / "tiny.onnx", export.describe(student))
    ir, vi = np.random.default_rng(0).random((2, 333, 401), np.float32)
    whole, tiled = (load_student(str(tmp_path / "tiny.onnx"), tile=tile)(ir, vi) for tile in (None, 90))
    np.testing.assert_allclose(tiled, whole, atol=2e-5)


def test_operations_are_counted():
    # One 3x3 convolution of 32 channels to 16 at a quarter of the resolution, and so on, by hand.
    student = Student(width=16, depth=1, stride=4)
    stem, body, head = 9 * 32 * 16, 9 * 16 * 16, 16 * 48
    lower = 9 * 16 * 32 + 9 * 32 * 32 + 32 * 16
    assert export.macs_per_pixel(student) == (stem + body + head) / 16 + lower / 64


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--student", "huge", "--out", "a.onnx"], "there is no student 'huge'"),
        (["--student", "absent.pt", "--out", "a.onnx"], "absent.pt"),
        (["--out", "a.tflite"], "must end in .onnx or .ts"),
        ([], "--check"),
        (["--int8", "--out", "a.ts"], "--int8 needs"),
    ],
)
def test_a_mistake_gives_one_sentence_and_exit_code_2(arguments, says, capsys):
    try:
        code = export.main(arguments)
    except SystemExit as stop:  # argparse
        code = stop.code
    error = capsys.readouterr().err
    assert code == 2 and says.lower() in error.lower() and "Traceback" not in error


def test_a_damaged_onnx_file_is_named(tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(StudentError, match=r"bad\.onnx"):
        load_student(str(tmp_path / "bad.onnx"))


def test_the_onnx_backend_exports_once_to_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FUSION_GYM_CACHE", str(tmp_path / "cache"))
    save_student(trained("tiny"), tmp_path / "tiny.pt")
    ir, vi = np.random.default_rng(0).integers(0, 256, (2, 40, 56), dtype=np.uint8)
    first = load_student(str(tmp_path / "tiny.pt"), backend="onnx")(ir, vi)
    np.testing.assert_allclose(first, load_student(str(tmp_path / "tiny.pt"))(ir, vi), atol=1)
    (stored,) = (tmp_path / "cache").iterdir()
    with monkeypatch.context() as patched:
        patched.setattr("fusion_gym.fuser.onnx_content", lambda *_: pytest.fail("exported again"))
        np.testing.assert_array_equal(load_student(str(tmp_path / "tiny.pt"), backend="onnx")(ir, vi), first)
    whole = stored.read_bytes()
    stored.write_bytes(whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:])  # one bit of a weight
    np.testing.assert_array_equal(load_student(str(tmp_path / "tiny.pt"), backend="onnx")(ir, vi), first)
    assert stored.read_bytes() == whole  # exported again
