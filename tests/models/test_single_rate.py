"""System 5: one campaign's rate in closed form, and a prior from history."""

import numpy as np
import pandas as pd
import pytest
from scipy import integrate, stats

import pelton


def test_posterior_by_quadrature():
    posterior = pelton.rate_posterior(pelton.FixedBeta(11.5, 48.5), 7, 10)

    def density(t):
        return stats.beta(11.5, 48.5).pdf(t) * stats.binom(10, t).pmf(7)

    mass, _ = integrate.quad(density, 0, 1)
    mean, _ = integrate.quad(lambda t: t * density(t) / mass, 0, 1)
    square, _ = integrate.quad(lambda t: t**2 * density(t) / mass, 0, 1)
    summary = posterior.summary()
    assert summary["mean"] == pytest.approx(mean, rel=1e-8)
    assert summary["sd"] == pytest.approx(np.sqrt(square - mean**2), rel=1e-6)
    assert posterior.at(1000).successes == 700
    means = [posterior.at(n).summary()["mean"] for n in (10, 100, 1000, 10_000)]
    assert means == sorted(means)
    assert means[-1] == pytest.approx(0.7, abs=0.01)


def test_refuses_counts_that_are_none():
    prior = pelton.FixedBeta(1.0, 1.0)
    for successes, trials in ((3, 2), (-1, 5), (1, 0)):
        with pytest.raises(pelton.errors.DataError):
            pelton.rate_posterior(prior, successes, trials)


def test_fit_prior_recovers_the_population():
    rng = np.random.default_rng(0)
    trials = rng.integers(500, 2000, 400)
    history = pd.DataFrame({"clicks": rng.binomial(trials, rng.beta(11.5, 48.5, 400)), "impressions": trials})
    prior = pelton.fit_prior(history, successes="clicks", trials="impressions")
    found, truth = stats.beta(prior.alpha, prior.beta), stats.beta(11.5, 48.5)
    assert found.mean() == pytest.approx(truth.mean(), abs=4 * truth.std() / np.sqrt(400))
    assert found.std() == pytest.approx(truth.std(), rel=0.12)


def test_few_campaigns_give_a_wider_prior():
    rng = np.random.default_rng(1)
    trials = np.full(200, 1000)
    successes = rng.binomial(trials, rng.beta(11.5, 48.5, 200))
    few = pelton.fit_prior((successes[:4], trials[:4]))
    many = pelton.fit_prior((successes, trials))
    assert few.alpha + few.beta < many.alpha + many.beta
    with (
        pytest.raises(pelton.errors.DataError, match="at least two past campaigns"),
        pytest.warns(pelton.errors.DataWarning),
    ):
        pelton.fit_prior(([3], [10]))
