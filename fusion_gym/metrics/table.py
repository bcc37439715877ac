"""The table of metrics: what each one is, and the functions that compute it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from fusion_gym.metrics import (
    amplification,
    edges,
    features,
    fidelity,
    gradients,
    information,
    invention,
    moments,
    perception,
    structure,
)
from fusion_gym.metrics.batch import Batch

Measure = Callable[[Batch, Batch], Tensor]


@dataclass(frozen=True)
class Metric:
    """One metric: F is the fused image, A and B are the sources, all on the scale from 0 to 255.

    Attributes:
        title: Its full name.
        higher_is_better: Its direction.
        low: Least possible value in the own convention.
        high: Largest possible value in the own convention.
        formula: Its definition, Markdown.
        paper: Where it comes from.
        published: How published tables, and the "cddfuse" convention, differ from it; empty where they do not.
        values: Computes one value per image, (N,), or one for each source, (N, 2).
        joint: Computes one value per image; None takes the mean over the sources of `values`.
        cddfuse: Computes the public evaluator's value from 8-bit levels; None where it has none.
        min_side: Least height and width in pixels.
        unasked: Whether the own convention has it where no names are given.
    """

    title: str
    higher_is_better: bool
    low: float
    high: float
    formula: str
    paper: str
    published: str
    values: Measure
    joint: Measure | None = None
    cddfuse: Measure | None = None
    min_side: int = 1
    unasked: bool = True

    def evaluate(self, fused: Batch, sources: Batch) -> Tensor:
        """The value per image in the own convention, (N,)."""
        if self.joint is not None:
            return self.joint(fused, sources)
        values = self.values(fused, sources)
        return values if values.dim() == 1 else values.mean(1)


def _sum(values: Measure, factor: float = 1.0) -> Measure:
    return lambda fused, sources: values(fused, sources).sum(1) * factor


_SUM = "Published tables mostly give the sum over the two sources, twice this mean."

METRICS: dict[str, Metric] = {
    "EN": Metric(
        title="entropy",
        higher_is_better=True,
        low=0.0,
        high=8.0,
        formula="−Σ p(k) log₂ p(k) over the histogram p of F's 256 levels; bits",
        paper="Roberts, van Aardt, Ahmed 2008",
        published="",
        values=information.entropy,
        cddfuse=information.entropy,
    ),
    "SD": Metric(
        title="standard deviation",
        higher_is_better=True,
        low=0.0,
        high=127.5,
        formula="√(mean (F − mean F)²), divided by the number of pixels",
        paper="the population standard deviation of any statistics book",
        published="Some MATLAB kits divide by one less, or give the root of the sum of squares.",
        values=moments.standard_deviation,
        cddfuse=moments.standard_deviation,
    ),
    "SF": Metric(
        title="spatial frequency",
        higher_is_better=True,
        low=0.0,
        high=255 * math.sqrt(2),
        formula="√(mean of squared horizontal + mean of squared vertical first differences), each mean over the "
        "differences that there are",
        paper="Eskicioglu, Fisher 1995",
        published="Some kits divide both sums by the number of pixels.",
        values=gradients.spatial_frequency,
        cddfuse=gradients.spatial_frequency,
    ),
    "AG": Metric(
        title="average gradient",
        higher_is_better=True,
        low=0.0,
        high=255.0,
        formula="mean √((gx² + gy²) / 2); gx, gy are half the central differences, at the border the one-sided ones",
        paper="Cui, Feng, Xu, Li, Chen 2015",
        published="Some kits use forward differences.",
        values=gradients.average_gradient,
        cddfuse=gradients.average_gradient,
    ),
    "CE": Metric(
        title="cross entropy",
        higher_is_better=False,
        low=-1 / (math.e * math.log(2)),
        high=math.inf,
        formula="mean over the sources S of Σ p_S(k) log₂(p_S(k) / p_F(k)) over the levels that both histograms have; "
        "bits",
        paper="Bulanon, Burks, Alchanatis 2009",
        published="",
        values=information.cross_entropy,
    ),
    "MI": Metric(
        title="mutual information",
        higher_is_better=True,
        low=0.0,
        high=8.0,
        formula="mean over the sources S of I(F; S) from the joint histogram of 256 × 256 levels; bits",
        paper="Qu, Zhang, Yan 2002",
        published="Published tables mostly give the sum over the two sources, in nats: 2 ln 2 = 1.386 times this.",
        values=information.mutual_information,
        cddfuse=_sum(information.mutual_information, math.log(2)),
    ),
    "NMI": Metric(
        title="normalised mutual information",
        higher_is_better=True,
        low=0.0,
        high=1.0,
        formula="mean over the sources S of 2 I(F; S) / (H(F) + H(S)); 1 where F and S are both constant",
        paper="Hossny, Nahavandi, Creighton 2008",
        published="Q_MI in published tables is the sum over the two sources, twice this mean.",
        values=information.normalised_mutual_information,
    ),
    "CC": Metric(
        title="correlation coefficient",
        higher_is_better=True,
        low=-1.0,
        high=1.0,
        formula="mean over the sources S of Pearson's r(S, F); 0 with a constant image",
        paper="Deshmukh, Bhosale 2010",
        published="",
        values=moments.correlation,
        cddfuse=_sum(moments.correlation, 0.5),
    ),
    "SCD": Metric(
        title="sum of the correlations of differences",
        higher_is_better=True,
        low=-1.0,
        high=1.0,
        formula="(r(A, F − B) + r(B, F − A)) / 2, Pearson's r; 0 with a constant image",
        paper="Aslantas, Bendes 2015",
        published=_SUM,
        values=moments.correlation_of_differences,
        cddfuse=_sum(moments.correlation_of_differences),
    ),
    "PSNR": Metric(
        title="peak signal-to-noise ratio",
        higher_is_better=True,
        low=0.0,
        high=moments.PSNR_LIMIT,
        formula="10 log₁₀(255² / MSE) with the mean MSE of the two sources, at most 100; decibels",
        paper="Jagalingam, Hegde 2015",
        published="The CDDFuse family takes F's own maximum as the peak; other kits take the mean of two PSNRs.",
        values=moments.peak_ratios,
        joint=moments.peak_ratio,
        cddfuse=moments.peak_ratio_evaluator,
    ),
    "MSE": Metric(
        title="mean squared error",
        higher_is_better=False,
        low=0.0,
        high=255.0**2,
        formula="mean over the sources S of mean (F − S)²; squared levels",
        paper="Jagalingam, Hegde 2015",
        published="Some tables scale the images to [0, 1]: 65025 times less.",
        values=moments.squared_error,
        cddfuse=_sum(moments.squared_error, 0.5),
    ),
    "SSIM": Metric(
        title="structural similarity",
        higher_is_better=True,
        low=-1.0,
        high=1.0,
        formula="mean over the sources S and over all 7×7 windows inside the image of "
        "(2 μ_F μ_S + C₁)(2 σ_FS + C₂) / ((μ_F² + μ_S² + C₁)(σ_F² + σ_S² + C₂)), C₁ = (0.01 · 255)², "
        "C₂ = (0.03 · 255)², sample covariances (divided by 48)",
        paper="Wang, Bovik, Sheikh, Simoncelli 2004",
        published=_SUM + " Those of the CDDFuse family use the data range 2: see SSIM_dr2. Wang's own window is "
        "Gaussian.",
        values=structure.similarity,
        cddfuse=_sum(structure.similarity),
        min_side=structure.WINDOW,
    ),
    "SSIM_dr2": Metric(
        title="structural similarity with the data range 2",
        higher_is_better=True,
        low=-1.0,
        high=1.0,
        formula="SSIM with C₁ = (0.01 · 2)², C₂ = (0.03 · 2)²: flat areas count as noise; only for comparison with "
        "tables",
        paper="CDDFuse's evaluator under scikit-image 0.19",
        published=_SUM,
        values=structure.similarity_range_2,
        cddfuse=_sum(structure.similarity_range_2),
        min_side=structure.WINDOW,
        unasked=False,
    ),
    "MS-SSIM": Metric(
        title="multi-scale structural similarity",
        higher_is_better=True,
        low=0.0,
        high=1.0,
        formula="mean over the sources of the product over five scales (each half the one before, by 2×2 means) of "
        "the mean contrast and structure term of SSIM, to the powers 0.0448, 0.2856, 0.3001, 0.2363, 0.1333, at the "
        "last with the luminance term; Gaussian windows of 11×11, σ = 1.5, covariances divided by the weights' sum; a "
        "negative mean counts as 0",
        paper="Wang, Simoncelli, Bovik 2003",
        published=_SUM,
        values=structure.multi_scale_similarity,
        min_side=structure.SCALE_WINDOW * 16,
    ),
    "VIF": Metric(
        title="visual information fidelity",
        higher_is_better=True,
        low=0.0,
        high=math.inf,
        formula="mean over the sources S as the reference of Σ log(1 + g² σ_S² / (σ_V² + 2)) / Σ log(1 + σ_S² / 2) "
        "over four scales, with g = σ_FS / σ_S², σ_V² = σ_F² − g σ_FS; Gaussian windows of 17, 9, 5, 3 pixels, σ a "
        "fifth of that; from the second scale on the images are smoothed by the window and halved. Negative g count "
        "as 0; a source without any detail gives 1. More contrast than the source has gives more than 1",
        paper="Sheikh, Bovik 2006, in its pixel-domain form",
        published=_SUM + " VIFF (Han, Cai, Cao, Xu 2013) is another metric.",
        values=fidelity.fidelity,
        cddfuse=_sum(fidelity.fidelity),
        min_side=41,
    ),
    "Qabf": Metric(
        title="edge transfer",
        higher_is_better=True,
        low=0.0,
        high=edges.LARGEST,
        formula="Σ (Q_AF g_A + Q_BF g_B) / Σ (g_A + g_B), g the strengths of Sobel gradients, Q = 0.9994 / "
        "(1 + exp(−15 (G − 0.5))) · 0.9879 / (1 + exp(−22 (α − 0.8))), G the smaller strength over the larger one, "
        "α = 1 − the angle between the edges over 90°. For one source: Σ Q_SF g_S / Σ g_S. Beyond the border the "
        "images repeat their last pixels; strengths are √(sx² + sy² + 10⁻¹²)",
        paper="Xydeas, Petrovic 2000",
        published="The public evaluator surrounds the images with black, so that their borders become their strongest "
        "edges, lets α fall to −1 instead of taking the smaller angle between the edges, and has G = g where g_F = "
        "g_S.",
        values=edges.edge_transfers,
        joint=edges.edge_transfer,
        cddfuse=edges.edge_transfer_evaluator,
    ),
    "Nabf": Metric(
        title="edge artefacts",
        higher_is_better=False,
        low=0.0,
        high=1.0,
        formula="Σ ((1 − Q_AF) g_A + (1 − Q_BF) g_B) / Σ (g_A + g_B), the upper sum only where g_F > g_A and g_F > "
        "g_B; Q and g as in Qabf, so that Qabf + Nabf + the loss of edges = 1",
        paper="Petrovic, Xydeas 2005, as modified by Shreyamsha Kumar 2013",
        published="The published code has other constants than Qabf's and the weights g^1.5.",
        values=edges.edge_artefacts,
        joint=edges.edge_artefact,
    ),
    "Qcv": Metric(
        title="visible error",
        higher_is_better=False,
        low=0.0,
        high=math.inf,
        formula="Σ (λ_A D_A + λ_B D_B) / Σ (λ_A + λ_B) over regions of 16×16 pixels: λ_S = Σ g_S⁵ with g as in Qabf, "
        "D_S the mean of (F − S)², weighed by frequency f with 2.6 (0.0192 + 0.144 f) exp(−(0.144 f)^1.1), where n "
        "pixels hold up to n / 8 cycles per degree",
        paper="Chen, Varshney 2007",
        published="The public code stretches each image to 0 to 255 first and surrounds it with black.",
        values=perception.visible_errors,
        joint=perception.visible_error,
    ),
    "FMI": Metric(
        title="feature mutual information of pixels",
        higher_is_better=True,
        low=-1.0,
        high=1.0,
        formula="mean over the sources and over all 3×3 windows of 2 I / (H_F + H_S): each window of levels, less its "
        "least, is taken as a density over its nine places, and the joint density is Nelsen's for their correlation",
        paper="Haghighat, Aghagolzadeh, Seyedarabi 2011; Haghighat, Razian 2014",
        published="Other features (gradient, edge, wavelet, DCT) are published under the same name.",
        values=features.window_information,
        min_side=features.SIDE,
    ),
    "invented": Metric(
        title="invented structure",
        higher_is_better=False,
        low=0.0,
        high=1.0,
        formula="share of the pixels where |∇F| > 0.75 levels per pixel, and above three times the larger of |∇A| and "
        "|∇B|; ∇ is Sobel's gradient / 8 of the image smoothed by a Gaussian of σ = 8 pixels, cut at 4 σ and mirrored "
        "beyond the border",
        paper="FusionGym; what it finds are halos around lamps, dark corners in even skies and blotches",
        published="",
        values=invention.invented,
    ),
    "amplified": Metric(
        title="amplified detail",
        higher_is_better=False,
        low=0.0,
        high=1.0,
        formula="share of the pixels around which F's fine detail is above 3 levels, and above 1.5 times the larger of "
        "A's and B's: the root of its mean square, weighed by a Gaussian of σ = 3 pixels; detail is what a Gaussian of "
        "σ = 1 pixel takes away; both are cut at 4 σ and mirrored beyond the border",
        paper="FusionGym; what it finds are amplified grain, grids on soft edges and rims",
        published="",
        values=amplification.amplified,
    ),
}


def definitions() -> str:
    """All metrics with their definitions, as Markdown."""
    sections = []
    for name, metric in METRICS.items():
        lines = [
            f"### {name}: {metric.title}",
            f"{'Higher' if metric.higher_is_better else 'Lower'} is better; from {_bound(metric.low)} to "
            f"{_bound(metric.high)}; images of at least {metric.min_side}×{metric.min_side} pixels.",
            f"Definition: {metric.formula}.",
            f"Source: {metric.paper}.",
        ]
        if metric.published:
            lines.append(f"Elsewhere: {metric.published}")
        sections.append("\n\n".join(lines))
    return "\n\n".join(sections)


def _bound(value: float) -> str:
    return "∞" if math.isinf(value) else f"{value:.4g}".replace("-", "−")
