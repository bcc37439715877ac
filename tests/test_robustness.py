"""Generated bad input: every case gives an accepted result or one clear error, never a crash, hang or nonsense.

The suite runs a fixed small number of cases. ``FUSION_GYM_FUZZ=2500 python -m pytest tests/test_robustness.py -s``
runs that many, other ones every time, and prints how many of them were accepted and refused.
"""

import io
import json
import os
import signal
import struct
import warnings
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from agents import load_agent, sb3
from agents.distilling.student_run import StudentRun
from agents.distilling.training import train
from agents.environments import make_checked
from agents.training.callbacks import restore
from fusion_gym import cli, images
from fusion_gym.actions import ACTIONS
from fusion_gym.data import load_splits
from fusion_gym.record import Record
from fusion_gym.teachers import load_teacher
from fusion_gym.wrappers import DiscreteActions

WANTED = int(os.environ.get("FUSION_GYM_FUZZ", "0"))
LONGEST = 60  # seconds that a case may take, on a busy machine
FAST = "FusionDistillFast-v0"
TINY = {"teacher": "rule:max", "reference": "rule:max", "episode_steps": 3, "updates_per_step": 1}
SMALL_PPO = {"n_steps": 6, "batch_size": 6, "policy_kwargs": {"net_arch": [4]}}
COUNTS = Counter()


def cases(share, few):
    """Settings of a test: so many cases in the suite, or its share of what is asked for."""
    slow = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture)
    count = max(few, round(share * WANTED))
    return settings(
        max_examples=count, deadline=None, derandomize=not WANTED, database=None, suppress_health_check=slow
    )


class Hang(BaseException):
    pass


@contextmanager
def survives(*more, name=""):
    """Accepts what goes well and errors of one sentence; `more` are classes of errors allowed beside ValueError."""

    def hang(*_):
        raise Hang

    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(LONGEST)
    try:
        yield
        COUNTS["accepted"] += 1
    except (ValueError, *more) as error:
        COUNTS["refused"] += 1
        text = str(error)
        assert text and "\n" not in text.strip(), text
        assert len(text) < 700, text
        assert name in text, text
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module", autouse=True)
def report():
    yield
    if WANTED:
        print(f"\n{sum(COUNTS.values())} cases: {dict(COUNTS)}")


@st.composite
def damaged(draw, whole):
    """Bytes with some damage: cut, overwritten, doubled, or replaced."""
    data = bytearray(whole)
    kind = draw(st.sampled_from(["none", "cut", "flip", "flips", "zeros", "ones", "drop", "double", "noise", "empty"]))
    at = draw(st.integers(0, max(0, len(data) - 1)))
    if kind == "cut":
        del data[at:]
    elif kind in ("flip", "flips"):
        for place in [at] if kind == "flip" else draw(st.lists(st.integers(0, len(data) - 1), max_size=20)):
            data[place] ^= 1 << draw(st.integers(0, 7))
    elif kind in ("zeros", "ones"):
        length = min(draw(st.integers(1, 64)), len(data) - at)
        data[at : at + length] = bytes([0 if kind == "zeros" else 255]) * length
    elif kind == "drop":
        del data[at : at + draw(st.integers(1, 64))]
    elif kind == "double":
        data[at:at] = data[at : at + draw(st.integers(1, 64))]
    elif kind == "noise":
        data = bytearray(draw(st.binary(max_size=200)))
    elif kind == "empty":
        data = bytearray()
    return bytes(data)


# --- images


def encoded(suffix, array, *flags):
    return cv2.imencode(suffix, array, flags)[1].tobytes()


def _pictures():
    rng = np.random.default_rng(0)
    gray = cv2.GaussianBlur(rng.integers(0, 256, (40, 56), dtype=np.uint8), (5, 5), 0)
    colour = np.stack([gray, gray[::-1], gray[:, ::-1]], axis=2)
    alpha = np.concatenate([colour, gray[..., None]], axis=2)
    deep = gray.astype(np.uint16) * 257
    found = {f"gray{suffix}": encoded(suffix, gray) for suffix in (".png", ".jpg", ".bmp", ".tif")}
    found |= {f"colour{suffix}": encoded(suffix, colour) for suffix in (".png", ".jpg", ".bmp", ".tif")}
    found |= {f"deep{suffix}": encoded(suffix, deep) for suffix in (".png", ".tif")}
    found |= {f"alpha{suffix}": encoded(suffix, alpha) for suffix in (".png", ".tif", ".bmp")}
    found["deep-alpha.png"] = encoded(".png", alpha.astype(np.uint16) * 257)
    found["float.tif"] = encoded(".tif", gray.astype(np.float32) / 255)
    found["progressive.jpg"] = encoded(".jpg", colour, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    found["tiny.png"] = encoded(".png", gray[:3, :3])
    try:
        from PIL import Image
    except ImportError:
        return found
    for name, mode, kind in (
        ("cmyk.jpg", "CMYK", "JPEG"),
        ("cmyk.tif", "CMYK", "TIFF"),
        ("palette.png", "P", "PNG"),
        ("bits.png", "1", "PNG"),
        ("gray-alpha.png", "LA", "PNG"),
        ("animated.gif", "P", "GIF"),
    ):
        stream = io.BytesIO()
        Image.fromarray(colour).convert(mode).save(stream, kind)
        found[name] = stream.getvalue()
    return found


PICTURES = _pictures()


@st.composite
def picture_files(draw):
    name = draw(st.sampled_from(sorted(PICTURES)))
    data = draw(damaged(PICTURES[name]))
    return draw(st.sampled_from([name, name, name, "wrong.png", "wrong.jpg", "wrong.tif", "wrong.bmp"])), data


def check_image(path):
    with survives(name=path.name):
        image = images.read_image(path)
        assert image.dtype == np.uint8
        assert image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)
        assert min(image.shape[:2]) >= images.MIN_SIDE
        assert image.shape[0] * image.shape[1] <= images.MAX_PIXELS


@cases(0.4, 90)
@given(picture_files())
def test_image_files(tmp_path_factory, file):
    name, data = file
    path = tmp_path_factory.mktemp("i") / name
    path.write_bytes(data)
    check_image(path)


@pytest.mark.parametrize("name", [name for name in sorted(PICTURES) if name.endswith((".png", ".jpg", ".tif", ".bmp"))])
def test_whole_pictures_are_read_and_cut_ones_refused(name, tmp_path):
    whole, cut = tmp_path / name, tmp_path / f"cut-{name}"
    whole.write_bytes(PICTURES[name])
    if name in ("float.tif", "tiny.png"):
        with pytest.raises(images.ImageError, match=name):
            images.read_image(whole)
        return
    image = images.read_image(whole)
    assert image.shape[:2] == (40, 56)
    if "alpha" not in name and "bits" not in name:
        assert image.std() > 10
    for share in (0.5, 0.8, 0.97):
        cut.write_bytes(PICTURES[name][: int(len(PICTURES[name]) * share)])
        with pytest.raises(images.ImageError, match=cut.name):
            images.read_image(cut)


def huge(name, width, height):
    """A picture whose header claims another size."""
    data = bytearray(PICTURES[name])
    if name.endswith(".png"):
        data[16:24] = struct.pack(">II", width, height)
    elif name.endswith(".bmp"):
        data[18:26] = struct.pack("<ii", width, height)
    elif name.endswith(".jpg"):
        at = next(i for i in range(len(data)) if data[i] == 0xFF and data[i + 1] in (0xC0, 0xC2))
        data[at + 5 : at + 9] = struct.pack(">HH", min(height, 65535), min(width, 65535))
    else:
        (at,) = struct.unpack("<I", data[4:8])
        for entry in range(struct.unpack("<H", data[at : at + 2])[0]):
            where = at + 2 + 12 * entry
            tag = struct.unpack("<H", data[where : where + 2])[0]
            if tag in (256, 257):
                data[where + 2 : where + 12] = struct.pack("<HII", 4, 1, width if tag == 256 else height)
    return bytes(data)


@pytest.mark.parametrize("name", ["gray.png", "gray.bmp", "gray.jpg", "progressive.jpg", "gray.tif"])
def test_a_huge_claim_is_refused_before_it_is_decoded(name, tmp_path, monkeypatch):
    path = tmp_path / name
    path.write_bytes(huge(name, 100_000, 100_000))
    monkeypatch.setattr(images.cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(images.ImageError, match="claims"):
        images.read_image(path)


@cases(0.08, 15)
@given(st.sampled_from(["gray.png", "gray.bmp", "gray.jpg", "gray.tif", "deep.png"]), st.data())
def test_headers_that_lie(tmp_path_factory, name, data):
    sides = st.one_of(st.integers(0, 200), st.integers(0, 2**31 - 1), st.sampled_from([2**26, 65535, 8000]))
    path = tmp_path_factory.mktemp("h") / name
    path.write_bytes(huge(name, data.draw(sides), data.draw(sides)))
    check_image(path)


@cases(0.03, 5)
@given(picture_files())
def test_folders_with_a_bad_image(tmp_path_factory, file):
    root = tmp_path_factory.mktemp("d")
    name, data = file
    assume(name.endswith(images.SUFFIXES))
    for folder in ("ir", "vi"):
        (root / folder).mkdir()
        for index in range(3):
            (root / folder / f"{index}.png").write_bytes(PICTURES["gray.png"])
    (root / "vi" / "1.png").unlink()
    (root / "vi" / f"1{Path(name).suffix}").write_bytes(data)
    with survives():
        splits = load_splits(str(root))
        assert all(pair.ir.shape == pair.vi.shape for pair in (*splits.train, *splits.val, *splits.test))


# --- YAML and JSON

LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
CONFIG = yaml.safe_dump({"n_envs": 2, "learning_rate": "3e-4", "policy_kwargs": {"net_arch": [64, 64]}, "seed": None})
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=12),
    st.dates(),
    st.binary(max_size=9),
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=9), inner, max_size=3)),
    max_leaves=9,
)


@cases(0.12, 40)
@given(
    st.one_of(
        st.text(max_size=80).map(str.encode), damaged(CONFIG.encode()), TREES.map(lambda t: yaml.safe_dump(t).encode())
    )
)
@example(LAUGHS.encode())
@example(b"a: &a [*a]")
@example(b"[" * 20_000)
@example(b"a: " + b"9" * 5000)
@example(b"a: 2001-99-99")
@example(b"a: !!timestamp x")
@example(b"a: !!int x")
@example(b"a: !!bool x")
@example(b"? [1]\n: 2")
@example(b"!!python/object/apply:os.system ['false']")
@example(b"\xff\xfe\x00")
@example(b"")
def test_yaml_files(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("y") / "settings.yml"
    path.write_bytes(text)
    with survives(name="settings.yml"):
        assert isinstance(cli.read_yaml(path), dict)
    with survives(cli.UserError):
        cli.parse_settings([f"key={text.decode(errors='replace')}"], "-p")


@cases(0.05, 12)
@given(TREES)
@example({"default": {"learning_rate": [1, 2], "batch_size": {"a": 1}}})
def test_hyperparameter_files(tmp_path_factory, tree):
    path = tmp_path_factory.mktemp("y") / "h.yml"
    path.write_text(yaml.safe_dump({FAST: tree}), encoding="utf-8")
    with survives():
        chosen = sb3.hyperparameters("ppo", FAST, {}, path)
        assert set(chosen) <= set(sb3.hyperparameters("ppo", FAST, {})) | set(tree)


RECORD = json.dumps(
    {
        "format": "fusion-gym episode 1",
        **{"env": FAST, "kwargs": TINY, "actions": [[0.0] * 6], "rewards": [0.1], "end": "unfinished", "seed": 1},
        **{"generator": None, "versions": {}, "return": 0.1},
    }
)


@cases(0.06, 15)
@given(st.one_of(damaged(RECORD.encode()), st.dictionaries(st.sampled_from(sorted(json.loads(RECORD))), TREES)))
def test_record_files(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("r") / "r.json"
    if isinstance(content, dict):
        content = json.dumps({**json.loads(RECORD), **content}, default=str).encode()
    path.write_bytes(content)
    with survives(name="r.json"):
        assert np.isfinite(Record.load(path).claimed)


# --- the environment


@pytest.fixture(scope="module")
def env():
    return make_checked(FAST, TINY)


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([-1, 0, 1, 2, 15, 16, 2**31, 2**63, 10**30, 0.5, float("nan"), float("inf"), -0.0, 1e-320]),
    st.text(max_size=6),
    st.lists(st.sampled_from([1, 0.5, "guidance", "noise", None, float("nan")]), max_size=3),
    st.dictionaries(st.sampled_from(["guidance", "noise", "x"]), st.sampled_from([0.5, 7, None, "a", float("nan")])),
)
KWARGS = (
    *("data", "teacher", "reference", "student_width", "learning_rate", "episode_steps", "updates_per_step", "device"),
    *("batch_size", "patch_size", "patches", "actions", "fixed", "probe_pairs", "probe_size", "threads", "render_mode"),
)
ENDLESS = {"updates_per_step": 100}  # more is allowed, and takes its time


@cases(0.08, 20)
@given(st.dictionaries(st.sampled_from([*KWARGS, "absent"]), ODD, min_size=1, max_size=2))
@example({"batch_size": 2**31})
@example({"student_width": 10**6})
@example({"probe_pairs": 10**9})
@example({"threads": 10**6})
@example({"patch_size": 2**31})
@example({"fixed": {"guidance": None}})
@example({"actions": None})
@example({"actions": "guidance"})
@example({"device": "cuda:99"})
@example({"device": "nowhere"})
@example({"reference": None})
@example({"data": ","})
@example({"teacher": "os:getcwd"})
@example({"teacher": "builtins:print"})
@example({"learning_rate": [0.1, True]})
@example({"patches": 0})
def test_arguments_of_the_environment(kwargs):
    assume(all(not isinstance(kwargs.get(name), int) or kwargs[name] <= most for name, most in ENDLESS.items()))
    try:
        with survives(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            env = make_checked(FAST, {**TINY, **kwargs})
            env.reset(seed=0)
            observation, reward, *_ = env.step(np.zeros(env.action_space.shape, np.float32))
            assert env.observation_space.contains(observation)
            assert np.isfinite(reward)
    finally:
        torch.set_num_threads(1)


NUMBERS = st.one_of(st.floats(width=32), st.sampled_from([float("nan"), float("inf"), -float("inf"), 1e38, -0.0]))
BAD_ACTIONS = st.one_of(
    st.lists(NUMBERS, max_size=8),
    st.lists(NUMBERS, min_size=6, max_size=6),
    st.lists(NUMBERS, min_size=6, max_size=6).map(lambda v: np.array(v, np.float16)),
    st.lists(st.lists(NUMBERS, max_size=2), max_size=6),
    st.lists(st.integers(-(2**70), 2**70), min_size=6, max_size=6),
    st.lists(st.complex_numbers(), min_size=6, max_size=6).map(np.array),
    st.lists(SCALARS, min_size=6, max_size=6),
    SCALARS,
    st.just({"guidance": 1.0}),
)


@cases(0.1, 40)
@given(BAD_ACTIONS)
@example(np.array([1j] * 6))
@example(["0.5"] * 6)
@example(np.zeros((6, 1)))
@example([10**400] * 6)
@example([0.0] * 5 + [3.4028235677973366e38])  # just above the range of float32
@example(np.array([np.datetime64(0, "s")] * 6))
def test_actions(env, action):
    plain = env.unwrapped
    plain.reset(seed=1)
    before = plain.distiller.updates
    with survives(name="action"), warnings.catch_warnings():
        warnings.simplefilter("error")
        observation, reward, *_ = plain.step(action)
        assert plain.observation_space.contains(observation)
        assert np.isfinite(reward)
        values = np.asarray(action, dtype=np.float64)
        assert values.shape == (len(ACTIONS),)
        assert not np.isnan(values).any()
        return
    assert plain.distiller.updates == before  # a refused action has changed nothing


@cases(0.02, 10)
@given(st.one_of(st.integers(-3, 20), SCALARS))
def test_moves(env, move):
    moves = DiscreteActions(env)
    moves.reset(seed=1)
    with survives(name="action"):
        moves.step(move)
        assert move in range(13)


# --- files of networks


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Sound files of every kind."""
    folder = tmp_path_factory.mktemp("whole")

    class Mean(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.share = torch.nn.Parameter(torch.tensor(0.5))

        def forward(self, ir, vi):
            return self.share * (ir + vi)

    torch.jit.script(Mean()).save(str(folder / "teacher.pt"))
    model = sb3.make_model("ppo", make_checked(FAST, TINY), SMALL_PPO, device="cpu")
    description = {"algo": "ppo", "policy": "MlpPolicy", "actions": list(ACTIONS)}
    sb3.save_model(model, folder / "agent.zip", description)
    state = {"num_timesteps": 6, "_n_updates": 1, "_episode_num": 2, "episodes": [], "evaluation": {}}
    sb3.save_model(model, folder / "checkpoint", description, {"training.json": json.dumps(state).encode()})
    try:
        from fusion_gym.export import export_onnx
        from fusion_gym.models.student import Student

        export_onnx(Student(width=4, generator=torch.Generator().manual_seed(0)), folder / "teacher.onnx")
    except ImportError:
        pass  # the extra "deploy" is not installed
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@cases(0.12, 30)
@given(st.data())
def test_network_files(tmp_path_factory, whole, env, data):
    name = data.draw(st.sampled_from(sorted(set(whole) - {"checkpoint"})))
    path = tmp_path_factory.mktemp("n") / name
    path.write_bytes(data.draw(damaged(whole[name])))
    with survives(name=name):
        if name.endswith(".zip"):
            action, _ = load_agent(str(path), env).predict(np.zeros(env.observation_space.shape, np.float32))
            assert env.action_space.contains(action)
        else:
            fuse = load_teacher(str(path))
            with torch.no_grad():
                assert fuse(torch.zeros(1, 1, 16, 16), torch.ones(1, 1, 16, 16)).shape == (1, 1, 16, 16)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished distillation's environment, configuration and saved state."""
    folder = tmp_path_factory.mktemp("run")
    plain = make_checked(FAST, {**TINY, "episode_steps": 2}).unwrapped
    config = StudentRun(seed=1, decisions=2, updates=2)
    train(plain, load_agent("constant", plain), config, folder, False)
    return plain, config, (folder / "state.pt").read_bytes()


@cases(0.05, 8)
@given(st.data())
def test_saved_states(run, tmp_path_factory, data):
    plain, config, state = run
    folder = tmp_path_factory.mktemp("s")
    (folder / "state.pt").write_bytes(data.draw(damaged(state)))
    with survives(name="state.pt"):
        log = train(plain, load_agent("constant", plain), config, folder, False)
        assert len(log) == 3


@cases(0.04, 6)
@given(st.data())
def test_checkpoints(tmp_path_factory, whole, env, data):
    model = sb3.make_model("ppo", env, SMALL_PPO, device="cpu")
    path = tmp_path_factory.mktemp("c") / "rl_model_6_steps.zip"
    path.write_bytes(data.draw(damaged(whole["checkpoint"])))
    with survives(name=path.name):
        restore(model, SimpleNamespace(restore=lambda history: None), path)
        assert model.num_timesteps >= 0
