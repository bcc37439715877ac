"""What the commands share: settings from the command line and YAML, nearest names, one-sentence errors."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import itertools
import math
import os
import re
import select
import shlex
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml

from fusion_gym.headers import pointer_at
from fusion_gym.stopping import Stopped, stoppable
from fusion_gym.streams import lead_to_nowhere, standing
from fusion_gym.text import Notice, encodable, plain, say

USER_ERROR, INTERRUPTED, UNHEARD = 2, 130, 141
_NO_YAML = ("%", "@", "`")  # what begins so is text to people, and nothing to YAML
MOST_VALUES = 100_000  # of a YAML text; by aliases a short one can stand for any number


class UserError(ValueError):
    """A mistake of the user's; the message is one sentence that names the setting or the file, and the remedy."""


class Parser(argparse.ArgumentParser):
    """A parser of command lines that repeats what it was given in plain text only."""

    def error(self, message: str) -> NoReturn:
        """Says what is wrong with the command line, and stops."""
        super().error(plain(message))


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for a misspelt name: `` Did you mean 'x'?``, or the names that there are."""
    options = sorted(known)
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(options)}."


def check_keys(given: Iterable[str], known: Iterable[str], what: str) -> None:
    """Refuses unknown names.

    Args:
        given: The names that the user gave.
        known: The names that exist.
        what: What the names are, for the message: "environment setting", "hyperparameter of PPO".

    Raises:
        UserError: If a name is unknown; the message has the nearest known one.
    """
    known = list(known)
    for name in given:
        if name not in known:
            raise UserError(f"There is no {what} {name!r}; {nearest(str(name), known)}")


class _Loader(yaml.SafeLoader):
    """YAML in which what YAML 1.1 reads as text (``3e-4``) is a number too; what is quoted is text."""


class _Dumper(yaml.SafeDumper):
    """Quotes text that `_Loader` would read as a number."""


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?((\d[\d_]*\.?\d*|\.\d+)([eE][-+]?\d+)?|nan|inf(inity)?)$", re.IGNORECASE),
        list("-+.0123456789niNI"),
    )


def _load(text: str) -> Any:
    """The value of a YAML text.

    Raises:
        Exception: If the text is not YAML, or its aliases make too much of it; PyYAML raises many classes.
    """
    value = yaml.load(text, _Loader)  # a safe one
    _count(value, itertools.count())
    return value


def _count(value: Any, seen: Iterator[int]) -> None:
    if next(seen) > MOST_VALUES:
        raise ValueError("too many values")
    if isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            _count(item, seen)


def to_yaml(settings: Mapping[str, Any]) -> str:
    """Settings as a YAML text, which `read_yaml` reads as the same settings."""
    return yaml.dump(dict(settings), Dumper=_Dumper, sort_keys=False)


def check_finite(settings: Mapping[str, Any]) -> None:
    """Refuses NaN and infinity among settings, nested ones too.

    Raises:
        UserError: If there is one.
    """
    for name, value in settings.items():
        values = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else [value]
        if any(isinstance(item, float) and not math.isfinite(item) for item in values):
            raise UserError(f"{name}={value} is not allowed; give a finite number.")


def parse_settings(items: Sequence[str], option: str) -> dict[str, Any]:
    """Reads ``key=value`` items; the values are YAML (``3e-4``, ``true``, ``[1, 2]``, ``{net_arch: [64]}``).

    Args:
        items: The items as the shell gave them.
        option: The option that they were given to, for messages.

    Raises:
        UserError: If an item is not of this form, or a value is not YAML or not finite.
    """
    settings = {}
    for item in items:
        name, equals, text = item.partition("=")
        shown = item if len(item) <= 80 else f"{item[:80]}…"
        if not equals or not name:
            raise UserError(f"{option} {shown!r} is not of the form key=value.")
        try:
            settings[name.strip()] = text if text.startswith(_NO_YAML) else _load(text)
        except Exception as error:
            raise UserError(f"{option} {shown!r}: the value is not YAML; quote it, or use [..] for a list.") from error
    check_finite(settings)
    return settings


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Reads a YAML file that holds a mapping.

    Raises:
        UserError: If the file is missing, not YAML or not a mapping.
    """
    try:
        content = _load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    except Exception as error:
        place = getattr(error, "problem_mark", None)
        where = f" at line {place.line + 1}" if place else ""
        raise UserError(f"{path} is not valid YAML{where}; correct it.") from error
    if not isinstance(content, dict):
        said = pointer_at(path) or f"{path} holds no settings; it takes lines of the form 'name: value'."
        raise UserError(said)
    return content


def check_seed(seed: Any) -> None:
    """Refuses what NumPy and torch do not both take as a seed.

    Raises:
        UserError: If the seed is not a whole number in [0, 2³¹).
    """
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**31:
        raise UserError(f"seed={seed} is not allowed; give a whole number from 0 to {2**31 - 1}.")


FRONT = "fusion-gym"  # the installed command
_SCRIPTS = {"train-agent": "train_agent.py", "distill": "distill_student.py"}


def called_as(command: str) -> str:
    """How a command is called by who called this one: ``fusion-gym distill``, or the script in the project's folder."""
    return f"{FRONT} {command}" if sys.argv[0].startswith(f"{FRONT} ") else f"python {_SCRIPTS[command]}"


def called() -> str:
    """The command that this process runs, as a shell takes it."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if sys.argv[0].startswith(f"{FRONT} "):
        name = sys.argv[0].split()
    elif spec is not None:
        name = ["python", "-m", spec.name.removesuffix(".__main__")]
    else:
        name = ["python", os.path.basename(sys.argv[0])]
    return shlex.join([*name, *sys.argv[1:]])


def guard(command: str, run: Callable[[], None], interrupted: str) -> int:
    """Runs a command so that a user's mistake gives one sentence on stderr instead of a traceback.

    Ctrl-C and the signals that end a process (`fusion_gym.stopping`) let it clean up and save; what its output's
    code page lacks is shown by something that is there. Without standard streams, or with a standard error that takes
    nothing, it goes on.

    Args:
        command: Name of the command, in front of the message.
        run: What it does.
        interrupted: What to say after Ctrl-C.

    Returns:
        The exit code: 0; 2 after a mistake (any ValueError or OSError); 130 after Ctrl-C, 143 after SIGTERM, 129 after
        SIGHUP; 141 where the reader of the output has gone.
    """
    with standing(), stoppable(), encodable():
        try:
            with _notices(command):
                run()
            return UNHEARD if _unheard() else 0
        except SystemExit:
            _unheard()
            raise
        except KeyboardInterrupt as stop:
            _complain("", interrupted)
            return stop.code if isinstance(stop, Stopped) else INTERRUPTED
        except (ValueError, OSError) as error:
            if isinstance(error, BrokenPipeError) and (_unheard() or _is_broken(sys.stdout)):
                return UNHEARD
            _complain(f"{command}: {_sentence(error)}")
            return USER_ERROR


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:  # the system's own, which says "[Errno 28] No space left ..."
        return f"{error.filename or 'A file or a stream'} cannot be read or written: {error.strerror}."
    return " ".join(str(error).split())


def _complain(*lines: str) -> None:
    """Says what is wrong, where there is anybody left to tell; output that cannot be written leads to nowhere."""
    with contextlib.suppress(OSError, ValueError):
        say(*lines, error=True)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):  # there is none, or its disk is full, or its terminal has gone
            lead_to_nowhere(stream)


def _unheard() -> bool:
    """Whether the reader of standard output has gone, as ``head`` goes; then the rest of it is led to nowhere."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        lead_to_nowhere(sys.stdout)
        return True
    return False


def _is_broken(stream: Any) -> bool:
    """Whether a stream is a pipe that nobody reads; other pipes, to workers, may be the broken ones."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (AttributeError, OSError, ValueError):  # a system without it, or no stream of the system's
        return False


@contextlib.contextmanager
def _notices(command: str) -> Iterator[None]:
    """Has a `Notice` shown as a sentence, not as a warning with its place in the code."""
    usual = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if issubclass(category, Notice):
            say(f"{command}: {message}", error=True)
        else:
            usual(message, category, *place, **more)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = usual
