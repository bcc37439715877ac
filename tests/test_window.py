import copy
import pickle
import shutil
import subprocess
import sys

import cv2
import gymnasium as gym
import numpy as np
import pytest

import fusion_gym  # noqa: F401  (registers the ids)
from fusion_gym import window

FAST = "FusionDistillFast-v0"
TINY = {"teacher": "rule:max", "reference": "rule:max", "episode_steps": 2, "updates_per_step": 1}


class Screen:
    """In OpenCV's place: what is shown where, for how long it waits, and whether the user has closed it."""

    def __init__(self, monkeypatch):
        self.shown, self.waited, self.visible = {}, [], 1.0
        monkeypatch.setenv("DISPLAY", ":99")
        monkeypatch.setattr(cv2, "getBuildInformation", lambda: "  GUI:                           QT5\n")
        monkeypatch.setattr(cv2, "namedWindow", lambda title, _: self.shown.setdefault(title, []))
        monkeypatch.setattr(cv2, "resizeWindow", lambda *_: None)
        monkeypatch.setattr(cv2, "imshow", lambda title, frame: self.shown[title].append(frame))
        monkeypatch.setattr(cv2, "waitKey", self.waited.append)
        monkeypatch.setattr(cv2, "getWindowProperty", lambda *_: self.visible)
        monkeypatch.setattr(cv2, "destroyWindow", self.shown.pop)

    @property
    def frames(self):
        return [frame for frames in self.shown.values() for frame in frames]


def test_a_window_follows_the_training_at_its_rate_and_render_gives_nothing(monkeypatch):
    screen = Screen(monkeypatch)
    env = gym.make(FAST, render_mode="human", **TINY)
    assert not screen.shown
    env.reset(seed=0)
    env.step(env.action_space.sample())
    env.step(env.action_space.sample())
    assert len(screen.frames) == 3 and env.render() is None
    assert all(wait <= 1000 / env.metadata["render_fps"] for wait in screen.waited)
    plain = gym.make(FAST, render_mode="rgb_array", **TINY)
    plain.reset(seed=0)
    np.testing.assert_array_equal(screen.frames[0], cv2.cvtColor(plain.render(), cv2.COLOR_RGB2BGR))
    env.close()
    assert not screen.shown


def test_a_window_that_is_closed_stays_closed_and_the_training_goes_on(monkeypatch):
    screen = Screen(monkeypatch)
    env = gym.make(FAST, render_mode="human", **TINY)
    env.reset(seed=0)
    screen.visible = 0.0
    assert np.isfinite(env.step(env.action_space.sample())[1])
    assert not screen.shown
    env.step(env.action_space.sample())
    assert not screen.shown


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_copies_show_nothing(copied, monkeypatch):
    screen = Screen(monkeypatch)
    env = gym.make(FAST, render_mode="human", **TINY).unwrapped
    env.reset(seed=0)
    other = copied(env)
    other.step(np.zeros(env.action_space.shape, np.float32))
    assert len(screen.frames) == 1
    other.close()
    env.step(np.zeros(env.action_space.shape, np.float32))
    assert len(screen.frames) == 2


def test_two_environments_have_a_window_each(monkeypatch):
    screen = Screen(monkeypatch)
    for _ in range(2):
        gym.make(FAST, render_mode="human", **TINY).reset(seed=0)
    assert len(screen.shown) == 2


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="always has a display")
def test_without_a_display_one_sentence_says_so_and_the_training_goes_on(monkeypatch, capsys):
    for name in window._DISPLAYS:
        monkeypatch.delenv(name, raising=False)
    env = gym.make(FAST, render_mode="human", **TINY)
    env.reset(seed=0)
    env.step(env.action_space.sample())
    env.close()
    said = capsys.readouterr().err.splitlines()
    assert said == ["There is no display for a window; set DISPLAY, or take render_mode='rgb_array'."]


def test_opencv_without_windows_is_told_with_the_remedy(monkeypatch):
    monkeypatch.setenv("DISPLAY", ":99")
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "    GUI:   NONE\n")
    with pytest.raises(window.NoWindow, match="pip uninstall opencv-python-headless"):
        window.Window(4)


def test_nothing_is_rendered_before_the_first_reset():
    with pytest.raises(gym.error.ResetNeeded):
        gym.make(FAST, render_mode="rgb_array", **TINY).unwrapped.render()


def test_a_real_window_opens_on_a_real_display():
    server = shutil.which("xvfb-run")
    if server is None or "GUI:                           NONE" in cv2.getBuildInformation():
        pytest.skip("there is no Xvfb, or OpenCV has no windows")
    script = (
        "import cv2, numpy as np; from fusion_gym.window import Window; w = Window(50);"
        "[w.show(np.full((90, 160, 3), 200, np.uint8)) for _ in range(3)];"
        "print(cv2.getWindowProperty(w._title, cv2.WND_PROP_VISIBLE)); w.close()"
    )
    done = subprocess.run([server, "-a", sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and float(done.stdout) == 1.0, done.stderr
