import os

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from fusion_gym.actions import ACTIONS
from fusion_gym.images import read_image
from fusion_gym.rendering import _literal, contact_sheet, plot_curves, plot_intervals, render_frame, save_picture
from fusion_gym.text import plain

NAMES = ("infrared", "visible", "infrared, hardened", "visible, hardened", "teacher", "student")


def frame(decisions, seed=0):
    rng = np.random.default_rng(seed)
    images = {name: rng.random((48, 64), np.float32) for name in NAMES}
    history = {name: rng.random(decisions + 1).tolist() for name in ("total", "clean", "hardened")}
    actions = {name: [component.high] * (decisions + 1) for name, component in ACTIONS.items()}
    return render_frame(images, history, actions, f"decision {decisions}/16")


def test_a_frame_is_a_picture_of_one_shape_all_episode_long():
    first, last = frame(0), frame(16, seed=1)
    assert first.dtype == np.uint8 and first.ndim == 3 and first.shape[2] == 3 and first.shape == last.shape
    assert (first != last).any()
    np.testing.assert_array_equal(first, frame(0))


def test_the_panels_show_the_images():
    def with_student(value):
        images = {name: np.zeros((48, 48), np.float32) for name in NAMES} | {"student": np.full((48, 48), value)}
        return render_frame(images, {"total": [0.5]}, {"guidance": [0.5]}, "")

    dark, bright = with_student(0.0), with_student(1.0)
    changed = (dark != bright).any(2)
    rows, columns = np.nonzero(changed)
    assert changed[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].mean() > 0.98  # one square
    assert rows.min() > dark.shape[0] / 2 and (bright[changed] == 255).mean() > 0.9


def test_an_action_at_its_lower_end_is_drawn_lower_than_at_its_upper():
    name, component = next(iter(ACTIONS.items()))
    images = {"infrared": np.zeros((48, 48), np.float32)}

    def height(value):
        drawn = render_frame(images, {}, {name: [value] * 5}, "")
        line = (drawn.astype(int) - (0x00, 0x72, 0xB2)).__abs__().sum(2) < 12
        line[:, int(drawn.shape[1] * 0.88) :] = False  # the legend
        return np.nonzero(line)[0].mean()

    assert height(component.low) > height(component.high) + 50  # rows count downwards


def test_curves_and_global_state():
    before = dict(matplotlib.rcParams)
    picture = plot_curves({"a": ([0, 1, 2], [1.0, 3.0, 2.0]), "b": ([0, 1, 2], [0.0, 0.5, 1.0])}, "x", "y", "title")
    assert picture.dtype == np.uint8 and picture.shape[2] == 3 and len(np.unique(picture.reshape(-1, 3), axis=0)) > 10
    assert dict(matplotlib.rcParams) == before


def test_a_contact_sheet_holds_every_image_in_its_cell():
    rng = np.random.default_rng(0)
    colour = np.zeros((60, 80, 3), np.uint8)
    colour[..., 0] = 255
    rows = [
        {"gray": rng.integers(0, 256, (120, 160), dtype=np.uint8), "red": colour, "unit": np.full((30, 40), 0.5)}
    ] * 2
    sheet = contact_sheet(rows, ["", ""], height=120)
    assert sheet.dtype == np.uint8
    assert np.isin(rows[0]["gray"], sheet[..., 0]).all()  # at its own size it is not resampled
    assert ((sheet == (255, 0, 0)).all(2)).sum() == 2 * 120 * 160
    assert ((sheet == 128).all(2)).sum() >= 2 * 120 * 160


def test_a_contact_sheet_of_unequal_sizes_keeps_proportions():
    sheet = contact_sheet(
        [{"wide": np.zeros((50, 200), np.uint8)}, {"wide": np.zeros((200, 50), np.uint8)}], ["a", "b"]
    )
    assert sheet.shape[1] < 340
    with pytest.raises(ValueError, match="label for each row"):
        contact_sheet([], [])


def test_pictures_are_saved_as_rgb(tmp_path):
    picture = np.zeros((20, 20, 3), np.uint8)
    picture[..., 0] = 200
    save_picture(tmp_path / "a.png", picture)
    assert read_image(tmp_path / "a.png")[0, 0].tolist() == [0, 0, 200]  # BGR


@pytest.mark.parametrize("name", [r"a$\bad$b", "$_$", "_hidden", "\x1b[31m", os.fsdecode(b"\xff")])
def test_names_are_drawn_as_they_are(name):
    def drawn(each):
        curves = plot_curves({each: ([0, 1], [0, 1])}, "x", "y", each)
        return curves.size, curves.std(), plot_intervals({each: {each: (1, 0, 2)}}, each, each).std()

    assert all(value > 1 for value in drawn(name))
    axes = Figure().add_subplot()
    axes.plot([0, 1], label=_literal(name))
    (shown,) = (text.get_text() for text in axes.legend().get_texts())  # an underscore in front would leave it out
    assert shown.replace(r"\$", "$").strip() == plain(name)
