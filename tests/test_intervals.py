import numpy as np
import pytest
from scipy import stats

from agents.comparison.intervals import Estimate, difference, estimate, interquartile_mean, probability_of_improvement


def scores(runs=10, tasks=3, seed=0, shift=0.0):
    return np.random.default_rng(seed).normal(0.8 + shift, 0.02, (runs, tasks)) + 0.05 * np.arange(tasks)


def test_interquartile_mean_by_hand():
    assert interquartile_mean(np.array([[1.0], [2.0], [3.0], [100.0]])) == 2.5  # 1 and 100 are cut
    assert interquartile_mean(np.array([[0.0, 9.0, 1.0]])) == pytest.approx(10 / 3)  # too few to cut
    assert interquartile_mean(np.arange(8.0).reshape(4, 2)) == 3.5


@pytest.mark.parametrize("shape", [(10, 3), (7, 5), (1, 1), (13, 1)])
def test_interquartile_mean_is_scipys_trimmed_mean(shape):
    x = scores(*shape)
    assert interquartile_mean(x) == pytest.approx(stats.trim_mean(x, 0.25, axis=None), abs=1e-15)


def test_interquartile_mean_of_many_resamples_at_once():
    stack = np.stack([scores(seed=seed) for seed in range(4)])
    assert np.array_equal(interquartile_mean(stack), [interquartile_mean(x) for x in stack])


def test_probability_of_improvement_by_hand():
    x, y = np.array([[1.0], [2.0]]), np.array([[0.0], [1.0]])
    assert probability_of_improvement(x, y) == 0.875  # of 4 pairs three are won and one is a tie
    assert probability_of_improvement(x + 10, y) == 1
    assert probability_of_improvement(x, x) == 0.5


def test_probability_of_improvement_is_mann_whitney():
    x, y = scores(9, 3, seed=1, shift=0.01), scores(6, 3, seed=2)
    by_task = [stats.mannwhitneyu(x[:, t], y[:, t]).statistic / 54 for t in range(3)]
    assert probability_of_improvement(x, y) == pytest.approx(np.mean(by_task))


def test_interval_agrees_with_scipys_bootstrap():
    x = scores(12, 1)
    ours = estimate(interquartile_mean, x, repetitions=20_000)
    theirs = stats.bootstrap(
        (x[:, 0],),
        lambda sample, axis: stats.trim_mean(sample, 0.25, axis=axis),
        n_resamples=20_000,
        method="percentile",
        rng=np.random.default_rng(1),
    )
    spread = theirs.confidence_interval.high - theirs.confidence_interval.low
    assert abs(ours.low - theirs.confidence_interval.low) < 0.03 * spread
    assert abs(ours.high - theirs.confidence_interval.high) < 0.03 * spread
    assert ours.low < ours.value < ours.high


def test_paired_interval_agrees_with_scipys_bootstrap():
    noise = scores(12, 1, seed=3)
    x, y = noise + 0.004 + 0.001 * scores(12, 1, seed=4), noise
    ours = estimate(difference, x, y, paired=True, repetitions=20_000)
    theirs = stats.bootstrap(
        (x[:, 0], y[:, 0]),
        lambda a, b, axis: stats.trim_mean(a, 0.25, axis=axis) - stats.trim_mean(b, 0.25, axis=axis),
        n_resamples=20_000,
        method="percentile",
        paired=True,
        vectorized=True,
        rng=np.random.default_rng(1),
    )
    spread = theirs.confidence_interval.high - theirs.confidence_interval.low
    assert abs(ours.low - theirs.confidence_interval.low) < 0.05 * spread
    assert abs(ours.high - theirs.confidence_interval.high) < 0.05 * spread


def test_pairing_narrows_the_interval_where_seeds_share_their_noise():
    noise = scores(seed=5)
    x, y = noise + 0.005, noise
    paired, apart = (estimate(difference, x, y, paired=paired) for paired in (True, False))
    assert paired.low == pytest.approx(0.005) and paired.high == pytest.approx(0.005)
    assert apart.low < 0 < apart.high


def test_runs_are_drawn_within_their_task():
    constant_tasks = np.tile([[0.2, 0.5, 0.9]], (10, 1))  # between the tasks all differs, within them nothing
    assert estimate(interquartile_mean, constant_tasks).low == estimate(interquartile_mean, constant_tasks).high


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        found = estimate(interquartile_mean, rng.normal(size=(20, 4)), repetitions=400, seed=trial)
        hits += found.low <= 0 <= found.high
    assert 0.88 <= hits / 200 <= 0.99


def test_same_seed_same_interval():
    assert estimate(interquartile_mean, scores(), seed=1) == estimate(interquartile_mean, scores(), seed=1)
    assert estimate(interquartile_mean, scores(), seed=1) != estimate(interquartile_mean, scores(), seed=2)


@pytest.mark.parametrize("bad", [np.empty((0, 3)), np.array([[np.nan]]), np.ones(3)])
def test_scores_that_cannot_be_used_are_refused(bad):
    with pytest.raises(ValueError, match="cannot be used"):
        estimate(interquartile_mean, bad)


def test_paired_samples_of_unequal_shape_are_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        estimate(difference, scores(10), scores(9), paired=True)


def test_text_of_an_estimate():
    assert Estimate(0.7812, 0.7749, 0.7861).text() == "0.781 [0.775, 0.786]"
    assert Estimate(0.0061, -0.0012, 0.013).text(sign=True) == "+0.006 [-0.001, +0.013]"
