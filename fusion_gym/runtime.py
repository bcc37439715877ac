"""ONNX Runtime: sessions on the CPU, for students and for teachers."""

from __future__ import annotations

from typing import Any

from fusion_gym.headers import pointer_at


class OnnxError(ValueError):
    """An ONNX model that cannot be run; the message is one sentence."""


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
