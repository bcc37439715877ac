"""Plays recorded episodes again and checks the returns that are claimed for them.

    python -m fusion_gym.replay FILE ... [--render OUT.png | OUT.mp4]

One line for each file. The exit code is 0 where every claim holds, 1 where one does not, 2 after a mistake.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import numpy as np
from gymnasium.utils import seeding
from tqdm import tqdm

from fusion_gym.cli import Parser, UserError, guard
from fusion_gym.files import atomic_path
from fusion_gym.outputs import check_outputs
from fusion_gym.record import Record, RecordError, versions
from fusion_gym.text import plain, say
from fusion_gym.video import verify

TOLERANCE = 1e-4  # of a return, in hundredths of the score: what other processors do to float32 over an episode
SUFFIXES = (".png", ".mp4")


@dataclass(frozen=True)
class Replay:
    """What playing a record again gave.

    Attributes:
        rewards: Reward of each decision; fewer than recorded where the episode was over sooner.
        terminated: Whether it ended by itself.
    """

    rewards: list[float]
    terminated: bool

    def differences(self, record: Record, tolerance: float) -> list[str]:
        """What contradicts the record, in words; nothing where every claim holds.

        Args:
            record: What was played.
            tolerance: How far a return may be off.
        """
        found = []
        played = sum(self.rewards)
        if not abs(played - record.claimed) <= tolerance:
            found.append(f"it is {played:.6f}")
        if not abs(sum(record.rewards) - record.claimed) <= tolerance:
            found.append(f"its own rewards sum up to {sum(record.rewards):.6f}")
        if len(self.rewards) < len(record.actions):
            found.append(f"the episode is over after {len(self.rewards)} of {len(record.actions)} decisions")
        elif self.terminated != (record.end == "terminated"):
            found.append(f"the episode is {'' if self.terminated else 'not '}over, though recorded as {record.end}")
        pairs = zip(self.rewards, record.rewards, strict=False)
        first = next((step for step, (new, old) in enumerate(pairs) if abs(new - old) > tolerance), None)
        if first is not None:
            found.append(f"the rewards differ from decision {first + 1} on")
        return found


def make_env(record: Record, render: bool = False, trust: bool = False) -> gym.Env:
    """The environment of a record.

    Args:
        record: The record.
        render: Whether it is to give frames.
        trust: Whether Python code that arguments name, as ``module:Class`` does, may be imported and run.

    Raises:
        RecordError: If there is no such environment or it does not take the arguments.
    """
    spec = gym.registry.get(record.env)
    if spec is None or spec.entry_point != gym.registry["FusionDistill-v0"].entry_point:
        raise RecordError(f"The record's environment {record.env!r} is not one of FusionGym's.")
    if not trust:
        for name in ("teacher", "reference", "student", "features"):
            value = record.kwargs.get(name, [])
            code = [spec for spec in (value if isinstance(value, list) else [value]) if _is_code(spec)]
            if code:
                raise RecordError(
                    f"The record's {name} {code[0]!r} is code of its author's; add --trust if you know it."
                )
    try:
        return gym.make(record.env, **{**record.kwargs, "render_mode": "rgb_array" if render else None})
    except TypeError as error:
        raise RecordError(f"The record's environment does not take its arguments: {error}.") from error


def _is_code(spec: Any) -> bool:
    return isinstance(spec, str) and ":" in spec and not spec.startswith("rule:") and not Path(spec).exists()


def play(record: Record, env: gym.Env, watch: Callable[[], object] = lambda: None) -> Replay:
    """Plays a record again.

    Args:
        record: The record.
        env: What `make_env` gave.
        watch: Called after the reset and after each decision.

    Raises:
        RecordError: If an action or the generator's state does not fit the environment.
    """
    if record.generator is not None:
        generator, _ = seeding.np_random(0)
        try:
            generator.bit_generator.state = record.generator
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise RecordError("The state of the record's generator is damaged.") from error
        env.unwrapped.np_random = generator
    env.reset(seed=record.seed)
    watch()
    rewards: list[float] = []
    terminated = False
    for action in record.actions:
        if terminated:
            break
        _, reward, terminated, _, _ = env.step(np.array(action))
        rewards.append(float(reward))
        watch()
    return Replay(rewards, terminated)


def write_video(path: Path, frames: list[np.ndarray], fps: int) -> None:
    """Writes frames, uint8 RGB (H, W, 3) each, as an H.264 film.

    Raises:
        UserError: If MoviePy is not installed.
        fusion_gym.files.FileError: If the file cannot be written.
    """
    try:
        from moviepy.video.io.ImageSequenceClip import ImageSequenceClip
    except ImportError as error:
        raise UserError("A film needs MoviePy: pip install 'fusion-gym[video]'; a .png needs nothing.") from error
    with atomic_path(path) as temporary:
        with contextlib.suppress(OSError):  # MoviePy's account of what FFmpeg said; most of it comes too late anyway
            ImageSequenceClip(frames, fps=fps).write_videofile(str(temporary), logger=None)
        verify(temporary, path, len(frames))


def check(path: Path, args: argparse.Namespace) -> bool:
    """Plays one file again and prints a line about it.

    Returns:
        Whether every claim holds.
    """
    record = Record.load(path)
    env = make_env(record, args.render is not None, args.trust)
    film = args.render is not None and args.render.suffix == ".mp4"
    frames: list[Any] = []
    count, name = len(record.actions) + 1, plain(path.name)
    bar = tqdm(total=count, unit="decision", desc=name, leave=False, dynamic_ncols=True, disable=not args.progress)

    def watch() -> None:
        bar.update()
        if film:
            frames.append(env.render())

    try:
        replay = play(record, env, watch)
    except (gym.error.Error, ValueError) as error:
        raise RecordError(f"{path} cannot be played: {error}") from error
    finally:
        bar.close()
    differences = replay.differences(record, args.tolerance)
    what = f"{record.env}, {'seed ' + str(record.seed) if record.generator is None else 'no seed'}"
    what += f", {len(record.actions)} decisions"
    if differences:
        here = versions()
        other = [
            f"{name} {made} (here {here.get(name)})" for name, made in record.versions.items() if here.get(name) != made
        ]
        made = f"; made with {', '.join(other)}" if other else ""
        say(f"{path}: the return {record.claimed:.6f} is not confirmed: {'; '.join(differences)} ({what}{made})")
    else:
        say(f"{path}: return {record.claimed:.6f} as claimed ({what})")
    if film:
        write_video(args.render, frames, env.metadata["render_fps"])
    elif args.render is not None:
        from fusion_gym.rendering import save_picture  # Matplotlib is loaded only where a picture is wanted

        save_picture(args.render, cast(np.ndarray, env.render()))
    if args.render is not None:
        say(f"{'The film' if film else 'The last frame'} is {args.render}.")
    return not differences


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = Parser(prog="fusion_gym.replay", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="records of episodes")
    parser.add_argument("--render", type=Path, metavar="OUT", help="the last frame as .png, or all of them as .mp4")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help=f"of the return (default: {TOLERANCE:g})")
    parser.add_argument("--trust", action="store_true", help="run code that a record names, as its teacher or student")
    parser.add_argument("--progress", action=argparse.BooleanOptionalAction, default=True, help="progress bar")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    """Does what the command line asks."""
    if args.render is not None and (len(args.files) > 1 or args.render.suffix not in SUFFIXES):
        raise UserError(f"--render {args.render}: give one record, and a file that ends in .png or .mp4.")
    check_outputs([args.render], args.files)
    if not 0 <= args.tolerance < math.inf:
        raise UserError(f"--tolerance {args.tolerance} is not allowed; give a number from 0 on.")
    held = [check(path, args) for path in args.files]
    if not all(held):
        raise SystemExit(1)


def main(argv: list[str] | None = None) -> int:
    """Runs the command; a user's mistake gives one sentence and exit code 2."""
    return guard("fusion_gym.replay", lambda: run(parse(argv)), "Stopped.")


if __name__ == "__main__":
    sys.exit(main())
