"""The environment written plainly: what its caches, closed forms and batches are measured and checked against.

The same decision process with the same random numbers, so that a trajectory agrees with the environment's within
rounding. The losses are 2-D convolutions under automatic differentiation, samples are hardened one by one, and the
student is scored image by image with NumPy and SciPy, from the images themselves, at every decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import plain_metrics
import plain_objective
import torch
from torch import Tensor
from torch.nn import functional as F

from fusion_gym.conditions import CLEAN, HARDENINGS
from fusion_gym.distiller import GRADIENT_LIMIT, Distiller, Stats
from fusion_gym.env import FusionDistillEnv
from fusion_gym.hardening import BLUR_SIGMA, NOISE_STD, Draw, unit_noise
from fusion_gym.metrics import REPORTED
from fusion_gym.probe import Probe, Reading
from fusion_gym.score import ARTEFACTS, CAP, CLEAN_PARTS, DAMAGED_PARTS, LEAST, STATISTICS
from fusion_gym.tensors import Fuse

TIE = 4.5 / (8 * 255) ** 2
SOBEL = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8


def gradient(image: Tensor) -> Tensor:
    """Sobel gradients, horizontal and vertical, (N, 2, H-2, W-2)."""
    return F.conv2d(image, torch.stack((SOBEL, SOBEL.T))[:, None])


def local_ssim(a: Tensor, b: Tensor) -> Tensor:
    """Mean SSIM per sample over 7×7 windows."""
    window = torch.full((1, 1, 7, 7), 1 / 49)
    mean_a, mean_b = F.conv2d(a, window), F.conv2d(b, window)
    var_a, var_b = F.conv2d(a * a, window) - mean_a**2, F.conv2d(b * b, window) - mean_b**2
    covariance = F.conv2d(a * b, window) - mean_a * mean_b
    light = (2 * mean_a * mean_b + 0.01**2) / (mean_a**2 + mean_b**2 + 0.01**2)
    return (light * (2 * covariance + 0.03**2) / (var_a + var_b + 0.03**2)).mean((1, 2, 3))


def self_loss(fused: Tensor, ir: Tensor, vi: Tensor) -> Tensor:
    """The self-learning loss per sample."""
    edges_ir, edges_vi = gradient(ir), gradient(vi)
    stronger = edges_ir.square().sum(1, keepdim=True) > edges_vi.square().sum(1, keepdim=True) + TIE
    edges = (gradient(fused) - torch.where(stronger, edges_ir, edges_vi)).abs().mean((1, 2, 3))
    intensity = (fused - torch.maximum(ir, vi)).abs().mean((1, 2, 3))
    return intensity + 5 * edges + 1 - (local_ssim(fused, ir) + local_ssim(fused, vi)) / 2


def guide_loss(fused: Tensor, teacher: Tensor) -> Tensor:
    """The guidance loss per sample."""
    edges = (gradient(fused) - gradient(teacher)).abs().mean((1, 2, 3))
    return 4 * (fused - teacher).abs().mean((1, 2, 3)) + 10 * edges


def blurred(image: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of one image, (1, 1, H, W), with a 2-D window."""
    reach = int(3 * BLUR_SIGMA)
    window = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / max(sigma, 1e-3)) ** 2)
    window = torch.outer(window, window) / window.sum() ** 2
    return F.conv2d(F.pad(image, (reach,) * 4, mode="replicate"), window[None, None]).clamp(0, 1)


def hardened(ir: Tensor, vi: Tensor, strengths: Mapping[str, float], drawn: Draw) -> tuple[Tensor, Tensor]:
    """Degrades a batch pair by pair; everything that a hardening needs is made whether it is asked for or not."""
    noises = unit_noise(drawn.seeds, ir[0])
    asked = [strengths.get(name, 0.0) for name in HARDENINGS]
    result = []
    for i in range(len(ir)):
        one_ir, one_vi = ir[i : i + 1], vi[i : i + 1]
        amount = dict.fromkeys(HARDENINGS, 0.0)
        if sum(asked) > 0 and float(drawn.spared[i]) >= strengths.get("clean", 0.0):
            chosen = int(np.searchsorted(np.cumsum(asked) / sum(asked), float(drawn.kind[i]), side="right"))
            amount[HARDENINGS[chosen]] = asked[chosen] * float(drawn.share[i])
        s = amount["illumination"]
        if bool(drawn.dark[i]):
            one_vi = (1 - 0.85 * s) * one_vi ** (1 + 0.5 * s)
        else:
            one_vi = ((1 + 2 * s) * one_vi + 0.15 * s).clamp(0, 1)
        one_ir = one_ir + 0.9 * amount["contrast"] * (one_ir.mean() - one_ir)
        pair = [blurred(image, BLUR_SIGMA * amount["blur"]) for image in (one_ir, one_vi)]
        std = NOISE_STD * amount["noise"]
        result.append([(image + std * noise[i]).clamp(0, 1) for image, noise in zip(pair, noises, strict=True)])
    irs, vis = zip(*result, strict=True)
    return torch.cat(irs), torch.cat(vis)


def turned(images: Tensor, mirrored: Tensor) -> Tensor:
    """Images of which some are mirrored from left to right."""
    return torch.stack([image.flip(2) if which else image for image, which in zip(images, mirrored, strict=True)])


PLAIN_SELF_LOSSES = {"simple": self_loss, "metrics": plain_objective.metric_loss}


class PlainDistiller(Distiller):
    """The distiller with plain losses and hardening, and torch's optimiser."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.plain_self_loss = PLAIN_SELF_LOSSES[args[-1]]
        self.adam = torch.optim.Adam(self.student.parameters())

    def _plain_losses(self, settings: Mapping[str, float]) -> tuple[Tensor, Tensor]:
        images, mirrored, drawn, _ = self.batch()
        ir, vi, teacher = (channel.contiguous() for channel in images.split(1, dim=1))
        seen = (turned(images, mirrored) for images in hardened(ir, vi, settings, drawn))
        fused = turned(self.student(*seen), mirrored)
        return guide_loss(fused, teacher), self.plain_self_loss(fused, ir, vi)

    def advance(self, settings: Mapping[str, float], updates: int) -> Stats:
        """See `Distiller.advance`."""
        history = []
        for _ in range(updates):
            guide, own = self._plain_losses(settings)
            losses = settings["guidance"] * guide + (1 - settings["guidance"]) * own
            self.adam.zero_grad()
            losses.mean().backward()
            norm = torch.nn.utils.clip_grad_norm_(self.student.parameters(), GRADIENT_LIMIT)
            self.adam.param_groups[0]["lr"] = self.rate * settings["rate"]
            self.adam.step()
            self.updates += 1
            history.append((guide.mean().item(), own.mean().item(), norm.item()))
        return Stats(*np.mean(history, axis=0).tolist())

    @torch.no_grad()
    def measure(self, settings: Mapping[str, float]) -> Stats:
        """See `Distiller.measure`."""
        guide, own = self._plain_losses(settings)
        return Stats(guide.mean().item(), own.mean().item(), 1.0)


def pixels(image: Tensor) -> np.ndarray:
    """One image, (1, 1, H, W), from 0 to 255."""
    return image[0, 0].double().numpy() * 255


def edges_kept(fused: np.ndarray, source: np.ndarray) -> float:
    """Qabf of one source."""
    kept, strength = plain_metrics.edge_preservation(fused, source)
    return float((kept * strength).sum() / strength.sum())


def plain_values(fused: np.ndarray, ir: np.ndarray, vi: np.ndarray) -> dict[str, float]:
    """The balanced value of every metric of the score for one fused image; images from 0 to 255."""
    pairs = {
        "MI": [plain_metrics.mutual_information(fused, source) / np.log(2) for source in (ir, vi)],
        "SCD": [plain_metrics.correlation(fused - vi, ir), plain_metrics.correlation(fused - ir, vi)],
        "VIF": [plain_metrics.fidelity(fused, source) for source in (ir, vi)],
        "Qabf": [edges_kept(fused, source) for source in (ir, vi)],
        "SSIM": [plain_metrics.similarity(fused, source) for source in (ir, vi)],
    }
    values = {name: plain_metrics.OWN[name](fused, ir, vi) for name in (*REPORTED, *ARTEFACTS) if name not in pairs}
    for name, both in pairs.items():
        a, b = (max(0.0, value) for value in both)
        values[name] = 2 * a * b / max(a + b, 1e-12)
    return values


def plain_score(
    values: Mapping[str, float], known: Mapping[str, float], fused: np.ndarray, reference: np.ndarray, damaged: bool
) -> float:
    """The score of one fused image, from its values and the reference's; images from 0 to 255."""
    parts = {name: max(values[name], LEAST) / max(known[name], LEAST) for name in REPORTED}
    for name in STATISTICS:
        ratio = parts[name]
        parts[name] = min(ratio, 2 - ratio) if damaged else min(ratio, 1, 2.1 - ratio)
    for name, share in (("invented", 0.05), ("amplified", 0.2)):
        parts[name] = 1 + (known[name] - values[name]) / share
    if damaged:
        parts["structure"] = plain_metrics.similarity(fused, reference)
        parts["edges"] = edges_kept(fused, reference) / edges_kept(reference, reference)
        parts["intensity"] = 1 - np.abs(fused - reference).mean() / 25.5
        parts["both"] = min(parts["SCD"] / 0.15, 1)
    weights = DAMAGED_PARTS if damaged else CLEAN_PARTS
    worth = sum(weights[name] * min(max(part, 0.0), CAP) for name, part in parts.items())
    return float(worth / sum(weights.values()))


class PlainProbe:
    """The probe with nothing kept but its images."""

    def __init__(self, probe: Probe) -> None:
        self.probe, self.teacher_score = probe, probe.teacher_score

    @torch.no_grad()
    def read(self, fuse: Fuse) -> Reading:
        """See `Probe.read`."""
        probe, rows = self.probe, []
        scores: dict[str, list[float]] = {name: [] for name in probe.pairs}
        gaps: dict[str, list[float]] = {"intensity": [], "gradient": [], "structure": []}
        for condition, sources in probe.pairs.items():
            for i in range(len(probe)):
                fused = fuse(*(source[i : i + 1] for source in sources))
                clean = (probe.ir, probe.vi, probe.reference, probe.teacher)
                ir, vi, reference, teacher = (pixels(image[i : i + 1]) for image in clean)
                values, known = plain_values(pixels(fused), ir, vi), plain_values(reference, ir, vi)
                scores[condition].append(plain_score(values, known, pixels(fused), reference, condition != CLEAN))
                if condition == CLEAN:
                    ratios = {name: max(values[name], LEAST) / max(known[name], LEAST) for name in REPORTED}
                    rows.append((values, ratios))
                    one = probe.teacher[i : i + 1]
                    gaps["intensity"].append(float((fused - one).abs().mean()))
                    gaps["gradient"].append(float((gradient(fused) - gradient(one)).abs().mean()))
                    gaps["structure"].append(1 - plain_metrics.similarity(pixels(fused), teacher))
        means = {name: float(np.mean(values)) for name, values in scores.items()}
        metrics, ratios = (
            {name: float(np.mean([row[kind][name] for row in rows])) for name in rows[0][kind]} for kind in (0, 1)
        )
        apart = {name: float(np.mean(values)) for name, values in gaps.items()}
        return Reading(means, metrics, ratios, apart, bool(np.isfinite(list(means.values())).all()))


class PlainEnv(FusionDistillEnv):
    """`FusionDistillEnv` with the plain training and the plain scoring."""

    @property
    def task(self) -> Any:
        """The task with a `PlainProbe`."""
        task = super().task
        return SimpleNamespace(bank=task.bank, probe=PlainProbe(task.probe))

    def _build(self) -> None:
        super()._build()
        fast = self.distiller
        budget = fast.learning_rate, fast.batch_size, fast.total_updates, fast.generator
        self._distiller = PlainDistiller(fast.bank, fast.student, *budget, self.self_loss)
