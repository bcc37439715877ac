"""Exporting a student to files that run without this project; an export that does not agree with torch fails."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fusion_gym.files import atomic_path

OPSET = 18
TOLERANCE = 1e-4  # of values in [0, 1]
PARITY_SIZES = ((16, 16), (17, 31), (96, 128), (101, 75), (243, 322))  # height, width


class ExportError(ValueError):
    """An export that is impossible or that failed its check; the message is one sentence."""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences what torch's exporter says about itself; the parity check judges its result."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _parity_pairs() -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    for index, size in enumerate(PARITY_SIZES):
        shape = (1 + index % 2, 1, *size)
        yield torch.rand(shape, generator=generator), torch.rand(shape, generator=generator)


@torch.no_grad()
def export_onnx(student: nn.Module, path: str | Path, metadata: Mapping[str, str] | None = None) -> float:
    """Writes an ONNX file with free batch, height and width, and checks it against torch.

    Inputs ``ir`` and ``vi``, output ``fused``: float32 (N, 1, H, W) in [0, 1], H and W from 16 pixels.

    Args:
        student: The network, on the CPU.
        path: The file to write.
        metadata: Text by key, stored in the file.

    Returns:
        The largest deviation from torch over sizes from 16×16 on, odd ones among them.

    Raises:
        ExportError: If ONNX is not installed, or the file deviates by more than `TOLERANCE`; nothing is written.
        fusion_gym.files.FileError: If the file cannot be written.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  (torch's exporter needs it)
    except ImportError as error:
        raise ExportError(f"ONNX export needs {error.name}: pip install 'fusion-gym[deploy]'.") from error
    student = student.eval()
    free = {0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    example = torch.rand(2, 1, 48, 64, generator=torch.Generator().manual_seed(1))
    with _quiet():
        program = torch.onnx.export(
            student,
            (example, example.flip(3)),
            input_names=["ir", "vi"],
            output_names=["fused"],
            opset_version=OPSET,
            dynamic_shapes=({**free}, {**free}),
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # it is only with the deprecated exporter
    model = program.model_proto
    onnx.helper.set_model_props(model, dict(metadata or {}))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    deviation = 0.0
    for ir, vi in _parity_pairs():
        fused = session.run(None, {"ir": ir.numpy(), "vi": vi.numpy()})[0]
        deviation = max(deviation, float(np.abs(fused - student(ir, vi).numpy()).max()))
    if not deviation <= TOLERANCE:
        raise ExportError(
            f"The ONNX model deviates from torch by {deviation:.2g} (allowed: {TOLERANCE:g}): not written."
        )
    with atomic_path(path) as temporary:
        onnx.save(model, str(temporary))
    return deviation
