"""The same student, arranged for runtimes: fewer and larger operations, to be computed without leaving their layout."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusion_gym.models.layers import leaky
from fusion_gym.models.student import ALIKE, Student, pad_to_multiple


class Deployed(nn.Module):
    """Computes what the student does, from its weights, within rounding.

    Unfolding the sources and taking their fine detail is one strided convolution, and so is unfolding together with
    the first convolution; the gains are applied to all at once, and a convolution with ones sums them up. A transposed
    one with ones folds the result: ONNX Runtime takes a quarter of the time that DepthToSpace takes it.

    Args:
        student: The student; its body is shared.
    """

    def __init__(self, student: Student) -> None:
        super().__init__()
        stride, cell = student.stride, student.cell
        self.multiple, self.margin = student.multiple, int(student.detail)
        self.light, self.body = student.light, student.body
        stem = student.stem.weight.unflatten(1, (2, stride, stride)).permute(0, 1, 4, 2, 5, 3)
        self.stem = _convolution(stem.flatten(4, 5).flatten(2, 3), student.stem.bias, stride, padding=stride)
        self.bases = _convolution(_bases(stride, self.margin), None, stride)
        kinds = self.bases.out_channels
        weight, bias = student.head.weight, student.head.get_parameter("bias")
        self.gains = _convolution(weight[:kinds], bias[:kinds])
        self.offset = _convolution(weight[kinds:], bias[kinds:])
        self.total = _convolution(torch.eye(cell).repeat(1, kinds // cell)[..., None, None], None)
        pixels = torch.eye(cell).view(cell, 1, stride, stride)
        self.mean = _convolution(torch.cat((pixels, pixels), dim=1) / 2, None, stride)
        self.difference = _convolution(torch.cat((pixels, -pixels), dim=1), None, stride)
        self.around = _convolution(torch.full((1, cell, 3, 3), 1 / (9 * cell * ALIKE)), None, padding=1)
        self.fold = nn.utils.skip_init(nn.ConvTranspose2d, cell, 1, stride, stride, bias=False)
        self.fold.weight = nn.Parameter(pixels, requires_grad=False)

    def forward(self, ir: Tensor, vi: Tensor) -> Tensor:
        """Fuses infrared and visible luminance, (N, 1, H, W) in [0, 1] each, into the same shape and range."""
        height, width = ir.shape[-2:]
        plain = sources = pad_to_multiple(torch.cat((ir, vi), dim=1), self.multiple)
        conditioning: Tensor | None = None
        for light in self.light:
            gain, offset, conditioning = light(sources)
            sources = sources * gain + offset
        around = F.pad(sources, (self.margin,) * 4, mode="replicate") if self.margin else sources
        features = self.body(leaky(self.stem(sources)), conditioning)
        fused = self.total(self.gains(features) * self.bases(around)) + self.offset(features)
        mean = self.mean(plain)
        fused = mean + torch.tanh(self.around(self.difference(plain).abs())) * (fused - mean)
        return self.fold(fused.clamp(0.0, 1.0))[..., :height, :width]


def _convolution(weight: Tensor, bias: Tensor | None, stride: int = 1, padding: int = 0) -> nn.Conv2d:
    """A convolution with the weights that are given."""
    outputs, inputs, size, _ = weight.shape
    made = nn.utils.skip_init(nn.Conv2d, inputs, outputs, size, stride, padding, bias=bias is not None)
    made.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    if bias is not None:
        made.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return made


def _bases(stride: int, margin: int) -> Tensor:
    """The kernel that gives each source's pixels of a cell, and with a margin of 1 their fine detail after them."""
    size, cell = stride + 2 * margin, stride**2
    kernel = torch.zeros(2 * (1 + margin), cell, 2, size, size)
    for source in range(2):
        for pixel in range(cell):
            y, x = divmod(pixel, stride)
            kernel[source, pixel, source, y + margin, x + margin] = 1
            if margin:
                kernel[2 + source, pixel, source, y : y + 3, x : x + 3] = -1 / 9
                kernel[2 + source, pixel, source, y + 1, x + 1] += 1
    return kernel.flatten(0, 1)
