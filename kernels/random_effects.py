"""Normal random effects integrated out of a normal likelihood, and drawn back exactly."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Float

# A GPU's default would round float32 factors to ten bits.
_PRECISION = lax.Precision.HIGHEST


def factor(
    gram: Float[Array, "*unit effect effect"], sd: Float[Array, " effect"], sigma: Float[Array, "*unit"]
) -> Float[Array, "*unit effect effect"]:
    """Cholesky factor L of M = I + diag(sd) gram diag(sd) / sigma^2, the precision of the effects in units of their sd.

    Args:
        gram: D'D of each unit's design D.
        sd: prior standard deviation of each effect.
        sigma: noise.
    """
    scaled = sd[:, None] * gram * sd / sigma[..., None, None] ** 2
    return jnp.linalg.cholesky(scaled + jnp.eye(gram.shape[-1], dtype=gram.dtype))


def log_marginal(
    residual: Float[Array, "*unit time"],
    design: Float[Array, "*unit time effect"],
    gram: Float[Array, "*unit effect effect"],
    sd: Float[Array, " effect"],
    sigma: Float[Array, "*unit"],
    count: Float[Array, "*unit"],
) -> Float[Array, "*unit"]:
    """log Normal(residual; 0, sigma^2 I + D diag(sd^2) D'), less count log(2 pi) / 2, for each unit.

        = -count log sigma - log det(M) / 2 - min_d [ |residual - D d|^2 / sigma^2 + |d / sd|^2 ] / 2

    with M of `factor`. The minimum is computed as it stands, not as a difference of squares, and its derivative is
    taken at the minimising d, which then needs none (the envelope theorem). Second derivatives would miss that d moves.

    Args:
        residual: 0 where nothing is observed.
        design: D, 0 where nothing is observed.
        gram: D'D.
        sd: prior standard deviations, > 0.
        sigma: noise, > 0.
        count: observations.

    Source: Woodbury's identity; Lindley & Smith 1972 for the model.

    >>> one = log_marginal(
    ...     jnp.array([0.5, -0.2]), jnp.ones((2, 1)), jnp.full((1, 1), 2.0), jnp.array([0.3]),
    ...     jnp.array(0.1), jnp.array(2.0)
    ... )
    >>> round(float(one), 3)
    -9.235
    """
    lower = factor(gram, sd, sigma)
    effect = lax.stop_gradient(sd * _mean(lower, residual, design, sd, sigma))
    left = residual - jnp.einsum("...tk,...k->...t", design, effect, precision=_PRECISION)
    squares = jnp.sum(left**2, axis=-1) / sigma**2 + jnp.sum((effect / sd) ** 2, axis=-1)
    return -count * jnp.log(sigma) - 0.5 * _log_det(gram, sd, sigma) - 0.5 * squares


def draw_effects(
    noise: Float[Array, "*unit effect"],
    residual: Float[Array, "*unit time"],
    design: Float[Array, "*unit time effect"],
    gram: Float[Array, "*unit effect effect"],
    sd: Float[Array, " effect"],
    sigma: Float[Array, "*unit"],
) -> Float[Array, "*unit effect"]:
    """Effects given everything else: exact draws for standard normal noise.

        d = sd (M^-1 diag(sd) D' residual / sigma^2 + L^-T noise)

    Args:
        noise: standard normal.
        residual, design, gram, sd, sigma: as for `log_marginal`.
    """
    lower = factor(gram, sd, sigma)
    spread = solve_triangular(lower, noise[..., None], lower=True, trans="T")[..., 0]
    return sd * (_mean(lower, residual, design, sd, sigma) + spread)


def _mean(lower: Array, residual: Array, design: Array, sd: Array, sigma: Array) -> Array:
    score = jnp.einsum("...tk,...t->...k", design, residual, precision=_PRECISION) * sd / sigma[..., None] ** 2
    return cho_solve((lower, True), score[..., None])[..., 0]


@jax.custom_jvp
def _log_det(gram: Array, sd: Array, sigma: Array) -> Array:
    lower = factor(gram, sd, sigma)
    return 2 * jnp.sum(jnp.log(jnp.diagonal(lower, axis1=-2, axis2=-1)), axis=-1)


@_log_det.defjvp
def _log_det_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    """d log det M = trace(M^-1 dM), which needs no derivative of the factor; gram is data."""
    gram, sd, sigma = primals
    _, by_sd, by_sigma = tangents
    lower = factor(gram, sd, sigma)
    identity = jnp.broadcast_to(jnp.eye(gram.shape[-1], dtype=gram.dtype), gram.shape)
    inside = 1 - jnp.diagonal(cho_solve((lower, True), identity), axis1=-2, axis2=-1)
    # diag(M^-1 (M - I)) = 1 - diag(M^-1): each effect's share of knowledge that the data bring.
    moved = 2 * jnp.sum(inside * (by_sd / sd), axis=-1) - 2 * jnp.sum(inside, axis=-1) * by_sigma / sigma
    return 2 * jnp.sum(jnp.log(jnp.diagonal(lower, axis1=-2, axis2=-1)), axis=-1), moved
