"""A run's folder is one process's, from the moment that it is made to the process's end."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import distill_student
import train_agent
from fusion_gym import train_teacher
from fusion_gym.cli import UserError
from fusion_gym.folders import LOCK, Busy, claimed, free_folder, held

ROOT = Path(__file__).parents[1]
HOLD = "import sys, time, pathlib; from fusion_gym.folders import held\n"
HOLD += "with held(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(600)"


def test_of_runs_that_start_together_each_gets_a_folder_of_its_own(tmp_path):
    start, go_on, got = threading.Barrier(6), threading.Barrier(6), []

    def run():
        start.wait()
        with claimed(tmp_path / "run", numbered=True) as folder:
            got.append(folder.name)
            go_on.wait()

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(got) == ["run", *(f"run-{number}" for number in range(2, 7))]


def test_a_named_folder_is_had_by_one_and_the_other_is_refused(tmp_path):
    with claimed(tmp_path / "a"):
        with pytest.raises(Busy, match="in progress"), claimed(tmp_path / "a"):
            pass
        (tmp_path / "a" / "made").touch()
        with pytest.raises(Busy, match="in progress"), claimed(tmp_path / "a"):
            pass
    with pytest.raises(UserError, match="--resume"), claimed(tmp_path / "a"):
        pass
    assert not (tmp_path / "a" / LOCK).exists()


def test_a_hold_ends_with_its_process_and_leaves_the_folder_free(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    with pytest.raises(Busy, match=str(tmp_path)), held(tmp_path):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert free_folder(tmp_path) == tmp_path  # what the kill left is no content
    with claimed(tmp_path):
        pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_child_that_outlives_its_parent_does_not_hold_on(tmp_path):
    with held(tmp_path):
        child = os.fork()
        if child == 0:
            time.sleep(600)
    try:
        with held(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def commands(folder):
    """Every command that works in a folder, as it begins there or goes on."""
    small = ["--data", "synthetic-small", "--no-progress"]
    student = [*small, "--teacher", "rule:max", "--width", "4", "--updates", "2", "--decisions", "2", "--env-kwargs"]
    student += ["reference=rule:max", "patch_size=32", "probe_pairs=2", "probe_size=64"]
    agent = ["--env", "FusionDistillFast-v0", "--no-progress", "-n", "8", "--env-kwargs", "teacher=rule:max"]
    agent += ["reference=rule:max"]
    out = ["--out", str(folder)]
    return {
        "train": (train_agent.main, [*agent, *out]),
        "tune": (train_agent.main, [*agent, "--eval-freq", "4", "--tune", "1", *out]),
        "distil": (distill_student.main, [*student, *out]),
        "compare": (distill_student.main, [*student, *out, "--compare", "constant"]),
        "teacher": (train_teacher.main, [*small, "--updates", "1", "--crop", "48", *out]),
    }


@pytest.mark.parametrize("name", ["train", "tune", "distil", "compare", "teacher"])
def test_no_command_works_where_another_does(name, tmp_path, capsys):
    main, arguments = commands(tmp_path / "run")[name]
    (tmp_path / "run").mkdir()
    with held(tmp_path / "run"):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert "in progress" in error and str(tmp_path / "run") in error
        assert error.count("\n") == 1
        assert [path.name for path in (tmp_path / "run").iterdir()] == [LOCK]


@pytest.mark.parametrize(("main", "name"), [(train_agent.main, "train"), (distill_student.main, "distil")])
def test_a_run_in_progress_is_not_resumed(main, name, tmp_path, capsys):
    _, arguments = commands(tmp_path / "run")[name]
    assert main([*arguments[:-2], "--dry-run"]) == 0
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yml").write_text(capsys.readouterr().out)
    with held(tmp_path / "run"):
        assert main(["--resume", str(tmp_path / "run"), "--no-progress"]) == 2
    error = capsys.readouterr().err
    assert "in progress" in error and error.count("\n") == 1
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.yml"]


def test_what_a_file_manager_hides_in_a_folder_is_no_content(tmp_path):
    (tmp_path / ".DS_Store").touch()
    (tmp_path / "._config.yml").touch()
    assert free_folder(tmp_path) == tmp_path
    (tmp_path / "config.yml").touch()
    assert free_folder(tmp_path) == tmp_path.with_name(f"{tmp_path.name}-2")
