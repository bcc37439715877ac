"""Settings from files are checked by their types; a run that goes on is the run that was begun."""

import json
import zipfile
from pathlib import Path

import pytest
import torch
import yaml

import distill_student
import train_agent
from agents import SHIPPED, settings_of
from agents.comparison import command as comparison
from agents.distilling import command
from agents.distilling.student_run import StudentRun
from agents.training.agent_run import AgentRun
from fusion_gym.cli import UserError

STUDENTS = Path(__file__).parents[1] / "benchmarks" / "students"
SMALL = ["reference=rule:max", "patch_size=32", "probe_pairs=2", "probe_size=64"]
STUDENT = ["--data", "synthetic-small", "--teacher", "rule:max", "--width", "4", "--batch-size", "2", "--no-progress"]
STUDENT += ["--updates", "2", "--decisions", "2", "--seed", "3", "--env-kwargs", *SMALL]
TINY = {"teacher": "rule:max", "reference": "rule:max", "episode_steps": 2, "updates_per_step": 1}
RUNS = {
    "student": (distill_student.main, StudentRun(data="synthetic-small")),
    "agent": (train_agent.main, AgentRun(env="FusionDistillFast-v0", env_kwargs=TINY)),
}
WRONG = [
    *(("student", name, value) for name, value in [("updates", "abc"), ("width", 4.5), ("learning_rate", "fast")]),
    *(("student", name, value) for name, value in [("test", "synthetic-small"), ("test", [3]), ("agent", None)]),
    *(("student", name, value) for name, value in [("ir_range", [1]), ("env_kwargs", []), ("threads", True)]),
    *(("agent", name, value) for name, value in [("n_timesteps", "abc"), ("hyperparams", None), ("env_kwargs", [])]),
    *(("agent", name, value) for name, value in [("algo", 3), ("versions", 1), ("eval_freq", 1.5), ("seed", "x")]),
    *(
        ("agent", f"env_kwargs.{name}", value)
        for name, value in [("fixed", [1]), ("threads", "x"), ("actions", "noise")]
    ),
    *(("agent", f"hyperparams.{name}", value) for name, value in [("n_steps", "x"), ("policy", 3), ("imitate", {})]),
]


def one_sentence(capsys, *words):
    error = capsys.readouterr().err
    assert all(word in error for word in words), error
    assert error.count("\n") == 1, error
    return error


@pytest.mark.parametrize(("kind", "place", "value"), WRONG)
def test_a_value_of_a_wrong_type_is_refused_by_name(kind, place, value, tmp_path, capsys):
    main, run = RUNS[kind]
    content = part = run.as_dict()
    *outer, name = place.split(".")
    for each in outer:
        part = part[each]
    part[name] = value
    (tmp_path / "config.yml").write_text(yaml.safe_dump(content))
    file = [str(tmp_path / "config.yml")] if outer != ["env_kwargs"] else []
    assert main(["--config", str(tmp_path / "config.yml"), "--out", str(tmp_path / "out"), "--no-progress"]) == 2
    one_sentence(capsys, name, *file)
    assert main(["--resume", str(tmp_path), "--no-progress"]) == 2
    one_sentence(capsys, name, *file)
    assert [path.name for path in tmp_path.iterdir()] == ["config.yml"]


NAMES = ("2024", "3e-4", "1_0", "nan", "yes", "0x1f", "1.5", "-.5", "null", "12:30", "~")


@pytest.mark.parametrize("run", [*(run for _, run in RUNS.values()), *(StudentRun(data=name) for name in NAMES)])
def test_what_is_written_is_read_back(run, tmp_path):
    (tmp_path / "config.yml").write_text(run.to_yaml())
    assert type(run).read(tmp_path / "config.yml") == run


@pytest.mark.parametrize("name", ["algo", "actions", "fixed", "hidden", "decisions", "features", "seed"])
@pytest.mark.parametrize("value", [[3], {"noise": "x"}, 1.5])
def test_a_description_of_wrong_types_is_refused_by_name(name, value, tmp_path):
    with zipfile.ZipFile(SHIPPED["ppo"]) as good, zipfile.ZipFile(tmp_path / "bad.zip", "w") as bad:
        for entry in good.namelist():
            content = good.read(entry)
            if entry == "fusion_gym.json":
                content = json.dumps({**json.loads(content), name: value})
            bad.writestr(entry, content)
    with pytest.raises(UserError, match=rf"bad\.zip, fusion_gym\.json: {name}\b.* is not allowed; give "):
        settings_of(str(tmp_path / "bad.zip"))


@pytest.mark.parametrize(
    ("kind", "options", "named"),
    [
        ("student", ["--learning-rate", "0.003"], "--learning-rate is"),  # the default too: it was asked for
        ("student", ["--updates", "9", "--device", "cpu"], "--updates, --device are"),
        ("student", ["--config", "x.yml"], "--config is"),
        ("student", ["--out", "x"], "--out is"),
        ("agent", ["--n-envs", "2"], "--n-envs is"),
        ("agent", ["-p", "learning_rate=0.1"], "--param is"),
        ("agent", ["--data", "x", "--env-kwargs", "a=1"], "--data, --env-kwargs are"),
        ("agent", ["--threads", "2"], "--threads is"),
    ],
)
def test_a_resume_refuses_what_it_does_not_take(kind, options, named, tmp_path, capsys):
    main, run = RUNS[kind]
    (tmp_path / "config.yml").write_text(run.to_yaml())
    assert main(["--resume", str(tmp_path), *options]) == 2
    one_sentence(capsys, f"{named} not for --resume", str(tmp_path))
    assert main(["--resume", str(tmp_path), "--no-progress", "--dry-run"]) == 0


def stop():
    raise UserError("stopped")


def test_a_state_is_continued_under_its_own_configuration_only(tmp_path, capsys, monkeypatch):
    out = tmp_path / "run"
    monkeypatch.setattr(command, "save_student", lambda *_: stop())  # the state has been saved by then
    assert distill_student.main([*STUDENT, "--out", str(out)]) == 2
    config = yaml.safe_load((out / "config.yml").read_text())
    capsys.readouterr()
    edits = {"width": 8, "updates": 4, "seed": 4, "batch_size": 3, "learning_rate": 0.01, "agent": "linear"}
    for name, value in edits.items():
        (out / "config.yml").write_text(yaml.safe_dump({**config, name: value}))
        assert distill_student.main(["--resume", str(out), "--no-progress"]) == 2
        error = one_sentence(capsys, str(out / "config.yml"), f"{name}: {value}", f"{name}: {config[name]}")
        assert "damaged" not in error
    (out / "config.yml").write_text(yaml.safe_dump(config))
    sound = torch.load(out / "state.pt", weights_only=True)
    for broken in ({"log": sound["log"][:1]}, {"actions": 3}):
        torch.save({**sound, **broken}, out / "state.pt")
        assert distill_student.main(["--resume", str(out), "--no-progress"]) == 2
        one_sentence(capsys, "state.pt is damaged; remove it")
    torch.save({name: part for name, part in sound.items() if name != "config"}, out / "state.pt")
    assert distill_student.main(["--resume", str(out), "--no-progress"]) == 2
    assert "damaged" not in one_sentence(capsys, "earlier version")


def test_a_checkpoint_is_continued_under_its_own_configuration_only(tmp_path, capsys, monkeypatch):
    from agents.training import judging

    monkeypatch.setattr(judging, "REPORT_EPISODES", 1)
    out = tmp_path / "run"
    kwargs = [f"{name}={value}" for name, value in TINY.items()]
    steps = ["-n", "8", "--eval-freq", "0", "-p", "n_steps=8", "batch_size=8", "--no-progress", "--seed", "1"]
    command = ["--env", "FusionDistillFast-v0", *steps, "--env-kwargs", *kwargs, "--algo", "trpo"]
    assert train_agent.main([*command, "--out", str(out)]) == 0
    config = yaml.safe_load((out / "config.yml").read_text())
    capsys.readouterr()
    for name, value in {"seed": 2, "env_kwargs": {**TINY, "updates_per_step": 2}, "save_freq": 3}.items():
        (out / "config.yml").write_text(yaml.safe_dump({**config, name: value}))
        assert train_agent.main(["--resume", str(out), "--no-progress"]) == 2
        one_sentence(capsys, name, "rl_model_8_steps.zip was made with", "put it back")
    (out / "config.yml").write_text(yaml.safe_dump(config))
    assert train_agent.main(["--resume", str(out), "-n", "16", "--no-progress", "--dry-run"]) == 0


@pytest.mark.parametrize("file", sorted(STUDENTS.glob("*.yml")), ids=lambda file: file.stem)
def test_what_the_shipped_students_were_made_by_is_a_configuration(file, capsys):
    assert distill_student.main(["--config", str(file), "--data", "synthetic-small", "--dry-run"]) == 0
    made = yaml.safe_load(capsys.readouterr().out)
    assert {name: made[name] for name in yaml.safe_load(file.read_text())} == yaml.safe_load(file.read_text())


def test_a_comparison_s_dry_run_starts_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yml").write_text(StudentRun(env_kwargs={"fixed": {"noise": 0.1}}, threads=2, seed=7).to_yaml())
    more = ["linear", "random", "--config", "c.yml", "--env-kwargs", "patch_size=32", "--dry-run"]
    assert comparison.main(more) == 0
    first = capsys.readouterr().out
    assert distill_student.main(["--compare", *more]) == 0
    assert capsys.readouterr().out == first
    plan = yaml.safe_load(first)
    assert list(plan["agents"]) == ["linear", "random"]
    assert plan["seeds"] == list(range(7, 17))
    assert plan["instances"]["default"]["fixed"] == {"noise": 0.1}
    assert plan["instances"]["default"]["patch_size"] == 32
    assert [path.name for path in tmp_path.iterdir()] == ["c.yml"]


@pytest.mark.parametrize("option", [["--agent", "ppo"], ["--threads", "2"], ["--resume", "x"], ["--report"]])
def test_a_comparison_refuses_what_it_does_not_take(option, capsys):
    assert distill_student.main(["--compare", "linear", *option, "--data", "synthetic-small"]) == 2
    one_sentence(capsys, f"{option[0]} is not for comparisons")


def test_a_damaged_description_is_named(tmp_path):
    for content in (b"[" * 10_000, b"3", b"\xff", b"{}"):
        with zipfile.ZipFile(tmp_path / "agent.zip", "w") as archive:
            archive.writestr("fusion_gym.json", content)
        with pytest.raises(UserError, match=r"agent\.zip is damaged: its fusion_gym\.json"):
            settings_of(str(tmp_path / "agent.zip"))


@pytest.mark.parametrize("instances", [None, [], 3, {"a": 3}])
def test_a_comparison_s_configuration_of_a_wrong_type_is_refused_by_name(instances, tmp_path, capsys):
    (tmp_path / "config.yml").write_text(yaml.safe_dump({"instances": instances}))
    assert comparison.main(["linear", "--data", "synthetic-small", "--out", str(tmp_path), "--dry-run"]) == 2
    one_sentence(capsys, str(tmp_path / "config.yml"), "instances", "give a mapping")
