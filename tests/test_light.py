"""How a student learns to even the light."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fusion_gym.archives import read_tensors
from fusion_gym.data import load_splits
from fusion_gym.hardening import Draw, contrast_loss, darken, illumination
from fusion_gym.models.light import TAUGHT, grids, scene_statistics
from fusion_gym.models.student import STUDENTS, Student, begin, read_student, save_student
from fusion_gym.tensors import unit
from fusion_gym.train_light import COPIES, examples, main, train_light, undoing

# Under-exposed, over-exposed, of low contrast, noisy; a row is a hardening.
SHARE = torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.7], [0.8, 0.4, 0.0, 0.0], [0.0, 0.0, 0.5, 0.0]])
DRAWN = Draw(
    spared=torch.zeros(4),
    kind=torch.tensor([0.6, 0.6, 0.9, 0.3]),
    share=SHARE.sum(0),
    dark=torch.tensor([True, False, True, True]),
    seeds=torch.arange(4),
)


@pytest.fixture
def student():
    generator = torch.Generator().manual_seed(0)
    student = Student(8, generator=generator, context=1, light=True).eval().requires_grad_(False)
    torch.nn.init.normal_(student.light[0].head.weight, std=0.02, generator=generator)
    return student


@pytest.fixture
def patches():
    """Smooth scenes, (40, 1, 64, 64) each, of which every one has something dark and something bright."""
    drawn = torch.rand(2, 40, 1, 5, 5, generator=torch.Generator().manual_seed(1))
    return [torch.nn.functional.interpolate(one, (64, 64), mode="bilinear") for one in drawn]


def test_undoing_brings_back_contrast_and_exposure(patches):
    ir, vi = patches[0][:4], 0.3 * patches[1][:4]  # so that nothing is clipped
    gain = undoing(DRAWN).exp().view(4, 2, 1, 1, 1)
    torch.testing.assert_close(_centred(contrast_loss(ir, SHARE[3])) * gain[:, 0], _centred(ir))
    lit = illumination(vi, SHARE[2], DRAWN.dark)
    torch.testing.assert_close(_centred(lit[1]) * gain[1, 1], _centred(vi[1]))  # over-exposed
    dark = 0.15 * vi[:1].clamp(0, 1)  # without the gamma, which no gain undoes
    full = undoing(DRAWN._replace(share=torch.ones(4))).exp()
    torch.testing.assert_close(dark * full[0, 1], vi[:1])


def _centred(image):
    return image - image.mean(dim=(-2, -1), keepdim=True)


def test_damaged_light_is_to_be_answered_as_the_clean_pair_and_undone(student, patches, monkeypatch):
    ir, vi = (images[:4] for images in patches)
    monkeypatch.setattr("fusion_gym.train_light.draw", lambda count, generator: DRAWN)
    light, clean = student.light[0], scene_statistics(*grids(torch.cat((ir, vi), dim=1)))
    known = light.answer(clean)
    both = [part.split(4) for part in examples(light, ir, vi, torch.Generator())]
    torch.testing.assert_close((both[0][0], both[1][0]), (clean, known))
    seen, answers = (part[COPIES] for part in both)  # all copies are damaged alike here
    torch.testing.assert_close(answers[3], light.answer(seen)[3])  # noise: as before
    assert not torch.equal(seen[3], clean[3])
    torch.testing.assert_close(answers[:3, 4:], known[:3, 4:])
    damaged = contrast_loss(ir[2:3], SHARE[3, 2:3])
    gain, offset = torch.exp(3 * answers[2:3, :1]), answers[2:3, 2:3]
    evened = (damaged - seen[2:3, :1]) * gain + seen[2:3, :1] + offset
    wanted = (ir[2:3] - clean[2:3, :1]) * torch.exp(3 * known[2:3, :1]) + clean[2:3, :1] + known[2:3, 2:3]
    torch.testing.assert_close(evened, wanted)


def test_training_finds_the_damage_and_leaves_the_network_as_it_is(student, patches):
    made = train_light(student, *patches, torch.Generator().manual_seed(0), updates=300)
    # Of damage that it has not seen.
    seen, answers = examples(student.light[0], *patches, torch.Generator().manual_seed(9))
    before, after = ((one.light[0].answer(seen) - answers)[:, :2].square().mean() for one in (student, made))
    assert after < 0.5 * before
    again = train_light(student, *patches, torch.Generator().manual_seed(0), updates=300)
    for name, value in made.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
        assert name.startswith("light.") != torch.equal(value, student.state_dict()[name])


def test_command(tmp_path, student, capsys):
    save_student(student, tmp_path / "a.pt")
    command = ["--student", str(tmp_path / "a.pt"), "--out", str(tmp_path / "b.pt"), "--no-progress"]
    assert main([*command, "--updates", "5", "--patch-size", "64"]) == 0
    assert f"The student's weights are in {tmp_path / 'b.pt'}." in capsys.readouterr().out
    read = read_student(tmp_path / "b.pt")
    assert not torch.equal(read.light[0].head.weight, student.light[0].head.weight)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--updates", "0"], "--updates 0 is not allowed; give a whole number from 1 on."),
        (["--out", "b.onnx"], "b.onnx is not a weights file's name; let it end in .pt."),
        (["--student", "plain.pt"], "The student plain.pt does not even the light; train one with light=True."),
        (["--student", "none.pt"], "There is no student 'none.pt'"),
        (["--patch-size", "4096"], "lower patch_size"),
    ],
)
def test_mistakes(options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save_student(Student(8, generator=torch.Generator()), "plain.pt")
    assert main(["--student", "small", "--out", "b.pt", *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "b.pt").exists()


@pytest.mark.parametrize("name", STUDENTS)
def test_a_new_student_knows_what_would_even_the_light_and_is_told_nothing_else(name):
    light = begin("new", 16, name, torch.Generator().manual_seed(0)).light[0].requires_grad_(False)
    pairs = load_splits("synthetic-small").test
    ir, vi = unit(np.stack([(pair.ir, pair.vi) for pair in pairs])).split(1, dim=1)
    half = torch.full((len(vi),), 0.7)

    def answer(*images):
        return light.answer(scene_statistics(*grids(torch.cat(images, dim=1))))[..., 0, 0]

    clean, dark, faded = answer(ir, vi), answer(ir, darken(vi, half)), answer(contrast_loss(ir, half), vi)
    assert float((dark - clean)[:, 1].min()) > 0 and float((faded - clean)[:, 0].min()) > 0
    assert 0.5 < float((3 * (dark - clean)[:, 1]).mean() / -np.log(1 - 0.85 * 0.7)) < 1.2
    assert float(clean[:, :2].abs().mean()) < 0.1
    assert not clean[:, 4:].any() and not dark[:, 4:].any()


def test_what_new_students_know_is_made_by_one_command(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    make_light = pytest.importorskip("make_light", reason="benchmarks/ is absent")
    out = tmp_path / "light.pt"
    make_light.run(make_light.parse(["--data", "synthetic", "--out", str(out), "--updates", "2"]))
    made, shipped = read_tensors(out), read_tensors(TAUGHT)
    assert {name: value.shape for name, value in made.items()} == {name: v.shape for name, v in shipped.items()}
