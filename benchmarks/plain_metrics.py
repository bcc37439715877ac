"""The metrics written plainly with NumPy, SciPy, scikit-image and scikit-learn, one image at a time.

Oracles for the tests, and the other side of `bench_metrics.py`. Images are (H, W) arrays of floats from 0 to 255; a
metric that relates to the sources takes one of them. Formulas: docs/metrics.md.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage, signal
from skimage.measure import shannon_entropy
from skimage.metrics import structural_similarity
from sklearn.metrics import mutual_info_score, normalized_mutual_info_score

Array = np.ndarray
LIMITS = (1e-10, 1e10)  # of signal-to-noise ratios: 100 dB


def levels(image: Array) -> Array:
    """The 8-bit levels."""
    return np.clip(np.floor(image + 0.5), 0, 255).astype(np.uint8)


def entropy(fused: Array) -> float:
    """EN."""
    return float(shannon_entropy(levels(fused), base=2))


def standard_deviation(fused: Array) -> float:
    """SD."""
    return float(np.std(fused))


def spatial_frequency(fused: Array) -> float:
    """SF."""
    return float(np.sqrt(np.mean(np.diff(fused, axis=1) ** 2) + np.mean(np.diff(fused, axis=0) ** 2)))


def average_gradient(fused: Array) -> float:
    """AG."""
    down, across = np.gradient(fused)
    return float(np.mean(np.sqrt((across**2 + down**2) / 2)))


def cross_entropy(fused: Array, source: Array) -> float:
    """CE, in bits."""
    p, q = (np.bincount(levels(image).ravel(), minlength=256) / image.size for image in (source, fused))
    both = (p > 0) & (q > 0)
    return float(np.sum(p[both] * np.log2(p[both] / q[both])))


def mutual_information(fused: Array, source: Array) -> float:
    """MI, in nats."""
    return float(mutual_info_score(levels(fused).ravel(), levels(source).ravel()))


def normalised_mutual_information(fused: Array, source: Array) -> float:
    """NMI."""
    return float(normalized_mutual_info_score(levels(fused).ravel(), levels(source).ravel()))


def correlation(fused: Array, source: Array) -> float:
    """CC."""
    a, b = fused - fused.mean(), source - source.mean()
    return float(np.sum(a * b) / np.sqrt(np.sum(a * a) * np.sum(b * b)))


def squared_error(fused: Array, source: Array) -> float:
    """MSE."""
    return float(np.mean((fused - source) ** 2))


def decibels(peak: float, error: float) -> float:
    """PSNR from the peak and the MSE."""
    return float(10 * np.log10(np.clip(peak**2 / error, *LIMITS)))


def similarity(fused: Array, source: Array, data_range: float = 255.0) -> float:
    """SSIM."""
    return float(structural_similarity(fused, source, data_range=data_range))


def _gaussian(size: int, sigma: float) -> Array:
    at = np.arange(size) - (size - 1) / 2
    window = np.exp(-(at[:, None] ** 2 + at**2) / (2 * sigma**2))
    return window / window.sum()


def multi_scale_similarity(fused: Array, source: Array) -> float:
    """MS-SSIM."""
    window, result = _gaussian(11, 1.5), 1.0
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    weights = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
    for scale, weight in enumerate(weights):
        if scale:
            fused, source = (_mean_of_four(image) for image in (fused, source))
        mf, ms, ff, ss, fs = (
            signal.convolve2d(image, window, mode="valid")
            for image in (fused, source, fused * fused, source * source, fused * source)
        )
        quality = (2 * (fs - mf * ms) + c2) / (ff - mf * mf + ss - ms * ms + c2)
        if scale == len(weights) - 1:
            quality = quality * (2 * mf * ms + c1) / (mf * mf + ms * ms + c1)
        result *= max(0.0, quality.mean()) ** weight
    return float(result)


def _mean_of_four(image: Array) -> Array:
    height, width = (side // 2 * 2 for side in image.shape)
    image = image[:height, :width]
    return (image[::2, ::2] + image[1::2, ::2] + image[::2, 1::2] + image[1::2, 1::2]) / 4


def fidelity(fused: Array, source: Array) -> float:
    """VIF."""
    kept = information = 0.0
    for size in (17, 9, 5, 3):
        window = _gaussian(size, size / 5)
        if size < 17:
            fused, source = (signal.convolve2d(image, window, mode="valid")[::2, ::2] for image in (fused, source))
        ms, mf = (signal.convolve2d(image, window, mode="valid") for image in (source, fused))
        vs = np.maximum(0, signal.convolve2d(source * source, window, mode="valid") - ms * ms)
        vf = np.maximum(0, signal.convolve2d(fused * fused, window, mode="valid") - mf * mf)
        cov = signal.convolve2d(source * fused, window, mode="valid") - ms * mf
        gain = cov / (vs + 1e-10)
        rest = vf - gain * cov
        gain[vs < 1e-10] = 0
        rest[vs < 1e-10] = vf[vs < 1e-10]
        vs[vs < 1e-10] = 0
        gain[vf < 1e-10] = 0
        rest[vf < 1e-10] = 0
        rest[gain < 0] = vf[gain < 0]
        gain[gain < 0] = 0
        rest[rest <= 1e-10] = 1e-10
        kept += np.sum(np.log10(1 + gain**2 * vs / (rest + 2)))
        information += np.sum(np.log10(1 + vs / 2))
    return float(kept / information) if information > 0 else 1.0


def sobel(image: Array, mode: str = "nearest") -> tuple[Array, Array]:
    """Strength and angle of the edges; ``mode`` as in `scipy.ndimage.convolve`."""
    kernel = np.array([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    across, down = ndimage.convolve(image, kernel, mode=mode), ndimage.convolve(image, -kernel.T, mode=mode)
    angle = np.full_like(across, np.pi / 2)
    angle[across != 0] = np.arctan(down[across != 0] / across[across != 0])
    return np.sqrt(across**2 + down**2), angle


def preservation(ratio: Array, aligned: Array) -> Array:
    """Product of the two sigmoids of Qabf."""
    return 0.9994 / (1 + np.exp(-15 * (ratio - 0.5))) * 0.9879 / (1 + np.exp(-22 * (aligned - 0.8)))


def edge_preservation(fused: Array, source: Array) -> tuple[Array, Array]:
    """Qabf's map for one source, and the strength of the source's edges."""
    (gf, af), (gs, as_) = sobel(fused), sobel(source)
    larger = np.maximum(gf, gs)
    ratio = np.divide(np.minimum(gf, gs), larger, out=np.ones_like(larger), where=larger > 0)
    return preservation(ratio, np.abs(np.abs(as_ - af) * 2 / np.pi - 1)), gs


def edge_transfer(fused: Array, first: Array, second: Array) -> float:
    """Qabf."""
    (qa, ga), (qb, gb) = edge_preservation(fused, first), edge_preservation(fused, second)
    return float(np.sum(qa * ga + qb * gb) / np.sum(ga + gb))


def edge_artefacts(fused: Array, first: Array, second: Array) -> float:
    """Nabf."""
    (qa, ga), (qb, gb) = edge_preservation(fused, first), edge_preservation(fused, second)
    gf = sobel(fused)[0]
    invented = (gf > ga) & (gf > gb)
    return float(np.sum(invented * ((1 - qa) * ga + (1 - qb) * gb)) / np.sum(ga + gb))


def edge_transfer_evaluator(fused: Array, first: Array, second: Array) -> float:
    """Qabf as in the public evaluator."""
    gf, af = sobel(fused, "constant")
    upper = lower = 0.0
    for source in (first, second):
        gs, as_ = sobel(source, "constant")
        ratio = gf.copy()
        larger, smaller = gs > gf, gs < gf
        ratio[larger] = gf[larger] / gs[larger]
        ratio[smaller] = gs[smaller] / gf[smaller]
        upper += np.sum(preservation(ratio, 1 - np.abs(as_ - af) * 2 / np.pi) * gs)
        lower += np.sum(gs)
    return float(upper / lower)


def visible_error(fused: Array, first: Array, second: Array) -> float:
    """Qcv."""
    height, width = fused.shape
    u, v = np.fft.fftfreq(width) * width / 4, np.fft.fftfreq(height) * height / 4
    radius = np.sqrt(u**2 + v[:, None] ** 2)
    sensitivity = 2.6 * (0.0192 + 0.144 * radius) * np.exp(-((0.144 * radius) ** 1.1))
    upper = lower = 0.0
    for source in (first, second):
        strength = sobel(source)[0]
        error = np.real(np.fft.ifft2(np.fft.fft2(source - fused) * sensitivity)) ** 2
        for y in range(0, height, 16):
            for x in range(0, width, 16):
                weight = np.sum(strength[y : y + 16, x : x + 16] ** 5)
                upper += weight * np.mean(error[y : y + 16, x : x + 16])
                lower += weight
    return float(upper / lower)


def window_information(fused: Array, source: Array) -> float:
    """FMI of pixels, after the loops of its authors' code."""
    fused, source = levels(fused).astype(float), levels(source).astype(float)
    values = [
        _window_information(fused[y : y + 3, x : x + 3], source[y : y + 3, x : x + 3])
        for y in range(fused.shape[0] - 2)
        for x in range(fused.shape[1] - 2)
    ]
    return float(np.mean(values))


def _window_information(fused: Array, source: Array) -> float:
    if (fused == source).all():
        return 1.0
    f, s = _density(fused), _density(source)
    up, across = np.cumsum(f), np.cumsum(s)
    place = np.arange(1, 10)
    spread_f, spread_s = (np.sqrt(max(0.0, np.sum(place**2 * p) - np.sum(place * p) ** 2)) for p in (f, s))
    c = np.sum((f - f.mean()) * (s - s.mean()))
    if c != 0:
        c /= np.sqrt(np.sum((f - f.mean()) ** 2) * np.sum((s - s.mean()) ** 2))
    upper, lower = np.minimum.outer(up, across), np.maximum(np.add.outer(up, across) - 1, 0)
    bound = upper if c >= 0 else lower
    weight = 0.0
    if abs(c) > 1e-12 and spread_f > 1e-9 and spread_s > 1e-9:
        weight = c * spread_f * spread_s / np.sum(bound - np.multiply.outer(up, across))
    corner = np.pad(bound, ((1, 0), (1, 0)))
    joint = weight * np.diff(np.diff(corner, axis=0), axis=1) + (1 - weight) * np.multiply.outer(f, s)
    total = _bits(f) + _bits(s)
    shared = total - _bits(joint)
    return 2 * shared / total if total > 0 else 0.0


def _density(window: Array) -> Array:
    window = window.T.ravel()  # column by column
    window = window - window.min()
    return window / window.sum() if window.sum() > 0 else np.full(9, 1 / 9)


def _bits(p: Array) -> float:
    p = p[np.abs(p) > 1e-15]
    return float(-np.sum(p * np.log2(np.abs(p))))


def coarse_gradient(image: Array) -> Array:
    """Levels per pixel, after a Gaussian of 8 pixels."""
    smooth = ndimage.gaussian_filter(np.asarray(image, float), 8)
    return np.hypot(ndimage.sobel(smooth, 0), ndimage.sobel(smooth, 1)) / 8


def invented_structure(fused: Array, first: Array, second: Array) -> float:
    """Share of invented structure."""
    steep, *sources = map(coarse_gradient, (fused, first, second))
    return float(np.mean((steep > 3 * np.maximum(*sources)) & (steep > 0.75)))


def fine_detail(image: Array) -> Array:
    """Levels: the root of the mean square around each pixel."""
    image = np.asarray(image, float)
    return np.sqrt(ndimage.gaussian_filter(np.square(image - ndimage.gaussian_filter(image, 1)), 3))


def amplified_detail(fused: Array, first: Array, second: Array) -> float:
    """Share of amplified detail."""
    strong, *sources = map(fine_detail, (fused, first, second))
    return float(np.mean((strong > 1.5 * np.maximum(*sources)) & (strong > 3)))


def _mean(measure: Callable[[Array, Array], float]) -> Callable[[Array, Array, Array], float]:
    return lambda fused, a, b: (measure(fused, a) + measure(fused, b)) / 2


def _sum(measure: Callable[[Array, Array], float]) -> Callable[[Array, Array, Array], float]:
    return lambda fused, a, b: measure(fused, a) + measure(fused, b)


def _alone(measure: Callable[[Array], float]) -> Callable[[Array, Array, Array], float]:
    return lambda fused, a, b: measure(fused)


def correlation_of_differences(fused: Array, a: Array, b: Array) -> float:
    """SCD, the sum."""
    return correlation(fused - b, a) + correlation(fused - a, b)


# By name, on (fused, infrared, visible), in the own convention.
OWN: dict[str, Callable[[Array, Array, Array], float]] = {
    "EN": _alone(entropy),
    "SD": _alone(standard_deviation),
    "SF": _alone(spatial_frequency),
    "AG": _alone(average_gradient),
    "CE": _mean(cross_entropy),
    "MI": lambda fused, a, b: _mean(mutual_information)(fused, a, b) / np.log(2),
    "NMI": _mean(normalised_mutual_information),
    "CC": _mean(correlation),
    "SCD": lambda fused, a, b: correlation_of_differences(fused, a, b) / 2,
    "PSNR": lambda fused, a, b: decibels(255.0, _mean(squared_error)(fused, a, b)),
    "MSE": _mean(squared_error),
    "SSIM": _mean(similarity),
    "SSIM_dr2": _mean(lambda fused, source: similarity(fused, source, 2.0)),
    "MS-SSIM": _mean(multi_scale_similarity),
    "VIF": _mean(fidelity),
    "Qabf": edge_transfer,
    "Nabf": edge_artefacts,
    "Qcv": visible_error,
    "FMI": _mean(window_information),
    "invented": invented_structure,
    "amplified": amplified_detail,
}
# The reference set in the public evaluator's convention.
EVALUATOR: dict[str, Callable[[Array, Array, Array], float]] = {
    "EN": _alone(entropy),
    "SD": _alone(standard_deviation),
    "SF": _alone(spatial_frequency),
    "AG": _alone(average_gradient),
    "MI": _sum(mutual_information),
    "SCD": correlation_of_differences,
    "VIF": _sum(fidelity),
    "Qabf": edge_transfer_evaluator,
    "SSIM": _sum(similarity),
    "CC": _mean(correlation),
    "PSNR": lambda fused, a, b: decibels(float(fused.max()), _mean(squared_error)(fused, a, b)),
    "MSE": _mean(squared_error),
}
