"""What the commands that train students have in common: the settings of a student's training."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fusion_gym.cli import UserError, check_keys
from fusion_gym.conditions import DEPLOYMENTS
from fusion_gym.distiller import SELF_LOSSES
from fusion_gym.env import GUIDES
from fusion_gym.models.own import is_own
from fusion_gym.models.student import STUDENTS

from .schema import Settings, option

ENVIRONMENT = "FusionDistill-v0"
STUDENT = "tiny"
_ARGUMENTS = ("data", "teacher", "start", "deployment", "learning_rate", "batch_size", "guide", "device")


@dataclass(frozen=True, kw_only=True)
class StudentSettings(Settings):
    """How students are trained.

    Attributes:
        data: Folder of pairs, several joined by commas, or synthetic.
        ir_range: Counts of a 16-bit infrared shown black and white.
        test: Further data whose test pairs are reported on.
        teacher: Name, TorchScript or ONNX file, module:Class, or folder.
        student: One of the family that is shipped, agentfuse, or module:Class, a network of your own.
        width: Channels of a plain student, in place of one of the family.
        start: new, trained (weights that come with the package), a stage of a long training, or a weights file.
        deployment: Conditions that the student will meet; what the agent sees and the score weighs.
        updates: Optimiser updates in all, rounded up.
        learning_rate: Of the student, at the start.
        batch_size: Patches in an update.
        self_loss: What a student learns by itself from.
        guide: What a student follows its teacher in.
        features: Of --guide features: VGG-19's weights, TorchScript, module:Class, or teacher.
        env_kwargs: Further arguments of the environment.
        device: auto, cpu or cuda.
    """

    data: str = "synthetic"
    ir_range: tuple[int, int] | None = option(None, metavar=("LOW", "HIGH"))
    test: tuple[str, ...] = option((), metavar="DATA")
    teacher: str = "builtin"
    student: str | None = option(None, shown=STUDENT)
    width: int | None = None
    start: str = "new"
    deployment: str = option("mixed", choices=sorted(DEPLOYMENTS))
    updates: int = 320
    learning_rate: float = 2e-3
    batch_size: int = 8
    self_loss: str | None = option(
        None, choices=sorted(SELF_LOSSES), shown="metrics for a student of the family, simple for a plain one"
    )
    guide: str = option("pixels", choices=GUIDES)
    features: str | None = None
    env_kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    device: str = "auto"

    def __post_init__(self) -> None:
        """Checks the settings, each and together."""
        super().__post_init__()
        if self.student is not None and self.width is not None:
            raise UserError("--student and --width exclude each other: one of the family, or a plain student.")
        if self.student is not None and not is_own(self.student):
            check_keys([self.student], STUDENTS, "student")
        if (self.guide == "features") != (self.features is not None):
            raise UserError("--guide features and --features go together: give both, or neither.")

    def shared_arguments(self) -> dict[str, Any]:
        """The environment's arguments but for ``env_kwargs`` and those of an episode's length."""
        arguments = {name: getattr(self, name) for name in _ARGUMENTS}
        if self.width is None:
            arguments |= {"student": self.student or STUDENT, "self_loss": self.self_loss or "metrics"}
        else:
            arguments |= {"student": None, "student_width": self.width, "self_loss": self.self_loss or "simple"}
        given = {name: getattr(self, name) for name in ("ir_range", "features")}
        return arguments | {name: value for name, value in given.items() if value is not None}


def check_decisions(updates: int, decisions: int) -> None:
    """Checks that there is an update for each decision.

    Raises:
        UserError: If there is not.
    """
    if not 1 <= decisions <= updates:
        raise UserError(f"--updates {updates} for {decisions} decisions: give at least one for each.")
