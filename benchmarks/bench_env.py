#!/usr/bin/env python
"""What an environment step costs, and against what: each part compares its sides in one run.

    python benchmarks/bench_env.py [PART ...] [--repetitions 9] [--json env.json]

Parts: ``step`` (against the bare loop of its updates and scoring), ``reference`` (against the plain implementation in
``reference.py``), ``update`` (of `tiny` by metrics, against plain differentiation), ``workers`` (processes, and the
population), ``memory`` (ten environments in one process), ``import`` (import, make, reset), ``ppo`` (where the time of
``train_agent.py --algo ppo`` goes).
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from harness import compare, machine, parse_parts, save, show

import fusion_gym  # noqa: F401  (registers the ids)
from fusion_gym.conditions import HARDENINGS

ROOT = Path(__file__).resolve().parents[1]
TOGETHER = 5  # updates that are timed as one
FAMILIAR = 128  # updates of eight patches after which nearly all of 256 have been met
LONG = {"episode_steps": 10_000, "student_width": 16}  # no episode ends while it is timed; all students cost the same


def begun(make: Callable[..., gym.Env], **kwargs: Any) -> gym.Env:
    """An environment with an episode under way."""
    env = make(**LONG, **kwargs).unwrapped
    env.reset(seed=0)
    return env


def bench_step(args: argparse.Namespace) -> dict[str, Any]:
    """The step against its two parts, called bare."""
    env, bare = (begun(functools.partial(gym.make, args.env)) for _ in range(2))
    action = np.zeros(env.action_space.shape, np.float32)
    settings = dict(bare.fixed)
    bare.distiller.advance(settings, FAMILIAR)
    sides = {
        "step": lambda: env.step(action),
        "updates": lambda: bare.distiller.advance(settings, bare.updates_per_step),
        "scoring": lambda: bare.task.probe.read(bare.distiller.student),
    }
    result = compare(sides, args.repetitions, "step")
    show("Environment step, seconds", result)
    decisions = gym.make(args.env).unwrapped.episode_steps
    bases = {base: {name: row[base] for name, row in result.items()} for base in ("median", "processor")}
    for base, took in bases.items():
        result[f"by {base}"] = {
            "step / (updates + scoring)": took["step"] / (took["updates"] + took["scoring"]),
            "scoring / step": took["scoring"] / took["step"],
            "ms per update": 1000 * took["updates"] / env.updates_per_step,
            "students per core-hour": 3600 / (decisions * took["step"]),
        }
    show("Shares", {f"by {base}": result[f"by {base}"] for base in bases})
    return result


def bench_reference(args: argparse.Namespace) -> dict[str, Any]:
    """The step against the plain implementation's, on the same actions."""
    from reference import PlainEnv

    env = begun(functools.partial(gym.make, args.env))
    plain = begun(functools.partial(PlainEnv, **gym.spec(args.env).kwargs))
    rng = np.random.default_rng(0)
    count = args.repetitions + 1
    actions = rng.uniform(-1, 1, (count, *env.action_space.shape)).astype(np.float32)
    taken: dict[str, list[float]] = {"step": [], "plain step": []}

    def step(name: str, one: gym.Env) -> None:
        taken[name].append(float(one.step(actions[len(taken[name])])[1]))

    sides = {"step": lambda: step("step", env), "plain step": lambda: step("plain step", plain)}
    result = compare(sides, args.repetitions, "reference")
    show("Against the plain implementation, seconds per step", result)
    apart = np.abs(np.subtract(taken["step"], taken["plain step"])).tolist()
    ratio = {base: result["plain step"][base] / result["step"][base] for base in ("median", "processor")}
    print(f"{ratio['median']:.1f} times as fast, {ratio['processor']:.1f} by processor time.")
    print("Difference of the rewards by decision:", ", ".join(f"{difference:.0e}" for difference in apart))
    return {**result, "ratio": ratio, "reward differences": apart}


def bench_update(args: argparse.Namespace) -> dict[str, Any]:
    """An update of `tiny` that learns by itself from the metrics, against automatic differentiation through them."""
    from plain_objective import metric_loss as plain_loss

    from fusion_gym.distiller import Distiller, SelfLoss
    from fusion_gym.models.student import read_student, weights_of
    from fusion_gym.objective import metric_loss

    bank = begun(functools.partial(gym.make, args.env)).distiller.bank
    settings = {**dict.fromkeys(("guidance", "clean", *HARDENINGS), 0.5), "rate": 1.0}
    made = {}
    for name in ("update", "plain update"):
        student = read_student(weights_of("tiny")).train().requires_grad_(True)
        made[name] = Distiller(bank, student, 1e-3, 8, 10_000, torch.Generator().manual_seed(0), "metrics")
    made["plain update"].self_loss = SelfLoss(lambda fused, ir, vi, _: plain_loss(fused, ir, vi))
    batch = made["update"].batch()
    ir, vi, _ = batch.images.split(1, dim=1)
    leaf = ((ir + vi) / 2).requires_grad_()

    def times(part: Callable[[], object]) -> Callable[[], object]:
        return lambda: [part() for _ in range(TOGETHER)]  # as in a training, where one update follows another

    sides = {
        **{name: functools.partial(distiller.advance, settings, TOGETHER) for name, distiller in made.items()},
        "student": times(lambda: made["update"].student(ir, vi).sum().backward()),
        "objective": times(lambda: metric_loss(leaf, ir, vi, batch.kept).sum().backward()),
        "plain objective": times(lambda: plain_loss(leaf, ir, vi).sum().backward()),
    }
    made["update"].advance(settings, FAMILIAR)
    result = compare(sides, 4 * args.repetitions, "update")
    show(
        f"{TOGETHER} updates of tiny by metrics, 8 hardened patches each: seconds; their parts, there and back", result
    )
    for base in ("median", "processor"):
        took = {name: row[base] for name, row in result.items()}
        parts = [took["plain update"] / took["update"], took["plain objective"] / took["objective"]]
        each = [1000 * took[name] / TOGETHER for name in made]
        print(f"By {base}: {each[0]:.1f} ms per update, {each[1]:.1f} plain: {parts[0]:.2f} times as fast,", end=" ")
        print(f"objective {parts[1]:.2f} times; it is {took['objective'] / took['update']:.0%} of an update.")
    return result


def bench_workers(args: argparse.Namespace) -> dict[str, Any]:
    """Steps per second of one and several processes, and of students trained together."""
    cores = max(2, os.cpu_count() or 1)
    vectors = {
        "1 worker": gym.make_vec(args.env, num_envs=1, vectorization_mode="async", **LONG),
        f"{cores} workers": gym.make_vec(args.env, num_envs=cores, vectorization_mode="async", **LONG),
        "one by one": gym.make_vec(args.env, num_envs=4, vectorization_mode="sync", **LONG),
        "population": gym.make_vec(args.env, num_envs=4, vectorization_mode="vector_entry_point", **LONG),
    }

    def step(name: str) -> None:
        vectors[name].step(np.zeros(vectors[name].action_space.shape, np.float32))

    for vector in vectors.values():
        vector.reset(seed=0)
    result = compare({name: functools.partial(step, name) for name in vectors}, args.repetitions, "workers")
    for name, vector in vectors.items():
        result[name]["students"] = vector.num_envs
        result[name]["steps per second"] = vector.num_envs / result[name]["median"]
        result[name]["gain"] = result[name]["steps per second"] * result["1 worker"]["median"]
    show("Processes and populations, seconds per vector step", result)
    for vector in vectors.values():
        vector.close()
    return result


MEMORY = """
import gymnasium as gym, json, numpy as np, fusion_gym
def anonymous():
    lines = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
    return {name: int(lines[name].split()[0]) / 1024 for name in ("RssAnon", "RssFile")}
used, envs = [], []
for index in range(10):
    envs.append(gym.make(ENV))
    envs[-1].reset(seed=index)
    envs[-1].step(np.zeros(envs[-1].action_space.shape, np.float32))
    used.append(anonymous())
print(json.dumps(used))
"""


def bench_memory(args: argparse.Namespace) -> dict[str, Any]:
    """Resident memory of one environment, and what each further one in the same process adds (Linux)."""
    used = json.loads(_python(f"ENV = {args.env!r}\n{MEMORY}"))
    first = {"MiB private": used[0]["RssAnon"], "MiB mapped files": used[0]["RssFile"]}
    further = {
        "MiB private": (used[-1]["RssAnon"] - used[0]["RssAnon"]) / 9,
        "MiB mapped files": (used[-1]["RssFile"] - used[0]["RssFile"]) / 9,
    }
    result = {"first environment, with torch": first, "each of nine more": further}
    show("Memory", result)
    return result


def bench_import(args: argparse.Namespace) -> dict[str, Any]:
    """Import, make and reset in fresh processes with a warm cache."""
    sides = {
        "python": "pass",
        "gymnasium": "import gymnasium",
        "fusion_gym": "import gymnasium, fusion_gym",
        "make": f"import gymnasium, fusion_gym; gymnasium.make({args.env!r})",
        "make and reset": f"import gymnasium, fusion_gym; gymnasium.make({args.env!r}).reset(seed=0)",
        "torch": "import torch",
    }
    result = compare(
        {name: functools.partial(_python, code) for name, code in sides.items()}, args.repetitions, "import"
    )
    show("Fresh processes, seconds", result)
    result["own import"] = result["fusion_gym"]["median"] - result["gymnasium"]["median"]
    result["imports torch"] = _python("import sys, fusion_gym; print('torch' in sys.modules)").strip() == "True"
    env = gym.make(args.env)
    env.reset(seed=0)
    again = {"make": lambda: gym.make(args.env), "reset": lambda: env.reset(seed=0)}
    result["in one process"] = compare(again, args.repetitions, "make")
    show("Again in one process, seconds", result["in one process"])
    print(
        f"import fusion_gym adds {result['own import']:.3f} s to Gymnasium's; torch with it: {result['imports torch']}"
    )
    return result


def bench_ppo(args: argparse.Namespace) -> dict[str, Any]:
    """Where the training time of ``train_agent.py --algo ppo`` goes, its environment in this process."""
    sys.path.insert(0, str(ROOT))
    import stable_baselines3

    from agents.training import command
    from fusion_gym.distiller import Distiller
    from fusion_gym.probe import Probe

    spent: dict[str, float] = {}
    total: dict[str, float] = {}

    def timed(owner: Any, name: str, label: str) -> None:
        plain = getattr(owner, name)

        @functools.wraps(plain)
        def call(*positional: Any, **named: Any) -> Any:
            before = time.perf_counter()
            try:
                return plain(*positional, **named)
            finally:
                spent[label] = spent.get(label, 0.0) + time.perf_counter() - before

        setattr(owner, name, call)

    def train(*positional: Any, **named: Any) -> Any:
        spent.clear()  # of what came before the training
        try:
            return whole(*positional, **named)
        finally:
            total.update(spent)  # and nothing of what comes after it

    timed(Distiller, "advance", "student updates")
    timed(Distiller, "measure", "student updates")
    timed(Probe, "read", "scoring")
    timed(stable_baselines3.PPO, "train", "PPO update")
    timed(command, "train", "all")
    whole, command.train = command.train, train
    command.compare = lambda *_, **__: {}  # the table at the end is not training
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "run")
        options = f"--algo ppo --env {args.env} --n-envs 1 --vec-env dummy -n 128 --seed 0 --no-progress --out".split()
        code = command.main([*options, out, "--eval-freq", "0"])  # an evaluation is more of the same steps
    if code:
        raise SystemExit(code)
    seconds = total.pop("all")
    total["rest"] = seconds - sum(total.values())
    shares = {label: {"seconds": part, "share": part / seconds} for label, part in total.items()}
    show(f"train_agent.py --algo ppo: {seconds:.1f} s of training", shares)
    return shares


def _python(code: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, check=True, capture_output=True, text=True
    )
    return run.stdout


PARTS = {
    "step": bench_step,
    "reference": bench_reference,
    "update": bench_update,
    "workers": bench_workers,
    "memory": bench_memory,
    "import": bench_import,
    "ppo": bench_ppo,
}


def main() -> None:
    """Runs the parts that the command line names, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="FusionDistill-v0", help="environment id")
    parser.add_argument("--repetitions", type=int, default=9, help="timings of each side")
    parser.add_argument("--json", type=Path, help="file for the figures")
    args = parse_parts(parser, PARTS)
    torch.set_num_threads(1)
    print("machine:", ", ".join(f"{name} {value}" for name, value in machine().items()))
    results = {part: PARTS[part](args) for part in args.parts}
    if args.json:
        save(args.json, results)


if __name__ == "__main__":
    main()
