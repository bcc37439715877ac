import subprocess
import sys

import pytest

WITHOUT = """
import sys

class Broken:
    def find_spec(self, name, *_):
        if name == "cv2":
            raise {error}

sys.meta_path.insert(0, Broken())
import fusion_gym  # needs no OpenCV
try:
    import fusion_gym.images
except ImportError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        ("ImportError('libGL.so.1: cannot open shared object file')", "apt-get install libgl1"),
        ("ModuleNotFoundError('No module named cv2')", "pip install opencv-python."),
    ],
)
def test_opencv_that_does_not_load_is_told_with_the_remedy(error, remedy):
    script = WITHOUT.format(error=error)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and remedy in done.stdout and done.stdout.count("\n") == 1
