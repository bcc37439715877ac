"""RLlib's PPO on the environment, unmodified.

RLlib pins a version of Gymnasium of its own (Ray 2.60: 1.2.2), on which the environment runs too. So it gets a Python
environment of its own:

    python -m venv rllib
    rllib/bin/pip install -e . "ray[rllib]"
    rllib/bin/python examples/rllib_ppo.py
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import gymnasium as gym


def make(kwargs: dict[str, Any]) -> gym.Env:
    """The environment, in a worker of RLlib's."""
    return gym.make("fusion_gym:FusionDistillFast-v0", **kwargs)


def main(argv: list[str] | None = None) -> list[float]:
    """Trains, and gives the mean return of each iteration."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=4)
    parser.add_argument("--workers", type=int, default=0, help="processes beside this one that play episodes")
    parser.add_argument("--batch", type=int, default=64, help="steps of an iteration")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    try:
        import ray
        from ray.rllib.algorithms.ppo import PPOConfig
        from ray.tune.registry import register_env
    except ImportError as error:
        sys.exit(f"This example needs RLlib, in a Python environment of its own: pip install 'ray[rllib]' ({error}).")
    ray.init("local", include_dashboard=False)  # whatever clusters run, or once ran, on this machine
    register_env("FusionDistillFast-v0", make)
    config = (
        PPOConfig()
        .environment("FusionDistillFast-v0", env_config={})
        .env_runners(num_env_runners=args.workers, rollout_fragment_length="auto")
        .training(lr=1e-3, gamma=1.0, train_batch_size_per_learner=args.batch, minibatch_size=32, num_epochs=10)
        .debugging(seed=args.seed)
    )
    algorithm = config.build_algo()
    returns = []
    for iteration in range(args.iterations):
        result = algorithm.train()
        returns.append(float(result["env_runners"]["episode_return_mean"]))
        print(f"{iteration + 1} of {args.iterations}: mean return {returns[-1]:.4f}")
    algorithm.stop()
    ray.shutdown()
    return returns


if __name__ == "__main__":
    main()
