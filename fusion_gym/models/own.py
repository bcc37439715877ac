"""Students whose network is anyone's: named by ``module:Class``, checked, and made to act like those of the family."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from fusion_gym.archives import ArchiveError, read_tensors
from fusion_gym.classes import FORM, ClassError, Named, said
from fusion_gym.models.layers import StudentError, bounded, pad_to_multiple
from fusion_gym.modes import settled
from fusion_gym.randomness import a_seed, all_seeded, seeded
from fusion_gym.tensors import several
from fusion_gym.text import Notice, plain

# Networks of published shapes that are written here, without weights.
SHAPES: dict[str, Named] = {"agentfuse": Named("fusion_gym.models.agentfuse", "AgentFuse")}
SIZES = ((64, 64), (57, 75))  # of the pairs that a network is tried on: height, width
SLACK = 0.25  # by which what a trained network gives may leave [0, 1], before it is clipped
ROUNDING = 1e-3  # the same of a new one
NOISE = 1e-3  # by which rounding may tell pairs of a batch from the same pairs one by one


class OwnStudent(nn.Module):
    """A network of the user's that fuses pairs of any size, its values bounded.

    Args:
        net: The network: infrared and visible luminance, (N, 1, H, W) in [0, 1] each, to the same shape and range. Its
            attribute ``multiple``, where it has one, is what height and width are padded to multiples of before it;
            its attribute ``reach`` the distance in pixels from which a source has an effect, without which it does not
            fuse images in tiles.
        named: What it was made from.

    Raises:
        StudentError: If an attribute is no such number.
    """

    __jit_unused_properties__ = ("fuse", "light", "settings", "spec")

    def __init__(self, net: nn.Module, named: Named) -> None:
        super().__init__()
        multiple, reach = getattr(net, "multiple", 1), getattr(net, "reach", None)
        for name, value, fine in (("multiple", multiple, (int,)), ("reach", reach, (int, type(None)))):
            if not isinstance(value, fine) or isinstance(value, bool) or (value is not None and value < 1):
                raise StudentError(f"The student {named.label!r} has {name}={value!r}; give a whole number from 1 on.")
        self.net, self.label, self.multiple, self.reach = net, named.label, int(multiple), reach
        self.arguments = dict(named.arguments)

    def forward(self, ir: Tensor, vi: Tensor) -> Tensor:
        """Fuses infrared and visible luminance, (N, 1, H, W) in [0, 1] each, into the same shape and range."""
        height, width = ir.shape[-2:]
        ir, vi = pad_to_multiple(ir, self.multiple).contiguous(), pad_to_multiple(vi, self.multiple).contiguous()
        return bounded(self.net(ir, vi))[..., :height, :width].contiguous()

    def features(self, ir: Tensor, vi: Tensor) -> list[Tensor]:
        """What the network's own method ``features`` gives for a pair, as `forward` takes it: (N, ...) each."""
        net: Any = self.net
        return several(net.features(*(pad_to_multiple(image, self.multiple).contiguous() for image in (ir, vi))))

    @torch.no_grad()
    def fuse(self, ir: Tensor, vi: Tensor) -> Tensor:
        """`forward` for images of a user's; what goes wrong is said in one sentence.

        Raises:
            StudentError: If the network fails, or gives another shape.
        """
        size = f"{ir.shape[-1]}x{ir.shape[-2]} pixels"
        try:
            fused = self(ir, vi)
        except Exception as error:
            raise StudentError(f"The student {self.label!r} fails on images of {size}: {said(error)}.") from error
        if not isinstance(fused, Tensor) or fused.shape != ir.shape or not bool(torch.isfinite(fused).all()):
            raise StudentError(f"The student {self.label!r} does not give finite images of {size} for such.")
        return fused

    @property
    def light(self) -> bool:
        """Whether it needs statistics of the whole image to fuse a part of it."""
        return False

    @property
    def spec(self) -> str:
        """What makes a new one, as a user names it."""
        return shown(self.label, self.arguments)

    @property
    def settings(self) -> dict[str, Any]:
        """What its file says, beside the weights."""
        return {"class": self.label, "arguments": copy.deepcopy(self.arguments)}


def is_own(spec: str) -> bool:
    """Whether a text names a network of the user's, or one of `SHAPES`; a file of that name goes before."""
    return not Path(spec).is_file() and (spec.partition(":")[0] in SHAPES or FORM.fullmatch(spec) is not None)


def labels(specs: Iterable[str | None]) -> set[str]:
    """The labels, ``module:Class``, of those networks of the user's own that are among names of students."""
    return {_named(spec).label for spec in specs if spec is not None and is_own(spec)}


def _named(spec: str) -> Named:
    alias, _, file = spec.partition(":")
    if alias in SHAPES:
        return replace(SHAPES[alias], file=file)
    try:
        named = Named.parse(spec)
    except ClassError as error:
        raise StudentError(str(error)) from error
    if named is None:
        raise StudentError(f"The student {spec!r} is not of the form module:Class or module:Class:key=value.")
    return named


def _made(named: Named, seed: int) -> OwnStudent:
    name = f"The student {named.label!r}"
    try:
        with all_seeded(seed):
            net = named.make("student")
            if not isinstance(net, nn.Module):
                raise StudentError(f"{name} is a {type(net).__name__}; it has to be a torch.nn.Module.")
            if any(is_lazy(weight) for weight in (*net.parameters(), *net.buffers())):
                _answer(net.eval(), name, _pair(1, *SIZES[0]))  # which lets it see how many weights it needs
    except ClassError as error:
        raise StudentError(str(error)) from error
    return OwnStudent(_copied(net, f"{name} cannot be copied, as trainings are"), named).eval()  # it may be another's


@settled()
def begin(start: str | None, spec: str, generator: torch.Generator) -> OwnStudent:
    """The network that a training begins with.

    Args:
        start: A weights file; None for a new network.
        spec: ``module:Class``, also with arguments.
        generator: The seed that its initial weights follow from is drawn from it, and from nowhere else.

    Raises:
        StudentError: If there is no such network, or the file is of another one.
    """
    named, seed = _named(spec), a_seed(generator)
    if named.file:
        raise StudentError(f"student={spec!r} names a file to begin with; give it as start={named.file!r}.")
    if start is None:
        return _made(named, seed)
    if not Path(start).is_file():
        raise StudentError(f"There is no start {start!r} of the student {spec!r}; give 'new', or a weights file.")
    return _filled(replace(named, file=start), exact=True)


@settled()
def load(spec: str) -> OwnStudent:
    """The network that a text names, with the weights of the file that it names.

    Args:
        spec: ``module:Class:FILE``; the file is what `fusion_gym.models.student.save_student` wrote, whose arguments
            go where the text has none, or weights by name (``torch.save(net.state_dict(), FILE)``). Without a file the
            network is as its class makes it, by the seed 0.

    Returns:
        The network, on the CPU, in evaluation mode.

    Raises:
        StudentError: If there is no such network or the file is not one of its.
    """
    named = _named(spec)
    student = _filled(named) if named.file else _made(named, 0)
    check(student, to_train=False)
    if not named.file and any(weight.requires_grad for weight in student.parameters()):
        notice = f"The student {spec} is used as its class makes it; {spec}:FILE.pt has the weights of a training."
        warnings.warn(Notice(notice), stacklevel=2)
    return student.requires_grad_(False)


def restored(saved: Mapping[str, Any], path: str | Path, trusted: Collection[str] = ()) -> OwnStudent:
    """The network that a file is of, where its class is one of `SHAPES` or was named by who gave the file.

    A file is no one to say what code is run: whoever made it could name any.

    Args:
        saved: The file's content.
        path: The file, for messages.
        trusted: Labels of classes that the user has named, ``module:Class``.

    Raises:
        StudentError: If the class is another one, or the weights are not its.
    """
    named = Named.parse(str(saved["class"]))
    if named is None or named.label != saved["class"]:
        raise StudentError(f"{path} is damaged: its class is {plain(saved['class'])[:80]!r}, not module:Class.")
    if named not in SHAPES.values() and named.label not in trusted:
        raise StudentError(
            f"{path} is of the class {named.label}, whose code is run only where it is named: give "
            f"{named.label}:{path}, if you know that class."
        )
    return _filled(replace(named, file=str(path)), saved).requires_grad_(False)


def _filled(named: Named, saved: Any = None, exact: bool = False) -> OwnStudent:
    """A network with the weights of its file; ``exact``: the file's arguments are to be those that are named."""
    path = named.file
    try:
        saved = read_tensors(path) if saved is None else saved
    except ArchiveError as error:
        raise StudentError(str(error)) from error
    if not isinstance(saved, dict):
        raise StudentError(f"{path} holds no weights by name; give what a training left, or torch.save made of them.")
    if "class" not in saved:
        saved = {"class": named.label, "arguments": dict(named.arguments), "weights": saved}
    arguments = saved.get("arguments")
    if not isinstance(arguments, dict) or not all(isinstance(name, str) for name in arguments):
        raise StudentError(f"{path} is damaged: the arguments of its class are no mapping.")
    theirs, ours = shown(saved["class"], arguments), shown(named.label, named.arguments)
    if saved["class"] != named.label or (theirs != ours and (exact or named.arguments)):
        raise StudentError(f"{path} is of {plain(theirs)}, not of {ours}; give that class and its arguments.")
    student = _made(replace(named, arguments=arguments), 0)
    try:
        student.net.load_state_dict(saved["weights"])
    except Exception as error:  # whatever a file can hold instead of weights by name
        raise StudentError(f"{path} does not hold the weights of {theirs}: {said(error)}.") from error
    if not all(bool(torch.isfinite(value).all()) for value in student.parameters()):
        raise StudentError(f"{path} holds weights that are not finite; train it again.")
    return student


def shown(label: str, arguments: Mapping[str, Any]) -> str:
    """A class and its arguments as a user names them."""
    given = ",".join(f"{name}={value}" for name, value in arguments.items())
    return f"{label}{':' * bool(given)}{given}"


@settled()
def check(
    student: OwnStudent, batch: int = 2, side: int = SIZES[0][0], new: bool = False, to_train: bool = True
) -> None:
    """Tries a network out: a mistake is to show before anything is trained or written.

    Args:
        student: The network; a copy of it is tried.
        batch: Number of patches of an update.
        side: Their side, in pixels.
        new: Whether its range has to be kept exactly, as by one that is new; training may lead over its ends a little.
        to_train: Whether it is to be trained, not only to fuse.

    Raises:
        StudentError: If it does not do what a student has to do.
    """
    name = f"The student {student.label!r}"
    weights = list(student.parameters())
    if to_train and not any(weight.requires_grad for weight in weights):
        raise StudentError(f"{name} has no weights to train{', all are frozen' if weights else ''}.")
    for weight in (*weights, *(value for value in student.buffers() if value.is_floating_point())):
        if weight.dtype != torch.float32 or weight.device.type != "cpu":
            kind = f"{_kind(weight)} weights on {weight.device}"
            raise StudentError(f"{name} makes {kind}; make them float32 on the CPU, from where they are moved.")
    with seeded(2**40 + 7):  # no seed that a network may set itself
        tried = copy.deepcopy(student)
        _check_evaluation(tried, name, ROUNDING if new else SLACK)
        if to_train:
            _check_training(tried, name, batch, side)
            _copied(tried, f"{name} cannot be copied once it has been trained")
            _check_state(tried, name)


def _check_state(student: OwnStudent, name: str) -> None:
    stream = io.BytesIO()
    try:
        torch.save(student.net.state_dict(), stream)
        stream.seek(0)
        copy.deepcopy(student.net).load_state_dict(torch.load(stream, weights_only=True))
    except Exception as error:
        raise StudentError(f"{name} has a state that files of weights do not hold: {said(error)}.") from error


def _copied(net: nn.Module, complaint: str) -> nn.Module:
    try:
        return copy.deepcopy(net)
    except Exception as error:
        raise StudentError(f"{complaint}: {said(error)}.") from error


@torch.no_grad()
def _check_evaluation(student: OwnStudent, name: str, slack: float) -> None:
    for size in SIZES:
        pair = _pair(2, *(-(-side // student.multiple) * student.multiple for side in size))
        before = torch.get_rng_state()
        first = _answer(student.net, name, pair, "; an attribute `multiple` may say what sides are to be multiples of")
        least, most = float(first.min()), float(first.max())
        if least < -slack or most > 1 + slack:
            raise StudentError(f"{name} gives values from {least:.3g} to {most:.3g}; have them end up in [0, 1].")
        if not torch.equal(_answer(student.net, name, pair), first) or not torch.equal(torch.get_rng_state(), before):
            raise StudentError(
                f"{name} takes to chance in evaluation mode; have it give the same for the same pair, and seed nothing."
            )
        alone = _answer(student.net, name, (pair[0][:1], pair[1][:1]))
        if float((alone - first[:1]).abs().max()) > NOISE:
            raise StudentError(f"{name} does not give the same for a pair alone and in a batch; keep pairs apart.")


def _check_training(student: OwnStudent, name: str, batch: int, side: int) -> None:
    student.train()
    pair = [pad_to_multiple(image, student.multiple) for image in _pair(batch, side, side)]
    with torch.enable_grad():
        fused = _answer(student.net, name, pair, " in training mode")
        try:
            fused.square().mean().backward()
        except Exception as error:
            raise StudentError(f"{name} cannot be trained: {said(error)}.") from error
    slopes = [weight.grad for weight in student.parameters() if weight.grad is not None]
    if not any(bool(slope.any()) for slope in slopes):
        raise StudentError(f"{name} cannot be trained: no gradient reaches its weights.")


def _pair(count: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    ir, vi = torch.rand(2, count, 1, height, width, generator=torch.Generator().manual_seed(0)).unbind(0)
    return ir, vi


def _answer(net: nn.Module, name: str, pair: Sequence[Tensor], remedy: str = "") -> Tensor:
    """What the bare network gives for a pair, if that is what a student has to give."""
    given = tuple(image.clone() for image in pair)
    shape = tuple(pair[0].shape)
    try:
        fused = net(*given)
    except (Exception, SystemExit) as error:
        raise StudentError(
            f"{name} fails on two tensors {shape}, infrared and visible: {said(error)}{remedy}."
        ) from error
    if not isinstance(fused, Tensor):
        raise StudentError(f"{name} gives a {type(fused).__name__}; it has to give one tensor, {shape}.")
    if fused.dtype != torch.float32:
        raise StudentError(f"{name} gives {_kind(fused)}; it has to give float32.")
    if tuple(fused.shape) != shape:
        raise StudentError(
            f"{name} gives {tuple(fused.shape)} for two tensors {shape}; it has to give one such{remedy}."
        )
    if fused.device != pair[0].device:
        raise StudentError(f"{name} gives a tensor on {fused.device} for two on {pair[0].device}; leave it there.")
    if not all(torch.equal(one, other) for one, other in zip(given, pair, strict=True)):
        raise StudentError(f"{name} changes its input in place; have it work on a copy.")
    if not torch.isfinite(fused).all():
        raise StudentError(f"{name} gives values that are not finite.")
    return fused


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
