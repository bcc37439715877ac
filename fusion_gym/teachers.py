"""Teachers: anything that fuses a pair, by name, file, class or folder of results.

A teacher is used once per image: `fused_pairs` gives its outputs for a list of pairs, from a cache where it can.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from fusion_gym.archives import ArchiveError, read_tensors
from fusion_gym.classes import ClassError, Named, said
from fusion_gym.data import ImagePair, cached_array, fingerprint, images_in, load_splits, sets_of
from fusion_gym.images import ImageError, read_gray
from fusion_gym.models import WEIGHTS
from fusion_gym.models.teacher import Teacher
from fusion_gym.modes import settled
from fusion_gym.randomness import all_seeded
from fusion_gym.rules import RULES
from fusion_gym.runtime import OnnxError, ScriptError, onnx_session, torchscript
from fusion_gym.tensors import Fuse, unit
from fusion_gym.text import plain
from fusion_gym.version import __version__

BUILTIN = WEIGHTS / "teacher.pt"


class TeacherError(ValueError):
    """A teacher that cannot be found, loaded or used; the message is one sentence."""


def builtin_teacher(weights: Path = BUILTIN) -> Teacher:
    """The teacher whose weights come with the package, or another's of its kind, in evaluation mode."""
    net = Teacher(generator=torch.Generator())  # of its own: the weights are replaced
    load_weights(net, weights)
    return net.eval().requires_grad_(False)


def load_weights(net: Teacher, path: Path) -> None:
    """Gives a teacher the weights of a file; one that knows of no context leaves the context as it is, adding nothing.

    Raises:
        TeacherError: If the file cannot be read, is of other weights, or holds some that are not finite.
    """
    try:
        weights = read_tensors(path)
        new = {name: value for name, value in net.state_dict().items() if name.startswith(Teacher.ADDED)}
        net.load_state_dict({**new, **weights})
    except ArchiveError as error:
        raise TeacherError(str(error)) from error
    except Exception as error:  # whatever a file can hold instead of weights by name
        raise TeacherError(f"{path} holds no weights of fusion_gym.train_teacher; give a file that it left.") from error
    if not all(bool(torch.isfinite(weight).all()) for weight in net.parameters()):
        raise TeacherError(f"{path} holds weights that are not finite; train it again.")


def _torchscript(path: Path) -> Fuse:
    try:
        net = torchscript(path)
    except ScriptError as error:
        if not error.other:
            raise TeacherError(str(error)) from error
        try:
            return builtin_teacher(path)
        except Exception:
            raise TeacherError(
                f"{path} is neither TorchScript (torch.jit.save) nor weights of fusion_gym.train_teacher; give one of "
                "these."
            ) from error
    return lambda ir, vi: net(ir, vi)


def _onnx(path: Path) -> Fuse:
    try:
        session = onnx_session(str(path))
    except OnnxError as error:
        raise TeacherError(str(error)) from error
    names = [entry.name for entry in session.get_inputs()]
    if len(names) != 2:
        raise TeacherError(f"{path} has {len(names)} inputs; a teacher takes two: infrared, visible luminance.")

    def fuse(ir: Tensor, vi: Tensor) -> Tensor:
        feed = {names[0]: ir.numpy(), names[1]: vi.numpy()}
        return torch.from_numpy(np.asarray(session.run(None, feed)[0]))

    return fuse


def _python_class(spec: str) -> Fuse:
    try:
        named = Named.parse(spec)
        if named is None or named.file:
            raise TeacherError(f"The teacher {spec!r} is not of the form module:Class or module:Class:key=value.")
        with all_seeded(0):  # weights that it draws are the same wherever it is made
            made = named.make("teacher")
    except ClassError as error:
        raise TeacherError(str(error)) from error
    if not callable(made):
        raise TeacherError(f"The teacher {spec!r} is a {type(made).__name__}, which cannot be called with a pair.")
    return made


@settled()
def load_teacher(spec: str) -> Fuse:
    """Loads a teacher that computes.

    Args:
        spec: ``builtin``, a rule (`fusion_gym.rules`), a TorchScript file or the weights that
            `fusion_gym.train_teacher` leaves (.pt, .pth, .ts), an ONNX file (.onnx), or ``module:Class``, also with
            arguments (``module:Class:width=32,depth=2``).

    Returns:
        A callable that takes infrared and visible luminance, (N, 1, H, W) in [0, 1], and gives the same shape.

    Raises:
        TeacherError: If there is no such teacher or it cannot be loaded.
    """
    if spec == "builtin":
        return builtin_teacher()
    if spec in RULES:
        return RULES[spec]
    path = Path(spec)
    if path.suffix in (".pt", ".pth", ".ts", ".onnx"):
        if not path.is_file():
            raise TeacherError(f"The teacher file {spec} does not exist.")
        return _onnx(path) if path.suffix == ".onnx" else _torchscript(path)
    if ":" in spec and not spec.startswith("rule:"):
        return _python_class(spec)
    names = ", ".join(("builtin", *RULES))
    raise TeacherError(
        f"No teacher {spec!r}; give one of {names}, a .pt or .onnx file, module:Class, or a folder of fused images."
    )


def _from_folder(folder: Path, pairs: Sequence[ImagePair]) -> list[np.ndarray]:
    listed = cache(lambda place: images_in(place) if place.is_dir() else {})
    outputs = []
    for pair in pairs:
        found = _fused_file(folder, pair, listed)
        image = read_gray(found)
        if image.shape != pair.ir.shape:
            raise ImageError(f"{found} is {image.shape[::-1]}, its sources are {pair.ir.shape[::-1]} pixels.")
        outputs.append(image)
    return outputs


def _fused_file(folder: Path, pair: ImagePair, listed: Callable[[Path], dict[str, Path]]) -> Path:
    """The fused image of a pair, by the longest of its names; by none that does not tell pairs apart."""
    *shorter, longest = pair.names()
    for name in dict.fromkeys((longest, *(name for name in reversed(shorter) if name.endswith(pair.name)))):
        place = (folder / name).parent
        if Path(name).stem in listed(place):
            return listed(place)[Path(name).stem]
    raise TeacherError(
        f"{folder} has no fused image for {pair.name}; give one of the same name for each, as {folder / pair.name}."
    )


def check_folder(spec: str, data: Iterable[str], ir_range: tuple[int, int] | None = None) -> None:
    """Checks that no fused image of a teacher's folder, if it is one, would stand for test pairs of several sets.

    Args:
        spec: What `fused_pairs` takes.
        data: What `fusion_gym.data.load_splits` takes, each.
        ir_range: As there.

    Raises:
        TeacherError: If sets have files of equal names, and the folder has none for each set.
    """
    if Path(spec).is_dir():
        names = dict.fromkeys(name for text in data for name in sets_of(text))
        fused_pairs(spec, load_splits(",".join(names), ir_range).test)


def _identity(spec: str) -> str:
    """A key that changes whenever the teacher does, or '' where that cannot be known."""
    if spec in RULES:
        return f"{spec} {__version__}"
    return content(BUILTIN if spec == "builtin" else Path(spec))


def content(path: Path) -> str:
    """A digest of a model's file and of the files that it refers to, or '' where there is none.

    An ONNX model may keep its weights in files beside it.
    """
    first, *others = files_of(path)
    if not first.is_file():
        return ""
    digest = _add(hashlib.sha256(), first)
    for other in others:
        try:
            if other.is_file():  # a device has no end
                digest.update(f"{other.name} {_add(hashlib.sha256(), other).hexdigest()}".encode())
                continue
        except (OSError, ValueError):
            pass
        digest.update(f"{other.name} is absent".encode())
    return digest.hexdigest()


def _add(digest: hashlib._Hash, path: Path) -> hashlib._Hash:
    with open(path, "rb") as file:
        while piece := file.read(2**20):
            digest.update(piece)
    return digest


def files_of(path: Path) -> list[Path]:
    """A model's file and those that it keeps its tensors in."""
    if path.suffix.lower() != ".onnx" or not path.is_file():
        return [path]
    return [path, *(path.parent / name for name in external_data(path.read_bytes()))]


def external_data(model: bytes) -> list[str]:
    """The files that an ONNX model says its tensors are in, relative to its own folder.

    They are entries of key and value, in the model's Protocol Buffers a field of 1 and one of 2, wherever the tensor
    is: in the graph, in a graph of a branch, in a function, in an attribute.
    """
    names = set()
    for found in re.finditer(rb"\x0a\x08location\x12", model):
        length, shift, at = 0, 0, found.end()
        while at < len(model) and shift < 32:
            length |= (model[at] & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if model[at - 1] < 0x80:
                break
        with contextlib.suppress(UnicodeDecodeError):
            names.add(model[at : at + min(length, 4096)].decode("utf-8"))
    return sorted(names)


@settled()
@torch.no_grad()
def fuse_pair(fuse: Fuse, pair: ImagePair, name: str = "The network") -> np.ndarray:
    """Fuses one pair of 8-bit images: uint8 (H, W).

    Args:
        fuse: What fuses.
        pair: The pair.
        name: What it is called in messages.

    Raises:
        TeacherError: If it fails, or gives anything but finite floating-point numbers of the pair's size.
    """
    ir, vi = (unit(image)[None, None] for image in (pair.ir, pair.vi))
    wanted = f"a teacher gives a floating-point tensor of the pair's shape, {tuple(ir.shape)}"
    try:
        fused = fuse(ir, vi)
    except (Exception, SystemExit) as error:  # it is anyone's code
        raise TeacherError(f"{name} fails on {pair.name}: {said(error)}.") from error
    if not isinstance(fused, Tensor):
        raise TeacherError(f"{name} gives a {type(fused).__name__} for {pair.name}; {wanted}.")
    if fused.shape != ir.shape or not fused.is_floating_point():
        kind = f"{str(fused.dtype).removeprefix('torch.')} {tuple(fused.shape)}"
        raise TeacherError(f"{name} gives {kind} for {pair.name}; {wanted}.")
    try:
        fused = fused.detach().to("cpu", torch.float32)
    except (NotImplementedError, RuntimeError) as error:  # a tensor without values, as on the device "meta"
        raise TeacherError(f"{name} gives a tensor without values for {pair.name}; {wanted}.") from error
    if not torch.isfinite(fused).all():
        raise TeacherError(f"{name} gives values that are not finite for {pair.name}.")
    return (fused[0, 0].clamp(0, 1) * 255).round().to(torch.uint8).numpy()


@settled()
def fused_pairs(spec: str, pairs: Sequence[ImagePair]) -> list[np.ndarray]:
    """A teacher's outputs for pairs, computed once and cached on disk.

    Args:
        spec: What `load_teacher` takes, or a folder of fused images named as the pairs are. Images of several sets or
            splits may be in folders of their names, and have to be where their own names are equal.
        pairs: The pairs.

    Returns:
        uint8 (H, W) for each pair.

    Raises:
        TeacherError: If the teacher cannot be loaded or used.
    """
    if Path(spec).is_dir():
        return _from_folder(Path(spec), pairs)

    def compute() -> np.ndarray:
        fuse = load_teacher(spec)
        shown = tqdm(
            pairs,
            desc=f"teacher {plain(spec)}",
            unit="pair",
            delay=2,
            leave=False,
            dynamic_ncols=True,
            disable=None,
        )
        return np.concatenate([fuse_pair(fuse, pair, f"The teacher {spec!r}").ravel() for pair in shown])

    identity = _identity(spec)
    if identity:
        key = hashlib.sha256(f"{identity}/{fingerprint(pairs)}".encode()).hexdigest()[:32]
        flat = cached_array(f"teacher-{key}", compute)
    else:
        flat = compute()
    ends = np.cumsum([pair.ir.size for pair in pairs])
    return [part.reshape(pair.ir.shape) for part, pair in zip(np.split(flat, ends[:-1]), pairs, strict=True)]
