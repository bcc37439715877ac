"""Quantising an exported student to 8-bit integers, and measuring what that costs in quality."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fusion_gym.data import ImagePair
from fusion_gym.metrics import REPORTED
from fusion_gym.report import means, score_outputs, share


def _feed(pair: ImagePair) -> dict[str, np.ndarray]:
    ir, vi = (image[None, None].astype(np.float32) / 255 for image in (pair.ir, pair.vi))
    return {"ir": ir, "vi": vi}


def quantised(model: Any, pairs: Sequence[ImagePair]) -> bytes:
    """Quantises the full 3×3 convolutions of the body: 8-bit weights by channel, 8-bit activations by fixed ranges.

    They do most of the work. The stem and the depthwise and 1×1 convolutions take no less time in 8 bits, for their
    maps have to be converted. Gains and offset, and what they are applied to, stay exact, for their errors would show
    in every pixel. Weights keep to 7 bit, so that 8-bit products do not saturate on processors without VNNI.

    Args:
        model: What `fusion_gym.export.onnx_model` makes of a student in luminance.
        pairs: What the ranges of the activations are taken from.

    Returns:
        The ONNX model, its metadata kept, in ONNX Runtime's QDQ form.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        """Feeds the pairs one by one."""

        def __init__(self) -> None:
            self.feeds: Iterator[dict[str, np.ndarray]] = map(_feed, pairs)

        def get_next(self) -> dict[str, np.ndarray] | None:
            """The next feed, or None at the end."""
            return next(self.feeds, None)

    shapes = {weight.name: tuple(weight.dims) for weight in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    exact = [node.name for node in convolutions if not _pays(node.input[1], shapes[node.input[1]])]
    with tempfile.TemporaryDirectory() as folder:
        plain, made = Path(folder) / "plain.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, str(plain))
        with _silent():
            quantize_static(
                plain,
                made,
                Reader(),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["Conv"],
                nodes_to_exclude=exact,
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        result = onnx.load(str(made))
    onnx.helper.set_model_props(result, {entry.key: entry.value for entry in model.metadata_props})
    return result.SerializeToString()


def _pays(weight: str, shape: tuple[int, ...]) -> bool:
    """Whether a convolution is a full 3×3 one of the body, by its weight's name and shape (outputs, inputs, 3, 3)."""
    return weight.startswith("body.") and shape[1] > 1 and shape[2:] == (3, 3)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Silences advice to preprocess the graph, which does not apply: its shapes are free."""
    level = logging.root.level
    logging.root.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.root.setLevel(level)


def metric_ratios(plain: Any, quantised: Any, pairs: Sequence[ImagePair]) -> dict[str, float]:
    """What quantisation leaves of each metric's mean over pairs; 1 is all of it, NaN where there was nothing.

    Args:
        plain: ONNX Runtime session of the float model.
        quantised: Session of the quantised one.
        pairs: Pairs to fuse.
    """
    outputs = {
        name: [np.rint(session.run(None, _feed(pair))[0][0, 0] * 255).astype(np.uint8) for pair in pairs]
        for name, session in (("plain", plain), ("quantised", quantised))
    }
    table = means(score_outputs(outputs, pairs))
    return {name: share(table["quantised"][name], table["plain"][name]) for name in REPORTED}
