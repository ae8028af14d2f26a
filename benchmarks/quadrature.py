"""Exact posterior moments of the stores model, by quadrature with NumPy and SciPy alone."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import minimize
from scipy.special import betaln, expit, logit

from pelton.engine.errors import ArgumentError, ModelError

NAMES = ("alpha", "beta", "logit_mu", "log_kappa")
# The trapezoid rule on an analytic density that vanishes at the ends converges exponentially in the number of
# points: for a normal, spacing h (in standard deviations) leaves an error of 2 exp(-2 pi^2 / h^2), 1e-34 at
# 0.5.
POINTS = 81
SEARCH_POINTS = 33
# Nats below the peak at which a side of the box ends, and the share of the mass allowed in the outermost
# ring.
DROP = 45.0
EDGE_MASS = 1e-9
# Distinct (k, n) pairs x points evaluated together.
BLOCK = 2**22


@dataclass(frozen=True)
class Moments:
    """Means and standard deviations of alpha, beta, logit mu and log kappa, by name.

    Attributes:
        mean, sd: by the names of `NAMES`.
        edge_mass: share of the mass in the grid's outermost ring.
    """

    mean: dict[str, float]
    sd: dict[str, float]
    edge_mass: float


class _Density:
    """The log posterior density of (logit mu, log kappa) at points [point, 2]."""

    def __init__(self, successes: np.ndarray, trials: np.ndarray, shape: float, rate: float):
        pairs, times = np.unique(np.stack([successes, trials], axis=1), axis=0, return_counts=True)
        self.k, self.m = pairs[:, 0].astype(float), (pairs[:, 1] - pairs[:, 0]).astype(float)
        self.times = times.astype(float)
        self.shape, self.rate = shape, rate
        self.level = 0.0

    def __call__(self, points: Float[np.ndarray, "point 2"]) -> Float[np.ndarray, " point"]:
        alpha, beta = shapes(points[:, 0], points[:, 1])
        value = np.empty(len(points))
        step = max(1, BLOCK // len(self.k))
        for start in range(0, len(points), step):
            at = slice(start, start + step)
            a, b = alpha[at, None], beta[at, None]
            value[at] = (betaln(a + self.k, b + self.m) - betaln(a, b)) @ self.times
        # Gamma(shape, rate) densities of alpha and beta; d(alpha, beta) = alpha beta d(logit mu, log kappa).
        value += self.shape * (np.log(alpha) + np.log(beta)) - self.rate * (alpha + beta)
        return value - self.level


def shapes(logit_mu: np.ndarray, log_kappa: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """alpha = mu kappa and beta = (1 - mu) kappa.

    >>> alpha, beta = shapes(np.array([0.0]), np.array([np.log(8.0)]))
    >>> [round(float(value[0]), 12) for value in (alpha, beta)]
    [4.0, 4.0]
    """
    kappa = np.exp(log_kappa)
    return expit(logit_mu) * kappa, expit(-logit_mu) * kappa


def _mode(density: _Density, successes: np.ndarray, trials: np.ndarray) -> np.ndarray:
    start = np.array([logit((successes.sum() + 1) / (trials.sum() + 2)), 2.0])
    density.level = float(density(start[None])[0])

    def negative(point: np.ndarray) -> float:
        return -float(density(point[None])[0])

    for _ in range(2):
        # The second search starts afresh where the first one's simplex shrank.
        start = minimize(negative, start, method="Nelder-Mead", options={"xatol": 1e-6}).x
    density.level += float(density(start[None])[0])
    return start


def _axes(density: _Density, mode: np.ndarray) -> np.ndarray:
    """Columns in which the posterior is about round, by its curvature over steps of about half a nat."""
    steps, falls = np.ones(2), np.ones(2)
    for axis in range(2):
        for _ in range(80):
            ends = mode + np.outer([1.0, -1.0], np.eye(2)[axis] * steps[axis])
            falls[axis] = -float(density(ends).mean())
            if 0.25 <= falls[axis] <= 1.0:
                break
            steps[axis] *= 1.5 if falls[axis] < 0.25 else 0.5
    signs = np.array([[1, 1], [-1, -1], [1, -1], [-1, 1]])
    corners = density(mode + signs * steps)
    cross = -float(corners[0] + corners[1] - corners[2] - corners[3]) / 4
    precision = np.array([[2 * falls[0], cross], [cross, 2 * falls[1]]])
    values, vectors = np.linalg.eigh(precision)
    return steps[:, None] * (vectors / np.sqrt(np.maximum(values, 1e-3)))


def _grid(limits: np.ndarray, points: int) -> tuple[np.ndarray, np.ndarray]:
    """Points [point, 2] of a box, and which of them lie in its outermost ring."""
    columns = np.meshgrid(*(np.linspace(low, high, points) for low, high in limits), indexing="ij")
    ring = np.ones((points, points), bool)
    ring[1:-1, 1:-1] = False
    return np.stack([column.ravel() for column in columns], axis=1), ring.ravel()


def _box(density: _Density, mode: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Limits [axis, 2] beyond which the log density lies `DROP` and more below its peak."""
    limits = np.array([[-8.0, 8.0], [-8.0, 8.0]])
    for _ in range(40):
        grid, _ = _grid(limits, SEARCH_POINTS)
        inside = (density(mode + grid @ basis.T) > -DROP).reshape(SEARCH_POINTS, SEARCH_POINTS)
        width = limits[:, 1] - limits[:, 0]
        touched = np.array([[inside[0].any(), inside[-1].any()], [inside[:, 0].any(), inside[:, -1].any()]])
        if not touched.any():
            break
        limits = limits + np.stack([-width, width], axis=1) / 4 * touched
    return limits


def posterior_moments(
    successes: Int[np.ndarray, " unit"],
    trials: Int[np.ndarray, " unit"],
    *,
    shape: float = 0.5,
    rate: float = 0.5,
    points: int = POINTS,
) -> Moments:
    """Posterior moments of the population under alpha, beta ~ Gamma(shape, rate).

    In x = (logit mu, log kappa), with alpha = mu kappa and beta = (1 - mu) kappa,

        log p(x | k) = sum_i log[B(alpha + k_i, beta + n_i - k_i) / B(alpha, beta)]
                       + log[p(alpha) p(beta) alpha beta],

    summed over the distinct pairs (k, n) in float64, by the trapezoid rule on a grid in the axes of the
    curvature at the mode, out to 45 nats below the peak. Ten digits with dozens of units, seven with five,
    three without data.

    Args:
        successes, trials: counts [unit].
        shape, rate: of both Gamma priors.
        points: of the grid, an axis.

    Raises:
        ArgumentError: no unit, or counts out of range.
        ModelError: more than 1e-9 of the mass lies in the grid's outermost ring, as with a posterior that has
            no end (equal rates everywhere and a nearly flat prior).

    Source: Trefethen & Weideman 2014 for the rule's accuracy.

    >>> moments = posterior_moments(np.array([9, 22, 31]), np.array([138, 72, 157]))
    >>> sorted(moments.mean) == sorted(NAMES)
    True
    """
    successes, trials = np.asarray(successes), np.asarray(trials)
    if len(successes) == 0 or successes.shape != trials.shape:
        raise ArgumentError(f"give the counts of the same units, not {len(successes)} and {len(trials)}")
    if np.any(successes < 0) or np.any(successes > trials):
        raise ArgumentError("successes lie between 0 and trials, in every unit")
    density = _Density(successes, trials, shape, rate)
    mode = _mode(density, successes, trials)
    basis = _axes(density, mode)
    grid, ring = _grid(_box(density, mode, basis), points)
    positions = mode + grid @ basis.T
    values = density(positions)
    weights = np.exp(values - values.max())
    weights /= weights.sum()
    edge = float(weights[ring].sum())
    if edge > EDGE_MASS:
        raise ModelError(f"{edge:.1e} of the posterior's mass lies at the grid's edge (at most {EDGE_MASS:.0e})")
    columns = dict(zip(NAMES, (*shapes(*positions.T), *positions.T), strict=True))
    mean = {name: float(weights @ column) for name, column in columns.items()}
    sd = {name: float(np.sqrt(weights @ (column - mean[name]) ** 2)) for name, column in columns.items()}
    return Moments(mean, sd, edge)
