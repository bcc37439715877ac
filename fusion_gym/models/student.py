"""The light student: most of its work at low resolution, its output at the full one; and the family that is shipped."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusion_gym.archives import ArchiveError, read_tensors, write_tensors
from fusion_gym.models import WEIGHTS, own
from fusion_gym.models.layers import MARGIN as MARGIN
from fusion_gym.models.layers import (
    SLOPE,
    Convolution,
    StudentError,
    bounded,
    convolution,
    leaky,
    pad_to_multiple,
)
from fusion_gym.models.light import TAUGHT, Light
from fusion_gym.models.own import OwnStudent
from fusion_gym.modes import settled
from fusion_gym.stamps import Stamp, stamp

COARSEST = 8  # the stride of the lowest resolution, in pixels: 64-pixel patches still cover many of its cells
NEW, TRAINED = "new", "trained"  # what a training can begin with, beside a weights file
# Further: along a long training, `benchmarks/make_starts.py`.
STAGES = ("clean", "half", "robust", "forgotten")
ALIKE = 0.01  # difference of the sources, of full scale, around which they begin to count as two

# The family that comes with the package; `benchmarks/bench_student.py` measures it.
STUDENTS: dict[str, dict[str, Any]] = {
    "tiny": {"width": 16, "depth": 2, "stride": 4, "detail": False, "context": 2, "light": True},
    "small": {"width": 16, "depth": 1, "stride": 2, "detail": True, "lean": True, "context": 2, "light": True},
    "base": {"width": 32, "depth": 1, "stride": 2, "detail": True, "lean": True, "context": 2, "light": True},
}


def apart(first: Tensor, second: Tensor, alike: float = ALIKE) -> Tensor:
    """How far two sources are two: 0 where they are equal in a cell and all around it, then soon 1.

    Args:
        first: One source, folded into cells, (N, C, h, w).
        second: The other one.
        alike: An argument, for TorchScript takes no global numbers.

    Returns:
        (N, 1, h, w).
    """
    difference = (first - second).abs().mean(dim=1, keepdim=True)
    return torch.tanh(F.avg_pool2d(difference, 3, stride=1, padding=1) / alike)


class _Level(nn.Module):
    """Residual convolutions at one resolution, and the next lower resolution between them."""

    def __init__(self, width: int, depth: int, levels: int, lean: bool, context: int) -> None:
        super().__init__()
        self.lean = lean
        around = levels == 1 and context > 0
        self.context = nn.ModuleList([Context(width, width // 2, context)] if around else [])
        before = depth // 2 if levels > 1 else depth
        convolutions = [convolution(width, width, lean and levels > 1) for _ in range(depth)]
        self.before, self.after = nn.ModuleList(convolutions[:before]), nn.ModuleList(convolutions[before:])
        self.lower = nn.ModuleList([_Lower(width, depth, levels - 1, lean, context)] if levels > 1 else [])

    def forward(self, x: Tensor, conditioning: Tensor | None = None) -> Tensor:
        for context in self.context:
            x = x + context(x, conditioning)
        for conv in self.before:
            x = self.sum(x, conv(x))
        for lower in self.lower:
            x = x + lower(x, conditioning)
        for conv in self.after:
            x = self.sum(x, conv(x))
        return x

    def sum(self, x: Tensor, change: Tensor) -> Tensor:
        """Adds a residual; runtimes compute a convolution, the sum and an activation after it in one go."""
        return leaky(x + change) if self.lean else x + leaky(change)


class _Lower(nn.Module):
    """What half the resolution and twice the width add to a level."""

    def __init__(self, width: int, depth: int, levels: int, lean: bool, context: int) -> None:
        super().__init__()
        self.down = convolution(width, 2 * width, lean and levels > 1)
        self.level = _Level(2 * width, depth, levels, lean, context)
        self.up = Convolution(2 * width, width, 1)

    def forward(self, x: Tensor, conditioning: Tensor | None) -> Tensor:
        x = self.level(leaky(self.down(F.avg_pool2d(x, 2))), conditioning)
        return F.interpolate(self.up(x), scale_factor=2.0, mode="nearest")


class Context(nn.Module):
    """What the surroundings add to a cell, seen at half the resolution, at a quarter of it and so on.

    Few channels, for it is about which source to take over a whole area, such as a wet road or a sky; without it
    areas in which nothing is to be seen nearby come out in blotches.
    """

    def __init__(self, width: int, inner: int, levels: int) -> None:
        super().__init__()
        self.down = Convolution(width, inner, 1)
        self.further = nn.ModuleList([Context(inner, inner, levels - 1)] if levels > 1 else [])
        self.convolution = convolution(inner, inner, separable=True)
        self.up = Convolution(inner, width, 1)

    def forward(self, x: Tensor, conditioning: Tensor | None = None) -> Tensor:
        """What is added to cells of the lowest resolution, (N, width, h, w), of the same shape; no side may be odd."""
        x = leaky(self.down(F.avg_pool2d(x, 2)))
        for further in self.further:
            x = x + further(x)
        if conditioning is not None:
            x = x + conditioning
        x = leaky(x + self.convolution(x))
        return F.interpolate(self.up(x), scale_factor=2.0, mode="bilinear", align_corners=False)


class Student(nn.Module):
    """A fusion network that is cheap per pixel on a CPU.

    Both sources are folded from space to depth, so that every convolution runs at low resolution: at ``stride`` and
    at each coarser one down to an eighth, as a small U-Net. Its output, unfolded, gives maps of full resolution: a
    gain for each source, and an offset. Fine detail thus comes from the sources themselves. Where they are equal there
    is nothing to fuse, and they are left as they are.

    Args:
        width: Number of channels at ``stride``; each coarser resolution has twice the one before.
        depth: Number of residual convolutions at each resolution.
        generator: Source of the initial weights; none draws them from torch's default generator.
        stride: Pixels folded into one cell, in each direction: 1, 2, 4 or 8.
        detail: Whether the sources' fine detail, the difference from their 3×3 mean, has gains of its own.
        lean: Whether only the lowest resolution has full convolutions, the others depthwise-separable ones.
        context: Number of coarser resolutions, below an eighth, whose few channels tell of the surroundings.
        light: Whether the sources' light is evened first, by the statistics of the whole image; only with context.

    Attributes:
        multiple: Cells of the lowest resolution lie at multiples of it, in pixels.
        reach: Largest distance, in pixels, from which a source has an effect, but for the light of the whole image.

    Raises:
        ValueError: If width is not in 2..256, depth not in 0..16, context not in 0..4, the stride is another one, or
            light is asked for without context.
    """

    __jit_unused_properties__ = ("settings",)

    def __init__(
        self,
        width: int = 16,
        depth: int = 1,
        generator: torch.Generator | None = None,
        stride: int = 4,
        detail: bool = False,
        lean: bool = False,
        context: int = 0,
        light: bool = False,
    ) -> None:
        super().__init__()
        if not 2 <= width <= 256:
            raise ValueError(f"The student's width is {width}; it takes 2 to 256 channels.")
        if not 0 <= depth <= 16:
            raise ValueError(f"The student's depth is {depth}; it takes 0 to 16 convolutions.")
        if stride not in (1, 2, 4, 8):
            raise ValueError(f"The student's stride is {stride}; it takes 1, 2, 4 or 8 pixels.")
        if not 0 <= context <= 4:
            raise ValueError(f"The student's context is {context}; it takes 0 to 4 coarser resolutions.")
        if light and context == 0:
            raise ValueError("A student that evens the light needs context, where it is told of the light.")
        self.width, self.depth, self.stride, self.detail, self.lean = width, depth, stride, detail, lean
        self.context = context
        levels = (COARSEST // stride).bit_length()
        self.multiple = COARSEST << context
        convolved = (1 + depth) * sum(stride << level for level in range(levels))
        surroundings = sum(2 * COARSEST << level for level in range(1, context + 1))  # a convolution, and the way up
        self.reach = convolved + surroundings + self.multiple + int(detail)
        self.cell = stride**2  # channels that a source is folded into
        self.light = nn.ModuleList([Light(width * COARSEST // stride // 2)] if light else [])
        self.stem = Convolution(2 * self.cell, width)
        self.body = _Level(width, depth, levels, lean, context)
        self.head = Convolution(width, (2 * int(detail) + 3) * self.cell, 1)
        self.reset_parameters(generator)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draws new weights: He's normal distribution inside, a head near zero, so that it starts as a mean."""
        for module in self.modules():
            if isinstance(module, Convolution):
                activated = module.groups == 1  # a depthwise convolution is followed by another, not by an activation
                nn.init.kaiming_normal_(module.weight, a=SLOPE if activated else 1.0, generator=generator)
                nn.init.zeros_(module.get_parameter("bias"))
        for light in self.light:
            nn.init.zeros_(light.get_submodule("head").get_parameter("weight"))
        nn.init.normal_(self.head.weight, std=0.001, generator=generator)
        nn.init.constant_(self.head.get_parameter("bias")[: 2 * self.cell], 0.5)

    def forward(self, ir: Tensor, vi: Tensor, seen: Tensor | None = None) -> Tensor:
        """Fuses infrared and visible luminance, (N, 1, H, W) in [0, 1] each, into the same shape and range.

        A student that evens the light needs the whole image's `scene_statistics`, ``seen``, to fuse a part of it.
        """
        height, width = ir.shape[-2:]
        sources = pad_to_multiple(torch.cat((ir, vi), dim=1), self.multiple)
        bases = folded = F.pixel_unshuffle(sources, self.stride)
        first, second = folded.split([self.cell, self.cell], dim=1)
        conditioning: Tensor | None = None
        for light in self.light:  # on the folded sources, so that they are folded once
            gain, offset, conditioning = light(sources, seen)
            bases = folded = folded * gain.repeat_interleave(self.cell, 1) + offset.repeat_interleave(self.cell, 1)
            if self.detail:  # to which an offset is nothing
                sources = sources * gain
        if self.detail:
            fine = sources - F.avg_pool2d(F.pad(sources, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
            bases = torch.cat((folded, F.pixel_unshuffle(fine, self.stride)), dim=1)
        maps = self.head(self.body(leaky(self.stem(folded)), conditioning))
        gains, offset = maps.split([bases.shape[1], self.cell], dim=1)
        for part in (gains * bases).split(self.cell, dim=1):
            offset = offset + part
        fused = torch.lerp(0.5 * (first + second), offset, apart(first, second))
        fused = bounded(fused)  # still folded, so that one map is unfolded, not several
        return F.pixel_shuffle(fused, self.stride)[..., :height, :width]

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments that make a student of this shape."""
        shape = {"width": self.width, "depth": self.depth, "stride": self.stride}
        return {
            **shape,
            "detail": self.detail,
            "lean": self.lean,
            "context": self.context,
            "light": bool(self.light),
        }


def save_student(student: Student | OwnStudent, path: str | Path, half: bool = False) -> None:
    """Writes a student's settings and weights; those of the user's own network under the names that it has for them.

    Args:
        student: The student.
        path: The file, ``.pt``.
        half: Whether the weights are rounded to half precision, for a file of half the size.

    Raises:
        fusion_gym.files.FileError: If the file cannot be written.
    """
    network = student.net if isinstance(student, OwnStudent) else student
    kept = network.state_dict().items()  # what is no tensor is a state of the user's own
    weights = {name: value.detach().cpu() if isinstance(value, Tensor) else value for name, value in kept}
    if half:
        weights = {name: value.half() if torch.is_floating_point(value) else value for name, value in weights.items()}
    write_tensors(path, {**student.settings, "weights": weights})


def weights_of(spec: str) -> Path:
    """The weights file of a student that comes with the package, or the file of that name.

    Raises:
        StudentError: If there is none.
    """
    path = WEIGHTS / f"student_{spec}.pt" if spec in STUDENTS else Path(spec)
    if path.is_file():
        return path
    if spec in STUDENTS:
        raise StudentError(f"This installation has no weights of the student {spec!r}; give --student a file of yours.")
    names = ", ".join((*STUDENTS, *own.SHAPES))
    raise StudentError(f"There is no student {spec!r}; give one of {names}, module:Class, or a weights file (.pt).")


def find_student(spec: str) -> Student | OwnStudent:
    """A trained student: one that comes with the package, a weights file, or ``module:Class:FILE`` of the user's own.

    Returns:
        The student, on the CPU, in evaluation mode.

    Raises:
        StudentError: If there is none, or the file is not a student's.
    """
    return own.load(spec) if own.is_own(spec) else read_student(weights_of(spec))


@settled()
def read_student(path: str | Path, trusted: Collection[str] = ()) -> Student | OwnStudent:
    """Reads what `save_student` wrote; no code in the file is run, and no module imported because a file says so.

    Args:
        path: The file.
        trusted: Labels of classes of the user's own that the file may be of, ``module:Class``.

    Returns:
        The student, on the CPU, in evaluation mode.

    Raises:
        StudentError: If the file cannot be read or is not a student's.
    """
    try:
        saved = read_tensors(path)
        if "class" in saved:
            return own.restored(saved, path, trusted)
        shape = {key: value for key, value in saved.items() if key != "weights"}
        student = Student(**shape, generator=torch.Generator())  # of its own: the weights are replaced
        student.load_state_dict(saved["weights"])
    except StudentError:
        raise
    except ArchiveError as error:
        raise StudentError(str(error)) from error
    except Exception as error:  # torch raises a class of its own for each kind of damage
        raise StudentError(f"{path} is not a student's weights file, or of another version; train it again.") from error
    if not all(bool(torch.isfinite(value).all()) for value in student.parameters()):
        raise StudentError(f"{path} holds weights that are not finite; train it again.")
    return student.eval().requires_grad_(False)


@settled()
def grown(trained: Student, shape: Mapping[str, Any], generator: torch.Generator | None = None) -> Student:
    """A student of a shape that begins with a trained one's weights; the parts that this one lacks are new.

    Raises:
        StudentError: If the trained one's shape is neither this one nor this one without light.
    """
    made = Student(**shape, generator=generator)
    weights = {**made.state_dict(), **trained.state_dict()}
    try:
        made.load_state_dict(weights)
    except RuntimeError as error:
        raise StudentError("The student to start with is of another shape than the one to train.") from error
    return made


def average(first: Student, second: Student, share: float) -> Student:
    """The weighted mean of two students' weights, which often has the better part of both.

    So for a student before and after a short further training: Wortsman et al. 2022, "Robust fine-tuning of zero-shot
    models", arXiv:2109.01903.

    Args:
        first: A student.
        second: One of the same shape that was trained on from it, or from where it came from.
        share: Of the second one, in [0, 1].

    Raises:
        StudentError: If the shapes differ.
    """
    if first.settings != second.settings:
        raise StudentError("Students of different shapes have no average.")
    weights = second.state_dict()
    made = copy.deepcopy(first)
    made.load_state_dict({name: torch.lerp(value, weights[name], share) for name, value in first.state_dict().items()})
    return made.eval().requires_grad_(False)


@lru_cache(maxsize=32)
def _read_once(path: Path, _: Stamp) -> Student:
    student = read_student(path)
    if not isinstance(student, Student):
        raise StudentError(f"{path} is of another shape ({student.label}) than the one to train.")
    return student


def _weights_to_begin_with(start: str, width: int, name: str | None) -> Path:
    if start in STAGES:
        path = WEIGHTS / f"stage_{name}_{start}.pt"
        which, known = f"no stage {start!r} of the student {name or width}", "stage_*.pt"
    elif start == TRAINED and name is None:
        path = WEIGHTS / f"start_{width}.pt"
        which, known = f"no trained student of width {width}", "start_*.pt"
    else:
        return weights_of(name if start == TRAINED and name else start)
    if not path.is_file():
        others = sorted(file.stem.partition("_")[2].replace("_", " ") for file in WEIGHTS.glob(known))
        raise StudentError(f"There is {which}, only of {', '.join(others)}; give start='new', or a weights file.")
    return path


def _new(shape: Mapping[str, Any], generator: torch.Generator) -> Student:
    """A new student, that knows only what would even the light."""
    student = Student(**shape, generator=generator)
    for light in student.light:
        assert isinstance(light, Light)
        light.take_over(_knowledge(TAUGHT, stamp([TAUGHT])))
    return student


@lru_cache(maxsize=1)
def _knowledge(path: Path, _: Stamp) -> Mapping[str, Tensor]:
    return read_tensors(path)


@settled()
def begin(start: str, width: int, name: str | None, generator: torch.Generator) -> Student | OwnStudent:
    """The student that a training begins with.

    Args:
        start: `NEW`, `TRAINED` (what comes with the package for this width or name), one of `STAGES` or a weights file.
        width: Width of the default shape.
        name: One of `STUDENTS` or a network of the user's own instead, whatever the width.
        generator: Draws the weights that are new.

    Raises:
        StudentError: If there is no such student, or the file is not a student's or of another shape.
    """
    if name and own.is_own(name):
        return own.begin(None if start == NEW else start, name, generator)
    shape = STUDENTS[name] if name else {"width": width}
    if start == NEW:
        return _new(shape, generator)
    path = _weights_to_begin_with(start, width, name)
    trained = _read_once(path, stamp([path]))
    return grown(trained, shape, generator) if name else copy.deepcopy(trained).train().requires_grad_(True)
