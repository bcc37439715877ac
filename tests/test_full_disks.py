"""Writers on a disk that takes only so many bytes: one sentence, nothing half written, and what was there stays."""

import contextlib

import numpy as np
import pytest
import torch

from fusion_gym import files, replay, video
from fusion_gym.data import cached_array
from fusion_gym.export import export_torchscript
from fusion_gym.files import FileError
from fusion_gym.images import write_image
from fusion_gym.models.student import Student, save_student
from fusion_gym.record import Record
from fusion_gym.rendering import save_picture

resource = pytest.importorskip("resource", reason="this system has no limits of files' sizes")
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (8, 64, 96, 3), dtype=np.uint8)


@contextlib.contextmanager
def disk_of(size):
    """Within it no file grows beyond so many bytes; writing more is an error, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def student():
    return Student(8, generator=torch.Generator().manual_seed(0)).eval()


def replay_film(path):
    pytest.importorskip("moviepy", reason="films need the extra 'video'")
    replay.write_video(path, list(PIXELS), 4)


def agent(path):
    from agents.cem import Agent

    made = Agent.__new__(Agent)
    made.weights = np.zeros((50, 50))
    made.save(path)


WRITERS = {
    "replay.mp4": replay_film,
    **{f"film{suffix}": lambda path: video.write_video(path, PIXELS, 25.0) for suffix in video.SUFFIXES},
    "image.png": lambda path: write_image(path, PIXELS[0]),
    "image.tif": lambda path: write_image(path, PIXELS[0]),
    "picture.png": lambda path: save_picture(path, PIXELS[0]),
    "student.pt": lambda path: save_student(student(), path),
    "student.ts": lambda path: export_torchscript(student(), path),
    "agent.npz": agent,
    "table.csv": lambda path: files.write_csv(path, [{"a": index} for index in range(9999)]),
    "values.json": lambda path: files.write_json(path, list(range(9999))),
    "record.json": Record("Env-v0", {}, [[0.0]] * 999, [0.0] * 999, 0.0, "terminated", seed=0).save,
}


@pytest.mark.parametrize(("name", "write"), WRITERS.items(), ids=WRITERS)
def test_a_file_is_written_whole_or_refused_in_one_sentence(name, write, tmp_path):
    whole, path = tmp_path / f"whole-{name}", tmp_path / name
    write(whole)
    path.write_bytes(b"what was there")
    size = whole.stat().st_size
    for room in (0, size // 2, size - size // 50 - 1):
        with pytest.raises(FileError) as refusal, disk_of(room):
            write(path)
        assert str(path) in str(refusal.value) and str(refusal.value).count("\n") == 0
        assert path.read_bytes() == b"what was there"
    assert sorted(tmp_path.iterdir()) == sorted((whole, path))


def test_without_room_for_the_cache_everything_goes_on(tmp_path, monkeypatch):
    monkeypatch.setenv("FUSION_GYM_CACHE", str(tmp_path))
    with disk_of(1000):
        kept = [cached_array("key", lambda: np.arange(999.0)) for _ in range(2)]
    assert all(np.array_equal(one, np.arange(999.0)) for one in kept)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", video.SUFFIXES)
@pytest.mark.parametrize("count", [1, 2, 13])
def test_a_whole_film_passes_whatever_its_length(suffix, count, tmp_path):
    frames = np.resize(PIXELS, (count, *PIXELS.shape[1:]))
    assert video.write_video(tmp_path / f"film{suffix}", frames, 29.97)[0] == count


@pytest.mark.parametrize("suffix", video.SUFFIXES)
def test_a_film_that_lost_its_end_is_refused_whatever_its_header_says(suffix, tmp_path):
    path = tmp_path / f"film{suffix}"
    video.write_video(path, PIXELS, 25.0)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    with pytest.raises(FileError, match="in part only"):
        video.verify(path, path, len(PIXELS))
