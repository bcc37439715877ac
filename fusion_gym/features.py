"""Guidance by features: what a network that is not trained sees in the student's and in the teacher's fused images.

The networks: torchvision's VGG-19 from its file of weights, a TorchScript file, or ``module:Class``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fusion_gym.archives import ArchiveError, read_tensors
from fusion_gym.classes import ClassError, Named, said
from fusion_gym.losses import feature_loss
from fusion_gym.modes import settled
from fusion_gym.runtime import ScriptError, torchscript
from fusion_gym.stamps import Stamp, stamp
from fusion_gym.tensors import resolve_device, several

FILES = (".pt", ".pth", ".ts")


class FeatureError(ValueError):
    """A network of features that cannot be found or used; the message is one sentence."""


class Vgg19(nn.Module):
    """VGG-19 (arXiv:1409.1556) as far as the last layer of its fourth block.

    Gives what is after the last activation of each of the four blocks, relu1_2, relu2_2, relu3_4 and relu4_4, as losses
    of perception do (arXiv:1603.08155). Luminance stands for all three colours, scaled as the weights expect it.
    """

    WIDTHS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512)  # 0 halves the sides
    MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 3
        for outputs in self.WIDTHS:
            if outputs:
                layers += [nn.utils.skip_init(nn.Conv2d, width, outputs, 3, padding=1), nn.ReLU()]
                width = outputs
            else:
                layers += [nn.MaxPool2d(2)]
        self.features = nn.Sequential(*layers)  # numbered as torchvision's

    def forward(self, image: Tensor) -> list[Tensor]:
        """Features of luminance, (N, 1, H, W) in [0, 1]."""
        mean, deviation = (image.new_tensor(values).view(1, 3, 1, 1) for values in (self.MEAN, self.DEVIATION))
        found, x = [], (image - mean) / deviation
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                found.append(x)
            x = layer(x)
        return [*found, x]


class FeatureGuide:
    """The guidance loss by a network's features; one for all trainings of a process, for nothing in it changes.

    Args:
        spec: What `load_guide` takes.
        network: Takes luminance, (N, 1, H, W) in [0, 1]; gives features, (N, ...), or several of them.
        device: Where it is.
    """

    def __init__(self, spec: str, network: Callable[[Tensor], Any], device: str) -> None:
        self.spec, self.network, self.device = spec, network, device

    def __call__(self, fused: Tensor, teacher: Tensor) -> Tensor:
        """Loss per sample, (N,), of the student's and the teacher's fused images, (N, 1, H, W)."""
        with torch.no_grad():
            wanted = several(self.network(teacher))
        return feature_loss(several(self.network(fused)), wanted)

    def __deepcopy__(self, memo: dict[int, Any]) -> FeatureGuide:
        """The guide itself."""
        return self

    def __reduce__(self) -> tuple[Callable[..., FeatureGuide], tuple[str, str]]:
        """Pickles as a reference: another process loads the network once."""
        return load_guide, (self.spec, self.device)


@settled()
def load_guide(spec: str, device: str = "cpu") -> FeatureGuide:
    """The guidance loss by the features of a network; loaded once for each process, as long as its file stays.

    Args:
        spec: torchvision's weights of VGG-19 or a TorchScript file (.pt, .pth, .ts), or ``module:Class``, also with
            arguments.
        device: Where it is to be computed.

    Raises:
        FeatureError: If there is no such network or it does not give features.
    """
    return _load(spec, resolve_device(device), stamp([Path(spec)]))


@lru_cache(maxsize=8)
def _load(spec: str, device: str, _: Stamp) -> FeatureGuide:
    path = Path(spec)
    try:
        if path.suffix in FILES and path.is_file():
            network: Any = _of_file(path)
        elif path.suffix not in FILES and (named := Named.parse(spec)) is not None and not named.file:
            network = named.make("network of features")
        else:
            raise FeatureError(
                f"There are no features {spec!r}; give a file that is there (.pth: VGG-19's weights or TorchScript) "
                "or module:Class."
            )
    except (ArchiveError, ClassError, ScriptError) as error:
        raise FeatureError(str(error)) from error
    if isinstance(network, nn.Module):
        network = network.to(device).eval()
        for weight in network.parameters():  # one by one, as TorchScript has it
            weight.requires_grad_(False)
    guide = FeatureGuide(spec, network, device)
    _check(guide)
    return guide


def _of_file(path: Path) -> nn.Module:
    try:
        return torchscript(path)
    except ScriptError as error:
        if not error.other:
            raise
    saved = read_tensors(path)
    network = Vgg19()
    try:
        network.load_state_dict({name: saved[name] for name in network.state_dict()})
    except Exception as error:  # whatever a file can hold instead
        raise FeatureError(
            f"{path} is neither TorchScript nor torchvision's weights of VGG-19 (vgg19-dcbb9e9d.pth)."
        ) from error
    return network


def shapes(features: Sequence[Tensor]) -> str:
    """Shapes of features, for people."""
    return ", ".join(str(tuple(each.shape)) for each in features)


def tried(features: Callable[..., Any], images: Sequence[Tensor], whose: str) -> list[Tensor]:
    """The features of some images, if they are what features have to be.

    Args:
        features: What gives them.
        images: What it takes, (N, 1, H, W) each; it gets copies.
        whose: Begins the sentence of an error, "The features of ...".

    Raises:
        FeatureError: If it fails, or gives anything but finite tensors of floats, (N, ...), on the images' device.
    """
    try:
        found = several(features(*(image.clone() for image in images)))
    except (Exception, SystemExit) as error:
        raise FeatureError(f"{whose} fail on tensors {tuple(images[0].shape)}: {said(error)}.") from error
    if not found or not all(isinstance(each, Tensor) and each.is_floating_point() for each in found):
        kinds = ", ".join(type(each).__name__ for each in found[:3]) or "nothing"
        raise FeatureError(f"{whose} are {kinds}; give one tensor of floats or several.")
    if any(each.dim() < 2 or len(each) != len(images[0]) for each in found):
        raise FeatureError(f"{whose} are {shapes(found[:3])} for two images; give (2, ...).")
    if any(each.device != images[0].device for each in found):
        raise FeatureError(f"{whose} are not on {images[0].device}, where the images are; leave them there.")
    if not all(bool(torch.isfinite(each).all()) for each in found):
        raise FeatureError(f"{whose} are not finite.")
    return found


def _check(guide: FeatureGuide) -> None:
    """Tries the network on two images.

    Raises:
        FeatureError: If it fails, or gives no features that can be compared and learned from.
    """
    whose = f"The features of {guide.spec!r}"
    images = torch.rand(2, 2, 1, 64, 64, generator=torch.Generator().manual_seed(0)).to(guide.device)
    fused = images[0].clone().requires_grad_()
    with torch.enable_grad():
        tried(guide.network, [fused], whose)
        try:
            loss = guide(fused, images[1])
            loss.sum().backward()
        except Exception as error:
            raise FeatureError(f"{whose} cannot be learned from: {said(error)}.") from error
    if not torch.isfinite(loss).all() or fused.grad is None or not torch.isfinite(fused.grad).all():
        raise FeatureError(f"{whose} have slopes that are not finite.")
    if not fused.grad.any():
        raise FeatureError(f"{whose} are alike for different images.")
