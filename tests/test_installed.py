"""What `pip install` leaves: the wheel in an environment that has nothing else of this project."""

import configparser
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from fusion_gym import __main__ as front

ROOT = Path(__file__).parent.parent


def run(*command, **more):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, timeout=300, env=environment, check=False, **more
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # building leaves files beside the sources
    for name in ("fusion_gym", "agents"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    code, _, error = run(
        *(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, source)
    )
    assert code == 0, error
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A new environment's folder of commands; torch and the like are this one's, this project is the wheel alone."""
    home = tmp_path_factory.mktemp("env")
    assert run(sys.executable, "-m", "venv", "--without-pip", home)[0] == 0
    (site,) = home.glob("lib/python*/site-packages")
    code, _, error = run(
        *(sys.executable, "-m", "pip", "--python", home / "bin" / "python", "install", "-q", "--no-deps", wheel)
    )
    assert code == 0, error
    (site / "others.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")  # its own .pth files are not read
    return home / "bin"


def test_wheel_has_every_package_and_file_and_owns_no_name_but_its_own(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"fusion_gym"}
    for folder, place in (("fusion_gym", "fusion_gym"), ("agents", "fusion_gym/agents")):
        for file in (ROOT / folder).rglob("*.*"):
            if file.is_file() and "__pycache__" not in file.parts:
                assert f"{place}/{file.relative_to(ROOT / folder).as_posix()}" in names, file


def test_installed_command_trains_a_student_in_an_empty_folder(installed, tmp_path):
    tiny = ("--data", "synthetic-small", "--width", "4", "--updates", "8", "--decisions", "2", "--no-progress")
    code, said, error = run(installed / "fusion-gym", "distill", *tiny, "--seed", 1, cwd=tmp_path)
    assert code == 0, error
    assert (tmp_path / "runs" / "student" / "student.pt").is_file()
    assert said.splitlines()[-1] == "Next: look at runs/student/report.html."
    assert "fusion-gym distill --config" in (tmp_path / "runs" / "student" / "report.html").read_text("utf-8")
    code, said, error = run(installed / "fusion-gym", "fuse", "--samples", "--out", "fused", cwd=tmp_path)
    assert code == 0 and len(list((tmp_path / "fused").iterdir())) == 3, error
    code, said, error = run(installed / "python", "-m", "fusion_gym", "train-agent", "--dry-run", cwd=tmp_path)
    assert code == 0 and "algo: ppo" in said, error
    assert run(installed / "python", "-c", "import agents", cwd=tmp_path)[0] != 0


def test_every_command_has_its_module_and_the_entry_point_is_the_same(capsys):
    for command in front.COMMANDS:
        with pytest.raises(SystemExit, match="0"):
            front.main([command, "--help"])
        assert capsys.readouterr().out
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    assert settings["options.entry_points"]["console_scripts"].strip() == "fusion-gym = fusion_gym.__main__:main"


def test_a_command_that_does_not_exist_gets_the_nearest_name(capsys):
    assert front.main(["destill"]) == 2
    assert "did you mean 'distill'" in capsys.readouterr().err
    assert front.main([]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in front.COMMANDS)
