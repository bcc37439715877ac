"""OpenCV, or one sentence that says what it lacks: ``from fusion_gym.opencv import cv2``."""

try:
    import cv2
except ModuleNotFoundError as error:
    raise ImportError("OpenCV is not installed: pip install opencv-python.", name="cv2") from error
except ImportError as error:  # its wheel brings windows, whose libraries are the system's
    raise ImportError(
        f"OpenCV does not load ({error}); install what it lacks (Debian and Ubuntu: apt-get install libgl1 "
        "libglib2.0-0 libsm6 libxext6), or take the build without windows: pip uninstall opencv-python, then pip "
        "install --force-reinstall opencv-python-headless.",
        name="cv2",
    ) from error

__all__ = ["cv2"]
