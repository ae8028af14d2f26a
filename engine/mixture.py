"""Mixtures of multivariate t distributions: fitted to points by expectation maximisation, drawn from, evaluated."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jax.scipy.special import gammaln, logsumexp
from jaxtyping import Array, Float, PRNGKeyArray

# Degrees of freedom: tails heavy enough that a proposal's weights stay bounded where the population was thin.
FREEDOM = 8.0
ROUNDS = 30
# A component's covariance is shrunk to this share of the population's variances, as by dimension + 2 further points.
SHRINK = 1e-3
# A fitted component is wider than its points by this factor of the covariance: a proposal's tails must not be thin.
WIDEN = 1.25
# Variance of the normal components that stand for the points themselves, in units of the widened scatter.
NORMAL_VARIANCE = FREEDOM / (FREEDOM - 2) / WIDEN


class Mixture(NamedTuple):
    """K multivariate t distributions with FREEDOM degrees of freedom.

        q(x) = sum_k w_k t(x; m_k, L_k L_k')

    Attributes:
        log_weight: log w [component].
        mean: m [component, d].
        factor: L, lower triangular [component, d, d].
        inverse: inverses of the factors [component, d, d].
    """

    log_weight: Float[Array, " component"]
    mean: Float[Array, "component d"]
    factor: Float[Array, "component d d"]
    inverse: Float[Array, "component d d"]


def _distances(mixture: Mixture, points: Array) -> Array:
    """Squared Mahalanobis distances [point, component]."""
    whitened = jnp.einsum("kij,nkj->nki", mixture.inverse, points[:, None] - mixture.mean)
    return jnp.sum(whitened**2, axis=-1)


def _component_logpdf(mixture: Mixture, distances: Array, normal: bool = False) -> Array:
    d = mixture.mean.shape[-1]
    log_volume = -jnp.sum(jnp.log(jnp.diagonal(mixture.inverse, axis1=-2, axis2=-1)), axis=-1)
    if normal:
        value = -0.5 * distances / NORMAL_VARIANCE - d / 2 * np.log(2 * np.pi * NORMAL_VARIANCE)
    else:
        constant = gammaln((FREEDOM + d) / 2) - gammaln(FREEDOM / 2) - d / 2 * np.log(FREEDOM * np.pi)
        value = constant - (FREEDOM + d) / 2 * jnp.log1p(distances / FREEDOM)
    return mixture.log_weight + value - log_volume


def logpdf(mixture: Mixture, points: Float[Array, "point d"], *, normal: bool = False) -> Float[Array, " point"]:
    """log q at points [point, d]; with `normal` of normal components as wide as the points were."""
    return logsumexp(_component_logpdf(mixture, _distances(mixture, points), normal), axis=-1)


def draw(mixture: Mixture, key: PRNGKeyArray, count: int, *, normal: bool = False) -> Float[Array, "count d"]:
    """Independent draws [count, d]; with `normal` from normal components as wide as the points were."""
    d, dtype = mixture.mean.shape[-1], mixture.mean.dtype
    key_component, key_normal, key_scale = jax.random.split(key, 3)
    chosen = jax.random.categorical(key_component, mixture.log_weight, shape=(count,))
    scale = jnp.full(count, np.sqrt(NORMAL_VARIANCE), dtype)
    if not normal:
        # FREEDOM is even, so that its chi-square is a sum of exponentials.
        halves = jax.random.exponential(key_scale, (count, int(FREEDOM) // 2), dtype)
        scale = jnp.sqrt(FREEDOM / (2 * jnp.sum(halves, axis=-1)))
    standard = jax.random.normal(key_normal, (count, d), dtype)
    return mixture.mean[chosen] + scale[:, None] * jnp.einsum("nij,nj->ni", mixture.factor[chosen], standard)


def leading(mixture: Mixture, count: int) -> Mixture:
    """The marginal mixture of the first coordinates: triangular factors begin with their factors."""
    return Mixture(
        mixture.log_weight,
        mixture.mean[:, :count],
        mixture.factor[:, :count, :count],
        mixture.inverse[:, :count, :count],
    )


def fit(points: Float[Array, "point d"], key: PRNGKeyArray, components: int) -> Mixture:
    """The mixture that expectation maximisation finds from random points of the population.

    Args:
        points: [point, d].
        key: of the points at which the components begin.
        components: how many.

    Source: Peel & McLachlan 2000, Robust mixture modelling using the t distribution.
    """
    size, d = points.shape
    dtype = points.dtype
    # On the population's own scales, so that sums of squares lose no digits to its place.
    place, scale = jnp.mean(points, axis=0), jnp.std(points, axis=0) + jnp.finfo(dtype).tiny ** 0.5
    points = (points - place) / scale
    products = (points[:, :, None] * points[:, None, :]).reshape(size, d * d)
    covariance = jnp.mean(products, axis=0).reshape(d, d)
    floor = SHRINK * jnp.eye(d, dtype=dtype)

    def mixture(weight: Array, mean: Array, scatter: Array) -> Mixture:
        factor = jnp.linalg.cholesky(scatter)
        eye = jnp.broadcast_to(jnp.eye(d, dtype=dtype), factor.shape)
        inverse = solve_triangular(factor, eye, lower=True)
        return Mixture(jnp.log(weight), mean, factor, inverse)

    def distances_of(old: Mixture) -> Array:
        # (x - m)' P (x - m), multiplied out into products of matrices.
        precision = jnp.einsum("kji,kjl->kil", old.inverse, old.inverse)
        towards = jnp.einsum("kil,kl->ki", precision, old.mean)
        square = products @ precision.reshape(-1, d * d).T - 2 * points @ towards.T
        return jnp.maximum(square + jnp.sum(towards * old.mean, axis=1), 0.0)

    def improve(_: Any, old: Mixture) -> Mixture:
        distances = distances_of(old)
        share = jax.nn.softmax(_component_logpdf(old, distances), axis=-1)
        robust = share * (FREEDOM + d) / (FREEDOM + distances)
        count = jnp.sum(share, axis=0)
        total = jnp.sum(robust, axis=0) + jnp.finfo(dtype).tiny
        mean = robust.T @ points / total[:, None]
        scatter = (robust.T @ products).reshape(-1, d, d) - total[:, None, None] * mean[:, :, None] * mean[:, None, :]
        scatter = (scatter + (d + 2) * floor) / (count + d + 2)[:, None, None]
        # A component that lost its points keeps a share too small to matter, and its place.
        return mixture((count + 1e-3) / jnp.sum(count + 1e-3), mean, scatter)

    first = jax.random.choice(key, size, (components,), replace=False)
    spread = jnp.broadcast_to((covariance + floor) / components ** (2 / d), (components, d, d))
    start = mixture(jnp.full(components, 1 / components, dtype), points[first], spread)
    fitted = jax.lax.fori_loop(0, ROUNDS, improve, start)
    return Mixture(
        fitted.log_weight,
        place + scale * fitted.mean,
        scale[:, None] * fitted.factor * WIDEN**0.5,
        fitted.inverse / scale / WIDEN**0.5,
    )


def empty(dimension: int, components: int, dtype: Any) -> Mixture:
    """A mixture of standard components, of the shape that `fit` returns."""
    eye = jnp.broadcast_to(jnp.eye(dimension, dtype=dtype), (components, dimension, dimension))
    weight = jnp.full(components, -np.log(components), dtype)
    return Mixture(weight, jnp.zeros((components, dimension), dtype), eye, eye)
