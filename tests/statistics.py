"""Comparisons in Monte Carlo standard errors, with an effective sample size demanded first."""

import numpy as np
from arviz_stats.base import array_stats

LIMIT = 5.0


def z_scores(
    draws: np.ndarray,
    truth: float | np.ndarray,
    quantity: str,
    prob: float | None = None,
    truth_error: float | np.ndarray = 0.0,
) -> np.ndarray:
    """(estimate - truth) / combined standard error, for draws [..., chain, draw] and quantity mean, sd or quantile."""
    draws = np.asarray(draws, dtype=np.float64)
    if quantity == "mean":
        estimate = draws.mean(axis=(-2, -1))
        error = array_stats.mcse(draws, method="mean")
    elif quantity == "sd":
        estimate = draws.std(axis=(-2, -1), ddof=1)
        error = array_stats.mcse(draws, method="sd")
    else:
        estimate = np.quantile(draws.reshape(*draws.shape[:-2], -1), prob, axis=-1)
        error = array_stats.mcse(draws, method="quantile", prob=prob)
    return np.asarray((estimate - truth) / np.sqrt(error**2 + np.asarray(truth_error) ** 2))


def assert_agrees(
    draws: np.ndarray, *, mean=None, sd=None, quantiles: dict | None = None, truth_error=0.0, least_ess: float = 1000
) -> None:
    """Demands the effective sample size, then agreement within five standard errors."""
    draws = np.asarray(draws, dtype=np.float64)
    ess = np.min(array_stats.ess(draws, method="bulk"))
    assert ess >= least_ess, f"effective sample size {ess:.0f}, at least {least_ess} needed"
    checks = [("mean", None, mean), ("sd", None, sd), *(("quantile", p, v) for p, v in (quantiles or {}).items())]
    for quantity, prob, truth in checks:
        if truth is not None:
            z = z_scores(draws, truth, quantity, prob, truth_error)
            worst = np.max(np.abs(z))
            assert worst < LIMIT, f"{quantity} {prob or ''}: {worst:.2f} standard errors off"
