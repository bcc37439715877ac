import pytest
import torch

from fusion_gym.models.student import MARGIN, Student, bounded


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
