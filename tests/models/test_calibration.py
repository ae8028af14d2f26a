"""Simulation-based calibration (Talts et al. 2018): parameters from the prior, data from them, uniform ranks.

The log-likelihood is among the quantities (Modrak et al. 2023): it notices a posterior that ignores the data, which
the parameters alone do not.
"""

import warnings

import jax
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats
from scipy.special import betaln, expit

import pelton

BINS = 20
LEAST_P = 1e-4


def draws_of_prior(prior, count, seed):
    with jax.enable_x64(True):
        mean, concentration = prior.draw(jax.random.key(seed), count)
    return np.asarray(mean), np.asarray(concentration)


def log_likelihood(mean, concentration, successes, trials):
    """Beta-binomial log likelihood by scipy; parameters [..., 1] or [..., unit]."""
    a, b = expit(mean) * np.exp(concentration), expit(-mean) * np.exp(concentration)
    return np.sum(betaln(a + successes, b + trials - successes) - betaln(a, b), axis=-1)


def assert_uniform(ranks, name):
    """Ranks as shares in [0, 1]: a chi-squared test over bins."""
    counts, _ = np.histogram(ranks, bins=BINS, range=(0, 1))
    p = stats.chisquare(counts).pvalue
    assert p > LEAST_P, f"{name}: ranks are not uniform, p = {p:.1e}, counts {counts.tolist()}"


def rank(draws, truth, source):
    """Share of draws below the truth, ties broken at random, spread over [0, 1]."""
    below, equal = np.sum(draws < truth), np.sum(draws == truth)
    return (below + source.uniform() * (equal + 1)) / (len(draws) + 1)


PRIORS = {
    "mean-concentration": pelton.MeanConcentration(dist.Beta(2.0, 4.0), dist.LogNormal(3.0, 0.7)),
    "pareto": pelton.MeanConcentration(dist.Beta(2.0, 2.0), dist.Pareto(1.0, 1.5)),
    "gamma-shapes": pelton.GammaShapes(2.0, 0.2),
}


@pytest.mark.long
@pytest.mark.parametrize(
    "sampler", ["nuts", *(pytest.param(name, marks=pytest.mark.slow) for name in ("numpyro-nuts", "blackjax-nuts"))]
)
@pytest.mark.parametrize(
    "name",
    ["gamma-shapes", *(pytest.param(name, marks=pytest.mark.slow) for name in ("mean-concentration", "pareto"))],
)
def test_population(name, sampler):
    """Four hundred simulated data sets, fitted as segments of one program."""
    prior, sets, units, thin = PRIORS[name], 400, 8, 10
    source = np.random.default_rng(1)
    mean, concentration = draws_of_prior(prior, sets, 2)
    trials = source.integers(5, 60, (sets, units))
    shapes = [expit(sign * mean)[:, None] * np.exp(concentration)[:, None] for sign in (1, -1)]
    rates = np.clip(source.beta(*shapes, (sets, units)), 1e-12, 1 - 1e-12)
    successes = source.binomial(trials, rates)
    segment = np.repeat(np.arange(sets), units)
    model = pelton.PartialPooling(successes.ravel(), trials.ravel(), prior=prior, segments=segment)
    with warnings.catch_warnings():
        # Among four hundred fits the largest R-hat passes 1.01 by chance, and a few small data sets give divergences.
        warnings.simplefilter("ignore", pelton.errors.ConvergenceWarning)
        tree = pelton.sample(model, sampler=sampler, chains=2, warmup=500, draws=500, target_accept=0.95, seed=3)
    posterior = tree["posterior"].isel(draw=slice(None, None, thin))
    found = {key: np.asarray(posterior[key]).reshape(-1, sets) for key in ("logit_mu", "log_kappa")}
    unit = np.asarray(posterior["rate"])[..., ::units].reshape(-1, sets)
    ranks: dict[str, list[float]] = {"logit_mu": [], "log_kappa": [], "rate": [], "log_likelihood": []}
    for i in range(sets):
        ranks["logit_mu"].append(rank(found["logit_mu"][:, i], mean[i], source))
        ranks["log_kappa"].append(rank(found["log_kappa"][:, i], concentration[i], source))
        ranks["rate"].append(rank(unit[:, i], rates[i, 0], source))
        at_draws = log_likelihood(
            found["logit_mu"][:, i, None], found["log_kappa"][:, i, None], successes[i], trials[i]
        )
        at_truth = log_likelihood(mean[i], concentration[i], successes[i], trials[i])
        ranks["log_likelihood"].append(rank(at_draws, at_truth, source))
    for quantity, values in ranks.items():
        assert_uniform(values, quantity)
