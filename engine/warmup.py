"""What NUTS learns while it warms up: the step size by dual averaging, the metric from draws and scores by windows."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

# The first window's draws, how much later each window ends than the last, and the share of the warm-up after which the
# metric is left alone.
FIRST_WINDOW, GROWTH = 5, 1.5
METRIC_SHARE = 0.85
# While metric and step size are unknown a step is now and then far too small, and one full tree would cost more than
# all others: until the warm-up ends trees are at most so many doublings deeper than this share of the last window's.
# Before the first window they are of this depth.
DEEPER, USUAL, EARLY_DEPTH = 1, 0.9, 7
# A window of at least so many draws is worth finding the step size afresh.
LONG_WINDOW = 20
# Weight of the prior that coordinates are uncorrelated, in draws: so many, and so many a dimension.
SHRINK = (5.0, 0.125)
# Directions of a metric of low rank, and how much wider or narrower than its scale says a direction has to be.
RANK, LEAST_STRETCH = 40, 1.5
# Where no more than so many are used, the others cost nothing.
FEW = 8
# Past so many dimensions directions are looked for among the leading ones of draws and of scores, so many of each,
# found from so many draws.
MOST_WHOLE, LEADING, MOST_ROWS = 400, 100, 1000
# Dual averaging: weight of the errors, forgetting of the first ones, and how fast the average follows.
GAMMA, DELAY, DECAY = 0.05, 10.0, 0.75
FIRST_STEP = 0.1


def windows(steps: int) -> tuple[int, ...]:
    """Warm-up draws after which all chains learn from one another, each half as many again as the last.

    The last but one is the last at which the metric changes; from there to the end the step size is found.

    >>> windows(400)
    (5, 8, 12, 18, 27, 41, 62, 93, 140, 210, 340, 400)
    >>> windows(3), windows(0)
    ((2, 3), ())
    """
    final, ends, end = int(METRIC_SHARE * steps), [], FIRST_WINDOW
    while end * GROWTH < final:
        ends.append(end)
        end = int(np.ceil(end * GROWTH))
    return tuple(sorted({*ends, final, steps} - {0}))


class Metric(NamedTuple):
    """The inverse mass matrix M^-1 = L L', as scales and the directions in which they are wrong.

        L = S (1 + U (K^(1/2) - 1) U'),  S = diag(scale),  K = diag(stretch)

    Momenta are kept as z = L' p, which are standard normal: kinetic energy and U-turns then need no matrix. The metric
    is diagonal where U has no columns, and dense where it has as many as rows.

    Attributes:
        scale: of each coordinate [d].
        basis: U, orthonormal directions of the scaled coordinates [d, k].
        stretch: by how much the variance along each direction exceeds the scale's [k].
    """

    scale: Float[Array | np.ndarray, " d"]
    basis: Float[Array | np.ndarray, "d k"]
    stretch: Float[Array | np.ndarray, " k"]

    def _stretched(self, vector: Any, power: float) -> Any:
        def along(directions: int) -> Any:
            basis = self.basis[:, :directions]
            return vector + basis @ ((self.stretch[:directions] ** power - 1) * (vector @ basis))

        dimension, rank = self.basis.shape
        if rank == 0:
            return vector
        if rank <= FEW or rank == dimension:
            return along(rank)
        # The strongest come first, and often they are few.
        return jax.lax.cond(jnp.all(self.stretch[FEW:] == 1), lambda: along(FEW), lambda: along(rank))

    def velocity(self, momentum: Float[Array, " d"]) -> Float[Array, " d"]:
        """L z, by which a position moves."""
        return self.scale * self._stretched(momentum, 0.5)

    def force(self, score: Float[Array, " d"]) -> Float[Array, " d"]:
        """L' g, by which z moves."""
        return self._stretched(self.scale * score, 0.5)

    def score(self, force: Float[Array, " d"]) -> Float[Array, " d"]:
        """g of a force."""
        return self._stretched(force, -0.5) / self.scale


class DualAverage(NamedTuple):
    """Nesterov's dual averaging of the logarithm of the step size.

    Source: Hoffman & Gelman 2014, section 3.2.
    """

    log_step: Float[Array, ""]
    log_average: Float[Array, ""]
    error: Float[Array, ""]
    iterations: Float[Array, ""]
    centre: Float[Array, ""]

    @classmethod
    def at(cls, log_step: Any, boldness: float = np.log(10.0)) -> "DualAverage":
        """Begun, or begun again, at a step size; as long as it knows nothing it tries one larger by exp(boldness)."""
        zero = log_step * 0
        return cls(log_step, log_step, zero, zero, log_step + boldness)

    def updated(self, missing: Array) -> "DualAverage":
        """With one more iteration whose acceptance was `missing` below its target."""
        count = self.iterations + 1
        error = self.error + (missing - self.error) / (count + DELAY)
        log_step = self.centre - jnp.sqrt(count) / GAMMA * error
        share = count**-DECAY
        return DualAverage(
            log_step, self.log_average + share * (log_step - self.log_average), error, count, self.centre
        )


class Learnt(NamedTuple):
    """What all chains of a posterior share: the metric, and how deep their trees may be."""

    metric: Metric
    most_depth: Int[Array | np.ndarray, ""]


def first_metric(scores: Float[np.ndarray, "chain ... d"], rank: int) -> Metric:
    """The metric of chains that have only their first scores g: variances 1 / |g|, as far as that says anything."""
    size = np.abs(np.asarray(scores, np.float64))
    size = np.where(np.isfinite(size) & (size > 0), size, 1.0)
    scale = np.exp(np.mean(np.log(size), axis=0)) ** -0.5
    return _without_directions(np.clip(scale, 1e-8, 1e8), rank)


def _without_directions(scale: np.ndarray, rank: int) -> Metric:
    return Metric(scale, np.zeros((*scale.shape, rank)), np.ones((*scale.shape[:-1], rank)))


def estimate(
    draws: Float[np.ndarray, "... n d"], scores: Float[np.ndarray, "... n d"], old: Metric, *, rank: int
) -> Metric:
    """The metric in which draws and scores come nearest to standard normals, by their Fisher divergence.

        scale^2 = sd(x) / sd(g)
        K, U    = eigenvalues and vectors of cov(x / scale) # cov(g scale)^-1

    where A # B = A^(1/2) (A^(-1/2) B A^(-1/2))^(1/2) A^(1/2). Of the directions the `rank` whose stretch is furthest
    from 1 are kept, and where they are not all of them no stretch between 2/3 and 3/2. Covariances are shrunk towards
    their diagonals, as if by 5 + d / 8 further draws of independent coordinates.

    Args:
        draws, scores: positions and gradients of the log density there.
        old: the metric that serves where draws say nothing.
        rank: directions; 0 for a diagonal metric, d for a dense one.

    Source: Seyboldt et al., Preconditioning Hamiltonian Monte Carlo by minimizing Fisher divergence.
    """
    count, dimension = draws.shape[-2:]
    x, g = (_centred(np.asarray(values, np.float64)) for values in (draws, scores))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (np.mean(x**2, axis=-2) / np.mean(g**2, axis=-2)) ** 0.25
    scale = np.where((count > 2) & np.isfinite(ratio) & (ratio > 0), ratio, old.scale)
    if rank == 0 or count <= 2:
        return _without_directions(scale, rank)
    x, g = x / scale[..., None, :], g * scale[..., None, :]
    # In these coordinates draws and scores vary alike.
    variances = np.mean(x**2, axis=-2)
    variances = np.where(variances > 0, variances, 1.0)[..., None]
    if dimension > MOST_WHOLE:
        within = np.linalg.qr(np.concatenate([_leading(x), _leading(g)], axis=-1))[0]
        x, g, prior = x @ within, g @ within, np.swapaxes(within, -1, -2) @ (variances * within)
    else:
        within, prior = None, variances * np.eye(dimension)
    weight = SHRINK[0] + SHRINK[1] * dimension
    one, other = ((np.swapaxes(y, -1, -2) @ y + weight * prior) / (count + weight) for y in (x, g))
    stretch, basis = np.linalg.eigh(_geometric_mean(one, np.linalg.inv(other)))
    stretch = np.maximum(stretch, np.finfo(float).eps)
    kept = np.argsort(-np.abs(np.log(stretch)), axis=-1, kind="stable")[..., :rank]
    stretch = np.take_along_axis(stretch, kept, axis=-1)
    basis = np.take_along_axis(basis, kept[..., None, :], axis=-1)
    if within is not None:
        basis = within @ basis
    if rank < dimension:
        stretch = np.where(np.abs(np.log(stretch)) > np.log(LEAST_STRETCH), stretch, 1.0)
    return Metric(scale, basis, stretch)


def _centred(values: np.ndarray) -> np.ndarray:
    """Less their means; what is not finite says nothing."""
    fine = np.isfinite(values)
    values = np.where(fine, values, 0.0)
    mean = np.sum(values, axis=-2, keepdims=True) / np.maximum(np.sum(fine, axis=-2, keepdims=True), 1)
    return np.where(fine, values - mean, 0.0)


def _leading(rows: np.ndarray) -> np.ndarray:
    """Directions [d, LEADING] along which rows vary most."""
    rows = rows[..., :: -(-rows.shape[-2] // MOST_ROWS), :]
    # Of the two products the smaller one.
    if rows.shape[-1] <= rows.shape[-2]:
        return np.linalg.eigh(np.swapaxes(rows, -1, -2) @ rows)[1][..., -LEADING:]
    _, vectors = np.linalg.eigh(rows @ np.swapaxes(rows, -1, -2))
    return np.swapaxes(rows, -1, -2) @ vectors[..., -LEADING:]


def _eigen(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, vectors = np.linalg.eigh(matrix)
    return np.maximum(values, np.finfo(float).eps * values[..., -1:]), vectors


def _power(values: np.ndarray, vectors: np.ndarray, exponent: float) -> np.ndarray:
    return (vectors * values[..., None, :] ** exponent) @ np.swapaxes(vectors, -1, -2)


def _geometric_mean(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """A # B of two positive matrices."""
    eigen = _eigen(one)
    root, inverse = _power(*eigen, 0.5), _power(*eigen, -0.5)
    mean = root @ _power(*_eigen(inverse @ other @ inverse), 0.5) @ root
    return (mean + np.swapaxes(mean, -1, -2)) / 2
