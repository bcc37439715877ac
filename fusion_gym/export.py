"""Exporting a student to files that run without this project: ``python -m fusion_gym.export --student small --out F``.

An export that does not agree with torch fails, and nothing is written.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import math
import statistics
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fusion_gym.classes import said
from fusion_gym.cli import Parser, guard
from fusion_gym.data import load_splits
from fusion_gym.files import atomic_write
from fusion_gym.models.deploy import Deployed
from fusion_gym.models.own import OwnStudent
from fusion_gym.models.student import STUDENTS, Student, find_student
from fusion_gym.modes import settled
from fusion_gym.outputs import check_outputs
from fusion_gym.report import check_pairs
from fusion_gym.runtime import onnx_session
from fusion_gym.sources import add_range
from fusion_gym.text import say
from fusion_gym.version import __version__

OPSET = 18
TOLERANCE = 1e-4  # of values in [0, 1]
PARITY_SIZES = ((16, 16), (17, 31), (96, 128), (101, 75), (243, 322))  # height, width
CHECK_SIZE = (480, 640)
PAIRS = 16  # for calibration, and as many for measuring what quantisation costs
GRAPH = f"{__version__}-{OPSET}-5"  # changes whenever the exported graph does


class ExportError(ValueError):
    """An export that is impossible or that failed its check; the message is one sentence."""


class WithColour(nn.Module):
    """A student for colour: fuses the luminance and keeps the visible image's chroma (Y, Cr, Cb of BT.601).

    Args:
        student: The student in luminance.
    """

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.student = student

    def forward(self, ir: Tensor, vi: Tensor) -> Tensor:
        """Fuses infrared (N, 1, H, W) and visible RGB (N, 3, H, W), in [0, 1] each, into RGB."""
        red, green, blue = vi.split(1, dim=1)
        luminance = 0.299 * red + 0.587 * green + 0.114 * blue
        # With the same chroma, every channel changes by what the luminance does.
        return (vi + (self.student(ir, luminance) - luminance)).clamp(0.0, 1.0)


def describe(student: Student | OwnStudent, colour: bool = False) -> dict[str, str]:
    """What an exported file says about itself; ``colour`` as in `onnx_model`."""
    visible = "visible and result RGB, infrared gray," if colour else "luminance"
    said = {
        "version": __version__,
        "student": json.dumps(student.settings),
        "input": f"{visible} in [0, 1]: 8-bit values divided by 255",
        "multiple": str(student.multiple),
    }
    whole = bool(student.light) or student.reach is None  # light is seen from anywhere in the image
    return said if whole else said | {"reach": str(student.reach)}


def parity_pairs(channels: int = 1, sizes: Sequence[tuple[int, int]] = PARITY_SIZES) -> Iterator[tuple[Tensor, Tensor]]:
    """Random sources of several sizes, odd ones among them, one pair or two at a time."""
    generator = torch.Generator().manual_seed(0)
    for index, size in enumerate(sizes):
        count = 1 + index % 2
        yield torch.rand(count, 1, *size, generator=generator), torch.rand(count, channels, *size, generator=generator)


def _require(deviation: float, what: str) -> None:
    if not deviation <= TOLERANCE:
        raise ExportError(f"The {what} deviates from torch by {deviation:.2g} (allowed: {TOLERANCE:g}): not written.")


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


@contextlib.contextmanager
def _exporting(how: str) -> Iterator[None]:
    """Says in one sentence that torch cannot write a network, which may be anyone's."""
    try:
        yield
    except Exception as error:  # torch's exporters raise classes of all kinds
        raise ExportError(f"torch cannot write the network {how}: {said(error)}.") from error


def _scripted(network: nn.Module, example: tuple[Tensor, Tensor]) -> torch.jit.ScriptModule:
    """The network as TorchScript; by what it does with an example where its code is not of that language."""
    try:
        return torch.jit.script(network)
    except Exception:
        with _exporting("as TorchScript"):
            return torch.jit.trace(network, example, check_trace=False)  # what holds for the example only is found out


@settled()
@torch.no_grad()
def onnx_model(student: nn.Module, metadata: Mapping[str, str], colour: bool = False) -> Any:
    """The student, arranged for runtimes, as an ONNX model with free batch, height and width.

    Inputs ``ir`` and ``vi``, output ``fused``: float32 (N, C, H, W) in [0, 1]; C is 1, for ``colour`` 3 but in ``ir``.

    Args:
        student: The network in luminance, on the CPU.
        metadata: Text by key, stored in the model.
        colour: Whether the visible image and the result are RGB.

    Raises:
        ExportError: If ONNX is not installed, or torch cannot export the network.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401  (torch's exporter needs it)
    except ImportError as error:
        raise ExportError(f"ONNX export needs {error.name}: pip install 'fusion-gym[deploy]'.") from error
    network: nn.Module = Deployed(student) if isinstance(student, Student) else student
    network = (WithColour(network) if colour else network).eval()
    free = {0: "batch", 2: "height", 3: "width"}  # by name, or the exporter would have to prove that any size will do
    generator = torch.Generator().manual_seed(1)
    # Two tensors, for the exporter takes one tensor given twice as one input.
    example = tuple(torch.rand(2, count, 48, 64, generator=generator) for count in (1, 3 if colour else 1))
    with _quiet(), _exporting("as ONNX"):
        program = torch.onnx.export(
            network,
            example,
            input_names=["ir", "vi"],
            output_names=["fused"],
            opset_version=OPSET,
            dynamic_shapes=(free, dict(free)),
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # it is only with the deprecated exporter
    model = program.model_proto
    for part in (model, model.graph, *model.graph.node, *model.graph.input, *model.graph.output):
        part.ClearField("metadata_props")  # the exporter's notes name files on this machine
        part.ClearField("doc_string")
    for place, name in free.items():  # the exporter names the output's sizes by a formula of its paddings
        model.graph.output[0].type.tensor_type.shape.dim[place].dim_param = name
    onnx.helper.set_model_props(model, dict(metadata))
    return model


@settled()
@torch.no_grad()
def onnx_deviation(model: bytes, student: nn.Module, colour: bool = False) -> float:
    """Largest difference of a model's output from torch's, over `parity_pairs`.

    Raises:
        fusion_gym.runtime.OnnxError: If ONNX Runtime is not installed or cannot load the model.
        ExportError: If the model fails at a size.
    """
    session = onnx_session(model, threads=1)
    network = (WithColour(student) if colour else student).eval()
    with _exporting("as ONNX for images of any size"):
        return max(
            float(np.abs(session.run(None, {"ir": ir.numpy(), "vi": vi.numpy()})[0] - network(ir, vi).numpy()).max())
            for ir, vi in parity_pairs(3 if colour else 1)
        )


@settled()
def onnx_content(student: nn.Module, metadata: Mapping[str, str], colour: bool = False) -> tuple[bytes, float]:
    """What `export_onnx` writes, and the largest deviation from torch.

    Raises:
        ExportError: If ONNX is not installed, or the model deviates by more than `TOLERANCE`.
    """
    content = onnx_model(student, metadata, colour).SerializeToString()
    deviation = onnx_deviation(content, student, colour)
    _require(deviation, "ONNX model")
    return content, deviation


def export_onnx(
    student: nn.Module, path: str | Path, metadata: Mapping[str, str] | None = None, colour: bool = False
) -> float:
    """Writes an ONNX file as `onnx_model` describes it, checked against torch.

    Args:
        student: The network in luminance, on the CPU.
        path: The file to write.
        metadata: Text by key, stored in the file.
        colour: Whether the visible image and the result are RGB.

    Returns:
        The largest deviation from torch over several sizes, odd ones among them.

    Raises:
        ExportError: If ONNX is not installed, or the model deviates by more than `TOLERANCE`; nothing is written.
        fusion_gym.files.FileError: If the file cannot be written.
    """
    content, deviation = onnx_content(student, metadata or {}, colour)
    atomic_write(path, content)
    return deviation


@settled()
@torch.no_grad()
def export_torchscript(student: nn.Module, path: str | Path, colour: bool = False) -> float:
    """Writes a TorchScript file, checked against torch; see `export_onnx`."""
    network = (WithColour(student) if colour else student).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and still what many runtimes load
        stream = io.BytesIO()  # torch's own writer of files ends the process where a disk is full
        pairs = list(parity_pairs(3 if colour else 1))
        torch.jit.save(_scripted(network, pairs[-1]), stream)
        stream.seek(0)
        loaded = torch.jit.load(stream)
        with _exporting("as TorchScript for images of any size"):
            deviation = max(float((loaded(ir, vi) - network(ir, vi)).abs().max()) for ir, vi in pairs)
    _require(deviation, "TorchScript file")
    atomic_write(path, stream.getvalue())
    return deviation


@settled()
def macs_per_pixel(student: nn.Module) -> float:
    """Multiply-accumulate operations of the convolutions, per pixel of a source."""
    total = 0

    def count(module: nn.Module, given: tuple[Tensor], output: Tensor) -> None:
        nonlocal total
        assert isinstance(module, (nn.Conv2d, nn.ConvTranspose2d))
        total += (given[0] if module.transposed else output).numel() * module.weight[0].numel()

    kinds = (nn.Conv2d, nn.ConvTranspose2d)
    hooks = [module.register_forward_hook(count) for module in student.modules() if isinstance(module, kinds)]
    with torch.no_grad():
        student(torch.zeros(1, 1, 64, 64), torch.zeros(1, 1, 64, 64))
    for hook in hooks:
        hook.remove()
    return total / 64**2


def latency(run: Any, repetitions: int = 20) -> float:
    """Median seconds of a call, after two calls that are not counted."""
    took = []
    for _ in range(repetitions + 2):
        start = time.perf_counter()
        run()
        took.append(time.perf_counter() - start)
    return statistics.median(took[2:])


@settled()
@torch.no_grad()
def check(student: Student | OwnStudent) -> str:
    """Weights, operations and latency on this machine, in words."""
    height, width = CHECK_SIZE
    ir, vi = (image.contiguous() for image in torch.rand(2, 1, 1, height, width).unbind(0))
    content = onnx_model(student, describe(student)).SerializeToString()
    feed = {"ir": ir.numpy(), "vi": vi.numpy()}
    lines = [
        f"{sum(weight.numel() for weight in student.parameters()):,} weights",
        f"{macs_per_pixel(student) / 1e3:.3g} GMAC per megapixel",
        f"ONNX deviates from torch by at most {onnx_deviation(content, student):.1g}",
    ]
    before = torch.get_num_threads()
    for threads in sorted({1, before}):
        session = onnx_session(content, threads)
        torch.set_num_threads(threads)
        times = latency(lambda: student(ir, vi)), latency(lambda session=session: session.run(None, feed))
        plain, fast = (f"{1e3 * seconds:.1f} ms" for seconds in times)
        lines.append(f"{width}x{height}, {threads} thread{'s' * (threads > 1)}: torch {plain}, ONNX Runtime {fast}")
    torch.set_num_threads(before)
    return "\n".join(lines)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = Parser(prog="python -m fusion_gym.export", description=__doc__)
    parser.add_argument(
        "--student", default="small", help=f"{', '.join(STUDENTS)}, a weights file (.pt), or module:Class:FILE.pt"
    )
    parser.add_argument("--out", type=Path, help="the file: .onnx, or .ts for TorchScript")
    parser.add_argument("--rgb", action="store_true", help="the visible image and the result in RGB, not luminance")
    parser.add_argument("--int8", action="store_true", help="quantise the ONNX model, and measure what that costs")
    parser.add_argument(
        "--data", default="synthetic", help="pairs that int8 is calibrated (train) and measured (test) on"
    )
    add_range(parser)
    parser.add_argument("--check", action="store_true", help="print weights, operations and latency here")
    args = parser.parse_args(argv)
    if args.out is None and not args.check:
        parser.error("give --out FILE.onnx, --check, or both")
    if args.out is not None and args.out.suffix.lower() not in (".onnx", ".ts"):
        parser.error(f"--out {args.out} must end in .onnx or .ts")
    if args.ir_range is not None and not args.int8:
        parser.error("--ir-range is of the --data of --int8; leave it out")
    if args.int8 and (args.out is None or args.out.suffix.lower() != ".onnx" or args.rgb):
        parser.error("--int8 needs --out FILE.onnx, in luminance")
    return args


@settled()
def export_int8(student: Student | OwnStudent, path: Path, data: str, ir_range: tuple[int, int] | None = None) -> str:
    """Writes a quantised ONNX file and says what it costs in quality and gains in speed.

    Args:
        student: The student.
        path: The file to write.
        data: Pairs, as `fusion_gym.data.load_splits` takes them.
        ir_range: As there.

    Raises:
        ExportError: If the float model does not agree with torch.
        fusion_gym.data.DataError: If the pairs cannot be used.
    """
    from fusion_gym.quantize import metric_ratios, quantised

    splits = load_splits(data, ir_range)
    check_pairs(splits.test, data)
    train, test = (part[:: -(-len(part) // PAIRS)] for part in (splits.train or splits.test, splits.test))
    model = onnx_model(student, describe(student))
    plain = model.SerializeToString()
    _require(onnx_deviation(plain, student), "ONNX model")
    content = quantised(model, train)
    sessions = onnx_session(plain, threads=1), onnx_session(content, threads=1)
    ratios = metric_ratios(sessions[0], sessions[1], test)
    known = {name: ratio for name, ratio in ratios.items() if not math.isnan(ratio)}
    height, width = CHECK_SIZE
    feed = {name: np.random.default_rng(0).random((1, 1, height, width), np.float32) for name in ("ir", "vi")}
    times = [f"{1e3 * latency(lambda one=one: one.run(None, feed)):.1f} ms" for one in sessions]
    atomic_write(path, content)
    return (
        f"int8 keeps {100 * statistics.mean(known.values()):.2f} % of the mean metric on {len(test)} test pairs ("
        + ", ".join(f"{name} {100 * ratio:.1f}" for name, ratio in known.items())
        + f"); {width}x{height}, 1 thread: {times[1]}, float {times[0]}"
    )


def run(args: argparse.Namespace) -> None:
    """Does what the command line asks."""
    student = find_student(args.student)
    if args.check:
        say(*check(student).splitlines())
    if args.out is None:
        return
    check_outputs([args.out], [args.student], data=[args.data] if args.int8 else ())
    if args.int8:
        say(export_int8(student, args.out, args.data, args.ir_range))
    else:
        if args.out.suffix.lower() == ".onnx":
            deviation = export_onnx(student, args.out, describe(student, args.rgb), args.rgb)
        else:
            deviation = export_torchscript(student, args.out, args.rgb)
        say(f"deviates from torch by at most {deviation:.1g} (allowed: {TOLERANCE:g})")
    kind = "infrared and visible RGB to RGB" if args.rgb else "infrared and visible luminance to luminance"
    say(f"{args.out} ({args.out.stat().st_size:,} bytes) fuses {kind}, float32 (N, C, H, W) in [0, 1].")
    if args.out.suffix.lower() == ".onnx" and not args.rgb:
        say(f"Next: python -m fusion_gym.fuse --student {args.out} --ir A --vi B --out C")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; a user's mistake gives one sentence and exit code 2."""
    return guard("export", lambda: run(parse(argv)), "Stopped; nothing was written.")


if __name__ == "__main__":
    sys.exit(main())
