"""Fusing images with a student or a rule: NumPy images of any size and depth, or torch tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusion_gym.data import cached_array
from fusion_gym.export import GRAPH, describe, onnx_content
from fusion_gym.images import luminance, restore_colour
from fusion_gym.memory import keep_freed_memory
from fusion_gym.models.light import EVERY, scene_statistics
from fusion_gym.models.own import SHAPES, OwnStudent, is_own
from fusion_gym.models.student import STUDENTS, Student, StudentError, find_student
from fusion_gym.modes import settled
from fusion_gym.opencv import cv2
from fusion_gym.rules import RULES, TILING
from fusion_gym.runtime import OnnxError, onnx_session

DEFAULT = "small"
BACKENDS = ("torch", "onnx")
_WHITE = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}
_HALF_ERROR = 0.004  # levels that float32 may be wrong by in 16 bit


@dataclass(frozen=True)
class Fuser:
    """A fusion method that is ready to use; `load_student` makes one.

    Attributes:
        name: What it is, for people.
        fuse: Fuses infrared and visible luminance, float32 (N, 1, H, W) in [0, 1], into the same shape and range;
            with ``light``, from ``seen`` too, the whole image's `scene_statistics`, where the two are a part of it.
        reach: Distance in pixels from which a pixel of the sources can have an effect.
        multiple: Tiles must start at multiples of it.
        tile: Side of the tiles that large images are cut into; None takes an image as a whole.
        light: Whether the method evens the light, for which a tile is not enough.
    """

    name: str
    fuse: Callable[..., Tensor]
    reach: int
    multiple: int
    tile: int | None = None
    light: bool = False

    @settled()
    def __call__(self, ir: Any, vi: Any) -> Any:
        """Fuses one pair.

        Args:
            ir: Infrared: an array, (H, W) or BGR (H, W, 3), uint8, uint16 or float in [0, 1]; or a tensor, float
                (N, 1, H, W) in [0, 1].
            vi: Visible, of the same height and width; a BGR array gives its colour to the result.

        Returns:
            An array of the visible's shape: float32 if a source is float, uint16 if a source is, else uint8. For
            tensors a tensor of their dtype, (N, 1, H, W), computed in float32.

        Raises:
            ValueError: If the sizes differ, or the values are of another kind or range.
        """
        if isinstance(ir, Tensor) and isinstance(vi, Tensor):
            if not (ir.is_floating_point() and vi.is_floating_point()):
                raise ValueError(f"The sources are {ir.dtype} and {vi.dtype}; give tensors of floats in [0, 1].")
            with torch.no_grad():
                return self.fuse(ir.detach().float(), vi.detach().float()).to(torch.promote_types(ir.dtype, vi.dtype))
        ir, vi = np.asarray(ir), np.asarray(vi)
        for name, image in (("infrared", ir), ("visible", vi)):
            if not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)) or image.size == 0:
                raise ValueError(f"The {name} image has shape {image.shape}; give (H, W) or (H, W, 3).")
            if image.dtype not in _WHITE and not (np.issubdtype(image.dtype, np.floating) and _is_unit(image)):
                raise ValueError(f"The {name} image ({image.dtype}) must be uint8, uint16, or float in [0, 1].")
        if ir.shape[:2] != vi.shape[:2]:
            raise ValueError(f"Infrared is {_size(ir)}, visible {_size(vi)} pixels; scale them to one size.")
        kind = max((image.dtype if image.dtype in _WHITE else np.dtype(np.float32) for image in (ir, vi)), key=_rank)
        ir, vi = luminance(_plain(ir)), _plain(vi)
        gray = luminance(vi)
        fused = np.empty(gray.shape, kind)
        whole = {"seen": self._seen(ir, gray)} if self.light and self.tile is not None else {}
        for outer, inner, core in self._tiles(*gray.shape):
            sources = (torch.from_numpy(_unit(image[outer]))[None, None] for image in (ir, gray))
            with torch.no_grad():
                values = self.fuse(*sources, **whole)[0, 0].numpy()[inner]
            # Halves are rounded up, as integers are: rounded to even, a mean of two images would lose grey levels.
            fused[core] = values if kind not in _WHITE else np.floor(values * _WHITE[kind] + (0.5 + _HALF_ERROR))
        return restore_colour(fused, _as_kind(vi, kind))

    def _seen(self, ir: np.ndarray, vi: np.ndarray) -> Tensor:
        """Statistics of a pair of images, of which only the pixels that count are taken."""
        places = [np.minimum(np.arange(-(-size // self.multiple) * self.multiple), size - 1) for size in ir.shape]
        taken = (np.ix_(*(place[start::EVERY] for place in places)) for start in (0, 1))  # padded as the student pads
        pixels, near = (torch.from_numpy(np.stack([_unit(ir[part]), _unit(vi[part])]))[None] for part in taken)
        return scene_statistics(pixels, near)

    def _tiles(self, height: int, width: int) -> Iterator[tuple[tuple[slice, slice], ...]]:
        """The part to fuse, the part of that which is kept, and where it belongs, for each tile."""
        margin = -(-self.reach // self.multiple) * self.multiple
        side = max(height, width) if self.tile is None else -(-self.tile // self.multiple) * self.multiple
        for y in range(0, height, side):
            for x in range(0, width, side):
                parts = [_part(at, side, margin, size) for at, size in ((y, height), (x, width))]
                yield tuple(zip(*parts, strict=True))


def _part(at: int, side: int, margin: int, size: int) -> tuple[slice, slice, slice]:
    start, end = max(0, at - margin), min(size, at + side)
    return slice(start, min(size, at + side + margin)), slice(at - start, end - start), slice(at, end)


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"


def _is_unit(image: np.ndarray) -> bool:
    return bool(image.min() >= 0 and image.max() <= 1)  # false for NaN too


def _rank(kind: np.dtype) -> int:
    return kind.itemsize


def _plain(image: np.ndarray) -> np.ndarray:
    """The image in a dtype that OpenCV converts."""
    return image if image.dtype in _WHITE else image.astype(np.float32)


def _unit(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image, np.float32) / np.float32(_WHITE.get(image.dtype, 1))


def _as_kind(image: np.ndarray, kind: np.dtype) -> np.ndarray:
    """The image in a dtype that is no less precise than its own."""
    if image.dtype == kind:
        return image
    return image.astype(np.uint16) * 257 if kind == np.uint16 else _unit(image)


def _onnx_fuser(model: Path | bytes, name: str, threads: int | None, tile: int | None) -> Fuser:
    path = model if isinstance(model, Path) else name
    try:
        session = onnx_session(str(model) if isinstance(model, Path) else model, threads)
    except OnnxError as error:
        raise StudentError(str(error)) from error
    names = [entry.name for entry in session.get_inputs()]
    metadata = session.get_modelmeta().custom_metadata_map
    if names != ["ir", "vi"]:
        raise StudentError(f"{path} has the inputs {', '.join(names)}; a student in luminance takes ir and vi.")
    if tile is not None and "reach" not in metadata:
        raise StudentError(
            f"{path} does not fuse parts of images; leave out --tile, or give it and the student in torch."
        )

    def fuse(ir: Tensor, vi: Tensor) -> Tensor:
        try:
            fused = torch.from_numpy(session.run(None, {"ir": ir.numpy(), "vi": vi.numpy()})[0])
        except Exception as error:  # ONNX Runtime raises a class of its own for each kind of failure
            said = " ".join(str(error).split())[:200]
            raise StudentError(f"{path} fails on images of {ir.shape[-1]}x{ir.shape[-2]} pixels: {said}") from error
        if fused.shape != ir.shape:
            raise StudentError(f"{path} gives {tuple(fused.shape)} for images of {tuple(ir.shape)}; it is no student.")
        return fused

    return Fuser(name, fuse, int(metadata.get("reach", 0)), int(metadata.get("multiple", 1)), tile)


def _exported(student: Student | OwnStudent) -> bytes:
    """The student as an ONNX model; one of ours from the cache, exported where it is not there yet."""
    if isinstance(student, OwnStudent):  # its code may change while its weights do not
        return onnx_content(student, describe(student))[0]
    digest = hashlib.sha256(GRAPH.encode())
    for name, value in student.state_dict().items():
        digest.update(name.encode() + value.numpy().tobytes())
    key = f"student-{digest.hexdigest()[:24]}"
    return cached_array(key, lambda: np.frombuffer(onnx_content(student, describe(student))[0], np.uint8)).tobytes()


@settled()
def load_student(
    spec: str = DEFAULT, backend: str | None = None, threads: int | None = None, tile: int | None = None
) -> Fuser:
    """Loads a student, or a rule, to fuse images with.

    ```python
    fused = fusion_gym.load_student("small")(cv2.imread("ir.png"), cv2.imread("vi.png"))
    ```

    Args:
        spec: A student that comes with the package (tiny, small, base), a weights file (.pt), an ONNX file (.onnx), a
            rule (rule:laplacian), or a network of your own, ``module:Class:FILE.pt``, or ``module:Class`` as its class
            makes it.
        backend: "torch" or "onnx"; None takes ONNX Runtime for ONNX files, torch for all else.
        threads: Threads of the computation; torch's are set for the whole process. None leaves them.
        tile: Side in pixels of the tiles that images are cut into, so that large ones need less memory.

    Raises:
        fusion_gym.models.student.StudentError: If there is no such student, or it does not run on the backend.
    """
    keep_freed_memory()
    if backend not in (None, *BACKENDS):
        raise StudentError(f"There is no backend {backend!r}; give one of {', '.join(BACKENDS)}.")
    for name, value in (("threads", threads), ("tile", tile)):
        if value is not None and value < 1:
            raise StudentError(f"{name}={value} is not allowed; give a whole number from 1 on.")
    if threads is not None:
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)
    if spec in RULES:
        if backend == "onnx":
            raise StudentError(f"{spec} runs on torch only; leave out --backend onnx.")
        return Fuser(spec, RULES[spec], *TILING[spec], tile)
    path, mine = Path(spec), is_own(spec)
    if not mine and spec not in STUDENTS and path.suffix.lower() not in (".pt", ".onnx"):
        names = ", ".join((*STUDENTS, *SHAPES, *RULES))
        raise StudentError(f"There is no student {spec!r}; give one of {names}, module:Class, or a .pt or .onnx file.")
    if path.suffix.lower() == ".onnx" and not mine:
        if not path.is_file():
            raise StudentError(f"The student's file {path} does not exist.")
        if backend == "torch":
            raise StudentError(f"{path} runs on ONNX Runtime only; leave out --backend torch.")
        return _onnx_fuser(path, path.name, threads, tile)
    student = find_student(spec)
    name = student.label if isinstance(student, OwnStudent) else path.name
    if backend == "onnx":
        return _onnx_fuser(_exported(student), f"{name} by ONNX Runtime", threads, tile)
    if not isinstance(student, OwnStudent):
        return Fuser(name, student, student.reach, student.multiple, tile, bool(student.light))
    if tile is not None and student.reach is None:
        raise StudentError(f"{name} does not say how far it sees, by an attribute `reach`; leave out --tile.")
    return Fuser(name, student.fuse, student.reach or 0, student.multiple, tile)
