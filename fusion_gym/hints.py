"""Guidance by hints: a teacher's own features of the clean pairs, which a student's own features follow.

After FitNets, arXiv:1412.6550. Teacher and student are Python's, each with a method ``features(ir, vi)``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusion_gym.classes import FORM, said
from fusion_gym.features import FeatureError, shapes, tried
from fusion_gym.losses import hint_loss
from fusion_gym.models.own import OwnStudent
from fusion_gym.models.student import Student
from fusion_gym.modes import settled
from fusion_gym.randomness import seeded
from fusion_gym.teachers import TeacherError, load_teacher
from fusion_gym.tensors import resolve_device, several

TEACHER = "teacher"  # in the place of a network of features


class Hints:
    """The guidance loss by a teacher's own features; one for all trainings of a process, for nothing in it changes.

    Args:
        spec: The teacher, ``module:Class``.
        features: Its method: infrared and visible luminance, (N, 1, H, W) in [0, 1], to one tensor (N, ...) or several.
        side: Side of the patches, in pixels.
        device: Where it is.

    Raises:
        FeatureError: If the teacher does not give features that can be followed.
    """

    def __init__(self, spec: str, features: Callable[[Tensor, Tensor], Any], side: int, device: str) -> None:
        self.spec, self.side, self.device = spec, side, device
        self._features, self._name = features, f"the teacher {spec!r}"
        found, again = (tried(features, self._pair(), f"The features of {self._name}") for _ in range(2))
        if not all(torch.equal(one, other) for one, other in zip(found, again, strict=True)):
            raise FeatureError(f"The features of {self._name} differ from call to call; take no chance there.")
        if not all(bool((one[0] != one[1]).any()) for one in found):
            raise FeatureError(f"The features of {self._name} see no difference between two pairs.")
        self._sizes = [float(one.float().square().mean()) for one in found]

    def of(self, student: Any, seen: Sequence[Tensor], clean: Sequence[Tensor]) -> Tensor:
        """Loss per sample, (N,).

        Args:
            student: What has a method ``features``.
            seen: Infrared and visible luminance as the student sees them, (N, 1, H, W) each.
            clean: The same pairs without damage.
        """
        return hint_loss(student.features(*seen), self._wanted(clean), self._sizes)

    @torch.no_grad()
    def _wanted(self, pair: Sequence[Tensor]) -> list[Tensor]:
        return [each.detach().float() for each in several(self._features(*pair))]

    def _pair(self) -> list[Tensor]:
        """Two pairs as smooth as pictures are, (2, 1, side, side) each."""
        coarse = torch.rand(2, 2, 8, 8, generator=torch.Generator().manual_seed(0))
        fine = F.interpolate(coarse, size=(self.side, self.side), mode="bilinear").to(self.device)
        return [image.contiguous() for image in fine.split(1, dim=1)]

    @settled()
    def check(self, student: Student | OwnStudent, spec: str | None) -> None:
        """Tries a student's features out, in training and as it fuses; a copy of it is tried.

        Args:
            student: The student.
            spec: As its user names it.

        Raises:
            FeatureError: If they do not fit the teacher's.
        """
        name = f"the student {spec!r}"
        if not isinstance(student, OwnStudent) or not callable(getattr(student.net, "features", None)):
            raise FeatureError(
                f"features='{TEACHER}' needs a student module:Class with a method features(ir, vi); {spec!r} has none."
            )
        pair = self._pair()
        wanted = shapes(self._wanted(pair))
        learner = copy.deepcopy(student).to(self.device)
        with seeded(0, self.device), torch.enable_grad():
            for training in (False, True):
                found = tried(learner.train(training).features, pair, f"The features of {name}")
                if shapes(found) != wanted:
                    raise FeatureError(
                        f"The features of {name} are {shapes(found)}, those of {self._name} {wanted}; "
                        "give the same number and shapes."
                    )
            try:
                self.of(learner, pair, pair).sum().backward()
            except Exception as error:
                raise FeatureError(f"The features of {name} cannot be learned: {said(error)}.") from error
        slopes = [weight.grad for weight in learner.parameters() if weight.grad is not None]
        if not any(bool(slope.any()) for slope in slopes) or not all(bool(slope.isfinite().all()) for slope in slopes):
            raise FeatureError(f"The features of {name} cannot be learned: no finite gradient reaches its weights.")

    def __deepcopy__(self, memo: dict[int, Any]) -> Hints:
        """The same object."""
        return self

    def __reduce__(self) -> tuple[Callable[..., Hints], tuple[str, int, str]]:
        """Pickles as a reference: another process makes the teacher once."""
        return load_hints, (self.spec, self.side, self.device)


@settled()
def load_hints(spec: str, side: int, device: str = "cpu") -> Hints:
    """The guidance loss by a teacher's own features; made once for each process.

    Args:
        spec: The teacher, ``module:Class``, also with arguments.
        side: Side of the patches, in pixels.
        device: Where it is to be computed.

    Raises:
        FeatureError: If the teacher cannot be made, or does not give features that can be followed.
    """
    return _load(spec, side, resolve_device(device))


@lru_cache(maxsize=8)
def _load(spec: str, side: int, device: str) -> Hints:
    if spec.startswith("rule:") or FORM.fullmatch(spec) is None or Path(spec).exists():
        raise FeatureError(f"The teacher {spec!r} has no features of its own; features='{TEACHER}' takes module:Class.")
    try:
        teacher: Any = load_teacher(spec)
    except TeacherError as error:
        raise FeatureError(str(error)) from error
    if not callable(getattr(teacher, "features", None)):
        raise FeatureError(f"The teacher {spec!r} has no method features(ir, vi), which features='{TEACHER}' takes.")
    if isinstance(teacher, nn.Module):
        try:
            teacher = copy.deepcopy(teacher).to(device).eval()  # it may be another's
        except Exception as error:
            raise FeatureError(f"The teacher {spec!r} cannot be copied to {device}: {said(error)}.") from error
    with torch.no_grad():
        return Hints(spec, teacher.features, side, device)
