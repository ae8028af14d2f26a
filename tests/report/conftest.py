"""A fit that all tests of the report share, made once."""

import numpy as np
import pytest

import pelton
from pelton.examples import load


@pytest.fixture(scope="session")
def fitted():
    """Categories, and the tree of a short fit."""
    frame = load("categories")
    model = pelton.PartialPooling.from_frame(frame, successes="clicks", trials="impressions", unit="category")
    return pelton.sample(model, chains=2, warmup=500, draws=1000, groups=["prior_predictive"], progress=False)


@pytest.fixture
def simulated():
    """Makes trees of any number of units with known rates; nothing is sampled but the rates."""

    def make(units, prior=None, names=None, seed=0):
        rng = np.random.default_rng(seed)
        trials = rng.integers(20, 3000, units)
        rates = rng.beta(4, 60, units)
        names = names or [f"shop {i}" for i in range(units)]
        model = pelton.PartialPooling(
            rng.binomial(trials, rates), trials, unit=names, prior=prior or pelton.FixedBeta(4, 60)
        )
        return pelton.sample(model, chains=2, warmup=100, draws=100, progress=False)

    return make
