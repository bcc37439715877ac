import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

import distill_student
import train_agent
from agents.distilling import student_run
from agents.training import judging
from fusion_gym.cli import parse_settings

ROOT = Path(__file__).parent.parent
TINY = ["teacher=rule:max", "reference=rule:max", "episode_steps=2", "updates_per_step=1"]
AGENT = ["--env", "FusionDistillFast-v0", "--env-kwargs", *TINY, "--seed", "1", "--no-progress"]
PPO = [*AGENT, "-p", "n_steps=8", "batch_size=8"]
SMALL = ["reference=rule:max", "patch_size=32", "probe_pairs=2", "probe_size=64"]
STUDENT = ["--data", "synthetic-small", "--teacher", "rule:max", "--width", "4", "--batch-size", "2", "--no-progress"]


@pytest.fixture(autouse=True)
def short_report(monkeypatch):
    monkeypatch.setattr(judging, "REPORT_EPISODES", 2)
    monkeypatch.setattr(judging, "EXTREME_EPISODES", 1)


def distil(out, *more, updates=16, decisions=8):
    shape = ["--updates", str(updates), "--decisions", str(decisions), "--seed", "3", "--out", str(out)]
    return distill_student.main([*STUDENT, *shape, "--env-kwargs", *SMALL, *more])


@pytest.fixture
def start():
    """Starts a command as a process group of its own, which does not outlive the test."""
    processes = []
    # A shell that is not interactive has its background jobs ignore Ctrl-C, and what they start inherits that.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)

    def launch(command, *arguments):
        process = subprocess.Popen(
            [sys.executable, str(ROOT / command), *map(str, arguments)],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        processes.append(process)
        return process

    yield launch
    signal.signal(signal.SIGINT, handler)
    for process in processes:
        if process.poll() is None:
            process.kill()


def kill_when(process, ready, seconds=300):
    """SIGKILL as soon as ``ready()`` holds; the process must still be at work then."""
    end = time.monotonic() + seconds
    while not ready():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < end, "it did not get there"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def no_traces(folder):
    return [path.name for path in folder.rglob(".*") if path.is_file()] == []


# --- train_agent.py


def test_training_leaves_a_complete_run_folder(tmp_path, capsys):
    out = tmp_path / "run"
    steps = ["-n", "16", "--eval-freq", "8", "--eval-episodes", "1", "--save-freq", "8"]
    assert train_agent.main([*PPO, *steps, "--out", str(out), "--report"]) == 0
    printed = capsys.readouterr().out
    config = yaml.safe_load((out / "config.yml").read_text())
    assert (config["algo"], config["seed"], config["n_timesteps"]) == ("ppo", 1, 16)
    assert config["hyperparams"]["n_steps"] == 8
    for name in ("best_model.zip", "final_model.zip", "command.txt", "progress.csv", "learning_curve.png"):
        assert (out / name).stat().st_size > 0
    summary = json.loads((out / "summary.json").read_text())
    assert len(summary["agents"]["trained"]["returns"]) == 2
    assert {"trained", "constant", "random", "guidance 1", "all lowest"} <= set(summary["agents"])
    assert np.load(out / "evaluations.npz")["timesteps"].tolist() == [0, 8, 16]
    assert len((out / "0.monitor.csv").read_text().splitlines()) == 2 + 8
    header = (out / "progress.csv").read_text().splitlines()[0]
    assert all(name in header for name in ("fusion/SSIM", "gap/intensity", "action/guidance", "eval/mean_reward"))
    assert f"Next: python distill_student.py --agent {out / 'best_model.zip'}" in printed.splitlines()[-1]
    assert no_traces(out)

    # its agent goes straight into the other command
    agent = ["--agent", str(out / "best_model.zip")]
    assert (
        distill_student.main([*STUDENT, *agent, "--updates", "4", "--out", str(tmp_path / "s"), "--env-kwargs", *SMALL])
        == 0
    )
    assert yaml.safe_load((tmp_path / "s" / "config.yml").read_text())["decisions"] == 2


@pytest.mark.parametrize("kind", ["subproc", "population"])
def test_environments_side_by_side(kind, tmp_path):
    side = ["--vec-env", kind, "--n-envs", "2", "-n", "16", "--eval-freq", "0"]
    assert train_agent.main([*PPO, *side, "--out", str(tmp_path / "run")]) == 0
    rows = [(tmp_path / "run" / f"{rank}.monitor.csv").read_text().splitlines() for rank in (0, 1)]
    assert [len(lines) for lines in rows] == [2 + 4, 2 + 4]
    assert rows[0][2] != rows[1][2]  # other students


def test_same_seed_same_agent(tmp_path):
    for name in "ab":
        out = tmp_path / name
        assert train_agent.main([*PPO, "-n", "8", "--eval-freq", "0", "--out", str(out)]) == 0
    weights = [zipfile.ZipFile(tmp_path / name / "final_model.zip").read("policy.pth") for name in "ab"]
    first, second = (torch.load(io.BytesIO(content), weights_only=True) for content in weights)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_without_evaluations_the_last_model_is_the_best_also_after_more_steps(tmp_path):
    out = tmp_path / "run"
    assert train_agent.main([*PPO, "-n", "8", "--eval-freq", "0", "--out", str(out)]) == 0
    first = (out / "best_model.zip").read_bytes()
    assert train_agent.main(["--resume", str(out), "-n", "16", "--no-progress"]) == 0
    best, final = (zipfile.ZipFile(out / f"{name}_model.zip").read("policy.pth") for name in ("best", "final"))
    assert best == final
    assert (out / "best_model.zip").read_bytes() != first


def test_a_killed_training_continues_from_its_last_checkpoint(tmp_path, capsys, start):
    out = tmp_path / "run"
    arguments = [
        *AGENT,
        "--algo",
        "sac",
        "-p",
        "learning_starts=4",
        "-n",
        "400",
        "--save-freq",
        "8",
        "--eval-freq",
        "0",
    ]
    process = start("train_agent.py", *arguments, "--out", out)
    kill_when(process, lambda: list(out.glob("rl_model_*_steps.zip")))
    from agents.training.callbacks import checkpoints

    steps = checkpoints(out)[-1][0]
    assert 8 <= steps < 400
    before = (out / "progress.csv").read_text().splitlines()
    assert train_agent.main(["--resume", str(out), "-n", str(steps + 16), "--no-progress"]) == 0
    assert f"Continuing at step {steps}" in capsys.readouterr().out
    assert json.loads((out / "summary.json").read_text())["timesteps"] == steps + 16
    after = (out / "progress.csv").read_text().splitlines()
    assert len(after) > len(before)
    assert no_traces(out)


@pytest.mark.parametrize(("request_to_stop", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_request_to_stop_saves(request_to_stop, code, tmp_path, start):
    out = tmp_path / "run"
    arguments = [*PPO, "-n", "4000", "--save-freq", "4000", "--eval-freq", "0", "--vec-env", "subproc", "--n-envs", "1"]
    process = start("train_agent.py", *arguments, "--out", out)
    end = time.monotonic() + 300
    while not (out / "progress.csv").is_file() or "rollout" not in (out / "progress.csv").read_text():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.02)
    os.killpg(process.pid, request_to_stop)  # as terminals and schedulers do: to the workers too
    assert process.wait(120) == code
    assert len(list(out.glob("rl_model_*_steps.zip"))) == 1


def test_a_dead_worker_is_reported(tmp_path, monkeypatch, capsys):
    from agents.training.callbacks import FusionMetrics

    def kill(self):
        self.training_env.processes[0].kill()
        return True

    monkeypatch.setattr(FusionMetrics, "_on_step", kill)
    side = ["--vec-env", "subproc", "--n-envs", "1", "-n", "16", "--eval-freq", "0"]
    assert train_agent.main([*PPO, *side, "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert "worker" in error
    assert "Traceback" not in error


def test_runs_are_numbered_and_never_overwritten(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("ppo", "ppo-2"):
        assert train_agent.main([*PPO, "-n", "8", "--eval-freq", "0"]) == 0
        assert (tmp_path / "runs" / name / "best_model.zip").is_file()
    before = (tmp_path / "runs" / "ppo" / "config.yml").stat().st_mtime_ns
    assert train_agent.main([*PPO, "-n", "8", "--out", "runs/ppo"]) == 2
    assert "--resume" in capsys.readouterr().err
    assert (tmp_path / "runs" / "ppo" / "config.yml").stat().st_mtime_ns == before


def test_a_config_file_repeats_a_run_and_flags_go_before_it(tmp_path, capsys):
    assert train_agent.main([*PPO, "-n", "24", "--dry-run"]) == 0
    first = yaml.safe_load(capsys.readouterr().out)
    (tmp_path / "c.yml").write_text(yaml.safe_dump(first))
    assert train_agent.main(["--config", str(tmp_path / "c.yml"), "--dry-run"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == first
    more = ["--seed", "9", "-p", "n_steps=4", "-n", "12"]
    assert train_agent.main(["--config", str(tmp_path / "c.yml"), *more, "--dry-run"]) == 0
    second = yaml.safe_load(capsys.readouterr().out)
    assert (second["seed"], second["hyperparams"]["n_steps"], second["n_timesteps"]) == (9, 4, 12)
    assert second["env_kwargs"] == first["env_kwargs"]


# --- distill_student.py


def test_a_student_s_config_file_repeats_it_too(tmp_path, capsys):
    assert distil(tmp_path / "s", "--dry-run") == 0
    first = yaml.safe_load(capsys.readouterr().out)
    assert not (tmp_path / "s").exists()
    (tmp_path / "c.yml").write_text(yaml.safe_dump(first))
    assert distill_student.main(["--config", str(tmp_path / "c.yml"), "--updates", "24", "--dry-run"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == {**first, "updates": 24}


def test_distilling_leaves_a_deployable_student(tmp_path, capsys):
    out = tmp_path / "s"
    assert distil(out, "--test", "synthetic-small", "--agent", "linear") == 0
    for name in ("student.pt", "student.onnx", "log.csv", "losses.png", "scores.png", "actions.png"):
        assert (out / name).stat().st_size > 0
    sheet = cv2.imread(str(out / "contact_sheet.png"))
    assert np.abs(sheet.astype(int) - sheet.mean(2, keepdims=True)).max() > 20  # in colour
    mean = json.loads((out / "metrics.json").read_text())["synthetic-small"]["mean"]
    assert set(mean) == {"student", "teacher", "mean", "max", "laplacian", "guided"}
    assert mean["teacher"] == mean["max"]
    printed = capsys.readouterr().out
    assert "of teacher" in printed
    assert printed.splitlines()[-1].startswith("Next:")
    log = (out / "log.csv").read_text().splitlines()
    guidance = log[0].split(",").index("action/guidance")
    values = [float(line.split(",")[guidance]) for line in log[2:]]
    assert values == pytest.approx(np.linspace(1, 0, 9)[:-1])  # the whole schedule, in 8 decisions
    assert no_traces(out)


def test_a_decision_is_held_over_its_stretches(tmp_path, monkeypatch):
    monkeypatch.setattr(student_run, "STRETCH", 2)
    assert distil(tmp_path / "s", "--agent", "linear", updates=16, decisions=2) == 0
    log = (tmp_path / "s" / "log.csv").read_text().splitlines()
    guidance = log[0].split(",").index("action/guidance")
    assert [float(line.split(",")[guidance]) for line in log[2:]] == pytest.approx([1] * 4 + [0.5] * 4)
    assert float(log[-1].split(",")[log[0].split(",").index("student/updates")]) == 16


def test_a_killed_distillation_resumes_bit_for_bit(tmp_path, start):
    arguments = ["--agent", "random", "--updates", "48", "--decisions", "24", "--seed", "3", "--env-kwargs", *SMALL]
    process = start("distill_student.py", *STUDENT, *arguments, "--out", tmp_path / "killed")
    kill_when(process, (tmp_path / "killed" / "state.pt").is_file)
    saved = torch.load(tmp_path / "killed" / "state.pt", weights_only=True)
    assert 1 <= len(saved["log"]) - 1 < 24
    assert not (tmp_path / "killed" / "student.pt").exists()
    assert distill_student.main(["--resume", str(tmp_path / "killed"), "--no-progress"]) == 0
    assert distil(tmp_path / "whole", "--agent", "random", updates=48, decisions=24) == 0
    first, second = (
        torch.load(tmp_path / name / "student.pt", weights_only=True)["weights"] for name in ("killed", "whole")
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    for name in ("log.csv", "metrics.csv", "metrics.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert no_traces(tmp_path)


@pytest.mark.parametrize(("options", "name"), [([], "tiny"), (["--student", "small"], "small")])
def test_a_student_of_the_family(tmp_path, options, name):
    from fusion_gym.models.student import STUDENTS, read_student

    few = ["--data", "synthetic-small", "--teacher", "rule:max", "--batch-size", "2", "--no-progress"]
    few += ["--updates", "2", "--decisions", "1", "--env-kwargs", "reference=rule:max", "probe_pairs=1"]
    assert distill_student.main([*options, *few, "--out", str(tmp_path / "s")]) == 0
    settings = read_student(tmp_path / "s" / "student.pt").settings
    assert settings == {**settings, **STUDENTS[name]}


def test_a_width_and_a_student_of_the_family_exclude_each_other(tmp_path, capsys):
    assert distil(tmp_path / "s", "--student", "tiny") == 2
    assert "--student and --width exclude each other" in capsys.readouterr().err


def test_divergence_ends_with_one_sentence(tmp_path, capsys, monkeypatch):
    from fusion_gym.distiller import Distiller, Stats

    advance = Distiller.advance

    def diverge(self, settings, updates):
        stats = advance(self, settings, updates)
        return Stats(float("nan"), stats.loss_self, stats.grad_norm) if self.updates > 4 else stats

    monkeypatch.setattr(Distiller, "advance", diverge)
    assert distil(tmp_path / "s") == 2
    error = capsys.readouterr().err
    assert "diverged after 4 updates" in error
    assert "--learning-rate" in error
    assert (tmp_path / "s" / "losses.png").is_file()
    assert not (tmp_path / "s" / "student.pt").exists()


def test_settings_with_signs_that_are_none_of_yaml_are_text():
    given = ["data=%20d", "teacher=@x.onnx", "a=`b`", "c=my%20data", "d=50%", "e=[1, 2]"]
    wanted = {"data": "%20d", "teacher": "@x.onnx", "a": "`b`", "c": "my%20data", "d": "50%", "e": [1, 2]}
    assert parse_settings(given, "--env-kwargs") == wanted


# --- mistakes, the same for both commands


def pictures(folder, names, shape=(64, 64)):
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for name in names:
        cv2.imwrite(str(folder / name), rng.integers(0, 256, shape, dtype=np.uint8))


@pytest.fixture
def bad(tmp_path):
    """Data folders with one fault each."""
    names = [f"{i}.png" for i in range(4)]
    for fault in ("unpaired", "corrupt", "tiny", "sizes"):
        pictures(tmp_path / fault / "ir", names)
        pictures(tmp_path / fault / "vi", names)
    (tmp_path / "unpaired" / "vi" / "2.png").rename(tmp_path / "unpaired" / "vi" / "x.png")
    (tmp_path / "corrupt" / "vi" / "2.png").write_bytes(b"no image")
    cv2.imwrite(str(tmp_path / "tiny" / "ir" / "2.png"), np.zeros((3, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "sizes" / "ir" / "2.png"), np.zeros((80, 64), np.uint8))
    (tmp_path / "text.zip").write_text("not a zip")
    (tmp_path / "unknown.yml").write_text("learning_rat: 1\n")
    (tmp_path / "broken.yml").write_text("a: [\n")
    (tmp_path / "run.yml").write_text("hyperparams: {}\nn_env: 8\n")
    (tmp_path / "zoo.yml").write_text("FusionDistillFast-v0: {n_timesteps: 8, learning_rat: 0.1}\n")
    (tmp_path / "empty").mkdir()
    return tmp_path


DATA = [
    (["--data", "{bad}/absent"], ["absent"]),
    (["--data", "{bad}/unpaired"], ["2.png"]),
    (["--data", "{bad}/corrupt"], ["2.png"]),
    (["--data", "{bad}/tiny"], ["2.png"]),
    (["--data", "{bad}/sizes"], ["2.png"]),
    (["--teacher", "nobody"], ["nobody"]),
    (["--teacher", "{bad}/empty"], ["empty"]),
    (["--config", "{bad}/broken.yml"], ["broken.yml", "line"]),
    (["--config", "{bad}/absent.yml"], ["absent.yml"]),
    (["--env-kwargs", "patch_sze=32"], ["patch_sze", "patch_size"]),
    (["--env-kwargs", "patch_size"], ["key=value"]),
    (["--env-kwargs", "actions=[guidence]"], ["guidence"]),
    (["--resume", "{bad}/empty"], ["config.yml"]),
    (["--out", "{bad}/text.zip"], ["text.zip", "--out"]),
]
TRAINING = [
    (["--algo", "pop"], ["pop", "ppo"]),
    (["--env", "FusionDistil-v0"], ["FusionDistill"]),
    (["--env", "CartPole-v1"], ["CartPole-v1"]),
    (["-p", "learning_rate=nan"], ["learning_rate"]),
    (["-p", "learning_rat=1"], ["learning_rat", "'learning_rate'"]),
    (["-p", "gamma=high"], ["gamma"]),
    (["-p", "n_steps=2.5"], ["n_steps", "whole"]),
    (["-p", "batch_size=0"], ["ppo"]),
    (["--config", "{bad}/zoo.yml"], ["learning_rat", "'learning_rate'"]),
    (["--env-kwargs", "learning_rate=nan"], ["learning_rate"]),
    (["--env-kwargs", "episode_steps=0"], ["episode_steps"]),
    (["-n", "-5"], ["n_timesteps"]),
    (["--n-envs", "-1"], ["n_envs"]),
    (["-n", "0"], ["n_timesteps"]),
    (["--algo", "dqn", "--vec-env", "population"], ["population", "dqn"]),
    (["--seed", "-1"], ["seed"]),
    (["--eval-freq", "-1"], ["eval_freq"]),
    (["--config", "{bad}/run.yml"], ["n_env", "'n_envs'"]),
]
DISTILLING = [
    (["--agent", "{bad}/text.zip"], ["text.zip"]),
    (["--agent", "{bad}/absent.zip"], ["absent.zip"]),
    (["--agent", "lineer"], ["lineer", "linear"]),
    (["--learning-rate", "nan"], ["learning_rate"]),
    (["--learning-rate", "-1"], ["learning_rate"]),
    (["--width", "0"], ["width"]),
    (["--updates", "3"], ["--updates"]),
    (["--seed", "-1"], ["seed"]),
    (["--config", "{bad}/unknown.yml"], ["learning_rat", "'learning_rate'"]),
    (["--test", "{bad}/corrupt"], ["2.png"]),
    (["--env-kwargs", "teacher=rule:max"], ["teacher"]),
]


def refused(main, arguments, words, bad, capsys):
    """Exit code 2, one sentence that names what is wrong, and nothing changed on the disk."""
    before = {path: path.stat().st_mtime_ns for path in bad.rglob("*")}
    assert main([argument.format(bad=bad) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert all(word in error for word in words), error
    assert error.count("\n") == 1, error
    assert "Traceback" not in error
    assert {path: path.stat().st_mtime_ns for path in bad.rglob("*")} == before


@pytest.mark.parametrize(("arguments", "words"), DATA + TRAINING)
def test_mistakes_in_training_are_refused(arguments, words, bad, capsys):
    refused(train_agent.main, [*PPO, "-n", "8", "--out", "{bad}/out", *arguments], words, bad, capsys)


@pytest.mark.parametrize(("arguments", "words"), DATA + DISTILLING)
def test_mistakes_in_distilling_are_refused(arguments, words, bad, capsys):
    shape = ["--updates", "16", "--decisions", "8", "--out", "{bad}/out", "--env-kwargs", *SMALL]
    refused(distill_student.main, [*STUDENT, *shape, *arguments], words, bad, capsys)


def test_a_mistake_on_the_real_command_line_has_no_traceback(bad):
    for command in ("train_agent.py", "distill_student.py"):
        arguments = [sys.executable, str(ROOT / command), "--data", str(bad / "unpaired")]
        result = subprocess.run(arguments, cwd=bad, capture_output=True, text=True, check=False)
        assert result.returncode == 2
        assert result.stderr.count("\n") == 1
        assert result.stderr.startswith(f"{command}: ")
        assert not (bad / "runs").exists()


def test_read_only_and_full_folders(tmp_path, capsys, monkeypatch):
    from fusion_gym import files

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    assert distil(tmp_path / "s") == 2
    error = capsys.readouterr().err
    assert "space" in error
    assert error.count("\n") == 1


def test_a_damaged_state_is_named(tmp_path, capsys):
    assert distil(tmp_path / "s") == 0
    (tmp_path / "s" / "state.pt").write_bytes(b"damaged")
    assert distill_student.main(["--resume", str(tmp_path / "s"), "--no-progress"]) == 2
    assert "state.pt" in capsys.readouterr().err.splitlines()[-1]
