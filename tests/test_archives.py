import io
import json
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch

from agents import sb3
from fusion_gym import archives
from fusion_gym.archives import ArchiveError, check_archive, read_member, read_tensors, write_tensors
from fusion_gym.cli import UserError, read_yaml
from fusion_gym.export import export_torchscript
from fusion_gym.models.student import Student, StudentError, read_student
from fusion_gym.record import Record, RecordError
from fusion_gym.runtime import OnnxError, onnx_session
from fusion_gym.teachers import TeacherError, load_teacher
from fusion_gym.video import VideoError, VideoPair

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
BIG = 2**22  # bytes; more than any member may have under the limits of these tests


@pytest.fixture(autouse=True)
def low_limits(monkeypatch):
    monkeypatch.setattr(archives, "FREE", 2**21)
    monkeypatch.setattr(archives, "MOST_TEXT", 2**18)


def bomb(path, name, size=BIG, method=zipfile.ZIP_DEFLATED):
    """A small zip whose member unpacks to very much."""
    with zipfile.ZipFile(path, "w", method) as archive, archive.open(name, "w") as member:
        for _ in range(size // 2**20):
            member.write(b" " * 2**20)
    return path


def claim(path, wanted):
    """Changes what the headers say of the members' sizes."""
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        start = archive.start_dir
    data[start + 24 : start + 28] = wanted.to_bytes(4, "little")
    path.write_bytes(data)
    return path


def test_what_was_written_is_read(tmp_path):
    write_tensors(tmp_path / "a.pt", {"a": torch.arange(3), "b": [1, "c"]})
    read = read_tensors(tmp_path / "a.pt")
    assert read["a"].tolist() == [0, 1, 2] and read["b"] == [1, "c"]
    assert read_tensors((tmp_path / "a.pt").read_bytes())["b"] == [1, "c"]


@pytest.mark.parametrize(
    ("method", "says"), [(zipfile.ZIP_DEFLATED, "would unpack"), (zipfile.ZIP_BZIP2, "use deflate")]
)
def test_an_archive_that_would_unpack_to_much_more_than_it_is_is_refused(method, says, tmp_path):
    path = bomb(tmp_path / "a.zip", "x", 2**20 if method == zipfile.ZIP_BZIP2 else BIG, method)
    assert path.stat().st_size < 2**20
    for read in (lambda: check_archive(path, "a"), lambda: read_member(path, "x"), lambda: read_tensors(path)):
        with pytest.raises(ArchiveError, match=says):
            read()
    with pytest.raises(ArchiveError, match=says):
        check_archive(path.read_bytes(), "a")


def test_of_a_member_that_lies_no_more_is_unpacked_than_it_says(tmp_path):
    path = claim(bomb(tmp_path / "a.zip", "x"), 100)
    tracemalloc.start()
    try:
        with pytest.raises(ArchiveError, match="no sound x"):
            read_member(path, "x")
        assert tracemalloc.get_traced_memory()[1] < BIG // 4
    finally:
        tracemalloc.stop()


def test_text_and_pickles_have_a_limit_of_their_own(tmp_path):
    for name in (sb3.SIDECAR, "archive/data.pkl"):
        path = bomb(tmp_path / "a.zip", name, 2**20)
        with pytest.raises(ArchiveError, match="at most 262,144 are read"):
            check_archive(path, "a")


@pytest.mark.parametrize("name", [sb3.SIDECAR, "policy.pth", "data", "rest"])
def test_no_member_of_an_agent_is_a_bomb(name, tmp_path):
    path = bomb(tmp_path / "agent.zip", name)
    for read in (sb3.read_description, sb3.read_tensors):
        with pytest.raises(UserError, match="would unpack"):
            read(path)


def test_an_archive_inside_of_an_agent_is_looked_into_too(tmp_path):
    inner = bomb(tmp_path / "inner.zip", "archive/data/0").read_bytes()
    with zipfile.ZipFile(tmp_path / "agent.zip", "w") as archive:
        archive.writestr(sb3.SIDECAR, json.dumps({"algo": "ppo"}))
        archive.writestr("policy.pth", inner)
    with pytest.raises(UserError, match=r"its policy\.pth of .* would unpack"):
        sb3.read_tensors(tmp_path / "agent.zip")


@pytest.mark.parametrize("text", ["[" * 100_000, "\xff", "{", "1e999999"])
def test_a_description_that_is_no_json_is_refused(text, tmp_path):
    with zipfile.ZipFile(tmp_path / "agent.zip", "w") as archive:
        archive.writestr(sb3.SIDECAR, text.encode("latin-1"))
    try:
        sb3.read_description(tmp_path / "agent.zip")
    except UserError as error:
        assert "agent.zip" in str(error)


@pytest.mark.parametrize(
    ("name", "read", "error"),
    [
        ("a.pt", read_student, StudentError),
        ("a.pt", lambda path: load_teacher(str(path)), TeacherError),
        ("a.ts", lambda path: load_teacher(str(path)), TeacherError),
        ("a.onnx", lambda path: load_teacher(str(path)), TeacherError),
        ("a.onnx", lambda path: onnx_session(str(path)), OnnxError),
        ("a.zip", sb3.read_description, UserError),
        ("a.json", Record.load, RecordError),
        ("a.yml", read_yaml, UserError),
        ("a.mp4", lambda path: VideoPair(path, path), VideoError),
    ],
)
def test_a_pointer_of_git_lfs_gets_a_sentence_of_its_own(name, read, error, tmp_path):
    (tmp_path / name).write_text(POINTER)
    with pytest.raises(error, match=rf"{name} is a pointer of Git LFS, .* git lfs pull"):
        read(tmp_path / name)


def test_a_full_disk_leaves_nothing_and_is_one_sentence(tmp_path, monkeypatch):
    from pathlib import Path

    from fusion_gym.files import FileError

    def full(self, data):
        raise OSError(28, "No space left on device")

    student = Student(width=4)
    monkeypatch.setattr(Path, "write_bytes", full)
    for write in (lambda path: write_tensors(path, {}), lambda path: export_torchscript(student, path)):
        with pytest.raises(FileError, match=r"No space is left to write .*a\.ts"):
            write(tmp_path / "a.ts")
    assert not list(tmp_path.iterdir())


def test_archives_of_arrays_are_held_to_the_same():
    stream = io.BytesIO()
    np.savez_compressed(stream, observations=np.zeros(BIG, np.uint8))
    with pytest.raises(ArchiveError, match="would unpack"):
        check_archive(stream.getvalue(), "replay.npz")
