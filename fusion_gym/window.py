"""A window of OpenCV's that shows frames as they come; closing it ends the showing, not what is shown."""

from __future__ import annotations

import itertools
import os
import sys
import time

import numpy as np

from fusion_gym.opencv import cv2
from fusion_gym.text import say

_NUMBERS = itertools.count(1)
_DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY")  # where Linux and BSD say that they have one


class NoWindow(RuntimeError):
    """A window cannot be shown here; the message is one sentence that says why and what to do."""


class Window:
    """A window for frames, opened with the first one.

    A copy of it, as of an environment that is forked or pickled, shows nothing.

    Args:
        fps: Frames per second at most; a frame that comes earlier waits.

    Raises:
        NoWindow: If there is no display, or OpenCV was built without windows.
    """

    def __init__(self, fps: float) -> None:
        if sys.platform not in ("win32", "darwin") and not any(map(os.environ.get, _DISPLAYS)):
            raise NoWindow("There is no display for a window; set DISPLAY, or take render_mode='rgb_array'.")
        if any(line.split() == ["GUI:", "NONE"] for line in cv2.getBuildInformation().splitlines()):
            raise NoWindow(
                "OpenCV is installed without windows: pip uninstall opencv-python-headless, then pip install "
                "--force-reinstall opencv-python; or take render_mode='rgb_array'."
            )
        number = next(_NUMBERS)
        self._title = "FusionGym" if number == 1 else f"FusionGym {number}"
        self._seconds, self._due, self._open = 1 / fps, 0.0, False
        self._shut = False

    @property
    def wanted(self) -> bool:
        """Whether a frame would be shown: nobody has closed the window."""
        return not self._shut

    def show(self, frame: np.ndarray) -> None:
        """Shows a frame, uint8 (H, W, 3) RGB; nothing where the user has closed the window.

        A display that takes no window gets a sentence on standard error.
        """
        if self._shut:
            return
        try:
            if self._open and cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) < 1:
                self.close()
                return
            if not self._open:
                cv2.namedWindow(self._title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
                cv2.resizeWindow(self._title, frame.shape[1], frame.shape[0])
                self._open = True
            cv2.imshow(self._title, cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
            left = self._due - time.monotonic()
            cv2.waitKey(max(1, round(1000 * left)))
        except cv2.error as error:  # the display may have gone
            self._open, self._shut = False, True
            say(f"The display takes no window ({error.err}); what would be shown goes on without.", error=True)
        self._due = time.monotonic() + self._seconds

    def close(self) -> None:
        """Closes the window for good."""
        if self._open:
            cv2.destroyWindow(self._title)
            cv2.waitKey(1)  # lets the window system do it
        self._open, self._shut = False, True

    def __reduce__(self) -> tuple[object, ...]:
        """A copy that shows nothing."""
        return _shut, ()


def _shut() -> Window:
    window = Window.__new__(Window)
    window._open, window._shut = False, True
    return window
