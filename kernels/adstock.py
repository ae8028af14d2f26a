"""Adstock: how spend carries over to later weeks, as lag weights and applied along a time axis.

Conventions of every function here:

- `spend` has a time axis, by default the last but one: [geo, time, channel], with any leading shape.
  Parameters broadcast against the shape that is left when the time axis is taken out: [geo, channel],
  [channel], [draw, 1, channel] or a number.
- The response in week t is sum_l w_l spend[t-l] over lags l = 0 .. l_max-1. Before its first week a series is
  zero, so each geo starts by itself and weeks of zeros put in front of it change nothing.
- `l_max` counts the weeks that a week's spend acts in, its own included. It equals PyMC-Marketing's `l_max`;
  Meridian counts lags, so l_max = max_lag + 1. The weights are normalised over the whole window even where
  the series is shorter (Meridian shortens the window to the weeks present).
- Parameters may be traced, so their ranges are not checked; values and gradients are finite on the closed
  ranges given.

Derivatives are written by hand with `jax.custom_jvp`: forward and reverse mode, and again
for second derivatives.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float, Num

Values = Num[Array | np.ndarray, "..."] | float | int
Series = Num[Array | np.ndarray, "..."]


def convolve(spend: Series, weights: Series, axis: int = -2) -> Float[Array, "..."]:
    """Spread spend over later weeks with given weights: y[t] = sum_l w_l spend[t-l].

    Args:
        spend: [..., time, channel], or with the time axis at `axis`; any unit.
        weights: [..., l_max], the lag last; the axes before it broadcast against spend without its time axis.
        axis: the time axis of spend, counted from the end (or from the start if not negative).

    Returns:
        The shape and the unit of spend, broadcast with the weights.

    Raises:
        ValueError: no lags, an axis that spend does not have, or shapes that do not broadcast.

    The gradient by spend costs about as much as the value. The gradient by the weights is one sum an element
    and lag; the named families below have a derivative of their own that costs one pass a parameter, whatever
    the window.

    Source: Jin, Wang, Sun, Chan and Koehler 2017, equation (1), without its normalisation.

    >>> import jax.numpy as jnp
    >>> convolve(jnp.array([[1.0], [0.0], [0.0], [2.0]]), jnp.array([1.0, 0.5]))[:, 0]
    Array([1. , 0.5, 0. , 2. ], dtype=float32)
    """
    spend, weights = as_floats(spend, weights)
    if weights.ndim < 1 or weights.shape[-1] < 1:
        raise ValueError(f"weights have shape {weights.shape}; their last axis is the lag and must hold at least one")
    axis = _from_end(spend, axis)
    _check_broadcast(spend, axis, weights=weights[..., 0])
    return _shifted_sum(spend, weights, axis)


def geometric_weights(alpha: Values, l_max: int = 12, *, normalize: bool = True) -> Float[Array, "..."]:
    """Weights of geometric decay, w_l = alpha^l for l = 0 .. l_max-1.

    Args:
        alpha: the share carried over from week to week, in [0, 1]; any shape.
        l_max: weeks in the window; PyMC-Marketing's l_max, Meridian's max_lag + 1.
        normalize: divide by the sum over the window.

    Returns:
        [*alpha's shape, l_max].

    Raises:
        ValueError: l_max below 1.

    Source: Jin et al. 2017, equation (2).

    >>> geometric_weights(0.5, 3, normalize=False)
    Array([1.  , 0.5 , 0.25], dtype=float32)
    """
    (alpha,) = as_floats(alpha)
    weights = alpha[..., None] ** _lags(l_max, alpha.dtype)
    return _over_sum(weights) if normalize else weights


def delayed_weights(alpha: Values, theta: Values, l_max: int = 12, *, normalize: bool = True) -> Float[Array, "..."]:
    """Weights that peak after a delay, w_l = alpha^((l - theta)^2) for l = 0 .. l_max-1.

    Args:
        alpha: retention, in [0, 1].
        theta: weeks from spend to peak, in [0, l_max - 1]; broadcasts with alpha.
        l_max: weeks in the window; PyMC-Marketing's l_max, Meridian's max_lag + 1 (Meridian has no such
            family).
        normalize: divide by the sum over the window.

    Returns:
        [*shape of alpha and theta, l_max].

    Raises:
        ValueError: l_max below 1.

    Normalised weights have a limit at alpha = 0, all on the lag nearest to theta, and take it. The derivative
    by alpha at 0 is the true one where that is finite, and 0 for lags less than one week from the peak, where
    it is not.

    Source: Jin et al. 2017, equation (3).

    >>> delayed_weights(0.5, 1.0, 4, normalize=False)
    Array([0.5   , 1.    , 0.5   , 0.0625], dtype=float32)
    """
    alpha, theta = as_floats(alpha, theta)
    alpha, theta = jnp.broadcast_arrays(alpha, theta)
    alpha = alpha[..., None]
    exponent = (_lags(l_max, alpha.dtype) - theta[..., None]) ** 2
    if normalize:
        # A factor common to all lags cancels; without it the sum is at least 1 however small alpha is.
        exponent = exponent - lax.stop_gradient(exponent.min(-1, keepdims=True))
    positive = alpha > 0
    inside = jnp.exp(exponent * jnp.log(jnp.where(positive, alpha, 1.0)))
    at_zero = jnp.where(exponent == 0, 1.0, jnp.where(exponent == 1, alpha, 0.0))
    weights = jnp.where(positive, inside, at_zero)
    return _over_sum(weights) if normalize else weights


def binomial_weights(
    alpha: Values, l_max: int = 12, *, normalize: bool = True, reach: float | int | None = None
) -> Float[Array, "..."]:
    """Weights of binomial decay, w_l = (1 - l / reach)^(1/alpha - 1) for l = 0 .. l_max-1.

    Args:
        alpha: in [0, 1]: 0 gives no carryover, 1/2 a straight line, 1 equal weights.
        l_max: weeks in the window; PyMC-Marketing's l_max, Meridian's max_lag + 1.
        normalize: divide by the sum over the window.
        reach: the lag at which the weight would be zero, more than l_max - 1. The default l_max + 1 is
            PyMC-Marketing's; Meridian's is max_lag + 1, that is reach=l_max.

    Returns:
        [*alpha's shape, l_max].

    Raises:
        ValueError: l_max below 1, or a reach inside the window.

    Source: `binomial_adstock` of PyMC-Marketing; the binomial decay of Meridian.

    >>> binomial_weights(0.5, 3, normalize=False)
    Array([1.  , 0.75, 0.5 ], dtype=float32)
    """
    (alpha,) = as_floats(alpha)
    lags = _lags(l_max, alpha.dtype)
    reach = float(l_max + 1 if reach is None else reach)
    if not reach > l_max - 1:
        raise ValueError(f"reach is {reach:g}; it must be more than the last lag, l_max - 1 = {l_max - 1}")
    # Below this alpha every weight but the first is exp(-2000) or less, zero in float64; 1/alpha stays
    # finite.
    power = 1.0 / jnp.maximum(alpha[..., None], 1.0 / (2000.0 * reach)) - 1.0
    weights = jnp.exp(power * jnp.log1p(-lags / reach))
    return _over_sum(weights) if normalize else weights


def weibull_pdf_weights(
    scale: Values, shape: Values, l_max: int = 12, *, normalize: bool = True
) -> Float[Array, "..."]:
    """Weights from the Weibull density f at lag + 1, rescaled to [0, 1] over the window.

    w_l = (f(l+1) - min f) / (max f - min f), f(t) = (shape/scale) (t/scale)^(shape-1) exp(-(t/scale)^shape)

    Args:
        scale: weeks, > 0.
        shape: > 0; above 1 the peak comes later than the first week. Broadcasts with scale.
        l_max: weeks in the window; PyMC-Marketing's l_max, Meridian's max_lag + 1 (Meridian has no such
            family).
        normalize: then divide by the sum over the window.

    Returns:
        [*shape of scale and shape, l_max].

    Raises:
        ValueError: l_max below 1.

    The ratios are taken on the log scale, so that a density that underflows at every lag still has its
    weights. Where all lags are equal (one week, or a density flat to rounding) there is nothing to rescale
    and the weights are 1.

    Source: `weibull_adstock` of PyMC-Marketing, type PDF; Robyn's Weibull PDF adstock.

    >>> weibull_pdf_weights(2.0, 1.0, 3, normalize=False).round(2)
    Array([1.  , 0.38, 0.  ], dtype=float32)
    """
    scale, shape = as_floats(scale, shape)
    scale, shape = jnp.broadcast_arrays(scale, shape)
    scale, shape = scale[..., None], shape[..., None]
    log_t = jnp.log1p(_lags(l_max, scale.dtype))
    log_scale = jnp.log(jnp.maximum(scale, jnp.finfo(scale.dtype).tiny))
    # log f(t) - log f(1); the largest power is factored out and bounded: exp(-exp(40)) is zero in any
    # precision.
    top = jnp.maximum(-shape * log_scale, 0.0)
    powers = jnp.exp(jnp.minimum(shape * (log_t - log_scale) - top, 40.0)) - jnp.exp(-shape * log_scale - top)
    relative = (shape - 1.0) * log_t - jnp.exp(jnp.minimum(top, 40.0)) * powers
    relative = relative - relative.max(-1, keepdims=True)
    height = jnp.expm1(relative)
    lowest = height.min(-1, keepdims=True)
    varies = lowest < 0
    weights = jnp.where(varies, _above_lowest(height, jnp.where(varies, lowest, -1.0)), 1.0)
    return _over_sum(weights) if normalize else weights


def weibull_cdf_weights(
    scale: Values, shape: Values, l_max: int = 12, *, normalize: bool = True
) -> Float[Array, "..."]:
    """Weights from the Weibull survival function, w_0 = 1 and w_l = prod_{j=1..l} exp(-(j/scale)^shape).

    Args:
        scale: weeks, > 0.
        shape: > 0; broadcasts with scale.
        l_max: weeks in the window; PyMC-Marketing's l_max, Meridian's max_lag + 1 (Meridian has no such
            family).
        normalize: divide by the sum over the window.

    Returns:
        [*shape of scale and shape, l_max].

    Raises:
        ValueError: l_max below 1.

    Source: `weibull_adstock` of PyMC-Marketing, type CDF (version 1; before, it had one lag more); Robyn.

    >>> weibull_cdf_weights(2.0, 1.0, 3, normalize=False).round(2)
    Array([1.  , 0.61, 0.22], dtype=float32)
    """
    scale, shape = as_floats(scale, shape)
    scale, shape = jnp.broadcast_arrays(scale, shape)
    scale, shape = scale[..., None], shape[..., None]
    lags = _lags(l_max, scale.dtype)
    log_scale = jnp.log(jnp.maximum(scale, jnp.finfo(scale.dtype).tiny))
    # exp(-exp(40)) is zero in any precision, and forty powers of e sum far below float32's largest number.
    hazard = jnp.exp(jnp.minimum(shape * (jnp.log(jnp.maximum(lags, 1.0)) - log_scale), 40.0))
    weights = jnp.exp(-jnp.cumsum(jnp.where(lags > 0, hazard, 0.0), -1))
    return _over_sum(weights) if normalize else weights


def geometric(
    spend: Series, alpha: Values, l_max: int | None = 12, *, normalize: bool = True, axis: int = -2
) -> Float[Array, "..."]:
    """Geometric adstock: y[t] = sum_{l < l_max} alpha^l spend[t-l], over sum_{l < l_max} alpha^l if
    normalised.

    Args:
        spend: [..., time, channel], or with the time axis at `axis`; any unit.
        alpha: share carried over from week to week, in [0, 1]; broadcasts against spend without its time
            axis.
        l_max: weeks in the window; PyMC-Marketing's l_max, Meridian's max_lag + 1. None is the recursion
            y[t] = spend[t] + alpha y[t-1], which never forgets; normalised it is (1 - alpha) y, zero at alpha
            = 1.
        normalize: divide by the sum of the weights.
        axis: the time axis of spend.

    Returns:
        The shape and the unit of spend, broadcast with alpha.

    Raises:
        ValueError: l_max below 1, an axis that spend does not have, or shapes that do not broadcast.

    The window is built by doubling, P_2m(t) = P_m(t) + alpha^m P_m(t-m), about log2(l_max) passes for any
    l_max; the recursion halves the series instead (pairs of weeks follow the same recursion with alpha^2).
    The derivative by alpha is one more such pass, carried along with the value.

    Source: Jin et al. 2017, equations (1) and (2); `geometric_adstock` of PyMC-Marketing; Meridian's
    AdstockTransformer.

    >>> import jax.numpy as jnp
    >>> week = jnp.array([[8.0], [0.0], [0.0], [0.0]])
    >>> geometric(week, 0.5, 3, normalize=False)[:, 0]
    Array([8., 4., 2., 0.], dtype=float32)
    >>> geometric(week, 0.5, None, normalize=False)[:, 0]
    Array([8., 4., 2., 1.], dtype=float32)
    """
    spend, alpha = as_floats(spend, alpha)
    axis = _from_end(spend, axis)
    _check_broadcast(spend, axis, alpha=alpha)
    along = _beside_time(alpha, axis)
    if l_max is None:
        total = _recursion(axis, spend, along)
    else:
        _lags(l_max, spend.dtype)
        total = _window(min(l_max, spend.shape[axis]), axis, spend, along)
    return total * _beside_time(geometric_scale(alpha, l_max), axis) if normalize else total


def delayed(
    spend: Series, alpha: Values, theta: Values, l_max: int = 12, *, normalize: bool = True, axis: int = -2
) -> Float[Array, "..."]:
    """Delayed adstock: spend convolved with alpha^((l - theta)^2), which peaks theta weeks after the spend.

    Args:
        spend: [..., time, channel], or with the time axis at `axis`; any unit.
        alpha: retention, in [0, 1]; broadcasts against spend without its time axis.
        theta: weeks from spend to peak, in [0, l_max - 1]; broadcasts likewise.
        l_max: weeks in the window; PyMC-Marketing's l_max, Meridian's max_lag + 1.
        normalize: divide by the sum of the weights.
        axis: the time axis of spend.

    Returns:
        The shape and the unit of spend, broadcast with the parameters.

    Raises:
        ValueError: as `geometric`.

    Source: Jin et al. 2017, equations (1) and (3); `delayed_adstock` of PyMC-Marketing.

    >>> import jax.numpy as jnp
    >>> delayed(jnp.array([[8.0], [0.0], [0.0]]), 0.5, 1.0, 3, normalize=False)[:, 0]
    Array([4., 8., 4.], dtype=float32)
    """
    return _applied("delayed", spend, {"alpha": alpha, "theta": theta}, l_max, axis, normalize=normalize)


def binomial(
    spend: Series,
    alpha: Values,
    l_max: int = 12,
    *,
    normalize: bool = True,
    axis: int = -2,
    reach: float | int | None = None,
) -> Float[Array, "..."]:
    """Binomial adstock: spend convolved with (1 - l / reach)^(1/alpha - 1).

    Args:
        spend: [..., time, channel], or with the time axis at `axis`; any unit.
        alpha: in [0, 1]; broadcasts against spend without its time axis.
        l_max: weeks in the window; PyMC-Marketing's l_max, Meridian's max_lag + 1.
        normalize: divide by the sum of the weights.
        axis: the time axis of spend.
        reach: the lag at which the weight would be zero; l_max + 1 unless given (PyMC-Marketing). Meridian's
            window has reach=l_max.

    Returns:
        The shape and the unit of spend, broadcast with alpha.

    Raises:
        ValueError: as `geometric`, or a reach inside the window.

    Source: `binomial_adstock` of PyMC-Marketing; the binomial decay of Meridian.

    >>> import jax.numpy as jnp
    >>> binomial(jnp.array([[8.0], [0.0], [0.0]]), 0.5, 3, normalize=False)[:, 0]
    Array([8., 6., 4.], dtype=float32)
    """
    return _applied("binomial", spend, {"alpha": alpha}, l_max, axis, normalize=normalize, reach=reach)


def weibull_pdf(
    spend: Series, scale: Values, shape: Values, l_max: int = 12, *, normalize: bool = True, axis: int = -2
) -> Float[Array, "..."]:
    """Weibull density adstock: spend convolved with the Weibull density at lag + 1, rescaled to [0, 1].

    Args:
        spend: [..., time, channel], or with the time axis at `axis`; any unit.
        scale: weeks, > 0; broadcasts against spend without its time axis.
        shape: > 0; broadcasts likewise.
        l_max: weeks in the window; PyMC-Marketing's l_max, Meridian's max_lag + 1.
        normalize: divide by the sum of the weights.
        axis: the time axis of spend.

    Returns:
        The shape and the unit of spend, broadcast with the parameters.

    Raises:
        ValueError: as `geometric`.

    Source: `weibull_adstock` of PyMC-Marketing, type PDF; Robyn.

    >>> import jax.numpy as jnp
    >>> weibull_pdf(jnp.array([[8.0], [0.0], [0.0]]), 2.0, 1.0, 3, normalize=False)[:, 0].round(2)
    Array([8.  , 3.02, 0.  ], dtype=float32)
    """
    return _applied("weibull_pdf", spend, {"scale": scale, "shape": shape}, l_max, axis, normalize=normalize)


def weibull_cdf(
    spend: Series, scale: Values, shape: Values, l_max: int = 12, *, normalize: bool = True, axis: int = -2
) -> Float[Array, "..."]:
    """Weibull survival adstock: spend convolved with the running product of exp(-(j/scale)^shape).

    Args:
        spend: [..., time, channel], or with the time axis at `axis`; any unit.
        scale: weeks, > 0; broadcasts against spend without its time axis.
        shape: > 0; broadcasts likewise.
        l_max: weeks in the window; PyMC-Marketing's l_max, Meridian's max_lag + 1.
        normalize: divide by the sum of the weights.
        axis: the time axis of spend.

    Returns:
        The shape and the unit of spend, broadcast with the parameters.

    Raises:
        ValueError: as `geometric`.

    Source: `weibull_adstock` of PyMC-Marketing, type CDF; Robyn.

    >>> import jax.numpy as jnp
    >>> weibull_cdf(jnp.array([[8.0], [0.0], [0.0]]), 2.0, 1.0, 3, normalize=False)[:, 0].round(2)
    Array([8.  , 4.85, 1.79], dtype=float32)
    """
    return _applied("weibull_cdf", spend, {"scale": scale, "shape": shape}, l_max, axis, normalize=normalize)


# Building blocks, shared with the fused path in media.py.


def as_floats(*values: Values) -> tuple[Array, ...]:
    """Arrays of one floating type: the widest given, numbers taking the type of the arrays beside them.

    >>> import numpy as np
    >>> [v.dtype.name for v in as_floats(np.arange(3), 0.5)]
    ['float32', 'float32']
    """
    dtype = jnp.result_type(*values)
    if not jnp.issubdtype(dtype, jnp.floating):
        dtype = jnp.result_type(dtype, float)
    return tuple(jnp.asarray(value, dtype) for value in values)


def geometric_scale(alpha: Float[Array, "*cell"], l_max: int | None) -> Float[Array, "*cell"]:
    """One over the sum of the geometric weights: 1 / sum_{l < l_max} alpha^l, or 1 - alpha for the recursion.

    >>> import jax.numpy as jnp
    >>> geometric_scale(jnp.array([0.0, 0.5, 1.0]), 2)
    Array([1.       , 0.6666667, 0.5      ], dtype=float32)
    """
    if l_max is None:
        return 1.0 - alpha
    # By doubling, since (1 - alpha^L) / (1 - alpha) breaks down at alpha = 1.
    total, block, power, rest = jnp.zeros_like(alpha), jnp.ones_like(alpha), alpha, l_max
    while rest:
        if rest & 1:
            total = block + power * total
        block, power, rest = block + power * block, power * power, rest >> 1
    return 1.0 / total


def geometric_window(
    spend: Float[Array, "..."], alpha: Float[Array, "..."], l_max: int, axis: int
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """P[t] = sum_{l < l_max} alpha^l spend[t-l] and its derivative by alpha; alpha has a time axis of 1.

    P_2m(t) = P_m(t) + alpha^m P_m(t-m); the windows of the powers of two in l_max are joined, the longest
    in front. A compiled caller that drops the derivative does not pay for it.

    >>> import jax.numpy as jnp
    >>> geometric_window(jnp.array([1.0, 0.0, 0.0]), jnp.array([0.5]), 3, -1)
    (Array([1.  , 0.5 , 0.25], dtype=float32), Array([0., 1., 1.], dtype=float32))
    """
    cut = functools.partial(lax.slice_in_dim, axis=axis)
    block = _zeros_before(jnp.broadcast_to(spend, _result_shape(spend, alpha)), l_max - 1, axis)
    slope = jnp.zeros_like(block)
    weeks = block.shape[axis]
    window, joined, joined_slope = 0, block, slope
    length, power, power_slope, rest = 1, alpha, jnp.ones_like(alpha), l_max
    while True:
        if rest & 1:
            front, front_slope = cut(block, window, None), cut(slope, window, None)
            window += length
            if window == length:
                joined, joined_slope = front, front_slope
            else:
                behind = cut(joined, 0, weeks - window + 1)
                behind_slope = cut(joined_slope, 0, weeks - window + 1)
                joined = front + power * behind
                joined_slope = front_slope + power * behind_slope + power_slope * behind
        rest >>= 1
        if not rest:
            return joined, joined_slope
        near, far = cut(block, length, None), cut(block, 0, -length)
        slope = cut(slope, length, None) + power * cut(slope, 0, -length) + power_slope * far
        block = near + power * far
        power, power_slope, length = power * power, 2.0 * power * power_slope, 2 * length


def geometric_recursion(spend: Float[Array, "..."], alpha: Float[Array, "..."], axis: int) -> Float[Array, "..."]:
    """y[t] = spend[t] + alpha y[t-1], zero before the start; alpha has a time axis of 1.

    Weeks are taken in pairs: y at every second week follows the same recursion with alpha^2 on half the
    weeks, and the weeks between are one step from it. Depth log2(time), work linear in time.

    >>> import jax.numpy as jnp
    >>> geometric_recursion(jnp.array([1.0, 0.0, 0.0, 1.0]), jnp.array([0.5]), -1)
    Array([1.   , 0.5  , 0.25 , 1.125], dtype=float32)
    """
    spend = jnp.broadcast_to(spend, _result_shape(spend, alpha))
    weeks = spend.shape[axis]
    if weeks < 2:
        return spend
    axis = axis % spend.ndim
    first = lax.slice_in_dim(spend, 0, None, 2, axis)
    second = lax.slice_in_dim(spend, 1, None, 2, axis)
    pairs = second + alpha * lax.slice_in_dim(first, 0, weeks // 2, axis=axis)
    at_second = geometric_recursion(pairs, alpha * alpha, axis - spend.ndim)
    before_first = lax.slice_in_dim(_shifted(at_second, axis, 1), 0, first.shape[axis], axis=axis)
    at_first = first + alpha * before_first
    both = jnp.stack([lax.slice_in_dim(at_first, 0, weeks // 2, axis=axis), at_second], axis + 1)
    woven = both.reshape(*spend.shape[:axis], weeks - weeks % 2, *spend.shape[axis + 1 :])
    if weeks % 2:
        woven = jnp.concatenate([woven, lax.slice_in_dim(at_first, weeks // 2, None, axis=axis)], axis)
    return woven


def geometric_recursion_slope(value: Float[Array, "..."], alpha: Float[Array, "..."], axis: int) -> Float[Array, "..."]:
    """The derivative by alpha of `geometric_recursion`, from its value: the same recursion on the value a
    week ago.

    >>> import jax.numpy as jnp
    >>> geometric_recursion_slope(jnp.array([1.0, 0.5, 0.25]), jnp.array([0.5]), -1)
    Array([0., 1., 1.], dtype=float32)
    """
    return geometric_recursion(_a_week_ago(value, axis), alpha, axis)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _window(l_max: int, axis: int, spend: Array, alpha: Array) -> Array:
    return geometric_window(spend, alpha, l_max, axis)[0]


def _window_jvp(l_max: int, axis: int, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    spend, alpha = primals
    by_spend, by_alpha = tangents
    value, slope = geometric_window(spend, alpha, l_max, axis)
    tangent = jnp.zeros_like(value)
    if not isinstance(by_alpha, SymbolicZero):
        tangent = tangent + by_alpha * slope
    if not isinstance(by_spend, SymbolicZero):
        tangent = tangent + geometric_window(by_spend, alpha, l_max, axis)[0]
    return value, tangent


_window.defjvp(_window_jvp, symbolic_zeros=True)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _recursion(axis: int, spend: Array, alpha: Array) -> Array:
    return geometric_recursion(spend, alpha, axis)


def _recursion_jvp(axis: int, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    spend, alpha = primals
    by_spend, by_alpha = tangents
    value = geometric_recursion(spend, alpha, axis)
    source = jnp.zeros_like(value)
    if not isinstance(by_alpha, SymbolicZero):
        source = source + by_alpha * _a_week_ago(value, axis)
    if not isinstance(by_spend, SymbolicZero):
        source = source + by_spend
    return value, geometric_recursion(source, alpha, axis)


_recursion.defjvp(_recursion_jvp, symbolic_zeros=True)


def _applied(
    family: str,
    spend: Series,
    params: dict[str, Values],
    l_max: int,
    axis: int,
    **options: bool | float | int | None,
) -> Array:
    spend, *values = as_floats(spend, *params.values())
    axis = _from_end(spend, axis)
    _check_broadcast(spend, axis, **dict(zip(params, values, strict=True)))
    _lags(l_max, spend.dtype)
    return _application(family, l_max, axis, tuple(sorted(options.items())))(spend, *values)


@functools.cache
def _application(
    family: str, l_max: int, axis: int, options: tuple[tuple[str, bool | float | int | None], ...]
) -> Callable[..., Array]:
    """Spend convolved with a family's weights; a derivative by a parameter is one more convolution."""
    weights_of = functools.partial(_FAMILIES[family], l_max=l_max, **dict(options))

    @jax.custom_jvp
    def apply(spend: Array, *params: Array) -> Array:
        return _shifted_sum(spend, weights_of(*params), axis)

    def apply_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
        spend, *params = primals
        by_spend, *by_params = tangents
        weights = weights_of(*params)
        value = _shifted_sum(spend, weights, axis)
        tangent = jnp.zeros_like(value)
        for i, by_param in enumerate(by_params):
            if isinstance(by_param, SymbolicZero):
                continue
            ones = [jnp.ones_like(p) if i == j else jnp.zeros_like(p) for j, p in enumerate(params)]
            _, slope = jax.jvp(weights_of, tuple(params), tuple(ones))
            tangent = tangent + _beside_time(by_param, axis) * _shifted_sum(spend, slope, axis)
        if not isinstance(by_spend, SymbolicZero):
            tangent = tangent + _shifted_sum(by_spend, weights, axis)
        return value, tangent

    apply.defjvp(apply_jvp, symbolic_zeros=True)
    return apply


_FAMILIES: dict[str, Callable[..., Array]] = {
    "delayed": delayed_weights,
    "binomial": binomial_weights,
    "weibull_pdf": weibull_pdf_weights,
    "weibull_cdf": weibull_cdf_weights,
}


@jax.custom_jvp
def _above_lowest(height: Array, lowest: Array) -> Array:
    return (height - lowest) / -lowest


@_above_lowest.defjvp
def _above_lowest_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    # Of its own, since the square of a lowest height near zero underflows.
    (height, lowest), (by_height, by_lowest) = primals, tangents
    return _above_lowest(height, lowest), ((height / lowest) * by_lowest - by_height) / lowest


def _shifted_sum(spend: Array, weights: Array, axis: int) -> Array:
    """sum_l weights[..., l] spend[t-l] as one fused pass over the padded series."""
    weeks = spend.shape[axis]
    # The lag in front and both operands materialised: read through the fused loop, either costs twice the
    # time.
    by_lag = lax.optimization_barrier(jnp.moveaxis(weights[..., :weeks], -1, 0))
    last = by_lag.shape[0] - 1
    padded = _zeros_before(spend, last, axis)
    terms = (
        _beside_time(by_lag[lag], axis)
        * lax.slice_in_dim(padded, last - lag, last - lag + weeks, axis=axis % spend.ndim)
        for lag in range(last + 1)
    )
    return functools.reduce(jnp.add, terms)


def _zeros_before(spend: Array, weeks: int, axis: int) -> Array:
    width = [(0, 0)] * spend.ndim
    width[axis] = (weeks, 0)
    # Padding fused into the sums would be tested for at every lag of every element.
    return lax.optimization_barrier(jnp.pad(spend, width))


def _shifted(value: Array, axis: int, weeks: int) -> Array:
    width = [(0, 0)] * value.ndim
    width[axis] = (weeks, 0)
    return jnp.pad(value, width)


def _a_week_ago(value: Array, axis: int) -> Array:
    return lax.slice_in_dim(_shifted(value, axis, 1), 0, value.shape[axis], axis=axis % value.ndim)


def _beside_time(param: Array, axis: int) -> Array:
    """The parameter with a time axis of 1, where it has axes on both sides of it."""
    return jnp.expand_dims(param, axis) if param.ndim >= -axis - 1 and param.ndim > 0 else param


def _over_sum(weights: Array) -> Array:
    return weights / weights.sum(-1, keepdims=True)


def _lags(l_max: int, dtype: np.dtype) -> Array:
    if l_max < 1:
        raise ValueError(f"l_max is {l_max}; a window has at least 1 week, that of the spend itself")
    return jnp.arange(l_max, dtype=dtype)


def _result_shape(spend: Array, along: Array) -> tuple[int, ...]:
    return jnp.broadcast_shapes(spend.shape, along.shape)


def _from_end(spend: Array, axis: int) -> int:
    if not -spend.ndim <= axis < spend.ndim:
        raise ValueError(
            f"spend has shape {spend.shape} and no axis {axis}; give it a time axis, or name it with axis="
        )
    return axis % spend.ndim - spend.ndim


def _check_broadcast(spend: Array, axis: int, **params: Array) -> None:
    cell = tuple(np.delete(spend.shape, axis))
    for name, value in params.items():
        try:
            np.broadcast_shapes(cell, value.shape)
        except ValueError:
            raise ValueError(
                f"{name} has shape {value.shape}; it must broadcast against {tuple(map(int, cell))}, "
                f"the shape of spend {spend.shape} without its time axis"
            ) from None
