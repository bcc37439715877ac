"""Networks from files: sessions of ONNX Runtime on the CPU, and TorchScript."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from fusion_gym.archives import ArchiveError, check_archive
from fusion_gym.headers import pointer_at


class OnnxError(ValueError):
    """An ONNX model that cannot be run; the message is one sentence."""


class ScriptError(ValueError):
    """A file that is not TorchScript; the message is one sentence.

    Attributes:
        other: Whether it may be something else; not a file that should not be read at all.
    """

    def __init__(self, said: str, other: bool) -> None:
        super().__init__(said)
        self.other = other


def torchscript(path: Path) -> torch.jit.ScriptModule:
    """A TorchScript file's network, on the CPU, in evaluation mode.

    Raises:
        ScriptError: If it is none.
    """
    pointer = pointer_at(path)
    if pointer:
        raise ScriptError(pointer, other=False)
    try:
        check_archive(path, str(path))
        return torch.jit.load(str(path), map_location="cpu").eval()
    except ArchiveError as error:
        raise ScriptError(str(error), other=False) from error
    except Exception as error:  # torch, zipfile and pickle raise many classes for the many things that a file can be
        raise ScriptError(f"{path} is not TorchScript (torch.jit.save).", other=True) from error


def onnx_session(model: str | bytes, threads: int | None = None) -> Any:
    """A session of ONNX Runtime.

    Args:
        model: A file, or its content.
        threads: Number of threads; None leaves it to ONNX Runtime.

    Raises:
        OnnxError: If ONNX Runtime is not installed or cannot load the model.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise OnnxError("ONNX models need ONNX Runtime: pip install 'fusion-gym[deploy]'.") from error
    pointer = pointer_at(model) if isinstance(model, str) else ""
    if pointer:
        raise OnnxError(pointer)
    options = onnxruntime.SessionOptions()
    # Threads that spin while they wait take the processor from those that read and write the images.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises a class of its own for each kind of damage
        name = model if isinstance(model, str) else "The model"
        raise OnnxError(f"{name} is not an ONNX model that ONNX Runtime can load; export it again.") from error
