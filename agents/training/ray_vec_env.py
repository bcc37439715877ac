"""Environments spread over a Ray cluster, behind Stable-Baselines3's VecEnv.

Each environment lives in an actor of its own. After every call the driver has its state, so that one whose process or
machine is lost goes on elsewhere, from where it was: the results are those of `DummyVecEnv`, whatever is lost.

    ray start --head                        # on one machine
    ray start --address=HOST:6379           # on each of the others, with this package installed there
    python train_agent.py --vec-env ray --n-envs 64

Without a cluster one is started on this machine.
"""

from __future__ import annotations

import io
import pickle
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from stable_baselines3.common.monitor import ResultsWriter
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from fusion_gym.env import FusionDistillEnv

from ..ray_cluster import connect

CLOSING = 10.0  # seconds that environments get to close
MOST_LOSSES = 3  # of one environment at one call; then the call itself is to blame, by a lack of memory for one


class Host:
    """An environment in an actor.

    Args:
        make: Makes the environment.
        state: What `call` gave last, to go on from there; None begins anew.
    """

    def __init__(self, make: Callable[[], gym.Env], state: bytes | None) -> None:
        self._make, self._state = make, state
        self._envs: DummyVecEnv | None = None  # made by the first call, whose error reaches the driver as it is

    def call(self, method: str, *args: Any) -> tuple[Any, bytes | None]:
        """Does something with the environment.

        Args:
            method: "reset", "step", or a method of VecEnv that reads from or writes to environments.
            args: Its arguments.

        Returns:
            What it gave, and the state of the environment and its wrappers; None before the first reset.
        """
        if self._envs is None:
            self._envs = DummyVecEnv([self._make])
            if self._state is not None:
                self._envs = _restore(self._state, self._envs)
        result = _METHODS[method](self._envs, *args)
        return result, _save(self._envs)


def _reset(envs: DummyVecEnv, seed: int | None, options: dict[str, Any]) -> tuple[Any, ...]:
    if seed is not None:
        envs.seed(seed)
    envs.set_options(options)
    return envs.reset()[0], envs.reset_infos[0]  # type: ignore[index]


def _step(envs: DummyVecEnv, action: Any) -> tuple[Any, ...]:
    observations, rewards, dones, infos = envs.step(np.asarray(action)[None])
    return observations[0], rewards[0], dones[0], infos[0], envs.reset_infos[0]  # type: ignore[index]


_METHODS: dict[str, Callable[..., Any]] = {
    "reset": _reset,
    "step": _step,
    "spaces": lambda envs: (envs.observation_space, envs.action_space, envs.metadata),
    "close": lambda envs: envs.close(),
    "images": lambda envs: envs.get_images()[0],
    "get_attr": lambda envs, name: envs.get_attr(name)[0],
    "set_attr": lambda envs, name, value: envs.set_attr(name, value),
    "env_method": lambda envs, name, args, kwargs: envs.env_method(name, *args, **kwargs)[0],
    "env_is_wrapped": lambda envs, wrapper: envs.env_is_wrapped(wrapper)[0],
}


class _Pickler(pickle.Pickler):
    """Pickles wrappers; the environment inside of them is left out, for its own state is much smaller."""

    def persistent_id(self, obj: Any) -> str | None:
        return "environment" if isinstance(obj, FusionDistillEnv) else None


class _Unpickler(pickle.Unpickler):
    environment: gym.Env

    def persistent_load(self, pid: str) -> gym.Env:
        return self.environment


def _save(envs: DummyVecEnv) -> bytes | None:
    plain = envs.envs[0].unwrapped
    try:
        state = plain.save_state() if isinstance(plain, FusionDistillEnv) else None
    except gym.error.ResetNeeded:
        return None
    stream = io.BytesIO()
    _Pickler(stream).dump((envs, state))
    return stream.getvalue()


def _restore(saved: bytes, fresh: DummyVecEnv) -> DummyVecEnv:
    unpickler = _Unpickler(io.BytesIO(saved))
    unpickler.environment = fresh.envs[0].unwrapped
    envs, state = unpickler.load()
    if state is not None:
        envs.envs[0].unwrapped.load_state(state)
    return envs


class RayVecEnv(VecEnv):
    """One environment in each of N actors; it goes where `SubprocVecEnv` goes.

    The actors reserve no processors, so that any number of environments starts on any cluster; they are spread over
    the machines by their numbers of cores, and a machine that joined with ``--num-cpus 0`` gets none.

    Args:
        env_fns: Makers of environments with equal, plain (not nested) spaces.

    Attributes:
        restarts: How many times an environment was lost and restored.
    """

    def __init__(self, env_fns: Sequence[Callable[[], gym.Env]]) -> None:
        connect()
        self.restarts = 0
        self._makers = list(env_fns)
        self._states: list[bytes | None] = [None] * len(env_fns)
        self._places: list[str] = [""] * len(env_fns)
        self._sent: dict[int, tuple[Any, ...]] = {}
        self._waiting: dict[Any, int] = {}
        self._hosts = [self._start(index) for index in range(len(env_fns))]
        observation_space, action_space, metadata = self._ask("spaces", {0: ()})[0]
        super().__init__(len(env_fns), observation_space, action_space)
        self.metadata = metadata

    def _start(self, index: int) -> Any:
        """Starts an actor on the machine with the fewest environments for its cores, but not where it was lost."""
        cores = {node["NodeID"]: node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]}
        usable = {node: count for node, count in cores.items() if count > 0} or dict.fromkeys(cores, 1.0)
        choice = {node: count for node, count in usable.items() if node != self._places[index]} or usable
        place = min(choice, key=lambda node: (self._places.count(node) + 1) / choice[node])
        self._places[index] = place
        where = NodeAffinitySchedulingStrategy(place, soft=False)  # Ray takes no soft wish from what reserves nothing
        actor: Any = ray.remote(Host)
        options = {"num_cpus": 0, "max_restarts": 0, "scheduling_strategy": where}
        return actor.options(**options).remote(self._makers[index], self._states[index])

    def _send(self, method: str, arguments: Mapping[int, tuple[Any, ...]]) -> None:
        self._sent = {index: (method, *args) for index, args in arguments.items()}
        self._waiting = {self._hosts[index].call.remote(*call): index for index, call in self._sent.items()}

    def _receive(self) -> list[Any]:
        """The answers, in the order of what was sent; lost environments are restored and asked again.

        Raises:
            ConnectionError: If one is lost again and again.
        """
        answers: dict[int, Any] = {}
        losses = dict.fromkeys(self._sent, 0)
        while self._waiting:
            (reference, *_), _ = ray.wait(list(self._waiting))
            index = self._waiting.pop(reference)
            try:
                answers[index], self._states[index] = ray.get(reference)
            except RayTaskError as error:  # the environment's own
                raise error.cause from error
            except RayError as error:
                losses[index] += 1
                if losses[index] == MOST_LOSSES:
                    raise ConnectionError(f"Environment {index} was lost {MOST_LOSSES} times in a row.") from error
                self._waiting[self._again(index)] = index
        return [answers[index] for index in self._sent]

    def _again(self, index: int) -> Any:
        self.restarts += 1
        with suppress(RayError):
            ray.kill(self._hosts[index])  # it may live on where it cannot be reached
        self._hosts[index] = self._start(index)
        print(
            f"Environment {index} was lost with its process or machine; it goes on from its last step "
            f"({self.restarts} lost so far).",
            file=sys.stderr,
        )
        return self._hosts[index].call.remote(*self._sent[index])

    def _ask(self, method: str, arguments: Mapping[int, tuple[Any, ...]]) -> list[Any]:
        self._send(method, arguments)
        return self._receive()

    def _ask_some(self, indices: VecEnvIndices, method: str, *args: Any) -> list[Any]:
        return self._ask(method, dict.fromkeys(self._get_indices(indices), args))

    def reset(self) -> VecEnvObs:
        """See `VecEnv.reset`."""
        settings = enumerate(zip(self._seeds, self._options, strict=True))
        observations, self.reset_infos = zip(*self._ask("reset", dict(settings)), strict=True)  # type: ignore
        self.reset_infos = list(self.reset_infos)
        self._reset_seeds()
        self._reset_options()
        return np.stack(observations)

    def step_async(self, actions: np.ndarray) -> None:
        """See `VecEnv.step_async`."""
        self._send("step", {index: (action,) for index, action in enumerate(actions)})

    def step_wait(self) -> VecEnvStepReturn:
        """See `VecEnv.step_wait`."""
        observations, rewards, dones, infos, resets = zip(*self._receive(), strict=True)
        self.reset_infos = list(resets)
        return np.stack(observations), np.stack(rewards), np.stack(dones), list(infos)

    def close(self) -> None:
        """Ends the actors; the cluster stays."""
        if not ray.is_initialized():
            return
        with suppress(RayError):
            ray.get([host.call.remote("close") for host in self._hosts], timeout=CLOSING)
        for host in self._hosts:
            with suppress(RayError):
                ray.kill(host)

    def get_images(self) -> Sequence[np.ndarray | None]:
        """See `VecEnv.get_images`."""
        return self._ask_some(None, "images")

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """See `VecEnv.get_attr`."""
        return self._ask_some(indices, "get_attr", attr_name)

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """See `VecEnv.set_attr`."""
        self._ask_some(indices, "set_attr", attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **kwargs: Any
    ) -> list[Any]:
        """See `VecEnv.env_method`."""
        return self._ask_some(indices, "env_method", method_name, method_args, kwargs)

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """See `VecEnv.env_is_wrapped`."""
        return self._ask_some(indices, "env_is_wrapped", wrapper_class)


class MonitorFiles(VecEnvWrapper):
    """Writes the monitor files that `Monitor` would, on the machine of the training instead of the environments'.

    Args:
        venv: Environments in `Monitor`s without files.
        folder: Where ``0.monitor.csv``, ``1.monitor.csv``, ... go.
        info_keywords: The `Monitor`s' further columns.
        override_existing: Whether to begin the files anew.
    """

    def __init__(self, venv: VecEnv, folder: Path, info_keywords: Iterable[str], override_existing: bool) -> None:
        super().__init__(venv)
        header: dict[str, float | str] = {"t_start": time.time(), "env_id": str(venv.get_attr("spec")[0].id)}
        columns = tuple(info_keywords)
        self._files = [
            ResultsWriter(str(folder / str(index)), header, columns, override_existing)
            for index in range(venv.num_envs)
        ]

    def reset(self) -> VecEnvObs:
        """See `VecEnv.reset`."""
        return self.venv.reset()

    def step_wait(self) -> VecEnvStepReturn:
        """See `VecEnv.step_wait`."""
        observations, rewards, dones, infos = self.venv.step_wait()
        for file, info in zip(self._files, infos, strict=True):
            if "episode" in info:
                file.write_row(info["episode"])
        return observations, rewards, dones, infos

    def close(self) -> None:
        """Closes the files and the environments."""
        for file in self._files:
            file.close()
        super().close()
