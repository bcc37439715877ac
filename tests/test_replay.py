import json

import cv2
import gymnasium as gym
import numpy as np
import pytest

from fusion_gym import record, replay
from fusion_gym.actions import ACTIONS
from fusion_gym.record import Record, RecordError
from fusion_gym.wrappers import DiscreteActions, RecordEpisode

FAST = "FusionDistillFast-v0"
TINY = {"teacher": "rule:max", "reference": "rule:max", "episode_steps": 3, "updates_per_step": 1}


def play(env, seed=None, steps=3):
    rng = np.random.default_rng(0)
    env.reset(seed=seed)
    return sum(float(env.step(rng.uniform(-1, 1, env.action_space.shape))[1]) for _ in range(steps))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three episodes: seeded, unseeded, and one broken off by close()."""
    folder = tmp_path_factory.mktemp("records")
    env = RecordEpisode(gym.make(FAST, actions=("guidance", "noise"), **TINY), folder)
    returns = [play(env, 5), play(env), play(env, 6, steps=2)]
    env.close()
    assert [Record.load(folder / f"episode-{i}.json").claimed for i in range(3)] == returns
    return folder


def changed(source, target, **entries):
    facts = json.loads(source.read_text())
    target.write_text(json.dumps({**facts, **entries}))
    return target


def test_every_episode_plays_again_bit_for_bit(folder, capsys):
    files = sorted(folder.glob("*.json"))
    assert len(files) == 3
    assert replay.main([*map(str, files), "--tolerance", "0", "--no-progress"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert all("as claimed" in line for line in lines)
    assert "seed 5, 3 decisions" in lines[0]
    assert [Record.load(path).end for path in files] == ["terminated", "terminated", "unfinished"]
    assert Record.load(files[1]).generator is not None


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"return": 0.5}, "0.500000 is not confirmed"),
        ({"rewards": [0.1, 0.1, 0.1]}, "differ from decision 1"),
        ({"actions": [[0.0, 0.0]] * 3}, "differ from decision"),
        ({"actions": [[0.0, 0.0]] * 4, "rewards": [0.0] * 4}, "over after 3 of 4"),
        ({"end": "truncated"}, "though recorded as truncated"),
        ({"seed": 9}, "is not confirmed"),
        ({"return": 0.5, "versions": {"torch": "0.1"}}, "made with torch 0.1"),
    ],
)
def test_a_false_claim_is_found(entries, words, folder, tmp_path, capsys):
    path = changed(folder / "episode-0.json", tmp_path / "false.json", **entries)
    with pytest.raises(SystemExit) as caught:
        replay.main([str(path), "--no-progress"])
    assert caught.value.code == 1
    printed = capsys.readouterr().out
    assert words in printed
    assert printed.count("\n") == 1


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"env": "CartPole-v1"}, "CartPole-v1"),
        ({"env": "os:system"}, "os:system"),
        ({"kwargs": {**TINY, "patch_sze": 3}}, "patch_sze"),
        ({"kwargs": {**TINY, "teacher": "os:abort"}}, "--trust"),
        ({"kwargs": {**TINY, "reference": "os:abort"}}, "--trust"),
        ({"kwargs": {**TINY, "teacher": ["rule:max", "os:abort"]}}, "--trust"),
        ({"kwargs": {**TINY, "student": "os:abort"}}, "--trust"),
        ({"kwargs": {**TINY, "guide": "features", "features": "os:abort"}}, "--trust"),
        ({"kwargs": {**TINY, "data": "absent"}}, "absent"),
        ({"actions": [[0.0]] * 3}, "action"),
        ({"actions": [["a"]] * 3}, "actions"),
        ({"actions": [[0.0, 0.0]] * 2}, "2 actions and 3 rewards"),
        ({"return": float("nan")}, "return"),
        ({"rewards": [True, 0.0, 0.0]}, "rewards"),
        ({"seed": None}, "either a seed or a generator"),
        ({"seed": None, "generator": {"state": 1}}, "generator"),
        ({"format": "other"}, "format"),
        ({"more": 1}, "entries"),
    ],
)
def test_a_bad_record_is_refused_in_one_sentence(entries, words, folder, tmp_path, capsys):
    path = changed(folder / "episode-0.json", tmp_path / "bad.json", **entries)
    assert replay.main([str(path), "--no-progress"]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x00", "[" * 100_000])
def test_what_is_no_record_is_refused(text, tmp_path):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(RecordError, match=r"r\.json is not"):
        Record.load(tmp_path / "r.json")
    assert replay.main([str(tmp_path / "absent.json")]) == 2


def test_trust_runs_the_code_that_a_record_names(folder, tmp_path):
    named = {**TINY, "actions": ["guidance", "noise"], "teacher": "fusion_gym.models.teacher:Teacher"}
    path = changed(folder / "episode-0.json", tmp_path / "code.json", kwargs=named)
    with pytest.raises(RecordError, match="--trust"):
        replay.make_env(Record.load(path))
    assert replay.make_env(Record.load(path), trust=True).get_wrapper_attr("teachers") == (named["teacher"],)


def test_the_last_frame_and_a_film(folder, tmp_path, capsys):
    source, picture, film = str(folder / "episode-0.json"), tmp_path / "p.png", tmp_path / "f.mp4"
    assert replay.main([source, "--render", str(picture), "--no-progress"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"The last frame is {picture}."
    assert cv2.imread(str(picture)).std() > 10
    assert replay.main([source, "--render", str(tmp_path / "p.xyz")]) == 2
    assert replay.main([source, source, "--render", str(picture)]) == 2
    pytest.importorskip("moviepy", reason="films need the extra 'video'")
    assert replay.main([source, "--render", str(film), "--no-progress"]) == 0
    frames = cv2.VideoCapture(str(film))
    assert frames.get(cv2.CAP_PROP_FRAME_COUNT) == 4


def test_the_recorder_says_where_it_belongs(tmp_path):
    with pytest.raises(RecordError, match="apply it first"):
        RecordEpisode(DiscreteActions(gym.make(FAST, **TINY)), tmp_path)
    with pytest.raises(RecordError, match=r"gymnasium\.make"):
        RecordEpisode(gym.make(FAST, **TINY).unwrapped.__class__(**{"data": "synthetic-small", **TINY}), tmp_path)


def test_records_inside_of_other_wrappers(tmp_path):
    env = RecordEpisode(gym.make(FAST, **TINY), tmp_path, "moves", episode_trigger=lambda number: number == 1)
    moves = gym.wrappers.TimeLimit(DiscreteActions(env), 2)
    for _ in range(3):
        moves.reset(seed=1)
        moves.step(1)
        moves.step(4)
    env.close()
    made = sorted(tmp_path.iterdir())
    assert [path.name for path in made] == ["moves-0.json"]  # of the second episode, which the limit broke off
    kept = Record.load(made[0])
    assert kept.end == "unfinished"
    assert kept.actions[0] == [-0.5] + [0] * (len(ACTIONS) - 1)
    assert not replay.play(kept, replay.make_env(kept)).differences(kept, 0.0)
    assert moves.spec.additional_wrappers[0].name == "RecordEpisode"


def test_a_record_of_known_decisions(tmp_path):
    env = gym.make(FAST, **TINY)
    env.reset(seed=3)
    actions = [[value] * len(ACTIONS) for value in (0.25, 1.0, -1.0)]
    rewards = [env.step(np.array(action, np.float32))[1] for action in actions]
    made = record.of_episode(env, 3, actions, rewards)
    made.save(tmp_path / "r.json")
    assert Record.load(tmp_path / "r.json") == made
    assert not replay.play(made, replay.make_env(made)).differences(made, 0.0)


def test_a_distillation_leaves_its_record_also_after_a_stop(tmp_path, capsys):
    from agents import load_agent
    from agents.distilling.student_run import StudentRun
    from agents.distilling.training import train

    config = StudentRun(seed=4, decisions=3, updates=3)
    env = gym.make(FAST, **TINY).unwrapped

    class Stops:
        """An agent that is asked twice, and then stops the program."""

        def __init__(self):
            self.asked = 0

        def predict(self, observation, **_):
            self.asked += 1
            if self.asked == 3:
                raise KeyboardInterrupt
            return np.full(len(ACTIONS), 0.3 * self.asked, np.float32), None

    with pytest.raises(KeyboardInterrupt):
        train(env, Stops(), config, tmp_path, False)
    train(env, load_agent("linear", env), config, tmp_path, False)
    kept = Record.load(tmp_path / "episode.json")
    assert kept.actions[:2] == [[pytest.approx(value)] * len(ACTIONS) for value in (0.3, 0.6)]
    assert len(kept.actions) == 3
    assert replay.main([str(tmp_path / "episode.json"), "--tolerance", "0", "--no-progress"]) == 0
