import pytest
import torch

from fusion_gym.models.student import MARGIN, Student, bounded, read_student, save_student


def test_a_pixel_outside_the_range_learns_to_come_back_and_does_not_drift():
    image = torch.tensor([-1.0, -1.0, 0.5, 2.0, 2.0, -MARGIN / 2], requires_grad=True)
    (bounded(image) * torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0, 1.0])).sum().backward()
    assert image.grad.tolist() == [0.0, -1.0, 1.0, 1.0, 0.0, 1.0]
    with torch.no_grad():
        assert bounded(image).tolist() == [0.0, 0.0, 0.5, 1.0, 1.0, 0.0]


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
