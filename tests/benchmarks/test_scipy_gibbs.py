"""The SciPy reference: its published form fails against the exact answer, its corrected form passes."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from pelton.benchmarks.quadrature import posterior_moments
from pelton.benchmarks.rivals.scipy_gibbs.run import sample
from pelton.benchmarks.verdicts import errors, smallest_ess
from pelton.models.simulate import simulate_stores

ENOUGH = 1000
LARGEST_Z = 5.0


@pytest.fixture(scope="module")
def stores(cases):
    """Counts of the 40 stores, and their exact posterior."""
    data = pd.read_csv(cases / "store_conversions.csv")
    reference = json.loads((cases / "references.json").read_text())["store_conversions"]
    return data["conversions"].to_numpy(), data["impressions"].to_numpy(), reference


@pytest.fixture(scope="module")
def corrected(stores):
    return sample(*stores[:2], jacobian=True, sweeps=15_000, seed=1)


@pytest.fixture(scope="module")
def published(stores):
    return sample(*stores[:2], jacobian=False, sweeps=15_000, seed=1)


def distances(drawn, reference):
    """Of mean and sd of logit mu and log kappa from the reference, in standard errors; and the least ESS."""
    values = {
        "logit_mu": np.log(drawn.alpha / drawn.beta),
        "log_kappa": np.log(drawn.alpha + drawn.beta),
    }
    z = {name: errors(draws, reference[name]["mean"]) for name, draws in values.items()}
    # The second moment about the true mean is a mean too, and judges the standard deviation.
    z |= {
        f"{name}_sd": errors((draws - reference[name]["mean"]) ** 2, reference[name]["sd"] ** 2)
        for name, draws in values.items()
    }
    return z, smallest_ess(drawn.alpha, drawn.beta, *values.values())


def test_corrected_passes(stores, corrected):
    successes, trials, reference = stores
    z, ess = distances(corrected, reference)
    assert ess >= ENOUGH
    assert max(map(abs, z.values())) < LARGEST_Z, z
    truth = posterior_moments(successes, trials)
    assert abs(errors(corrected.alpha, truth.mean["alpha"])) < LARGEST_Z
    assert abs(errors(corrected.beta, truth.mean["beta"])) < LARGEST_Z
    # A rate's sd is below 0.05, and its effective sample size above that of the shapes.
    assert np.abs(corrected.rates - reference["theta_mean"]).max() < LARGEST_Z * 0.05 / np.sqrt(ess)


def test_published_fails(stores, published):
    successes, trials, reference = stores
    z, ess = distances(published, reference)
    assert ess >= ENOUGH
    assert abs(z["log_kappa"]) > LARGEST_Z, z
    truth = posterior_moments(successes, trials)
    assert errors(published.alpha, truth.mean["alpha"]) < -LARGEST_Z
    # About a tenth too low.
    assert 0.85 < published.alpha.mean() / truth.mean["alpha"] < 0.95


def test_published_samples_the_density_over_alpha_beta(corrected, published):
    # p(alpha, beta | k) / (alpha beta): the corrected draws, weighted, have the published form's mean.
    weights = 1 / (corrected.alpha * corrected.beta)
    weighted = np.average(corrected.alpha, weights=weights)
    # Delta method: the influence of a draw on the weighted mean.
    influence = weights / weights.mean() * (corrected.alpha - weighted)
    noise = influence.std() / np.sqrt(smallest_ess(influence))
    own = published.alpha.std() / np.sqrt(smallest_ess(published.alpha))
    assert abs(weighted - published.alpha.mean()) < LARGEST_Z * np.hypot(noise, own)


def test_several_moves_a_sweep_sample_the_same(stores):
    successes, trials, reference = stores
    drawn = sample(successes, trials, jacobian=True, sweeps=2000, moves=10, seed=4)
    z, ess = distances(drawn, reference)
    assert ess >= ENOUGH
    assert max(map(abs, z.values())) < LARGEST_Z, z


def test_a_tuned_step_suits_many_stores():
    data = simulate_stores(5000, seed=5)
    counts = data["conversions"].to_numpy(), data["impressions"].to_numpy()
    drawn = sample(*counts, jacobian=True, chains=2, sweeps=600, burn_in=50, moves=10, step=None, seed=5)
    assert 0.2 < drawn.acceptance < 0.42
    assert 0.3 < drawn.step * np.sqrt(len(data)) < 4
    truth = posterior_moments(*counts)
    # Some hundred effective draws: few, and so judged by the posterior's own spread.
    for name in ("alpha", "beta"):
        draws = getattr(drawn, name)
        assert abs(draws.mean() - truth.mean[name]) < 5 * truth.sd[name] / np.sqrt(smallest_ess(draws))


def test_the_same_seed_gives_the_same_draws():
    counts = np.array([9, 22, 31]), np.array([138, 72, 157])
    first, again, other = (sample(*counts, jacobian=True, chains=2, sweeps=50, seed=s) for s in (0, 0, 1))
    np.testing.assert_array_equal(first.alpha, again.alpha)
    assert not np.array_equal(first.alpha, other.alpha)
    assert not np.array_equal(first.alpha[0], first.alpha[1])


def test_counts_at_the_edge_stay_finite():
    # Units without trials, without successes and without failures, and rates that round to 0 and 1.
    drawn = sample(np.array([0, 0, 5, 0]), np.array([0, 7, 5, 0]), jacobian=True, chains=1, sweeps=2000, step=1.0)
    assert np.isfinite(drawn.alpha).all()
    assert np.isfinite(drawn.beta).all()
    assert ((drawn.rates > 0) & (drawn.rates < 1)).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"chains": 0}, "chains is at least 1, not 0"),
        ({"sweeps": 0}, "sweeps is at least 1, not 0"),
        ({"burn_in": -1}, "burn_in is at least 0, not -1"),
        ({"moves": 0}, "moves is at least 1, not 0"),
        ({"step": 0.0}, "step is positive, or None to tune it, not 0.0"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        sample(np.array([1]), np.array([2]), jacobian=True, **settings)
