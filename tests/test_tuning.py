import pytest
import yaml

import train_agent
from agents import sb3
from fusion_gym.cli import UserError

optuna = pytest.importorskip("optuna", reason="the search for hyperparameters needs the extra 'tune'")
from optuna.trial import TrialState  # noqa: E402

from agents.training import tuning  # noqa: E402

FAST = "FusionDistillFast-v0"
TINY = ["teacher=rule:max", "reference=rule:max", "episode_steps=2", "updates_per_step=1"]
COMMAND = ["--env", FAST, "--env-kwargs", *TINY, "--seed", "1", "--no-progress", "-n", "16", "--eval-freq", "8"]


@pytest.mark.parametrize("algo", sb3.ALGORITHMS)
def test_every_algorithm_has_something_to_search_and_takes_it(algo):
    if sb3.ALGORITHMS[algo][0] == "sb3_contrib":
        pytest.importorskip("sb3_contrib")
    searched = tuning.space(algo)
    assert "learning_rate" in searched
    trial = optuna.create_study().ask(searched)
    settings = sb3.hyperparameters(algo, FAST, trial.params)
    assert {name: settings[name] for name in searched} == trial.params
    assert "learning_rate" not in tuning.space(algo, ["learning_rate"])


def test_sac_keeps_its_automatic_entropy():
    assert "ent_coef" in tuning.space("ppo")
    assert "ent_coef" not in tuning.space("sac")


def test_a_search_continues_and_its_best_settings_train(tmp_path, capsys, monkeypatch):
    out = tmp_path / "t"
    settings = ["-p", "gamma=0.9", "n_epochs=1", "--eval-episodes", "1"]
    assert train_agent.main([*COMMAND, *settings, "--tune", "1", "--out", str(out)]) == 0
    first = tuning.open_study(out, 1, ()).trials
    usual = sb3.hyperparameters("ppo", FAST, {})
    assert first[0].params["n_steps"] == usual["n_steps"]  # the file's own settings come first
    assert not {"gamma", "n_epochs"} & set(first[0].params)

    study = tuning.open_study(out, 1, ())
    killed = study.ask({**tuning.space("ppo", study.user_attrs["fixed"])})  # and never told about
    assert train_agent.main(["--resume", str(out), "--no-progress", "--tune", "3"]) == 0
    study = tuning.open_study(out, 1, ())
    states = [trial.state for trial in study.trials]
    assert states.count(TrialState.FAIL) == 1
    assert len(tuning._ended(study)) == 3
    assert study.trials[2].params == killed.params  # what the kill broke off was tried again
    printed = capsys.readouterr().out
    assert f"--config {out / 'best.yml'}" in printed.splitlines()[-1]

    best = yaml.safe_load((out / "best.yml").read_text())[FAST]
    assert best["gamma"] == 0.9
    assert {name: best[name] for name in study.best_params} == study.best_params
    rows = (out / "trials.csv").read_text().splitlines()
    assert len(rows) == 1 + 3
    assert (out / "trials.png").stat().st_size > 0
    assert train_agent.main([*COMMAND, "--config", str(out / "best.yml"), "--dry-run"]) == 0
    chosen = yaml.safe_load("\n".join(capsys.readouterr().out.splitlines()[1:]))["hyperparams"]
    assert chosen["learning_rate"] == best["learning_rate"]


def test_a_trial_that_falls_behind_is_broken_off(tmp_path, monkeypatch):
    """Every trial of this search is worse than all before it, so the pruner must stop those after the warm-up."""
    from agents.training.callbacks import SeededEval

    counter = {"calls": 0}

    def judged(self):
        if self.n_calls % self.eval_freq == 0:
            counter["calls"] += 1
            self.best_mean_reward = -float(counter["calls"])
            self.evaluations_timesteps.append(self.num_timesteps)
        return True

    monkeypatch.setattr(SeededEval, "_on_step", judged)
    out = tmp_path / "t"
    short = ["-p", "n_steps=16", "batch_size=16", "n_epochs=1", "gae_lambda=1", "clip_range=0.2", "ent_coef=0"]
    assert train_agent.main([*COMMAND, *short, "--eval-freq", "4", "--tune", "6", "--out", str(out)]) == 0
    states = [trial.state for trial in tuning.open_study(out, 1, ()).trials]
    assert states[: tuning.WARM_UP] == [TrialState.COMPLETE] * tuning.WARM_UP
    assert states[tuning.WARM_UP :] == [TrialState.PRUNED] * 2


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--tune", "0"], "--tune 0"),
        (["--tune", "2", "--eval-freq", "0"], "--eval-freq 0"),
        (
            [
                "--tune",
                "2",
                "-p",
                *(f"{name}={1 + (name in ('batch_size', 'n_steps'))}" for name in tuning.space("ppo")),
            ],
            "nothing left",
        ),
    ],
)
def test_mistakes_are_one_sentence(more, words, tmp_path, capsys):
    assert train_agent.main([*COMMAND, "--out", str(tmp_path / "t"), *more]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_a_damaged_study_is_named(tmp_path):
    (tmp_path / tuning.STUDY).write_bytes(b"damaged")
    with pytest.raises(UserError, match=tuning.STUDY):
        tuning.open_study(tmp_path, 0, ())


@pytest.fixture
def little_space():
    """Files of this process cannot grow beyond some kilobytes, as on a full disk."""
    resource = pytest.importorskip("resource", reason="this system has no such limit")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size if size is not None else limits[0], limits[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("size", [0, 9000, 60_000])
def test_a_study_that_the_disk_has_no_room_for_is_not_called_damaged(size, tmp_path, little_space):
    little_space(size)
    with pytest.raises(UserError, match=r"study\.db cannot be written: .*; free some space"):
        tuning.open_study(tmp_path, 1, ())
    little_space(None)
    assert not list(tmp_path.iterdir())
    assert tuning.open_study(tmp_path, 1, ()).trials == []


def test_a_disk_that_fills_up_in_a_search_leaves_the_trials(tmp_path, little_space):
    study = tuning.open_study(tmp_path, 1, ())
    for _ in range(3):
        study.tell(study.ask({}), 1.0)

    @tuning._telling
    def search(run, out):
        little_space((tmp_path / tuning.STUDY).stat().st_size)
        for _ in range(1000):
            study.tell(study.ask({}), 1.0)

    with pytest.raises(UserError, match=r"study\.db cannot be written: .*; free some space"):
        search(None, tmp_path)
    little_space(None)
    assert len(tuning._ended(tuning.open_study(tmp_path, 1, ()))) >= 3


def test_other_errors_of_a_search_stay_what_they_are(tmp_path):
    with pytest.raises(ZeroDivisionError):
        tuning._telling(lambda run, out: 1 / 0)(None, tmp_path)
