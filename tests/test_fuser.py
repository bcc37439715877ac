import subprocess
import sys

import numpy as np
import pytest
import torch

import fusion_gym
from fusion_gym.fuser import Fuser, load_student
from fusion_gym.images import luminance
from fusion_gym.models.student import STUDENTS, Student, StudentError, read_student, save_student
from fusion_gym.rules import RULES, TILING


def trained(name, seed=0, spread=0.05):
    """A student whose output is far from the mean of its sources, as a trained one's is."""
    generator = torch.Generator().manual_seed(seed)
    student = Student(**STUDENTS[name], generator=generator)
    torch.nn.init.normal_(student.head.weight, std=spread, generator=generator)
    for light in student.light:
        torch.nn.init.normal_(light.head.weight, std=spread, generator=generator)
    return student.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.pt"
    save_student(trained("tiny"), path)
    return path


def image(shape=(50, 71), dtype=np.uint8, seed=0):
    values = np.random.default_rng(seed).random(shape)
    return values.astype(np.float32) if dtype == np.float32 else np.rint(values * np.iinfo(dtype).max).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("shape", [(50, 71), (50, 71, 3)])
def test_the_result_is_of_the_sources_kind_and_the_visibles_shape(weights, dtype, shape):
    fused = load_student(str(weights))(image(dtype=dtype), image(shape, dtype, 1))
    assert fused.dtype == dtype and fused.shape == shape


def test_the_deeper_source_decides(weights):
    fuse = load_student(str(weights))
    shallow, deep = image(), image(dtype=np.uint16, seed=1)
    assert fuse(shallow, deep).dtype == np.uint16 and fuse(deep, shallow).dtype == np.uint16
    np.testing.assert_allclose(fuse(shallow, deep), fuse(shallow.astype(np.uint16) * 257, deep), atol=1)
    assert fuse(deep, image((50, 71, 3))).dtype == np.uint16


def test_arrays_and_tensors_give_the_same(weights):
    fuse = fusion_gym.load_student(str(weights))
    ir, vi = image(dtype=np.float32), image(dtype=np.float32, seed=1)
    tensors = fuse(*(torch.from_numpy(one)[None, None] for one in (ir, vi)))
    np.testing.assert_array_equal(tensors[0, 0].numpy(), fuse(ir, vi))
    steps = 255 * fuse(image() / np.float32(255), image(seed=1) / np.float32(255))
    np.testing.assert_allclose(fuse(image(), image(seed=1)), steps, atol=0.505)


def test_halves_round_up_as_integers_do():
    ir, vi = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    mean = (ir.astype(int) + vi + 1) // 2
    np.testing.assert_array_equal(load_student("rule:mean")(ir, vi), mean)
    deep = (ir.astype(int) * 257 + vi.astype(int) * 256 + 1) // 2
    fused = load_student("rule:mean")(ir.astype(np.uint16) * 257, vi.astype(np.uint16) * 256)
    np.testing.assert_array_equal(fused, deep)


def test_colour_is_the_visibles(weights):
    gray_blue = np.full((40, 40, 3), (200, 100, 100), np.uint8)
    fused = load_student("rule:max")(np.zeros((40, 40), np.uint8), gray_blue)
    np.testing.assert_allclose(fused, gray_blue, atol=2)
    brighter = load_student("rule:max")(np.full((40, 40), 160, np.uint8), gray_blue)
    np.testing.assert_allclose(luminance(brighter), 160, atol=1)
    assert (brighter[..., 0].astype(int) - brighter[..., 1] > 90).all()


@pytest.mark.parametrize("name", [*STUDENTS, *RULES])
def test_tiles_do_not_show(name):
    fuse, tiling = (RULES[name], TILING[name]) if name in RULES else (trained(name), None)
    reach, multiple = tiling or (fuse.reach, fuse.multiple)
    light = name in STUDENTS
    ir = image((333, 401), np.float32) * np.linspace(0, 1, 401, dtype=np.float32)
    vi = image((333, 401), np.float32, 1) * np.linspace(1, 0, 333, dtype=np.float32)[:, None]
    whole, tiled = (Fuser(name, fuse, reach, multiple, tile, light)(ir, vi) for tile in (None, 90))
    np.testing.assert_allclose(tiled, whole, atol=2e-5)
    if light:  # each tile by its own light is another image
        assert np.abs(Fuser(name, fuse, reach, multiple, 90)(ir, vi) - whole).max() > 0.1


@pytest.mark.parametrize("name", STUDENTS)
def test_no_source_has_an_effect_beyond_the_reach(name):
    student = trained(name, spread=0.005).double()  # no pixel is clipped
    size = 2 * student.reach + 40
    seen = torch.full((1, student.light[0].first.in_channels, 1, 1), 0.5, dtype=torch.float64)
    drawn = torch.rand(2, 1, 1, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sources = [(0.3 + 0.4 * source).requires_grad_() for source in drawn]
    far = 0
    for offset in range(student.multiple):
        at = size // 2 + offset
        slopes = torch.autograd.grad(student(*sources, seen)[0, 0, at, at], sources)
        reached = sum(slope.abs() for slope in slopes)[0, 0].nonzero()
        far = max(far, int((reached - at).abs().max()))
    assert 0.7 * student.reach < far <= student.reach


def test_saving_and_reading_a_student(tmp_path):
    student = trained("small")
    save_student(student, tmp_path / "a.pt")
    ir, vi = torch.rand(2, 1, 1, 40, 56, generator=torch.Generator().manual_seed(0))
    assert torch.equal(read_student(tmp_path / "a.pt")(ir, vi), student(ir, vi))
    save_student(student, tmp_path / "half.pt", half=True)
    assert (tmp_path / "half.pt").stat().st_size < 0.6 * (tmp_path / "a.pt").stat().st_size
    torch.testing.assert_close(read_student(tmp_path / "half.pt")(ir, vi), student(ir, vi), atol=5e-3, rtol=0)


def test_a_shipped_students_weights_are_found_by_name(tmp_path, monkeypatch):
    from fusion_gym.models import student as module

    monkeypatch.setattr(module, "WEIGHTS", tmp_path)
    with pytest.raises(StudentError, match="no weights of the student 'tiny'"):
        load_student("tiny")
    save_student(trained("tiny"), tmp_path / "student_tiny.pt")
    assert load_student("tiny").fuse.width == STUDENTS["tiny"]["width"]


def test_code_in_a_weights_file_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("sprung").touch, ())

    torch.save({"width": 16, "weights": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(StudentError, match=r"trap\.pt"):
        read_student(tmp_path / "trap.pt")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda saved: saved.pop("weights"), "not a student's"),
        (lambda saved: saved.update(width=9), "not a student's"),
        (lambda saved: saved.update(colour=True), "not a student's"),
        (lambda saved: saved["weights"]["stem.bias"].fill_(float("nan")), "not finite"),
    ],
)
def test_a_damaged_weights_file_is_named(tmp_path, weights, change, says):
    saved = torch.load(weights, weights_only=True)
    change(saved)
    torch.save(saved, tmp_path / "damaged.pt")
    with pytest.raises(StudentError, match=says) as caught:
        load_student(str(tmp_path / "damaged.pt"))
    assert "damaged.pt" in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"spec": "huge"}, "tiny, small, base"),
        ({"spec": "absent.pt"}, "absent.pt"),
        ({"spec": "absent.onnx"}, "absent.onnx"),
        ({"spec": "rule:max", "backend": "onnx"}, "torch only"),
        ({"spec": "rule:max", "backend": "tpu"}, "torch, onnx"),
        ({"spec": "rule:max", "threads": 0}, "threads=0"),
        ({"spec": "rule:max", "tile": -1}, "tile=-1"),
    ],
)
def test_what_cannot_be_loaded_says_what_can(arguments, says):
    with pytest.raises(StudentError, match=says):
        load_student(**arguments)


@pytest.mark.parametrize(
    ("ir", "vi", "says"),
    [
        (image((40, 40)), image((40, 41)), "40x40, visible 41x40"),
        (image((40, 40, 4)), image((40, 40)), "give (H, W)"),
        (image((40, 40)).astype(np.int32), image((40, 40)), "int32"),
        (image((40, 40), np.float32) * 255, image((40, 40)), "float in"),
        (np.full((40, 40), np.nan, np.float32), image((40, 40)), "float in"),
        (np.zeros((0, 40), np.uint8), image((40, 40)), "shape"),
    ],
)
def test_images_that_cannot_be_fused_are_refused(ir, vi, says):
    with pytest.raises(ValueError) as caught:
        load_student("rule:max")(ir, vi)
    assert says in str(caught.value)


def test_importing_the_package_does_not_import_torch():
    code = (
        "import fusion_gym, sys; a = 'torch' in sys.modules; fusion_gym.load_student; print(a, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.stdout == "False True\n"
