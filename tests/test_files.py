import csv
import errno
import json
import os
import re

import numpy as np
import pytest

from fusion_gym import files


def test_what_was_written_is_there_and_nothing_else(tmp_path):
    files.atomic_write(tmp_path / "a.txt", "grün\n")
    files.atomic_write(tmp_path / "b.bin", b"\0\1")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "grün\n" and (tmp_path / "b.bin").read_bytes() == b"\0\1"
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "b.bin"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, OSError(errno.ENOSPC, "full"), ValueError])
def test_whatever_happens_the_earlier_file_stays(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("before")
    with pytest.raises((KeyboardInterrupt, RuntimeError, OSError, ValueError)), files.atomic_path(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "before" and os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(("code", "says"), [(errno.ENOSPC, "No space"), (errno.EROFS, "read-only"), (errno.EIO, "odd")])
def test_an_error_of_the_disk_is_one_sentence(tmp_path, monkeypatch, code, says):
    def fail(*_):
        raise OSError(code, "odd")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(files.FileError, match=says) as caught:
        files.atomic_write(tmp_path / "a.txt", "x")
    assert "a.txt" in str(caught.value) and "\n" not in str(caught.value)


def test_a_place_that_takes_no_file_is_refused(tmp_path):
    with pytest.raises(files.FileError, match="no folder"):
        files.atomic_write(tmp_path / "nowhere" / "a.txt", "x")
    with pytest.raises(files.FileError, match="folder or a device"):
        files.atomic_write(tmp_path, "x")
    if os.path.exists("/dev/null"):
        with pytest.raises(files.FileError, match="device"):
            files.atomic_write("/dev/null", "x")


@pytest.mark.parametrize("name", ["ü" * 125 + ".png", "n" * 255, "x." + "s" * 253, "夜" * 84 + ".t"])
def test_a_name_as_long_as_the_file_system_takes_can_be_written(tmp_path, name):
    assert 246 <= len(os.fsencode(name)) <= 255
    files.atomic_write(tmp_path / name, "x")
    assert os.listdir(tmp_path) == [name]


def test_temporaries_of_a_file_keep_its_suffix_and_begin_alike(tmp_path):
    seen = []
    for name in ("a.png", "a.png", "b.png"):
        with files.atomic_path(tmp_path / name) as temporary:
            seen.append(temporary.name)
            temporary.touch()
    beginnings = [name.split(".")[1] for name in seen]
    assert beginnings[0] == beginnings[1] != beginnings[2] and seen[0] != seen[1]
    assert all(name.startswith(".") and name.endswith(".png") for name in seen)


def test_a_link_stays_a_link(tmp_path):
    target, link = tmp_path / "target.txt", tmp_path / "link.txt"
    target.write_text("before")
    try:
        link.symlink_to(target)
    except OSError:
        pytest.skip("this system lets us make no symbolic links")
    files.atomic_write(link, "after")
    assert link.is_symlink() and target.read_text() == "after"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
def test_the_file_has_the_users_usual_permissions(tmp_path):
    (tmp_path / "usual").touch()
    files.atomic_write(tmp_path / "ours", "x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_csv_has_the_union_of_the_columns(tmp_path):
    files.write_csv(tmp_path / "a.csv", [{"a": 1, "b": "x,y"}, {"a": 2, "c": np.float32(0.5)}])
    assert (tmp_path / "a.csv").read_bytes() == b'a,b,c\n1,"x,y",\n2,,0.5\n'


def test_json_is_standard_whatever_is_in_it(tmp_path):
    value = {"a": np.float32(1.5), "b": float("nan"), "c": [np.arange(2), float("inf")], 3: tmp_path, "t": (True, None)}
    files.write_json(tmp_path / "a.json", value)
    read = json.loads((tmp_path / "a.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert read == {"a": 1.5, "b": None, "c": [[0, 1], None], "3": str(tmp_path), "t": [True, None]}


def test_no_cell_is_a_formula_to_a_spreadsheet(tmp_path):
    cells = ["=1+2", "+x", "-x", "@SUM(A1)", "\t=1", "\r=1", "a=1", "-1.5", -2.5]
    files.write_csv(tmp_path / "a.csv", [{"=name": cell} for cell in cells])
    with open(tmp_path / "a.csv", newline="") as file:
        read = [row[0] for row in csv.reader(file)]
    assert read == ["'=name", "'=1+2", "'+x", "'-x", "'@SUM(A1)", r"\t=1", r"\r=1", "a=1", "-1.5", "-2.5"]


def test_a_name_that_is_no_utf_8_is_written_and_read_back(tmp_path):
    name = os.fsdecode(b"\xff\xe4.png")
    files.write_json(tmp_path / "a.json", {name: 1})
    files.write_csv(tmp_path / "a.csv", [{"image": name}])
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {name: 1}
    assert (tmp_path / "a.csv").read_text(encoding="utf-8") == "image\n\\udcff\\udce4.png\n"


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    loop = tmp_path / "loop"
    try:
        loop.symlink_to(loop)
    except OSError:
        pytest.skip("this system lets us make no symbolic links")
    for path in (tmp_path / "file", tmp_path / "file" / "x", loop, loop / "x", tmp_path / ("n" * 256)):
        with pytest.raises(files.FileError, match=re.escape(str(path))) as caught:
            files.make_folder(path)
        assert "choose another place" in str(caught.value) and "Errno" not in str(caught.value)
    assert files.make_folder(tmp_path / "a" / "b") == files.make_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
