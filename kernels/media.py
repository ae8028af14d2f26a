"""The media term of a mix model as one fused pass: geometric adstock, Hill saturation, sum over channels."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

from pelton.kernels.adstock import (
    Series,
    Values,
    as_floats,
    geometric_recursion,
    geometric_recursion_slope,
    geometric_scale,
    geometric_window,
)
from pelton.kernels.saturation import is_positive, log_ratio, over, sigmoid_and_slope, slope_at_zero


def geometric_hill(
    spend: Series,
    alpha: Values,
    half_saturation: Values,
    slope: Values,
    coef: Values,
    *,
    l_max: int | None = 12,
    normalize: bool = True,
) -> Float[Array, "..."]:
    """Total media effect by week: sum over channels of coef * hill(geometric(spend)).

    y[g,t] = sum_c coef[g,c] x^s / (x^s + k^s),   x[g,t,c] = sum_l alpha^l spend[g,t-l,c] (/ sum_l alpha^l)

    Args:
        spend: [..., geo, time, channel] or [time, channel], >= 0; zero before the first week.
        alpha: share carried over from week to week, in [0, 1].
        half_saturation: k, the adstocked spend at half of the full effect, > 0; in the unit of spend.
        slope: s of the Hill curve, >= 0.
        coef: the effect of a channel at full saturation, in the unit of the target; any sign.
        l_max: weeks in the window; PyMC-Marketing's l_max, Meridian's max_lag + 1. None is the recursion
            without end.
        normalize: divide the adstock by the sum of its weights.

    Each parameter broadcasts against spend without its time axis: [..., geo, channel], [channel] or a number.

    Returns:
        [..., geo, time], in the unit of coef.

    Raises:
        ValueError: fewer than two axes, l_max below 1, or shapes that do not broadcast.

    The same value as `adstock.geometric`, `saturation.hill` and a sum, and the same conventions at zero
    spend, but the work is laid out for its gradient. Time is moved innermost; the doubling of the window
    carries its derivative by alpha along; one logarithm and one exponential an element give the value and
    every derivative. With h the Hill curve, q = h (1-h), u = log(x/k) and D the derivative of the
    unnormalised window P by alpha, the derivative is

        dy = sum_c h dcoef + coef s (D/P dalpha + dP/P + dscale/scale - dk/k) q + coef q u ds,

    so that a gradient is four dot products over time, of h, q, q u and q D/P with the cotangent. It is a
    `custom_jvp`: forward and reverse mode and second derivatives all work. Four arrays of the shape of spend
    are kept.

    Source: Jin et al. 2017, equations (1), (2) and (5).

    >>> import jax.numpy as jnp
    >>> spend = jnp.array([[4.0, 0.0], [0.0, 3.0], [0.0, 0.0]])
    >>> half, coef = jnp.array([2.0, 3.0]), jnp.array([1.0, 10.0])
    >>> [round(week, 3) for week in geometric_hill(
    ...     spend, 0.5, half, 1.0, coef, l_max=3, normalize=False
    ... ).tolist()]
    [0.667, 5.5, 3.667]
    """
    spend, *params = as_floats(spend, alpha, half_saturation, slope, coef)
    if spend.ndim < 2:
        raise ValueError(f"spend has shape {spend.shape}; give it as [..., time, channel]")
    if l_max is not None and l_max < 1:
        raise ValueError(f"l_max is {l_max}; a window has at least 1 week, that of the spend itself")
    cell = (*spend.shape[:-2], spend.shape[-1])
    names = ("alpha", "half_saturation", "slope", "coef")
    try:
        cell = jnp.broadcast_shapes(cell, *(value.shape for value in params))
    except ValueError:
        shapes = ", ".join(f"{name} {value.shape}" for name, value in zip(names, params, strict=True))
        raise ValueError(
            f"{shapes} must broadcast against {cell}, the shape of spend {spend.shape} without its time axis"
        ) from None
    return _effect(l_max, normalize, spend, tuple(jnp.broadcast_to(value, cell) for value in params))


def _carryover(spend: Array, alpha: Array, l_max: int | None) -> tuple[Array, Array]:
    """The unnormalised adstock P and its derivative by alpha, [..., channel, time]."""
    if l_max is None:
        # Pairs of weeks are rows here; with time innermost they would be single numbers.
        along = alpha[..., None, :]
        value = geometric_recursion(spend, along, -2)
        slope = geometric_recursion_slope(value, along, -2)
        return jnp.swapaxes(value, -1, -2), jnp.swapaxes(slope, -1, -2)
    window = min(l_max, spend.shape[-2])
    return geometric_window(jnp.swapaxes(spend, -1, -2), alpha[..., None], window, -1)


def _weighted(channels: Array, weights: Array) -> Array:
    # The highest precision, since a GPU's default would round float32 factors to ten bits.
    return jnp.einsum("...ct,...c->...t", channels, weights, precision=lax.Precision.HIGHEST)


def _scale(alpha: Array, l_max: int | None, normalize: bool) -> Array:
    if not normalize:
        return jnp.ones_like(alpha)
    # 1 - alpha is 0 or at least half an epsilon; the floor keeps its inverse finite at alpha = 1.
    return jnp.maximum(geometric_scale(alpha, l_max), jnp.finfo(alpha.dtype).eps ** 2)


def _curve(total: Array, k: Array, s: Array, scale: Array) -> tuple[Array, Array, Array, Array]:
    """The half-saturation of the unnormalised adstock, log(x/k), h and h (1-h)."""
    limit = jnp.minimum(k / scale, jnp.finfo(k.dtype).max)[..., None]
    u = log_ratio(total, limit)
    h, q = sigmoid_and_slope(s[..., None] * u)
    positive = is_positive(total)
    return limit, u, jnp.where(positive, h, 0.0), jnp.where(positive, q, 0.0)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _effect(l_max: int | None, normalize: bool, spend: Array, params: tuple[Array, ...]) -> Array:
    alpha, k, s, coef = params
    total, _ = _carryover(spend, alpha, l_max)
    return _weighted(_curve(total, k, s, _scale(alpha, l_max, normalize))[2], coef)


def _effect_jvp(l_max: int | None, normalize: bool, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    spend, (alpha, k, s, coef) = primals
    by_spend, (by_alpha, by_k, by_s, by_coef) = tangents
    total, total_slope = _carryover(spend, alpha, l_max)
    # Kept apart from what follows, or the window would be summed again for every use of it.
    total = lax.optimization_barrier(total)
    scale = _scale(alpha, l_max, normalize)
    limit, u, h, q = _curve(total, k, s, scale)
    by_total = over(q, total) + slope_at_zero(total, limit, s[..., None])
    steep = coef * s

    value = _weighted(h, coef)
    tangent = jnp.zeros_like(value)
    if not isinstance(by_coef, SymbolicZero):
        tangent = tangent + _weighted(h, by_coef)
    if not isinstance(by_s, SymbolicZero):
        tangent = tangent + _weighted(q * u, coef * by_s)
    if not isinstance(by_k, SymbolicZero):
        tangent = tangent - _weighted(q, steep * (by_k / jnp.maximum(k, jnp.finfo(k.dtype).tiny)))
    if not isinstance(by_alpha, SymbolicZero):
        tangent = tangent + _weighted(by_total * total_slope, steep * by_alpha)
        if normalize:
            _, scale_slope = jax.jvp(lambda a: _scale(a, l_max, normalize), (alpha,), (jnp.ones_like(alpha),))
            tangent = tangent + _weighted(q, steep * (scale_slope / scale) * by_alpha)
    if not isinstance(by_spend, SymbolicZero):
        moved, _ = _carryover(by_spend, alpha, l_max)
        tangent = tangent + _weighted(by_total * moved, steep)
    return value, tangent


_effect.defjvp(_effect_jvp, symbolic_zeros=True)
