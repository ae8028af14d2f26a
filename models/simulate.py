"""Simulated data with known truth: stores whose conversion rates come from one population."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from pelton.engine.errors import ArgumentError
from pelton.models.counts import LARGEST


def _whole(name: str, value: Any, least: int, most: int | None = None) -> int:
    fits = isinstance(value, int | np.integer) and not isinstance(value, bool | np.bool_) and value >= least
    if not fits or (most is not None and value > most):
        limits = f"of at least {least}" + ("" if most is None else f" and at most {most}")
        raise ArgumentError(f"{name} is a whole number {limits}, not {value!r}")
    return int(value)


def _positive(name: str, value: Any) -> float:
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not number or not np.isfinite(value) or value <= 0:
        raise ArgumentError(f"{name} is a positive finite number, not {value!r}")
    return float(value)


def simulate_stores(
    stores: int = 40,
    alpha: int | float = 2.5,
    beta: int | float = 8.0,
    trials: Sequence[int] = (60, 160),
    seed: int = 0,
) -> pd.DataFrame:
    """Impressions and conversions of stores with rates from Beta(alpha, beta).

        theta_i ~ Beta(alpha, beta),  n_i ~ Uniform{low, ..., high},  k_i ~ Binomial(n_i, theta_i)

    drawn in that order, each for all stores at once.

    Args:
        stores: how many.
        alpha, beta: the population's shapes; its mean is alpha / (alpha + beta).
        trials: fewest and most impressions of a store, both included.
        seed: of NumPy's default generator; the same seed gives the same table.

    Returns:
        One row a store: store (0, 1, ...), impressions n, conversions k, true_rate theta.

    Raises:
        ArgumentError: fewer than one store, a shape that is not positive and finite, trials that are no range
            of whole numbers from 0 on, a negative seed.

    Source: the recipe of the stores reference system; `trials=(60, 159), seed=123` gives its 40 stores.

    >>> simulate_stores(3, trials=(60, 159), seed=123).round(3)
       store  impressions  conversions  true_rate
    0      0           84            8      0.079
    1      1          142           52      0.388
    2      2          139           25      0.179
    >>> simulate_stores(trials=(160, 60))
    Traceback (most recent call last):
        ...
    pelton.engine.errors.ArgumentError: trials runs from its fewest to its most, not from 160 to 60
    """
    stores = _whole("stores", stores, 1)
    alpha, beta = _positive("alpha", alpha), _positive("beta", beta)
    if isinstance(trials, str) or not hasattr(trials, "__len__") or len(trials) != 2:
        raise ArgumentError(f"trials is a pair, the fewest and the most of a store, not {trials!r}")
    low, high = (_whole("each end of trials", value, 0, LARGEST) for value in trials)
    if low > high:
        raise ArgumentError(f"trials runs from its fewest to its most, not from {low} to {high}")
    rng = np.random.default_rng(_whole("seed", seed, 0))
    rate = rng.beta(alpha, beta, stores)
    impressions = rng.integers(low, high, stores, endpoint=True)
    conversions = rng.binomial(impressions, rate)
    return pd.DataFrame(
        {
            "store": np.arange(stores),
            "impressions": impressions,
            "conversions": conversions,
            "true_rate": rate,
        }
    )
