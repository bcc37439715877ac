import os
import pickle
import signal
import time
import zipfile

import numpy as np
import pytest
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.monitor import Monitor

ray = pytest.importorskip("ray", reason="environments on a cluster need the extra 'scale'")
from ray.cluster_utils import Cluster  # noqa: E402
from ray.exceptions import RayError  # noqa: E402

from agents.training import ray_vec_env  # noqa: E402
from agents.training.ray_vec_env import RayVecEnv  # noqa: E402

ENV = "fusion_gym:FusionDistillFast-v0"
TINY = {"teacher": "rule:max", "reference": "rule:max", "episode_steps": 3, "updates_per_step": 1}
NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20}


def make(kind, **kwargs):
    monitor = {"info_keywords": ("score",)}
    return make_vec_env(ENV, 2, 7, env_kwargs={**TINY, **kwargs}, vec_env_cls=kind, monitor_kwargs=monitor)


def actions(step):
    return np.random.default_rng(step).uniform(-1, 1, (2, 6)).astype(np.float32)


def plain(info):
    """An info with arrays as lists and without the wall time."""
    entry = {key: value for key, value in info.items() if key != "episode"}
    if "episode" in info:
        entry["episode"] = {key: value for key, value in info["episode"].items() if key != "t"}
    return {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in entry.items()}


def same(mine, theirs):
    arrays = all(np.array_equal(x, y) and x.dtype == y.dtype for x, y in zip(mine[:3], theirs[:3], strict=True))
    return arrays and [plain(info) for info in mine[3]] == [plain(info) for info in theirs[3]]


def node(host):
    return ray.get(host.__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id()))


def wait_until_lost(host):
    with pytest.raises(RayError):
        while True:
            ray.get(host.__ray_call__.remote(lambda _: time.sleep(0.1)))


@pytest.fixture(scope="module")
def cluster():
    """Two nodes on this machine, one core each."""
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    cluster.other = cluster.add_node(**NODE)
    ray.init(address=cluster.address, logging_level="error", log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture(scope="module")
def envs(cluster):
    envs = make(RayVecEnv)
    yield envs
    envs.close()


@pytest.fixture
def local():
    return make(None)


def test_steps_and_resets_are_those_of_the_local_environments(envs, local):
    places = [node(host) for host in envs._hosts]
    assert places == envs._places and len(set(places)) == 2  # one on each node
    envs.seed(7)
    assert np.array_equal(envs.reset(), local.reset())
    assert envs.reset_infos == local.reset_infos
    for step in range(7):  # two episodes and a part of a third
        assert same(envs.step(actions(step)), local.step(actions(step)))
        assert envs.reset_infos == local.reset_infos
    assert envs.restarts == 0
    assert len(pickle.dumps(envs._states)) < 400_000  # without patches and probes


def test_the_rest_of_the_interface(envs, local):
    for name in ("observation_space", "action_space", "render_mode", "num_envs"):
        assert getattr(envs, name) == getattr(local, name)
    assert envs.metadata["render_fps"] == 4
    assert envs.get_attr("episode_steps") == [3, 3]
    envs.set_attr("mark", 5, indices=1)
    assert envs.get_attr("mark", indices=[1]) == [5]
    assert envs.env_is_wrapped(Monitor) == [True, True]
    assert envs.env_method("has_wrapper_attr", "mark") == [False, True]
    local.reset()
    assert envs.render().shape == local.render().shape


def test_an_environments_own_error_arrives_as_it_is(envs):
    envs.reset()
    with pytest.raises(ValueError, match="action"):
        envs.step(np.full((2, 6), np.nan, np.float32))
    with pytest.raises(AttributeError):
        envs.get_attr("absent")
    with pytest.raises(ValueError, match="episode_steps"):
        make(RayVecEnv, episode_steps=0)


def test_what_is_lost_again_and_again_is_not_tried_for_ever(cluster, monkeypatch, capsys):
    monkeypatch.setattr(ray_vec_env, "MOST_LOSSES", 1)
    with pytest.raises(ConnectionError, match="Environment 0"):
        RayVecEnv([lambda: os._exit(1)])


@pytest.mark.slow
def test_a_comparison_on_the_cluster_is_the_local_one(cluster, tmp_path, capsys):
    import distill_student
    from agents.comparison.cells import Cell
    from agents.comparison.ray_pool import RayPool
    from agents.comparison.workers import Failure

    data = ["--data", "synthetic-small", "--teacher", "rule:max", "--width", "4", "--batch-size", "2"]
    shape = ["--updates", "2", "--decisions", "2", "--seeds", "2", "--no-progress", "--env-kwargs"]
    shape += ["reference=rule:max", "patch_size=32", "probe_pairs=2", "probe_size=64"]
    command = [*data, *shape, "--compare", "constant", "linear", "--out"]
    assert distill_student.main([*command, str(tmp_path / "ray"), "--cluster"]) == 0
    assert distill_student.main([*command, str(tmp_path / "local")]) == 0
    tables = [(tmp_path / kind / "comparison.csv").read_text() for kind in ("ray", "local")]
    assert tables[0] == tables[1]
    bad = Cell("bad", "lineer", "default", {"data": "synthetic-small", "teacher": "rule:max"}, 0)
    with RayPool() as pool:
        ((index, failure),) = pool.run([(bad, tmp_path)])
    assert index == 0 and isinstance(failure, Failure) and "lineer" in failure.reason


@pytest.mark.slow
def test_killed_processes_and_nodes_change_no_result(cluster, envs, local, capsys):
    home = ray.get_runtime_context().get_node_id()  # this program's node, which has to live on
    envs.seed(7)
    assert np.array_equal(envs.reset(), local.reset())
    for step in range(8):
        envs.step_async(actions(step))
        if step == 1:
            victim = envs._hosts[envs._places.index(home)]
            pid = ray.get(victim.__ray_call__.remote(lambda _: os.getpid()))
            os.kill(pid, signal.SIGKILL)
        if step == 4:
            assert home not in envs._places
            cluster.remove_node(cluster.other, allow_graceful=False)
            for host in envs._hosts:  # its processes outlive it by a moment
                wait_until_lost(host)
        assert same(envs.step_wait(), local.step(actions(step)))
    assert envs.restarts == 3
    assert capsys.readouterr().err.count("goes on from its last step") == 3
    assert [node(host) for host in envs._hosts] == [home, home]


@pytest.mark.slow
def test_a_training_on_the_cluster_is_the_local_one(cluster, tmp_path, monkeypatch):
    import train_agent
    from agents.training import judging

    monkeypatch.setattr(judging, "REPORT_EPISODES", 2)
    common = ["--env", ENV.split(":")[1], "--seed", "1", "--no-progress", "--n-envs", "2", "-n", "12"]
    settings = ["-p", "n_steps=6", "batch_size=6", "--eval-freq", "0", "--env-kwargs"]
    settings += [f"{key}={value}" for key, value in TINY.items()]
    for kind in ("ray", "dummy"):
        assert train_agent.main([*common, *settings, "--vec-env", kind, "--out", str(tmp_path / kind)]) == 0
    weights = [zipfile.ZipFile(tmp_path / kind / "final_model.zip").read("policy.pth") for kind in ("ray", "dummy")]
    assert weights[0] == weights[1]
    rows = [
        [line.split(",")[:2] for line in (tmp_path / kind / "1.monitor.csv").read_text().splitlines()[1:]]
        for kind in ("ray", "dummy")
    ]
    assert rows[0][:3] == rows[1][:3]
    assert "time/env_restarts" in (tmp_path / "ray" / "progress.csv").read_text()


def test_without_a_cluster_one_is_started_here(monkeypatch):
    calls = []

    def init(address=None, **_):
        calls.append(address)
        if address == "auto":
            raise ConnectionError("no cluster")

    monkeypatch.setattr(ray_vec_env.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray_vec_env.ray, "init", init)
    ray_vec_env.connect()
    assert calls == ["auto", None]
