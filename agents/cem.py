"""An agent of one's own in one file, without Stable-Baselines3: the cross-entropy method on a linear policy.

    python -m agents.cem --out runs/cem.npz
    python distill_student.py --agent agents.cem:Agent:runs/cem.npz

A generation draws policies around the present mean, lets each train one student, all from the same seed so that
they differ by the policy alone, and moves the mean to the best of them. De Boer et al., "A tutorial on the
cross-entropy method", 2005.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from tqdm import tqdm

from fusion_gym.archives import ArchiveError, check_file
from fusion_gym.cli import Parser, UserError, guard, parse_settings
from fusion_gym.files import atomic_path
from fusion_gym.observations import OBSERVATIONS, index
from fusion_gym.outputs import check_outputs
from fusion_gym.text import say

from .environments import make_checked

FEATURES = ("progress", "loss_guide", "loss_self", "gap_structure", "score_clean", "score", "teacher_score")
_WHERE = [index(name) for name in FEATURES]
_LOW, _HIGH = np.array([(OBSERVATIONS[at].low, OBSERVATIONS[at].high) for at in _WHERE]).T


class Agent:
    """A linear policy: tanh of the weighted features (`FEATURES`, scaled to [-1, 1]) and a constant.

    Args:
        env: The environment, for its number of action components.
        weights: (components, features + 1); zeros, the default schedule, where absent.
    """

    def __init__(self, env: gym.Env, weights: np.ndarray | None = None) -> None:
        shape = (len(env.get_wrapper_attr("action_names")), len(FEATURES) + 1)
        self.weights = np.zeros(shape) if weights is None else weights
        if self.weights.shape != shape:
            raise UserError(f"The weights are of shape {self.weights.shape}; this environment takes {shape}.")

    @classmethod
    def load(cls, path: str, env: gym.Env) -> Agent:
        """Loads what `save` wrote.

        Raises:
            UserError: If the file is missing, damaged, or for other actions.
        """
        try:
            check_file(path)
            with np.load(path, allow_pickle=False) as saved:
                return cls(env, saved["weights"])
        except UserError:
            raise
        except ArchiveError as error:
            raise UserError(str(error)) from error
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
        except Exception as error:  # NumPy, zipfile and zlib raise many classes for the many kinds of damage
            raise UserError(f"{path} is no agent of agents.cem, or it is damaged; train it again.") from error

    def save(self, path: Path) -> None:
        """Writes the weights to an .npz file, whole or not at all."""
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, weights=self.weights)

    def predict(
        self, observation: np.ndarray, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, Any]:
        """The policy's action; see `agents.Agent`."""
        scaled = 2 * (observation[..., _WHERE] - _LOW) / (_HIGH - _LOW) - 1
        return np.tanh(scaled @ self.weights[:, :-1].T + self.weights[:, -1]).astype(np.float32), state


def play(agent: Agent, env: gym.Env, seed: int) -> float:
    """Return of one episode."""
    observation, _ = env.reset(seed=seed)
    total, over = 0.0, False
    while not over:
        observation, reward, terminated, truncated, _ = env.step(agent.predict(observation)[0])
        total, over = total + float(reward), terminated or truncated
    return total


def search(
    env: gym.Env, generations: int, population: int, elite: int, seed: int, out: Path, progress: bool = True
) -> Agent:
    """Searches for a policy; the present mean is saved after every generation.

    Args:
        env: The environment.
        generations: Number of generations.
        population: Policies in each.
        elite: How many of them, the best, make the next mean and spread.
        seed: Seed of the search and of the students.
        out: The .npz file to write.
        progress: Whether to show a bar.
    """
    generator = np.random.default_rng(seed)
    mean = Agent(env).weights
    spread = np.full_like(mean, 0.5)
    bar = tqdm(range(generations), desc="cem", unit="generation", dynamic_ncols=True, disable=not progress)
    for generation in bar:
        weights = mean + spread * generator.standard_normal((population, *mean.shape))
        returns = np.array([play(Agent(env, one), env, seed + generation) for one in weights])
        best = weights[np.argsort(-returns)[:elite]]
        mean, spread = best.mean(0), 0.7 * spread + 0.3 * best.std(0)  # smoothed, so that it does not close too soon
        Agent(env, mean).save(out)
        bar.set_postfix(mean=f"{returns.mean():.2f}", best=f"{returns.max():.2f}")
    return Agent(env, mean)


def main(argv: list[str] | None = None) -> int:
    """Runs the search from the command line."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="FusionDistill-v0", help="environment id")
    parser.add_argument("--env-kwargs", nargs="+", action="extend", default=[], metavar="KEY=VALUE")
    parser.add_argument("--generations", type=int, default=12)
    parser.add_argument("--population", type=int, default=12)
    parser.add_argument("--elite", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/cem.npz"))
    args = parser.parse_args(argv)

    def run() -> None:
        if args.generations < 1 or not 1 < args.elite <= args.population:
            raise UserError("Give --generations from 1 on, and 1 < --elite <= --population.")
        if args.out.exists():
            raise UserError(f"{args.out} exists; give another --out.")
        env = make_checked(args.env, parse_settings(args.env_kwargs, "--env-kwargs"))
        check_outputs([args.out], data=env.get_wrapper_attr("data"))
        args.out.parent.mkdir(parents=True, exist_ok=True)
        search(env, args.generations, args.population, args.elite, args.seed, args.out)
        say(f"The agent is in {args.out}.")
        say(f"Next: python distill_student.py --agent agents.cem:Agent:{args.out}")

    return guard("agents.cem", run, f"Stopped; the last generation's agent is in {args.out}.")


if __name__ == "__main__":
    sys.exit(main())
