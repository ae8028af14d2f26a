"""Gauss nodes in place of histograms: against sums of log1p by mpmath, for every concentration."""

import math

import jax
import mpmath
import numpy as np
import pytest

from pelton.engine.precision import using
from pelton.kernels.beta_binomial import CountTables, Exceedance, Nodes, UniqueCounts, count_tables, log_likelihood
from pelton.kernels.count_nodes import compressed, nodes_needed


def counts(largest, units=40, seed=0):
    source = np.random.default_rng(seed)
    trials = source.integers(1, largest, units, endpoint=True)
    return source.binomial(trials, source.beta(2, 8, units)), trials


def by_mpmath(successes, trials, logit, log_kappa):
    """sum_i sum_j of log(1 + j / a) and so on, with K log mu + M log(1 - mu)."""
    with mpmath.workdps(40):
        kappa = mpmath.e ** mpmath.mpf(log_kappa)
        mu = 1 / (1 + mpmath.e ** (-mpmath.mpf(logit)))
        total = mpmath.mpf(0)
        for k, n in zip(successes.tolist(), trials.tolist(), strict=True):
            total += k * mpmath.log(mu) + (n - k) * mpmath.log(1 - mu)
            for x, m, sign in ((mu * kappa, k, 1), ((1 - mu) * kappa, n - k, 1), (kappa, n, -1)):
                total += sign * mpmath.fsum(mpmath.log1p(j / x) for j in range(m))
        return float(total)


@pytest.mark.parametrize("largest", [3, 40, 300])
def test_nodes_give_the_likelihood_to_rounding(largest):
    successes, trials = counts(largest)
    short = compressed(count_tables(successes, trials, form="histogram"))
    with using("float64"):
        for log_kappa in (-15.0, -2.0, 1.0, 6.0, 20.0):
            found = float(log_likelihood(-1.2, log_kappa, short))
            np.testing.assert_allclose(found, by_mpmath(successes, trials, -1.2, log_kappa), rtol=2e-13)


def units_past(largest):
    """Histograms [measure, value] up to a value, of units that are few, many, alike, or far apart."""
    value = np.arange(1, largest + 1)
    source = np.random.default_rng(largest)
    found = [
        np.ones(largest),
        1e6 * (value == 1) + 1.0,
        1e3 * (value < largest**0.5) + 1.0,
        1e2 * (value < largest / 2) + 1.0,
        largest + 1.0 - value,
        (largest + 1.0 - value) ** 3,
    ]
    for units in (1, 2, 3, 5, 20, 300):
        for draws in (source.uniform(0, 1, units), source.beta(0.3, 3, units), source.beta(8, 2, units)):
            counts = np.append(np.floor(np.exp(draws * np.log(largest))), largest)
            found.append((counts[:, None] >= value).sum(axis=0, dtype=float))
    return np.array(found)


@pytest.mark.parametrize("largest", [12, 16, 33, 100, 128, 500, 1024, 30_000])
def test_sums_over_any_histogram_are_right_to_rounding(largest):
    above = units_past(largest)
    empty = np.zeros(len(above))
    short = compressed(CountTables(empty, empty, *[Exceedance(above)] * 3)).trials
    assert isinstance(short, Nodes)
    value = np.arange(1, largest + 1)
    for x in 10.0 ** np.arange(-3, 9):
        terms = np.log1p(value / x)
        exact = np.array([math.fsum(row * terms) for row in above])
        found = (short.weights * np.log1p(short.points / x)).sum(axis=1)
        np.testing.assert_allclose(found, exact, rtol=2e-14)


def test_nodes_are_fewer_and_groups_keep_their_own():
    parts = [counts(90, seed=seed) for seed in range(3)] + [(np.zeros(40, int), np.zeros(40, int))]
    parts.append((np.full(40, 2), np.full(40, 7)))
    successes, trials = (np.concatenate(column) for column in zip(*parts, strict=True))
    group = np.repeat(np.arange(5), 40)
    tables = count_tables(successes, trials, group, 5, form="histogram")
    short = compressed(tables)
    assert isinstance(short.trials, Nodes)
    assert isinstance(tables.trials, Exceedance)
    assert short.trials.points.shape == (5, nodes_needed(tables.trials.above.shape[1])) == (5, 13)
    with using("float64"):
        logits, logs = np.linspace(-2, 1, 5), np.linspace(-1, 8, 5)
        one, other = (log_likelihood(logits, logs, each) for each in (tables, short))
        np.testing.assert_allclose(one, other, rtol=1e-13, atol=1e-12)
        slope, short_slope = (
            jax.jacfwd(lambda t, each=each: log_likelihood(logits, t, each))(logs) for each in (tables, short)
        )
        np.testing.assert_allclose(slope, short_slope, rtol=1e-11, atol=1e-10)


def test_unique_values_stay_as_they_are():
    tables = count_tables([3, 10**6], [10**7, 10**8])
    assert isinstance(tables.trials, UniqueCounts)
    assert compressed(tables).trials is tables.trials
