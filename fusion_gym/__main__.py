"""The command ``fusion-gym``, also ``python -m fusion_gym``: one word says what to do, the rest is that one's own."""

from __future__ import annotations

import importlib
import importlib.util
import sys

from fusion_gym.cli import FRONT, INTERRUPTED, USER_ERROR, nearest
from fusion_gym.text import say
from fusion_gym.version import __version__

# Module, whose ``main`` takes the arguments, and what it does. Agents are a package of their own in the project's
# folder, and a part of this one where it is installed.
COMMANDS = {
    "train-agent": ("agents.training.command", "train an agent, and compare it with the default schedule"),
    "distill": ("agents.distilling.command", "train a student under an agent or a schedule"),
    "compare": ("agents.comparison.command", "compare agents and schedules on equal students"),
    "fuse": ("fusion_gym.fuse", "fuse images, folders, numbered frames or videos"),
    "export": ("fusion_gym.export", "write a student as ONNX or TorchScript, in float or int8"),
    "metrics": ("fusion_gym.metrics.__main__", "score folders of fused images"),
    "replay": ("fusion_gym.replay", "play recorded episodes again, and check them"),
    "check-data": ("fusion_gym.check_data", "look through folders of pairs before hours are spent on them"),
    "train-teacher": ("fusion_gym.train_teacher", "train a teacher on images of one's own"),
}


def module_of(command: str) -> str:
    """Name of the module that does a command."""
    module = COMMANDS[command][0]
    if module.startswith("agents.") and importlib.util.find_spec("fusion_gym.agents") is not None:
        return f"fusion_gym.{module}"
    return module


def usage() -> str:
    """What there is, in lines."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join([f"usage: {FRONT} COMMAND ...", "", *lines, "", f"{FRONT} COMMAND --help says more; --version."])


def main(argv: list[str] | None = None) -> int:
    """Runs a command.

    Returns:
        Its exit code; 2 where there is no such command.
    """
    command, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if command in ("-h", "--help", "help"):
        say(*usage().splitlines())
        return 0
    if command == "--version":
        say(f"{FRONT} {__version__}")
        return 0
    if command not in COMMANDS:
        say(f"{FRONT}: there is no command {command!r}; {nearest(command, COMMANDS)}", error=True)
        return USER_ERROR
    before, sys.argv = sys.argv, [f"{FRONT} {command}", *rest]  # for messages and usages
    try:
        return int(importlib.import_module(module_of(command)).main(rest))
    except ImportError as error:
        if error.name != "cv2":
            raise
        say(f"{FRONT}: {error}", error=True)
        return USER_ERROR
    except KeyboardInterrupt:  # while modules are loaded
        return INTERRUPTED
    finally:
        sys.argv = before


if __name__ == "__main__":
    sys.exit(main())
