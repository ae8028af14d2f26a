"""What NUTS learns while it warms up: the step size by dual averaging, the metric from draws and scores by windows."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

# Share of the warm-up in which windows are short and trees shallow, and share at its end that leaves the metric alone.
EARLY, FINAL = 0.3, 0.15
EARLY_WINDOW, WINDOW = 10, 80
# While the metric is unknown the step is far too small for the widest direction, and full trees would spend most of a
# warm-up's gradients on the first draws.
EARLY_DEPTH = 7
# Draws before an estimate is used at all, and weight of the prior that coordinates are uncorrelated, in draws.
LEAST_DRAWS = 3
SHRINK = 5.0
# Dual averaging: weight of the errors, forgetting of the first ones, and how fast the average follows.
GAMMA, DELAY, DECAY = 0.05, 10.0, 0.75
FIRST_STEP = 0.1


def schedule(warmup_steps: int) -> tuple[np.ndarray, int, int]:
    """Whether a window ends after each warm-up iteration [index], the first that is not early, the first of the last.

    >>> ends, early, final = schedule(400)
    >>> early, final, np.flatnonzero(ends).tolist()
    (120, 340, [9, 19, 29, 39, 49, 59, 69, 79, 89, 99, 109, 119, 199, 279])
    """
    early, final = int(EARLY * warmup_steps), int((1 - FINAL) * warmup_steps)
    ends = np.zeros(max(warmup_steps, 1), bool)
    ends[EARLY_WINDOW - 1 : early : EARLY_WINDOW] = True
    # A last window that is cut short by the end of adaptation would throw away most of what is known.
    ends[early + WINDOW - 1 : max(final - WINDOW // 2, 0) : WINDOW] = True
    return ends, early, final


class Metric(NamedTuple):
    """The inverse mass matrix, and the factor that makes momenta of standard normals.

    Attributes:
        inverse: M^-1, its diagonal [d] or all of it [d, d].
        factor: F with F F' = M, likewise.
    """

    inverse: Array
    factor: Array

    def velocity(self, momentum: Float[Array, " d"]) -> Float[Array, " d"]:
        """M^-1 p."""
        return self.inverse * momentum if self.inverse.ndim == 1 else self.inverse @ momentum

    def momentum(self, standard: Float[Array, " d"]) -> Float[Array, " d"]:
        """F z, which is Normal(0, M) for standard normal z."""
        return self.factor * standard if self.factor.ndim == 1 else self.factor @ standard


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
    def at(cls, log_step: Array) -> "DualAverage":
        """Begun, or begun again, at a step size."""
        zero = jnp.zeros_like(log_step)
        return cls(log_step, log_step, zero, zero, log_step + np.log(10.0))

    def updated(self, missing: Array) -> "DualAverage":
        """With one more iteration whose acceptance was `missing` below its target."""
        count = self.iterations + 1
        error = self.error + (missing - self.error) / (count + DELAY)
        log_step = self.centre - jnp.sqrt(count) / GAMMA * error
        share = count**-DECAY
        return DualAverage(
            log_step, self.log_average + share * (log_step - self.log_average), error, count, self.centre
        )


class Moments(NamedTuple):
    """Running means and sums of squared deviations of draws x and scores g, by Welford's recursion."""

    draws: Float[Array, ""]
    mean: Float[Array, "two d"]
    squares: Array

    @classmethod
    def empty(cls, dimension: int, dense: bool, dtype: jnp.dtype) -> "Moments":
        """Of no draws: squares are [two, d], or [two, d, d] where dense."""
        shape = (2, dimension, dimension) if dense else (2, dimension)
        return cls(jnp.zeros((), dtype), jnp.zeros((2, dimension), dtype), jnp.zeros(shape, dtype))

    def updated(self, draw: Array, score: Array) -> "Moments":
        """With one more draw."""
        count = self.draws + 1
        values = jnp.stack([draw, score])
        before = values - self.mean
        mean = self.mean + before / count
        after = values - mean
        product = before * after if self.squares.ndim == 2 else before[:, :, None] * after[:, None, :]
        return Moments(count, mean, self.squares + product)


def identity(score: Float[Array, " d"], dense: bool) -> Metric:
    """The metric of a chain that has only its first score g: scales 1 / |g|, as far as that says anything."""
    size = jnp.abs(score)
    limits = jnp.finfo(score.dtype).eps, 1 / jnp.finfo(score.dtype).eps
    inverse = 1 / jnp.clip(jnp.where(jnp.isfinite(size) & (size > 0), size, 1.0), *limits)
    factor = inverse**-0.5
    return Metric(jnp.diag(inverse), jnp.diag(factor)) if dense else Metric(inverse, factor)


def estimate(moments: Moments, old: Metric) -> Metric:
    """The metric of least Fisher divergence between a standard normal and the draws in it.

        diagonal  M^-1 = sd(x) / sd(g)
        dense     M^-1 = cov(x) # cov(g)^-1,  A # B = A^(1/2) (A^(-1/2) B A^(-1/2))^(1/2) A^(1/2)

    The covariances of few draws are shrunk to their diagonals.

    Source: Seyboldt et al., Preconditioning Hamiltonian Monte Carlo by minimizing Fisher divergence.
    """
    if moments.squares.ndim == 2:
        ratio = jnp.sqrt(moments.squares[0] / moments.squares[1])
        fine = (moments.draws >= LEAST_DRAWS) & jnp.isfinite(ratio) & (ratio > 0)
        inverse = jnp.where(fine, ratio, old.inverse)
        return Metric(inverse, inverse**-0.5)
    covariances = moments.squares / jnp.maximum(moments.draws - 1, 1.0)
    variances = jnp.diagonal(covariances, axis1=1, axis2=2)
    scale = (variances[0] / variances[1]) ** 0.25
    # In coordinates in which draws and scores are as wide as one another.
    scales = jnp.stack([1 / scale, scale])
    both = covariances * scales[:, :, None] * scales[:, None, :]
    both = both * moments.draws / (moments.draws + SHRINK)
    diagonal = jnp.diagonal(both, axis1=1, axis2=2) * SHRINK / moments.draws
    both = both + jax.vmap(jnp.diag)(diagonal)

    def power(matrix: Array, exponent: float) -> Array:
        values, vectors = jnp.linalg.eigh(matrix)
        values = jnp.maximum(values, jnp.finfo(matrix.dtype).eps * values[-1])
        return (vectors * values**exponent) @ vectors.T

    root, inverse_root = power(both[0], 0.5), power(both[0], -0.5)
    mean = root @ power(inverse_root @ power(both[1], -1.0) @ inverse_root, 0.5) @ root
    inverse = scale[:, None] * (mean + mean.T) / 2 * scale
    lower = jnp.linalg.cholesky(inverse)
    # M = (L L')^-1 = F F' for F = L'^-1.
    factor = jax.scipy.linalg.solve_triangular(lower.T, jnp.eye(len(scale), dtype=scale.dtype), lower=False)
    fine = (moments.draws >= LEAST_DRAWS) & jnp.all(jnp.isfinite(factor))
    return Metric(jnp.where(fine, inverse, old.inverse), jnp.where(fine, factor, old.factor))


class Adaptation(NamedTuple):
    """What a chain has learnt: two sets of moments, of which the younger takes over at the end of a window."""

    averaging: DualAverage
    used: Moments
    younger: Moments

    @classmethod
    def begin(cls, dimension: int, dense: bool, dtype: jnp.dtype) -> "Adaptation":
        """Nothing learnt yet."""
        empty = Moments.empty(dimension, dense, dtype)
        return cls(DualAverage.at(jnp.log(jnp.asarray(FIRST_STEP, dtype))), empty, empty)

    def updated(
        self, draw: Array, score: Array, missing: Array, metric: Metric, index: Int[Array, ""], warmup_steps: int
    ) -> tuple["Adaptation", Metric, Float[Array, ""]]:
        """With one more warm-up draw; beside it the metric and step size of the next."""
        ends, early, final = schedule(warmup_steps)
        closes = jnp.asarray(ends)[index]
        learning = index < final
        dense = self.used.squares.ndim == 3
        averaging = self.averaging.updated(missing)

        def learn() -> tuple[Moments, Moments]:
            used, younger = self.used.updated(draw, score), self.younger.updated(draw, score)
            empty = Moments.empty(draw.shape[0], dense, draw.dtype)
            pick = jax.tree.map(lambda a, b: jnp.where(closes, a, b), (younger, empty), (used, younger))
            return pick[0], pick[1]

        used, younger = jax.lax.cond(learning, learn, lambda: (self.used, self.younger))
        # A diagonal costs nothing and follows every draw; a dense matrix is factored where a window closes.
        metric = jax.lax.cond(learning & (closes if dense else True), lambda: estimate(used, metric), lambda: metric)
        again = (index == early - 1) | (index == final - 1) | (closes & dense)
        fresh = DualAverage.at(averaging.log_average)
        averaging = jax.tree.map(lambda a, b: jnp.where(again, a, b), fresh, averaging)
        last = index == warmup_steps - 1
        step_size = jnp.exp(jnp.where(last, averaging.log_average, averaging.log_step))
        return Adaptation(averaging, used, younger), metric, step_size
