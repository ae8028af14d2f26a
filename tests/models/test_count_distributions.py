"""Beta-binomial distributions of NumPyro: log probabilities against SciPy, histograms against the sum over units."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats
from scipy.special import betaln, gammaln

import pelton
from tests.statistics import assert_agrees

BetaBinomial = pelton.distributions.BetaBinomial
Histogram = pelton.distributions.BetaBinomialHistogram
RNG = np.random.default_rng(4)
TRIALS = RNG.integers(1, 60, 200)
SUCCESSES = RNG.binomial(TRIALS, RNG.beta(3, 9, 200))


def test_the_log_probability_is_scipys():
    with jax.enable_x64(True):
        alpha, beta = np.array([0.5, 2.0, 30.0])[:, None], np.array([4.0, 1.5, 70.0])[:, None]
        found = BetaBinomial(alpha, beta, TRIALS).log_prob(SUCCESSES)
        np.testing.assert_allclose(found, stats.betabinom(TRIALS, alpha, beta).logpmf(SUCCESSES), rtol=1e-9, atol=1e-10)


def test_a_large_concentration_is_the_binomial_where_log_gammas_fail():
    """In float32 NumPyro's own form is off by whole units here."""
    ours = BetaBinomial(3e9, 7e9, 1000).log_prob(310)
    np.testing.assert_allclose(ours, stats.binom(1000, 0.3).logpmf(310), atol=1e-4)
    assert abs(dist.BetaBinomial(3e9, 7e9, 1000).log_prob(310) - ours) > 1


def test_draws_and_moments():
    one = BetaBinomial(3.0, 9.0, 40)
    draws = np.asarray(one.sample(jax.random.key(0), (4, 5000)))
    exact = stats.betabinom(40, 3, 9)
    assert_agrees(draws.astype(float), mean=exact.mean(), sd=exact.std())
    np.testing.assert_allclose([one.mean, one.variance], [exact.mean(), exact.var()], rtol=1e-5)


def _sum_over_units(mean, size, successes, trials):
    mu, kappa = 1 / (1 + np.exp(-mean)), np.exp(size)
    a, b = mu * kappa, (1 - mu) * kappa
    return np.sum(betaln(a + successes, b + trials - successes) - betaln(a, b))


def test_a_histogram_has_the_likelihood_of_its_units():
    with jax.enable_x64(True):
        histogram = pelton.distributions.count_histogram(SUCCESSES, TRIALS)
        found = Histogram(-1.0, 2.5, histogram.shape[-1]).log_prob(histogram)
        np.testing.assert_allclose(found, _sum_over_units(-1.0, 2.5, SUCCESSES, TRIALS), rtol=1e-10)
        # What is left out are the binomial coefficients.
        combinations = np.sum(gammaln(TRIALS + 1) - gammaln(SUCCESSES + 1) - gammaln(TRIALS - SUCCESSES + 1))
        mu, kappa = 1 / (1 + np.exp(1.0)), np.exp(2.5)
        full = BetaBinomial(mu * kappa, (1 - mu) * kappa, TRIALS).log_prob(SUCCESSES).sum()
        np.testing.assert_allclose(found + combinations, full, rtol=1e-10)


def test_groups_have_a_histogram_each():
    group = np.arange(200) % 3
    with jax.enable_x64(True):
        histogram = pelton.distributions.count_histogram(SUCCESSES, TRIALS, group)
        mean = np.array([-1.0, 0.0, 1.0])
        found = Histogram(mean, 2.0, histogram.shape[-1]).log_prob(histogram)
        expected = [_sum_over_units(mean[g], 2.0, SUCCESSES[group == g], TRIALS[group == g]) for g in range(3)]
        np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_a_model_over_histograms_is_that_over_units():
    def units(successes, trials):
        mean = numpyro.sample("mean", dist.Normal(0, 1.5))
        size = numpyro.sample("size", dist.Normal(3, 1.0))
        mu, kappa = jax.nn.sigmoid(mean), jnp.exp(size)
        with numpyro.plate("unit", len(trials)):
            numpyro.sample("k", BetaBinomial(mu * kappa, (1 - mu) * kappa, trials), obs=successes)

    def table(histogram):
        mean = numpyro.sample("mean", dist.Normal(0, 1.5))
        size = numpyro.sample("size", dist.Normal(3, 1.0))
        numpyro.sample("stores", Histogram(mean, size, histogram.shape[-1]), obs=histogram)

    by_unit = pelton.from_numpyro(units, SUCCESSES, TRIALS)
    by_table = pelton.from_numpyro(table, pelton.distributions.count_histogram(SUCCESSES, TRIALS))
    with jax.enable_x64(True):
        here, there = jnp.array([-1.0, 2.5]), jnp.array([-1.2, 2.0])
        gaps = [p.logdensity(here, p.data) - p.logdensity(there, p.data) for p in (by_unit, by_table)]
        np.testing.assert_allclose(gaps[0], gaps[1], rtol=1e-9)
        gradients = [jax.grad(p.logdensity)(here, p.data) for p in (by_unit, by_table)]
        np.testing.assert_allclose(gradients[0], gradients[1], rtol=1e-9)
    with pytest.raises(pelton.errors.ModelError, match="cannot be drawn"):
        pelton.approximate(by_table, "map", groups=["prior_predictive"])


@pytest.mark.parametrize(
    ("successes", "trials", "message"),
    [([3], [2], "between 0 and trials"), ([1], [2_000_000], "at most 1000000"), ([1, 2], [3], "shapes")],
)
def test_counts_that_are_none(successes, trials, message):
    with pytest.raises(pelton.errors.DataError, match=message):
        pelton.distributions.count_histogram(successes, trials)
