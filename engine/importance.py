"""Pareto-smoothed importance sampling: how far draws of an approximation are from the posterior, and their weights."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

# Vehtari et al. 2024: above it the weights' tail is so heavy that no practical number of draws helps.
MAX_KHAT = 0.7
# Differences of log ratios below it are rounding, in float32 too, and move no estimate.
LEAST_SPREAD = 0.01


class Importance(NamedTuple):
    """What the ratios p / q of draws of q say.

    Attributes:
        log_weights: smoothed and normalised, of each draw.
        khat: shape of the generalised Pareto distribution of the largest ratios; inf where none could be fitted.
        effective: draws of the posterior that the weighted ones are worth, 1 / sum w^2.
    """

    log_weights: Float[np.ndarray, " draw"]
    khat: float
    effective: float


def importance(log_p: Float[np.ndarray, " draw"], log_q: Float[np.ndarray, " draw"]) -> Importance:
    """Smoothed weights of draws of q (Vehtari et al. 2024), by ArviZ.

    Args:
        log_p: log density of the target up to a constant; -inf or NaN weighs nothing.
        log_q: that of the approximation.

    Weights that differ by less than a hundredth, as where q is exact but for rounding, have no tail: their k-hat is 0.

    >>> import scipy.stats
    >>> draws = np.random.default_rng(1).standard_t(3, 4000)
    >>> wide = importance(scipy.stats.norm.logpdf(draws), scipy.stats.t.logpdf(draws, 3))
    >>> wide.khat < 0.3
    True
    """
    from arviz_stats.base import array_stats  # pyright: ignore[reportPrivateImportUsage]

    log_p, log_q = np.asarray(log_p, np.float64), np.asarray(log_q, np.float64)
    ratios = np.where(np.isfinite(log_p), log_p, -np.inf) - log_q
    even = np.full(len(ratios), -np.log(len(ratios)))
    if not np.any(np.isfinite(ratios)):
        return Importance(even, np.inf, 0.0)
    if np.ptp(ratios) <= LEAST_SPREAD:
        return Importance(even, 0.0, float(len(ratios)))
    # Draws outside the support weigh nothing, and would spoil the fit of the tail where they are many.
    least = np.min(ratios[np.isfinite(ratios)])
    finite = np.where(np.isfinite(ratios), ratios, least - 1e3)
    try:
        with np.errstate(all="ignore"):
            log_weights, khat = array_stats.psislw(-finite)
    except ValueError:
        # ArviZ refuses a tail of equal values: a few values, each met often.
        log_weights, khat = finite - np.logaddexp.reduce(finite), 0.0
    log_weights = np.where(np.isfinite(ratios), log_weights, -np.inf)
    log_weights = log_weights - np.logaddexp.reduce(log_weights)
    khat = float(khat) if np.isfinite(khat) else np.inf
    return Importance(log_weights, khat, float(np.exp(-np.logaddexp.reduce(2 * log_weights))))


def resampled(
    log_weights: Float[np.ndarray, " draw"], size: int, source: np.random.Generator
) -> Int[np.ndarray, " size"]:
    """Indices of so many draws in proportion to their weights, by systematic resampling, in random order.

    Each draw is taken its expected number of times, rounded up or down (Kitagawa 1996).

    >>> sorted(resampled(np.log([0.5, 0.25, 0.25]), 4, np.random.default_rng(0)).tolist())
    [0, 0, 1, 2]
    """
    total = np.cumsum(np.exp(log_weights))
    points = (np.arange(size) + source.random()) / size * total[-1]
    # Rounding may carry the last point past the last weight.
    indices = np.minimum(np.searchsorted(total, points, side="right"), len(log_weights) - 1)
    return source.permutation(indices)
