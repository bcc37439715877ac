import math

import pytest
import torch

from fusion_gym.models.deploy import Deployed
from fusion_gym.models.light import grids, scene_statistics
from fusion_gym.models.student import (
    MARGIN,
    STUDENTS,
    Student,
    StudentError,
    average,
    bounded,
    grown,
    read_student,
    save_student,
    weights_of,
)


def test_a_pixel_outside_the_range_learns_to_come_back_and_does_not_drift():
    image = torch.tensor([-1.0, -1.0, 0.5, 2.0, 2.0, -MARGIN / 2], requires_grad=True)
    (bounded(image) * torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0, 1.0])).sum().backward()
    assert image.grad.tolist() == [0.0, -1.0, 1.0, 1.0, 0.0, 1.0]
    with torch.no_grad():
        assert bounded(image).tolist() == [0.0, 0.0, 0.5, 1.0, 1.0, 0.0]


@pytest.mark.parametrize("name", STUDENTS)
def test_what_is_equal_stays_equal_in_students_that_come_trained(name):
    """With one image as both sources there is nothing to fuse: no change, and no border either; in ONNX's form too."""
    student = read_student(weights_of(name))
    textured = torch.rand(1, 1, 90, 107, generator=torch.Generator().manual_seed(0))
    for image in (torch.full((1, 1, 100, 131), 127 / 255), textured, textured**3):
        for network in (student, Deployed(student)):
            with torch.no_grad():
                assert float((network(image, image) - image).abs().max()) < 1e-5


@pytest.mark.parametrize("size", [(16, 16), (33, 50)])
def test_a_new_student_is_the_mean_of_its_sources_almost(size):
    student = Student(8, generator=torch.Generator().manual_seed(0))
    ir, vi = torch.rand(2, 1, *size), torch.rand(2, 1, *size)
    with torch.no_grad():
        assert torch.allclose(student(ir, vi), (ir + vi) / 2, atol=0.05)


def test_initial_weights_come_from_the_generator_alone():
    before = torch.random.get_rng_state()
    one, other = (Student(8, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_with_context_a_cell_knows_of_surroundings_that_it_does_not_see_otherwise():
    distance = 80
    for context, sees in ((0, False), (2, True)):
        student = Student(8, generator=torch.Generator().manual_seed(1), context=context)
        torch.nn.init.normal_(student.head.weight, generator=torch.Generator().manual_seed(2))
        ir, vi = torch.rand(2, 1, 1, 64, 256, generator=torch.Generator().manual_seed(0))
        ir.requires_grad_()
        (slope,) = torch.autograd.grad(student(ir, vi)[..., :40].square().sum(), ir)
        assert (distance < student.reach) == sees == bool(slope[..., 40 + distance :].any())


@pytest.mark.parametrize("wrong", [{"width": 1}, {"depth": 17}, {"stride": 3}, {"context": -1}, {"context": 5}])
def test_a_wrong_shape_is_named(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is {next(iter(wrong.values()))}; it takes"):
        Student(**wrong)


def test_weights_of_before_there_was_a_context_are_read(tmp_path):
    student = Student(8, generator=torch.Generator().manual_seed(0))
    save_student(student, tmp_path / "now.pt")
    saved = torch.load(tmp_path / "now.pt", weights_only=True)
    del saved["context"]
    torch.save(saved, tmp_path / "before.pt")
    read = read_student(tmp_path / "before.pt")
    assert read.settings == student.settings
    assert all(torch.equal(a, b) for a, b in zip(read.parameters(), student.parameters(), strict=True))


def lit(**shape):
    """A student that evens the light, its last weights not zero."""
    generator = torch.Generator().manual_seed(0)
    student = Student(8, generator=generator, context=1, light=True, **shape)
    for head in (student.head, student.light[0].head):
        torch.nn.init.normal_(head.weight, std=0.1, generator=generator)
    return student.eval()


def test_statistics_tell_contrast_from_noise():
    plain = torch.linspace(0.2, 0.8, 64).expand(1, 1, 64, 64)
    noisy = plain + 0.1 * torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    mean, contrast, difference, *_ = scene_statistics(*grids(plain)).flatten().tolist()
    assert mean == pytest.approx(0.5, abs=0.01)
    assert scene_statistics(*grids(0.5 + (plain - 0.5) / 4))[0, 1] == pytest.approx(
        contrast - 0.4 * math.log(4), abs=0.01
    )
    _, noisy_contrast, noisy_difference, *_ = scene_statistics(*grids(noisy)).flatten().tolist()
    assert noisy_contrast == pytest.approx(contrast, abs=0.02)
    assert noisy_difference > difference + 0.5


def test_statistics_tell_an_underexposed_scene_from_a_night():
    scene = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    night = 0.15 * scene
    night[..., 8:16, 8:16] = 1.0  # a lamp
    dark, lamp = (scene_statistics(*grids(image)).flatten().tolist() for image in (0.15 * scene, night))
    assert dark[4] == pytest.approx(1.0 + 0.2 * math.log(0.15), abs=0.01)  # the brightest pixel
    assert (lamp[4], lamp[5]) == pytest.approx((1.0, 4 / 256), abs=0.001)  # and the share of white ones
    assert dark[3] == lamp[3] < scene_statistics(*grids(0.15 + 0.15 * scene))[0, 3]  # the darkest


def test_a_new_student_leaves_the_light_as_it_is():
    generators = (torch.Generator().manual_seed(5) for _ in range(2))
    plain, lit_one = (Student(8, generator=g, context=1, light=on) for g, on in zip(generators, (0, 1), strict=True))
    lit_one.load_state_dict({**lit_one.state_dict(), **plain.state_dict()})
    ir, vi = torch.rand(2, 1, 1, 40, 40, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(lit_one(ir, vi), plain(ir, vi), atol=1e-6, rtol=0)


def test_light_depends_on_the_whole_image_and_is_told_to_the_network():
    student = lit()
    ir, vi = torch.rand(2, 1, 1, 32, 640, generator=torch.Generator().manual_seed(0))
    ir.requires_grad_()
    (slope,) = torch.autograd.grad(student(ir, vi)[..., :32].square().sum(), ir)
    assert bool(slope[..., student.reach + 64 :].any())
    slopes = torch.autograd.grad(student(ir, vi).square().sum(), student.light[0].head.weight)[0].flatten(1)
    assert bool(slopes.abs().sum(1).gt(0).all())  # every gain, offset and channel has an effect


def test_light_needs_context():
    with pytest.raises(ValueError, match="needs context"):
        Student(8, light=True)


def test_a_student_grows_from_one_without_light_and_from_no_other_shape():
    shape = {"width": 8, "context": 1, "light": True}
    trained = Student(8, context=1, generator=torch.Generator().manual_seed(1))
    made = grown(trained, shape, torch.Generator().manual_seed(2))
    ir, vi = torch.rand(2, 1, 1, 40, 40, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(made(ir, vi), trained(ir, vi), atol=1e-6, rtol=0)
    assert len(made.light) == 1
    for other in ({"width": 12, "context": 1}, {"width": 8, "context": 2}):
        with pytest.raises(StudentError, match="another shape"):
            grown(Student(**other, generator=torch.Generator().manual_seed(1)), shape)


def test_the_average_lies_between_and_takes_students_of_one_shape():
    one, other = (Student(8, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    made = average(one, other, 0.25)
    torch.testing.assert_close(made.stem.weight, 0.75 * one.stem.weight + 0.25 * other.stem.weight)
    assert all(torch.equal(a, b) for a, b in zip(average(one, other, 1).parameters(), other.parameters(), strict=True))
    with pytest.raises(StudentError, match="different shapes"):
        average(one, Student(9, generator=torch.Generator().manual_seed(0)), 0.5)
