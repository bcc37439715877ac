"""The metrics that the objective is made of, with their gradients in closed form.

The values are those of `fusion_gym.metrics` (whose MI and EN, of whole grey levels, have no gradient: here pixels lie
between two bins). Here they come with their gradient in the fused image, at a fraction of the cost of automatic
differentiation: moments are taken in one pass for all metrics that need them, and what depends on the sources alone
stands in `Known`, which can be kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from fusion_gym.losses import box, box_transposed
from fusion_gym.metrics import amplification, edges, fidelity, invention, structure
from fusion_gym.metrics.batch import ordinary
from fusion_gym.metrics.evaluation import check_size
from fusion_gym.metrics.gradients import halves
from fusion_gym.metrics.moments import FLAT
from fusion_gym.metrics.windows import gaussian, slide, unslide

BINS = 64
LEVEL = 255.0
_C1, _C2 = structure.constants(LEVEL)
_WINDOWS = tuple(gaussian(size, size / 5) for size in fidelity.SIZES)
_NONE = 1e-9  # a share of pixels below this counts as this much


class Known(NamedTuple):
    """What depends on the sources alone; from `know`. The sources' maps are (N, 2, ...), infrared first.

    Attributes:
        sources: The sources less their means, levels from 0 to 255, at each scale of VIF, (N, 2, H, W) at the first.
        mean: Their means, (N, 2, 1, 1).
        variance: Their variances, (N, 2).
        covariance: Their covariance, (N, 1).
        columns: The bins of their pixels, uint8 (N, 2, H·W).
        entropy: The entropies of these bins, (N, 2).
        similarity: Local means of `sources` and local variances in SSIM's windows.
        local: Local means of `sources` in the windows of all scales of VIF, (N, 2, places).
        gain: One over the local variances in these windows, 0 where there is none.
        information: The information in all scales, (N, 2).
        strength: Strength of their edges, (N, 2, H, W).
        direction: Orientation of their edges, same shape.
        steepest: The coarse gradient above which structure is invented, (N, 1, H, W).
        strongest: The strength of fine detail above which it is amplified, levels, same shape.
    """

    sources: tuple[Tensor, ...]
    mean: Tensor
    variance: Tensor
    covariance: Tensor
    columns: Tensor
    entropy: Tensor
    similarity: tuple[Tensor, Tensor]
    local: Tensor
    gain: Tensor
    information: Tensor
    strength: Tensor
    direction: Tensor
    steepest: Tensor
    strongest: Tensor


@torch.no_grad()
def know(ir: Tensor, vi: Tensor) -> Known:
    """Computes what depends on the sources alone, (N, 1, H, W) in [0, 1] each.

    Raises:
        ValueError: If they are too small for a metric.
    """
    check_size(ir, ("SSIM", "VIF"))
    pixels = torch.cat((ir, vi), dim=1)
    columns = (pixels.flatten(2) * (BINS - 1)).round().long()
    counts = pixels.new_zeros(*pixels.shape[:2], BINS)
    shares = counts.scatter_add_(2, columns, torch.ones_like(pixels.flatten(2))) / columns.shape[2]
    levels = pixels * LEVEL
    mean = levels.mean((2, 3), keepdim=True)
    sources = _scales(levels - mean)
    squares = [torch.cat((scale, scale * scale), dim=1) for scale in sources]
    local, variance = _spread(_everywhere(squares))
    across, down = _sobel(*_differences(levels))
    steep = _coarse(sources[0])[2].amax(1, keepdim=True)
    strong = _detail(sources[0])[1].amax(1, keepdim=True)
    return Known(
        sources,
        mean,
        sources[0].square().mean((2, 3)),
        sources[0].prod(1, keepdim=True).mean((2, 3)),
        columns.to(torch.uint8),
        _entropy(shares)[0],
        _spread(box(squares[0])),
        local,
        F.threshold(variance, fidelity.EPSILON, math.inf).reciprocal_(),
        (variance / fidelity.NOISE).log1p_().sum(2),
        _length(across, down, edges.FLOOR),
        _orientation(across, down),
        (invention.FACTOR * steep).clamp_min_(invention.FLOOR),
        (amplification.FACTOR * strong).clamp_min_(amplification.FLOOR),
    )


class _Image:
    """A batch of fused images with what several metrics need of it."""

    def __init__(self, fused: Tensor, known: Known) -> None:
        self.fused, self.known = fused, known
        self.pixels = fused * LEVEL
        self.mean = self.pixels.mean((2, 3), keepdim=True)
        self.centred = self.pixels - self.mean
        self.sources = known.sources[0]

    @cached_property
    def products(self) -> Tensor:
        """Centred pixels, their squares and their products with the sources, (N, 4, H, W)."""
        return _products(self.centred, self.sources)

    @cached_property
    def differences(self) -> tuple[Tensor, Tensor]:
        return _differences(self.pixels)

    @cached_property
    def variance(self) -> Tensor:
        return self.centred.square().mean((1, 2, 3))

    @cached_property
    def bins(self) -> tuple[Tensor, Tensor]:
        """The lower bin of each pixel, int64 (N, H·W), and how far it is on the way to the next."""
        at = self.fused.flatten(1) * (BINS - 1)
        low = at.floor().clamp_(0, BINS - 2)
        return low.long(), at - low


class _Slope:
    """A gradient in the fused levels under way: its parts are gathered by kind and brought to the pixels together."""

    def __init__(self, image: _Image) -> None:
        self.image = image
        self.pixels = torch.zeros_like(image.pixels)
        self.centred: Tensor | float = 0.0
        self.products: Tensor | None = None
        self.differences: list[Tensor] | None = None
        self.fused: Tensor | None = None

    def through_products(self, slope: Tensor) -> None:
        """Takes a slope in `_Image.products`."""
        self.products = slope if self.products is None else self.products.add_(slope)

    def through_differences(self, across: Tensor, down: Tensor) -> None:
        """Takes a slope in `_Image.differences`, which it may change."""
        if self.differences is None:
            self.differences = [across, down]
        else:
            self.differences[0].add_(across)
            self.differences[1].add_(down)

    def total(self) -> Tensor:
        """The gradient in the fused images, (N, 1, H, W)."""
        image, slope = self.image, self.pixels
        if isinstance(self.centred, Tensor):
            slope += _weighted(self.centred, torch.cat((image.centred, image.sources), dim=1))
        if self.products is not None:
            slope += _from_products(self.products, image.centred, image.sources)
        if self.differences is not None:
            slope += _from_differences(*self.differences)
        slope *= LEVEL
        return slope if self.fused is None else slope.add_(self.fused)


Pull = Callable[[Tensor, _Slope], None]  # takes the slope in a metric's value on to the image


def _products(x: Tensor, sources: Tensor) -> Tensor:
    return torch.cat((x, x * x, x * sources), dim=1)


def _from_products(slope: Tensor, x: Tensor, sources: Tensor) -> Tensor:
    plain, square, cross = slope.split((1, 1, 2), dim=1)
    return torch.addcmul(plain, square, x, value=2) + (sources * cross).sum(1, keepdim=True)


def _scales(x: Tensor) -> tuple[Tensor, ...]:
    """Images at each scale of VIF."""
    scales = [x]
    for window in _WINDOWS[1:]:
        scales.append(slide(scales[-1], window, 2))
    return tuple(scales)


def _everywhere(scales: Sequence[Tensor]) -> Tensor:
    """Means in the windows of each scale of VIF, (N, C, all places)."""
    means = [slide(scale, window).flatten(2) for scale, window in zip(scales, _WINDOWS, strict=True)]
    return torch.cat(means, dim=2)


def _spread(moments: Tensor) -> tuple[Tensor, Tensor]:
    """Local means and variances from local means and mean squares, side by side in the second dimension."""
    mean, square = moments.chunk(2, dim=1)
    return mean, torch.addcmul(square, mean, mean, value=-1).clamp_min_(0)


def _joint(local: Tensor, source_mean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Local means, variances and covariances from local moments, (N, 4, ...)."""
    mean, square, cross = local.split((1, 1, 2), dim=1)
    variance = torch.addcmul(square, mean, mean, value=-1).clamp_min_(0)
    return mean, variance, torch.addcmul(cross, mean, source_mean, value=-1)


def _weighted(weights: Tensor, maps: Tensor) -> Tensor:
    """Sums of maps, (N, C, ...) to (N, 1, ...), by weights, (N, C)."""
    return (weights[:, None] @ maps.flatten(2)).view(-1, 1, *maps.shape[2:])


class _Moments(NamedTuple):
    """What two values, one of each source, owe to the local moments, (N, 2, ...) each."""

    in_mean: Tensor
    in_variance: Tensor
    in_covariance: Tensor

    def slope(self, slope: Tensor) -> Tensor:
        """The slope in local moments, (N, 4, ...), from that in the values, (N, 2)."""
        in_covariance = self.in_covariance * _each(slope, self.in_covariance)
        return torch.cat((_weighted(slope, self.in_mean), _weighted(slope, self.in_variance), in_covariance), dim=1)


def _through(mean: Tensor, source_mean: Tensor, in_variance: Tensor, in_covariance: Tensor) -> Tensor:
    """What variances and covariances owe to the local means."""
    return (in_variance * mean).mul_(-2).addcmul_(in_covariance, source_mean, value=-1)


def _differences(x: Tensor) -> tuple[Tensor, Tensor]:
    """See `fusion_gym.metrics.gradients.differences`; images go on by repetition."""
    x = F.pad(x, (1, 1, 1, 1), mode="replicate")
    return x[..., :-2] - x[..., 2:], x[..., :-2, :] - x[..., 2:, :]


def _from_differences(across: Tensor, down: Tensor) -> Tensor:
    """The transpose of `_differences`."""
    wide, high = F.pad(across, (2, 2)), F.pad(down, (0, 0, 2, 2))
    slope = (wide[..., 2:] - wide[..., :-2]).add_(high[..., 2:, :] - high[..., :-2, :])
    slope[..., 1, :] += slope[..., 0, :]
    slope[..., -2, :] += slope[..., -1, :]
    slope[..., 1] += slope[..., 0]
    slope[..., -2] += slope[..., -1]
    return slope[..., 1:-1, 1:-1]


def _sobel(across: Tensor, down: Tensor) -> tuple[Tensor, Tensor]:
    """Sobel gradients from differences."""
    across = across[..., 1:, :] + across[..., :-1, :]
    down = down[..., 1:] + down[..., :-1]
    return across[..., 1:, :] + across[..., :-1, :], down[..., 1:] + down[..., :-1]


def _from_sobel(across: Tensor, down: Tensor) -> tuple[Tensor, Tensor]:
    """The transpose of `_sobel`."""
    return _sobel(F.pad(across, (0, 0, 2, 2)), F.pad(down, (2, 2)))


def _length(across: Tensor, down: Tensor, floor: float = 0.0) -> Tensor:
    return across.square().addcmul_(down, down).add_(floor).sqrt_()


def _inverse(values: Tensor) -> Tensor:
    """1 / x of values from 0 on; 0 for 0."""
    return F.threshold(values, 0.0, math.inf).reciprocal_()


def _orientation(across: Tensor, down: Tensor) -> Tensor:
    """From -1 to 1, in right angles."""
    slope = (down / across).nan_to_num_(nan=-math.inf, posinf=-math.inf, neginf=-math.inf)
    return torch.atan2(slope, slope.new_ones(())).mul_(2 / math.pi)


def _entropy(shares: Tensor) -> tuple[Tensor, Tensor]:
    """Entropies over the last dimension, in bits, and their slopes in the shares but for a constant."""
    logarithms = shares.clamp_min(_NONE).log2_().neg_()
    return (shares * logarithms).sum(-1), logarithms.sub_((shares >= _NONE).to(shares.dtype), alpha=1 / math.log(2))


def _each(figures: Tensor, maps: Tensor) -> Tensor:
    """Figures of images, (N, ...), in the shape of maps, (N, ..., H, W)."""
    return figures.view(*figures.shape, *[1] * (maps.dim() - figures.dim()))


def _similarity(image: _Image) -> tuple[Tensor, Pull]:
    """SSIM to each source, (N, 2)."""
    offset, source_variance = image.known.similarity
    local, variance, covariance = _joint(box(image.products), offset)
    mean, source_mean = local + image.mean, offset + image.known.mean
    squares = (source_mean * source_mean).addcmul_(mean, mean).add_(_C1)
    spread = (source_variance + variance).add_(_C2)
    inverse = (squares * spread).reciprocal_().mul_(4)
    covariance.add_(_C2 / 2)
    ratio = (mean * source_mean).add_(_C1 / 2).mul_(inverse)
    values = ratio * covariance
    in_mean = covariance.mul_(inverse).mul_(source_mean).sub_((values * mean).div_(squares), alpha=2)
    in_variance = torch.div(values, spread, out=spread).neg_()
    moments = _Moments(in_mean.add_(_through(local, offset, in_variance, ratio)), in_variance, ratio)
    places = values[0, 0].numel()

    def pull(slope: Tensor, total: _Slope) -> None:
        total.through_products(box_transposed(moments.slope(slope / places)))

    return values.mean((2, 3)), pull


def _fidelity(image: _Image) -> tuple[Tensor, Pull]:
    """VIF with each source as the reference, (N, 2)."""
    known = image.known
    scales = _scales(image.centred)
    products = [image.products, *map(_products, scales[1:], known.sources[1:])]
    mean, variance, covariance = _joint(_everywhere(products), known.local)
    covariance.clamp_min_(0)
    pulled = covariance * known.gain
    explained = covariance.mul_(pulled)
    whole = variance + fidelity.NOISE
    below = explained < variance
    explained = torch.minimum(explained, variance)
    kept = (explained / -whole).log1p_().sum(2).neg_()
    left = (whole - explained).reciprocal_().mul_(below)
    in_variance, in_covariance = 1 / whole - left, left.mul_(pulled).mul_(2)
    moments = _Moments(_through(mean, known.local, in_variance, in_covariance), in_variance, in_covariance)
    present = known.information > 0
    information = known.information.clamp_min(fidelity.EPSILON)

    def pull(slope: Tensor, total: _Slope) -> None:
        sizes = [scale.shape[2:] for scale in scales]
        places = [[side - len(window) + 1 for side in size] for size, window in zip(sizes, _WINDOWS, strict=True)]
        gathered = moments.slope(torch.where(present, slope / information, 0.0))
        parts = gathered.split([math.prod(place) for place in places], dim=2)
        slopes = [
            unslide(part.unflatten(2, place), window, size)
            for part, place, window, size in zip(parts, places, _WINDOWS, sizes, strict=True)
        ]
        coarse = torch.zeros_like(scales[-1])
        for position in range(len(scales) - 1, 0, -1):
            coarse += _from_products(slopes[position], scales[position], known.sources[position])
            coarse = unslide(coarse, _WINDOWS[position], sizes[position - 1], 2)
        total.through_products(slopes[0])
        total.pixels += coarse

    return torch.where(present, kept / information, 1.0), pull


def _edge_transfer(image: _Image) -> tuple[Tensor, Pull]:
    """Qabf for each source, (N, 2)."""
    wanted, direction = image.known.strength, image.known.direction
    across, down = _sobel(*image.differences)
    strength = _length(across, down, edges.FLOOR)
    ratio = torch.minimum(strength, wanted).div_(torch.maximum(strength, wanted))
    apart = direction - _orientation(across, down)
    turned = apart.abs().sub_(1)
    gains = [
        (value * slope - slope * centre).sigmoid_()
        for value, (_, slope, centre) in ((ratio, edges.STRENGTH), (turned.abs(), edges.ORIENTATION))
    ]
    preserved = gains[0] * gains[1] * wanted
    weight = edges.GAIN / wanted.sum((2, 3))
    values = preserved.sum((2, 3)) * weight
    preserved *= strength.square().reciprocal_()
    in_strength, in_angle = (
        signs.sign_().mul_(preserved).mul_(gain.sub_(1)).mul_(-factor)
        for signs, gain, factor in (
            (wanted - strength, gains[0], edges.STRENGTH[1]),
            (turned * apart, gains[1], -2 / math.pi * edges.ORIENTATION[1]),
        )
    )
    in_strength *= ratio

    def pull(slope: Tensor, total: _Slope) -> None:
        each = slope * weight
        along, turning = _weighted(each, in_strength), _weighted(each, in_angle)
        total.through_differences(
            *_from_sobel(
                torch.addcmul(across * along, down, turning, value=-1),
                torch.addcmul(down * along, across, turning),
            )
        )

    return values, pull


def _correlation_of_differences(image: _Image) -> tuple[Tensor, Pull]:
    """SCD for each source, (N, 2)."""
    known, x, sources = image.known, image.centred, image.sources
    without = x - sources
    variances = without.square().mean((2, 3)).flip(1)
    covariances = (x * sources).mean((2, 3)) - known.covariance
    scale = (variances.clamp_min(FLAT) * known.variance.clamp_min(FLAT)).rsqrt()
    values = covariances * scale

    def pull(slope: Tensor, total: _Slope) -> None:
        falling = torch.where(variances >= FLAT, slope * values / variances.clamp_min(FLAT), 0.0).flip(1)
        in_sources = slope * scale + falling
        total.centred += torch.cat((-falling.sum(1, keepdim=True), in_sources), dim=1) / x[0].numel()

    return values.clone(), pull


def _deviation(image: _Image) -> tuple[Tensor, Pull]:
    """SD, (N,)."""
    value = image.variance.sqrt()

    def pull(slope: Tensor, total: _Slope) -> None:
        each = slope * _inverse(value) / image.centred[0].numel()
        total.centred += F.pad(each[:, None], (0, 2))

    return value.clone(), pull


def _frequency(image: _Image) -> tuple[Tensor, Pull]:
    """SF, (N,)."""
    x = image.pixels
    steps = x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]
    counts = [max(1, step[0].numel()) for step in steps]
    squares = [step.square().sum((1, 2, 3)) / count for step, count in zip(steps, counts, strict=True)]
    value = (squares[0] + squares[1]).sqrt()

    def pull(slope: Tensor, total: _Slope) -> None:
        each = (slope * _inverse(value)).view(-1, 1, 1, 1)
        across, down = (step * (each / count) for step, count in zip(steps, counts, strict=True))
        total.pixels[..., 1:] += across
        total.pixels[..., :-1] -= across
        total.pixels[..., 1:, :] += down
        total.pixels[..., :-1, :] -= down

    return value.clone(), pull


def _gradient(image: _Image) -> tuple[Tensor, Pull]:
    """AG, (N,)."""
    wide, high = image.differences[0][..., 1:-1, :], image.differences[1][..., 1:-1]
    across_share = halves(wide.shape[-1], wide.dtype, wide.device)
    down_share = halves(high.shape[-2], high.dtype, high.device)[:, None]
    across, down = wide * across_share, high * down_share
    length = _length(across, down)

    def pull(slope: Tensor, total: _Slope) -> None:
        each = _inverse(length).mul_((slope / (length[0].numel() * 2**0.5)).view(-1, 1, 1, 1))
        total.through_differences(
            F.pad(across * across_share * each, (0, 0, 1, 1)), F.pad(down * down_share * each, (1, 1))
        )

    return length.mean((1, 2, 3)) / 2**0.5, pull


def _information(image: _Image) -> tuple[Tensor, Pull]:
    """Entropy, and mutual information with each source, (N, 3), over `BINS` linearly interpolated bins."""
    known = image.known
    low, share = image.bins
    pixels = low.shape[1]
    codes = low[:, None] * BINS + known.columns
    joint = share.new_zeros(*codes.shape[:2], BINS * BINS)
    joint.scatter_add_(2, codes, (1 - share)[:, None].expand(codes.shape))
    joint[..., BINS:].scatter_add_(2, codes, share[:, None].expand(codes.shape))
    joint /= pixels
    rows = joint[:, 0].view(-1, BINS, BINS).sum(2)
    entropy, row_slope = _entropy(rows)
    together, joint_slope = _entropy(joint)
    shared = entropy[:, None] + known.entropy - together

    def pull(slope: Tensor, total: _Slope) -> None:
        table = joint_slope * -slope[:, 1:, None]
        table = table.view(*table.shape[:2], BINS, BINS)
        table[:, 0] += (row_slope * slope.sum(1, keepdim=True))[..., None]
        steps = (table[..., 1:, :] - table[..., :-1, :]).flatten(2)
        total.fused = steps.gather(2, codes).sum(1).mul_((BINS - 1) / pixels).view_as(image.pixels)

    return torch.cat((entropy[:, None], shared), dim=1), pull


@lru_cache(maxsize=64)
def _sloped(length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Sobel's sums, then its differences, by eight, along a smoothed axis: (2 length, length)."""
    with ordinary():
        smooth = invention.smoothing(length, torch.float64, torch.device("cpu"))
        longer = torch.cat((smooth[:1], smooth, smooth[-1:]))
        before, after = longer[:-2], longer[2:]
        return torch.cat((before + 2 * smooth + after, (before - after) / 8)).to(device, dtype)


def _coarse(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The two parts of the coarse gradient of centred images, and its strength."""
    high, wide = (_sloped(length, x.dtype, x.device) for length in x.shape[2:])
    (sums, differences), (along, across) = high.chunk(2), (x @ wide.mT).chunk(2, dim=3)
    across, down = sums @ across, differences @ along
    return across, down, _length(across, down)


def _from_coarse(across: Tensor, down: Tensor) -> Tensor:
    """The transpose of the linear part of `_coarse`."""
    high, wide = (_sloped(length, down.dtype, down.device) for length in down.shape[2:])
    sums, differences = high.chunk(2)
    return torch.cat((differences.mT @ down, sums.mT @ across), dim=3) @ wide


def _invented_excess(image: _Image) -> tuple[Tensor, Pull]:
    """By how much structure is invented, (N,)."""
    bound = image.known.steepest
    across, down, steep = _coarse(image.centred)
    beyond = (steep / bound - invention.MARGIN).relu_()
    each = _inverse(steep).div_(bound).mul_(beyond > 0)
    slopes = _from_coarse(across.mul_(each), down.mul_(each))

    def pull(slope: Tensor, total: _Slope) -> None:
        total.pixels.addcmul_(slopes, _each(slope / beyond[0].numel(), slopes))

    return beyond.mean((1, 2, 3)), pull


def _detail(x: Tensor) -> tuple[Tensor, Tensor]:
    """Fine detail of centred images, and its strength around each pixel."""
    fine = x - invention.smoothed(x, sigma=amplification.FINE)
    energy = invention.smoothed(fine.square(), sigma=amplification.AROUND)
    return fine, energy.clamp_min_(0).sqrt_()


def _amplified_excess(image: _Image) -> tuple[Tensor, Pull]:
    """By how much fine detail is amplified, (N,)."""
    bound = image.known.strongest
    fine, strong = _detail(image.centred)
    allowed = amplification.MARGIN * _inverse(strong).mul_(bound)
    beyond = torch.where(strong > 0, 1 - allowed, 0.0).relu_()
    in_energy = _inverse(strong).square_().mul_(allowed).mul_(beyond > 0)  # twice the slope
    in_fine = invention.smoothed(in_energy, True, amplification.AROUND).mul_(fine)
    slopes = in_fine - invention.smoothed(in_fine, True, amplification.FINE)

    def pull(slope: Tensor, total: _Slope) -> None:
        total.pixels.addcmul_(slopes, _each(slope / beyond[0].numel(), slopes))

    return beyond.mean((1, 2, 3)), pull


# What can be asked of `measure`, by name: "information" is EN, MI with the infrared and MI with the visible image.
MEASURES: dict[str, Callable[[_Image], tuple[Tensor, Pull]]] = {
    "SSIM": _similarity,
    "VIF": _fidelity,
    "Qabf": _edge_transfer,
    "SCD": _correlation_of_differences,
    "SD": _deviation,
    "SF": _frequency,
    "AG": _gradient,
    "information": _information,
    "invented_excess": _invented_excess,
    "amplified_excess": _amplified_excess,
}


class _Measured(torch.autograd.Function):
    """All measures of a batch as one step of automatic differentiation."""

    @staticmethod
    def forward(ctx: Any, fused: Tensor, known: Known, names: Sequence[str]) -> tuple[Tensor, ...]:
        image = _Image(fused, known)
        values, ctx.pulls = zip(*(MEASURES[name](image) for name in names), strict=True)
        ctx.image = image
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None, None]:
        total = _Slope(ctx.image)
        for pull, slope in zip(ctx.pulls, slopes, strict=True):
            pull(slope, total)
        return total.total(), None, None


def measure(fused: Tensor, known: Known, names: Sequence[str] = tuple(MEASURES)) -> dict[str, Tensor]:
    """Values of `MEASURES` per image.

    Args:
        fused: Fused images, (N, 1, H, W) in [0, 1]; differentiable once.
        known: From `know` of their sources.
        names: The measures.

    Returns:
        By name: (N, 2), infrared and visible, (N,) where a measure is of the fused image alone, (N, 3) for
        "information".
    """
    return dict(zip(names, _Measured.apply(fused, known, tuple(names)), strict=True))
