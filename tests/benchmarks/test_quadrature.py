"""Quadrature in NumPy and SciPy against the exact references, and against itself on another grid."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pelton.benchmarks.quadrature import NAMES, posterior_moments
from pelton.engine.errors import ArgumentError
from pelton.models.simulate import simulate_stores


def test_agrees_with_the_references(cases):
    reference = json.loads((cases / "references.json").read_text())["store_conversions"]
    assert reference["prior"] == "gamma(0.5,0.5) on alpha and beta"
    data = pd.read_csv(cases / "store_conversions.csv")
    found = posterior_moments(data["conversions"].to_numpy(), data["impressions"].to_numpy())
    # Both are quadrature in float64; the references name their mass at the edge, 5e-13, as what they miss.
    for name in ("logit_mu", "log_kappa"):
        assert found.mean[name] == pytest.approx(reference[name]["mean"], abs=1e-9)
        assert found.sd[name] == pytest.approx(reference[name]["sd"], abs=1e-9)


# With few stores the posterior falls slowly towards log 0, where an equal spacing is coarse.
@pytest.mark.parametrize(("stores", "digits"), [(5, 1e-6), (40, 1e-9), (300, 1e-9)])
def test_a_finer_grid_changes_nothing(stores, digits):
    data = simulate_stores(stores, seed=3)
    counts = data["conversions"].to_numpy(), data["impressions"].to_numpy()
    coarse, fine = posterior_moments(*counts), posterior_moments(*counts, points=141)
    for name in NAMES:
        assert coarse.mean[name] == pytest.approx(fine.mean[name], rel=digits)
        assert coarse.sd[name] == pytest.approx(fine.sd[name], rel=digits)


def test_many_stores_with_few_distinct_counts():
    # Four times as many of the same stores: the posterior is half as wide about the same place.
    data = simulate_stores(40, trials=(60, 159), seed=123)
    counts = np.stack([data["conversions"].to_numpy(), data["impressions"].to_numpy()])
    some, many = (posterior_moments(*np.tile(counts, copies)) for copies in (1000, 4000))
    for name in NAMES:
        # The prior's share and the skewness fall as one over the number of stores.
        assert some.sd[name] / many.sd[name] == pytest.approx(2, rel=1e-3)
        assert abs(some.mean[name] - many.mean[name]) < some.sd[name] / 10


def test_without_trials_the_posterior_is_the_prior():
    found = posterior_moments(np.array([0]), np.array([0]))
    # Gamma(1/2, 1/2) falls slowly towards log 0, where the grid is coarse.
    prior = stats.gamma(0.5, scale=2.0)
    assert found.mean["alpha"] == pytest.approx(prior.mean(), abs=1e-3)
    assert found.sd["beta"] == pytest.approx(prior.std(), rel=0.05)


def test_bad_counts_are_refused():
    with pytest.raises(ArgumentError, match="between 0 and trials"):
        posterior_moments(np.array([3]), np.array([2]))
    with pytest.raises(ArgumentError, match="not 0 and 0"):
        posterior_moments(np.array([], int), np.array([], int))
