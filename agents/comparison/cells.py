"""A cell of a comparison: one student, trained for an episode under an agent and judged on test pairs.

Cells are kept one by one, each in a file whose name holds a digest of all that its result depends on.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

import fusion_gym
from fusion_gym.classes import FORM, Named
from fusion_gym.conditions import CONDITIONS, DEPLOYMENTS
from fusion_gym.damages import DAMAGES, damage
from fusion_gym.data import load_splits, probe_crops, sets_of
from fusion_gym.files import write_json
from fusion_gym.metrics import ARTEFACTS, REPORTED, Sources, evaluate
from fusion_gym.models.own import OwnStudent
from fusion_gym.models.student import Student, save_student
from fusion_gym.probe import Probe
from fusion_gym.report import check_pairs
from fusion_gym.score import Yardstick
from fusion_gym.stamps import Stamp, files_in, stamp
from fusion_gym.teachers import BUILTIN, content, files_of, fused_pairs
from fusion_gym.tensors import Fuse, unit

from .. import Agent, load_agent
from ..environments import make_checked
from ..forks import proposer
from ..playing import play
from ..scripted import Points, Schedule

ENVIRONMENT = "FusionDistill-v0"
CROP = 128  # side of the test crops: what can be judged in a fraction of the training's time
LEAST_CROPS = 32  # of each condition; where there are more pairs, one of each
UNSEEN_STRENGTH = 0.6  # of the damages that nothing is trained on
LONGEST = 80  # bytes of a name within a file's name
CONVENTION = "cddfuse"  # of the metrics' table; the score has its own


@dataclass(frozen=True)
class Cell:
    """One student to train and to judge.

    Attributes:
        name: Name of the agent, for reports.
        agent: What `agents.load_agent` takes, or break points of a schedule by component.
        instance: Name of the instance, for reports.
        arguments: Arguments of the environment.
        seed: Seed of the episode.
        tests: Data whose test pairs the student is judged on; without any the cell gives the final score alone.
        keep: Whether the student is saved beside the result.
        trust: As in `agents.load_agent`.
    """

    name: str
    agent: str | Mapping[str, Points]
    instance: str
    arguments: Mapping[str, Any]
    seed: int
    tests: tuple[str, ...] = ()
    keep: bool = False
    trust: bool = False

    def __str__(self) -> str:
        """For messages."""
        return f"{self.name} on {self.instance}, seed {self.seed}"

    def path(self, folder: Path) -> Path:
        """Where the result belongs; the student is beside it, with the suffix ``.pt``."""
        agent = {"agent": self.agent, "file": _content(self.agent) if isinstance(self.agent, str) else ""}
        judged = {"tests": self.tests, "crop": CROP, "convention": CONVENTION} if self.tests else {}
        facts = {**agent, **judged, **origin(), "arguments": dict(self.arguments)}
        facts["read"] = _read((*self.arguments.values(), *self.tests))
        facts |= {"code": code} if (code := _code((self.agent, *self.arguments.values()))) else {}
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
        return folder / f"{file_name(self.name)}-{file_name(self.instance)}-{self.seed}-{digest}.json"


def file_name(text: str) -> str:
    """A text with whatever does not belong into a file's name replaced; a long one is cut, and told by a digest."""
    name = re.sub(r"[^\w.]+", "_", text)
    if len(name.encode()) <= LONGEST:
        return name
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{name.encode()[: LONGEST - 9].decode(errors='ignore')}-{digest}"


def _content(spec: str) -> str:
    """Digest of the file that an agent's text names; '' where it names none."""
    for part in (spec, spec.partition(":")[2], spec.rpartition(":")[2]):
        if part and Path(part).is_file():
            return content(Path(part))
    return ""


def _texts(values: Iterable[Any]) -> set[str]:
    """The texts among values, and among those within them that are lists."""
    parts = (part for value in values for part in (value if isinstance(value, (list, tuple)) else (value,)))
    return {part for part in parts if isinstance(part, str)}


def _read(values: Iterable[Any]) -> dict[str, str]:
    """Digests of the files and of the folders of files that texts name, by their names."""
    names = {name for text in _texts(values) if text for name in (text, *sets_of(text))}
    return {name: digest for name in sorted(names) if (digest := _digest(name, stamp(files_of(Path(name)))))}


def _code(values: Iterable[Any]) -> dict[str, str]:
    """Digests of the modules of the user's own whose classes texts name, by their names."""
    named = (FORM.fullmatch(proposer(text)) for text in _texts(values))
    files = {found[1]: Named(found[1], found[2]).source() for found in named if found}
    return {name: content(file) for name, file in sorted(files.items()) if file is not None}


@lru_cache(maxsize=256)
def _digest(name: str, _: Stamp) -> str:
    path = Path(name)
    if not path.is_dir():
        return content(path)
    digest = hashlib.sha256()
    for file in files_in(path):
        if file.is_file():
            digest.update(f"{file.relative_to(path)} {content(file)}".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


@cache
def origin() -> dict[str, str]:
    """What every result depends on: the package's version and a digest of the built-in teacher's weights."""
    digest = hashlib.sha256(BUILTIN.read_bytes()).hexdigest()[:16] if BUILTIN.is_file() else ""
    return {"version": fusion_gym.__version__, "builtin_teacher": digest}


def load_result(path: Path) -> dict[str, Any] | None:
    """The result of a finished cell; None where there is none, or it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def complete(job: tuple[Cell, Path]) -> dict[str, Any]:
    """Runs a cell and stores its result; what a worker process does.

    Args:
        job: The cell and the folder of the results.

    Returns:
        The result, as `run` gives it.
    """
    cell, folder = job
    result, student = run(cell)
    store(cell, folder, result, student)
    return result


def store(cell: Cell, folder: Path, result: Mapping[str, Any], student: Student | OwnStudent) -> None:
    """Stores what `run` gave, each file whole or not at all.

    Args:
        cell: The cell.
        folder: Folder of the results.
        result: Its result.
        student: Its student, kept where the cell says so.
    """
    path = cell.path(folder)
    if cell.keep:
        save_student(student, path.with_suffix(".pt"))
    write_json(path, result)


def run(cell: Cell) -> tuple[dict[str, Any], Student | OwnStudent]:
    """Trains and judges the student of a cell.

    Returns:
        The result, JSON-able: ``score`` (the environment's last, on its probe), ``diverged``, and where there are
        tests ``log`` (values over the decisions by name), ``drawn`` (the instance that the seed gave) and ``tests``
        (figures by data); and the student.
    """
    env = environment(json.dumps(dict(cell.arguments), sort_keys=True))
    infos = play(env, make_agent(cell.agent, env, cell.trust), cell.seed).infos
    info = infos[-1]
    plain: Any = env.unwrapped
    student = plain.distiller.student
    result: dict[str, Any] = {"score": info["score"], "diverged": bool(info["diverged"])}
    if cell.tests:
        names = [name for name in info if name.startswith(("score", "action/", "student/"))]
        result["log"] = {name: [float(entry[name]) for entry in infos] for name in names}
        result["drawn"] = dict(plain.instance)
        deployment = DEPLOYMENTS[plain.instance["deployment"]]
        judges = {data: judge(data, plain.reference, plain.device, plain.ir_range) for data in cell.tests}
        result["tests"] = {
            data: j.figures(student, plain.instance["teacher"], deployment) for data, j in judges.items()
        }
    return result, student


@cache
def environment(arguments: str) -> gym.Env:
    """The environment of a cell, made once per process.

    Args:
        arguments: Arguments of the environment, as JSON.
    """
    return make_checked(ENVIRONMENT, json.loads(arguments))


def make_agent(agent: str | Mapping[str, Points], env: gym.Env, trust: bool) -> Agent:
    """The agent of a cell: anew for each, so that no cell depends on those before it."""
    if isinstance(agent, str):
        return load_agent(agent, env, trust)
    return Schedule(agent, env.get_wrapper_attr("action_names"))


class Judge:
    """Test pairs with everything about the sources computed once.

    From each pair the crops with the most detail are taken. The score is the reward's own, from a
    `fusion_gym.probe.Probe` over these crops.

    Args:
        data: What `fusion_gym.data.load_splits` takes; its test pairs are judged on.
        reference: The fusion that the score is relative to, as `fusion_gym.teachers.fused_pairs` takes it.
        device: Where the judging is done.
        ir_range: As `fusion_gym.data.load_splits` takes it.

    Raises:
        fusion_gym.data.DataError: If the data have no test pairs, or one is too small.
    """

    def __init__(self, data: str, reference: str, device: str, ir_range: tuple[int, int] | None = None) -> None:
        self._pairs = load_splits(data, ir_range).test
        check_pairs(self._pairs, data)
        self._device, self._teachers = device, dict[str, dict[str, float]]()
        ir, vi, fused = self._crops(reference)
        self._probe = Probe(ir, vi, fused, fused)
        generator = torch.Generator(device).manual_seed(0)
        self._unseen = {kind: damage(kind, ir, vi, UNSEEN_STRENGTH, generator) for kind in DAMAGES}
        self._yardstick = Yardstick(ir, vi, fused)
        self._sources = Sources(*(image.repeat(len(CONDITIONS), 1, 1, 1) for image in (ir, vi)))

    def _crops(self, teacher: str) -> tuple[Tensor, ...]:
        """Infrared, visible and a teacher's output, (N, 1, H, W) each; the same places for whatever teacher."""
        side = min(CROP, *(min(pair.ir.shape) for pair in self._pairs))
        fused = fused_pairs(teacher, self._pairs)
        stacks = [np.stack((pair.ir, pair.vi, output)) for pair, output in zip(self._pairs, fused, strict=True)]
        crops = unit(probe_crops(stacks, side, max(LEAST_CROPS, len(stacks))), self._device)
        return crops.split(1, dim=1)

    @torch.no_grad()
    def figures(self, fuse: Fuse, teacher: str, deployment: Mapping[str, float]) -> dict[str, float]:
        """Judges a student.

        Args:
            fuse: The student, or whatever fuses a batch of pairs.
            teacher: The teacher that it is compared with, as `fusion_gym.teachers.fused_pairs` takes it.
            deployment: Share of each condition that the score weighs.

        Returns:
            ``score``; ``score_`` by condition, and ``score_hardened``, the mean over the damages; ``score_`` by
            damage that nothing is trained on, and ``score_unseen``, their mean; the mean of each metric, the nine and
            the artefacts, on the clean pairs, and on the damaged ones with the suffix ``_hardened``;
            ``teacher_ratio``, the mean over the nine of the ratio to the teacher's mean on the clean pairs.
        """
        fused = _finite(self._probe.fuse(fuse))
        reading = self._probe.judge(fused)
        values = evaluate(fused, self._sources, REPORTED, convention=CONVENTION)
        values |= evaluate(fused, self._sources, ARTEFACTS)
        count = len(self._probe)
        clean = {name: float(value[:count].mean()) for name, value in values.items()}
        hardened = {f"{name}_hardened": float(value[count:].mean()) for name, value in values.items()}
        known = self.teacher(teacher)
        ratio = float(np.mean([clean[name] / max(known[name], 1e-3) for name in REPORTED]))
        scores = {f"score_{name}": value for name, value in reading.scores.items()}
        unseen = {
            f"score_{kind}": float(self._yardstick.score(_finite(fuse(*pair)), damaged=True).mean())
            for kind, pair in self._unseen.items()
        }
        scores |= unseen | {"score_unseen": float(np.mean(list(unseen.values())))}
        scores |= {"score": reading.score(deployment), "score_hardened": reading.score_hardened}
        return {**scores, **clean, **hardened, "teacher_ratio": ratio}

    @torch.no_grad()
    def teacher(self, teacher: str) -> dict[str, float]:
        """Mean of each metric of a teacher on the clean pairs, computed once."""
        if teacher not in self._teachers:
            ir, vi, fused = self._crops(teacher)
            values = evaluate(fused, Sources(ir, vi), REPORTED, convention=CONVENTION)
            self._teachers[teacher] = {name: float(value.mean()) for name, value in values.items()}
        return self._teachers[teacher]


def _finite(fused: Tensor) -> Tensor:
    return torch.nan_to_num(fused, nan=0.0, posinf=1.0, neginf=0.0)


@cache
def judge(data: str, reference: str, device: str, ir_range: tuple[int, int] | None = None) -> Judge:
    """A `Judge`, made once per process."""
    return Judge(data, reference, device, ir_range)
