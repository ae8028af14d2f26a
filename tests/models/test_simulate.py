"""Simulated stores: the recipe's own counts, the limits of its arguments, and its distribution."""

import numpy as np
import pandas as pd
import pytest

from pelton.engine.errors import ArgumentError
from pelton.models.simulate import simulate_stores


def test_gives_the_reference_systems_stores(cases):
    published = pd.read_csv(cases / "store_conversions.csv")
    ours = simulate_stores(40, trials=(60, 159), seed=123)
    assert list(ours.columns) == list(published.columns)
    for column in ("store", "impressions", "conversions"):
        np.testing.assert_array_equal(ours[column], published[column])
    # The file holds six decimals.
    np.testing.assert_allclose(ours["true_rate"], published["true_rate"], atol=5.1e-7, rtol=0)


def test_the_same_seed_gives_the_same_table():
    pd.testing.assert_frame_equal(simulate_stores(50, seed=7), simulate_stores(50, seed=7))
    assert not simulate_stores(50, seed=7).equals(simulate_stores(50, seed=8))


def test_both_ends_of_the_trials_occur():
    stores = simulate_stores(2000, trials=(3, 5))
    assert set(stores["impressions"]) == {3, 4, 5}
    assert set(simulate_stores(20, trials=(4, 4))["impressions"]) == {4}
    assert (simulate_stores(20, trials=(0, 0))["conversions"].to_numpy() == 0).all()


def test_rates_and_counts_have_the_populations_moments():
    # All within 5 standard errors, at a fixed seed.
    size, a, b = 200_000, 2.5, 8.0
    stores = simulate_stores(size, a, b, seed=1)
    rate = stores["true_rate"].to_numpy()
    mean, variance = a / (a + b), a * b / ((a + b) ** 2 * (a + b + 1))
    assert abs(rate.mean() - mean) < 5 * np.sqrt(variance / size)
    squares = (rate - mean) ** 2
    assert abs(squares.mean() - variance) < 5 * squares.std() / np.sqrt(size)
    k, n = stores["conversions"].to_numpy(), stores["impressions"].to_numpy()
    assert np.all((k >= 0) & (k <= n))
    z = (k - n * rate) / np.sqrt(n * rate * (1 - rate))
    assert abs(z.mean()) < 5 / np.sqrt(size)
    # Its kurtosis depends on the rates; the fourth moment at hand gives the standard error of z^2.
    assert abs((z**2).mean() - 1) < 5 * (z**2).std() / np.sqrt(size)


def test_a_million_stores_are_quick():
    assert len(simulate_stores(1_000_000)) == 1_000_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stores": 0}, "stores is a whole number of at least 1, not 0"),
        ({"stores": True}, "stores is a whole number of at least 1, not True"),
        ({"alpha": 0.0}, "alpha is a positive finite number, not 0.0"),
        ({"alpha": float("nan")}, "alpha is a positive finite number, not nan"),
        ({"beta": float("inf")}, "beta is a positive finite number, not inf"),
        (
            {"trials": (-1, 5)},
            "each end of trials is a whole number of at least 0 and at most 2147483647, not -1",
        ),
        ({"trials": (1, 2**31)}, "at most 2147483647, not 2147483648"),
        ({"trials": (160, 60)}, "trials runs from its fewest to its most, not from 160 to 60"),
        ({"trials": (60,)}, "trials is a pair"),
        ({"trials": (60, 100, 160)}, "trials is a pair"),
        ({"seed": -1}, "seed is a whole number of at least 0, not -1"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ArgumentError) as error:
        simulate_stores(**arguments)
    assert message in str(error.value)
