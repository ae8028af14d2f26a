"""Normal effects of a population and of its units, integrated out of a normal likelihood and drawn back exactly."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Float

# A GPU's default would round float32 factors to ten bits.
_PRECISION = lax.Precision.HIGHEST


class Factors(NamedTuple):
    """Cholesky factors of the precision of the effects in units of their standard deviations.

    Attributes:
        units: of M_g = I + S A_g S, [unit, effect, effect], with S = diag(sd) and A_g = gram_g / sigma_g^2.
        population: of P = I + W sum_g (A_g - A_g S M_g^-1 S A_g) W, [effect, effect], with W = diag(wide): the
            precision of the population's effects, those of the units integrated out.
        across: S A_g W, [unit, effect, effect].
    """

    units: Array
    population: Array
    across: Array


def factors(
    gram: Float[Array, "unit effect effect"],
    wide: Float[Array, " effect"],
    sd: Float[Array, " effect"],
    sigma: Float[Array, " unit"],
) -> Factors:
    """Factors for y_g ~ Normal(D_g (b + d_g), sigma_g^2), b ~ Normal(0, wide^2), d_g ~ Normal(0, sd^2).

    Args:
        gram: D_g'D_g.
        wide: prior standard deviations of the population's effects.
        sd: standard deviations of the units' deviations from them.
        sigma: noise of each unit.
    """
    inverse = gram / sigma[:, None, None] ** 2
    identity = jnp.eye(gram.shape[-1], dtype=gram.dtype)
    units = jnp.linalg.cholesky(identity + sd[:, None] * inverse * sd)
    across = sd[:, None] * inverse * wide
    left = wide[:, None] * inverse * wide - jnp.swapaxes(across, -1, -2) @ cho_solve((units, True), across)
    return Factors(units, jnp.linalg.cholesky(identity + jnp.sum(left, axis=0)), across)


@jax.custom_jvp
def log_marginal(
    residual: Float[Array, "unit time"],
    design: Float[Array, "unit time effect"],
    gram: Float[Array, "unit effect effect"],
    wide: Float[Array, " effect"],
    sd: Float[Array, " effect"],
    sigma: Float[Array, " unit"],
    count: Float[Array, " unit"],
) -> Float[Array, ""]:
    """log p(residual) with all effects integrated out, less sum(count) log(2 pi) / 2.

        = -sum_g count_g log sigma_g - log det(all precisions) / 2
          - min_{b, d} [ sum_g |residual_g - D_g (b + d_g)|^2 / sigma_g^2 + |b / wide|^2 + sum_g |d_g / sd|^2 ] / 2

    The minimum is computed as it stands, not as a difference of squares. Its derivative is taken at the minimising
    effects, which then need none (the envelope theorem), and that of the determinant needs none of the factors:
    d log det H = trace(H^-1 dH). Second derivatives would miss that the effects move; design, gram and count are data.

    Args:
        residual: 0 where nothing is observed.
        design: D_g, 0 where nothing is observed.
        gram: D_g'D_g.
        wide, sd: as for `factors`; 0 for an effect that the population, or the units, do not have.
        sigma: noise, > 0.
        count: observations of each unit.

    float32 holds while sd and wide are below some 300 times sigma: the population's precision is a difference.

    Source: Lindley & Smith 1972; Woodbury's identity.

    >>> value = log_marginal(
    ...     jnp.array([[0.5, -0.2]]), jnp.ones((1, 2, 1)), jnp.full((1, 1, 1), 2.0), jnp.array([0.4]), jnp.array([0.3]),
    ...     jnp.array([0.1]), jnp.array([2.0])
    ... )
    >>> round(float(value), 3)
    -9.655
    """
    return _at_minimum(residual, design, gram, wide, sd, sigma, count)[0]


def _at_minimum(
    residual: Array, design: Array, gram: Array, wide: Array, sd: Array, sigma: Array, count: Array
) -> tuple[Array, Factors, Array, Array, Array]:
    """The value, the factors, b / wide, d / sd, and what is left of the residual."""
    known = factors(gram, wide, sd, sigma)
    population, deviations = _means(known, residual, design, wide, sd, sigma)
    left = residual - jnp.einsum("gtk,gk->gt", design, wide * population + sd * deviations, precision=_PRECISION)
    squares = jnp.sum(jnp.sum(left**2, axis=-1) / sigma**2) + jnp.sum(population**2) + jnp.sum(deviations**2)
    log_det = 2 * sum(jnp.sum(jnp.log(jnp.diagonal(one, axis1=-2, axis2=-1))) for one in known[:2])
    value = -jnp.sum(count * jnp.log(sigma)) - 0.5 * log_det - 0.5 * squares
    return value, known, population, deviations, left


@log_marginal.defjvp
def _log_marginal_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    """With C the joint covariance of (b / wide, d_g / sd) and Q_g = X_g'X_g / sigma_g^2 for X_g = [D_g W, D_g S], each
    effect's diagonal of C Q_g is the share of its knowledge that unit g brings.
    """
    residual, design, gram, wide, sd, sigma, count = primals
    by_residual, _, _, by_wide, by_sd, by_sigma, _ = tangents
    value, known, population, deviations, left = _at_minimum(residual, design, gram, wide, sd, sigma, count)
    identity = jnp.eye(gram.shape[-1], dtype=gram.dtype)
    inverse = gram / sigma[:, None, None] ** 2
    covariance = cho_solve((known.population, True), identity)
    own = cho_solve((known.units, True), jnp.broadcast_to(identity, gram.shape))
    leaning = own @ known.across
    cross = -covariance @ jnp.swapaxes(leaning, -1, -2)
    units = own + leaning @ covariance @ jnp.swapaxes(leaning, -1, -2)
    at_population = jnp.sum(covariance * (wide[:, None] * inverse * wide), axis=-1)
    at_population = at_population + jnp.sum(cross * jnp.swapaxes(known.across, -1, -2), axis=-1)
    at_units = jnp.sum(jnp.swapaxes(cross, -1, -2) * known.across, axis=-1)
    at_units = at_units + jnp.sum(units * (sd[:, None] * inverse * sd), axis=-1)

    moved = -jnp.sum(jnp.sum(left * by_residual, axis=-1) / sigma**2)
    # Where an effect is 0 by its prior nothing depends on it to first order.
    by_wide, by_sd = (jnp.where(w > 0, by / jnp.where(w > 0, w, 1.0), 0.0) for w, by in ((wide, by_wide), (sd, by_sd)))
    moved = moved + jnp.sum((population**2 - jnp.sum(at_population, axis=0)) * by_wide)
    moved = moved + jnp.sum(jnp.sum(deviations**2 - at_units, axis=0) * by_sd)
    learnt = jnp.sum(at_population + at_units, axis=-1)
    moved = moved + jnp.sum((jnp.sum(left**2, axis=-1) / sigma**2 + learnt - count) * by_sigma / sigma)
    return value, moved


def draw_effects(
    noise_population: Float[Array, " effect"],
    noise: Float[Array, "unit effect"],
    residual: Float[Array, "unit time"],
    design: Float[Array, "unit time effect"],
    gram: Float[Array, "unit effect effect"],
    wide: Float[Array, " effect"],
    sd: Float[Array, " effect"],
    sigma: Float[Array, " unit"],
) -> tuple[Float[Array, " effect"], Float[Array, "unit effect"]]:
    """The population's effects b and the units' deviations d_g given everything else: exact for standard normal noise.

    Args:
        noise_population, noise: standard normal.
        residual, design, gram, wide, sd, sigma: as for `log_marginal`.
    """
    known = factors(gram, wide, sd, sigma)
    mean, _ = _means(known, residual, design, wide, sd, sigma)
    population = mean + solve_triangular(known.population, noise_population, lower=True, trans="T")
    score = jnp.einsum("gtk,gt->gk", design, residual, precision=_PRECISION) * sd / sigma[:, None] ** 2
    left = score - jnp.einsum("gkl,l->gk", known.across, population, precision=_PRECISION)
    spread = solve_triangular(known.units, noise[..., None], lower=True, trans="T")[..., 0]
    return wide * population, sd * (cho_solve((known.units, True), left[..., None])[..., 0] + spread)


def _means(known: Factors, residual: Array, design: Array, wide: Array, sd: Array, sigma: Array) -> tuple[Array, Array]:
    """Conditional means of b / wide [effect] and d / sd [unit, effect]."""
    score = jnp.einsum("gtk,gt->gk", design, residual, precision=_PRECISION) / sigma[:, None] ** 2
    own = cho_solve((known.units, True), (score * sd)[..., None])
    direct = wide * jnp.sum(score, axis=0) - jnp.sum(jnp.swapaxes(known.across, -1, -2) @ own, axis=0)[:, 0]
    population = cho_solve((known.population, True), direct)
    shared = cho_solve((known.units, True), known.across @ population[:, None])
    return population, (own - shared)[..., 0]
