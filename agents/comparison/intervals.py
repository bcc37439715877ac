"""Statistics of scores over seeds and instances: interquartile means with stratified bootstrap intervals.

The method is that of Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice",
NeurIPS 2021 (arXiv:2108.13264), whose library is rliable. Scores are arrays (runs, tasks): a row is a student seed,
a column an instance. Every statistic works on the last two axes, so that all resamples are computed at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Statistic = Callable[..., np.ndarray]
_CHUNK = 1000  # resamples at a time, to bound the memory


@dataclass(frozen=True)
class Estimate:
    """A statistic with its bootstrap interval.

    Attributes:
        value: The statistic of the scores themselves.
        low: Lower end of the interval.
        high: Upper end of the interval.
    """

    value: float
    low: float
    high: float

    def text(self, sign: bool = False) -> str:
        """As in a table: ``0.781 [0.775, 0.786]``, with ``sign`` also where a value is positive."""
        value, low, high = (f"{x:+.3f}" if sign else f"{x:.3f}" for x in (self.value, self.low, self.high))
        return f"{value} [{low}, {high}]"


def interquartile_mean(scores: np.ndarray) -> np.ndarray:
    """Mean of the middle half of all scores over the last two axes, (..., runs, tasks) to (...).

    A quarter, rounded down, is cut off at either end, as in `scipy.stats.trim_mean`.
    """
    flat = np.sort(scores.reshape(*scores.shape[:-2], -1), axis=-1)
    cut = flat.shape[-1] // 4
    return flat[..., cut : flat.shape[-1] - cut].mean(-1)


def difference(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Interquartile mean of x less that of y.

    Where tasks differ more than runs, the interquartile mean leaves whole tasks out; `mean_difference` does not.
    """
    return interquartile_mean(x) - interquartile_mean(y)


def mean_difference(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Mean of x less that of y, over all runs and tasks alike."""
    return x.mean((-2, -1)) - y.mean((-2, -1))


def probability_of_improvement(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Probability that a run of x scores higher than one of y on a task drawn at random; ties count half.

    Per task it is the Mann-Whitney U of x and y over the number of pairs of runs; the tasks are averaged.

    Args:
        x: Scores (..., runs, tasks).
        y: Scores (..., other runs, tasks).

    Returns:
        (...) in [0, 1].
    """
    left, right = x[..., :, None, :], y[..., None, :, :]
    return ((left > right) + 0.5 * (left == right)).mean((-3, -2, -1))


def estimate(
    statistic: Statistic,
    *samples: np.ndarray,
    paired: bool = False,
    repetitions: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """A statistic with its stratified percentile-bootstrap interval.

    Runs are drawn with replacement within each task (stratum), for each sample by itself or, where the samples are
    paired, the same runs for all of them.

    Args:
        statistic: Takes the samples, (..., runs, tasks) each, and gives (...).
        samples: Scores (runs, tasks) each.
        paired: Whether row and column mean the same run in every sample.
        repetitions: Number of resamples.
        confidence: Coverage of the interval, in (0, 1).
        seed: Seed of the resampling.

    Raises:
        ValueError: If a sample is empty, not finite, or not of two axes, or paired samples differ in shape.
    """
    arrays = [np.asarray(sample, dtype=np.float64) for sample in samples]
    for array in arrays:
        if array.ndim != 2 or array.size == 0 or not np.isfinite(array).all():
            raise ValueError(f"Scores of shape {array.shape} cannot be used; give finite scores (runs, tasks).")
    if paired and len({array.shape for array in arrays}) > 1:
        raise ValueError(f"Paired samples differ in shape: {', '.join(str(array.shape) for array in arrays)}.")
    rng = np.random.default_rng(seed)
    resampled = []
    for start in range(0, repetitions, _CHUNK):
        count = min(_CHUNK, repetitions - start)
        drawn: list[np.ndarray] = []
        index = np.empty(0, dtype=int)
        for position, array in enumerate(arrays):
            if position == 0 or not paired:
                index = rng.integers(len(array), size=(count, *array.shape))
            drawn.append(np.take_along_axis(array[None], index, axis=1))
        resampled.append(statistic(*drawn))
    tail = 50 * (1 - confidence)
    low, high = np.percentile(np.concatenate(resampled), (tail, 100 - tail))
    return Estimate(float(statistic(*arrays)), float(low), float(high))
