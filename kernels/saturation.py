"""Saturation: how the response to spend flattens, as functions of one spend value at a time.

Every function works element by element and broadcasts as NumPy does: against a panel [geo, time, channel] a
parameter per geo and channel is `k[:, None]`, one per channel `k`. Spend is not negative. Values and
gradients are finite at zero spend and at the ends of the parameters' ranges, in float32 as in float64, and no
intermediate overflows. Where the true derivative by spend is infinite (a slope or a power below 1, at zero
spend) the derivative is given as 0: a week without spend then adds nothing to a gradient, as in a model that
masks it.

Derivatives are written by hand with `jax.custom_jvp`: forward and reverse mode, and again for second
derivatives. Where a difference such as 1 - h would cancel, they use a form that does not.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from pelton.kernels.adstock import as_floats

Values = Num[Array | np.ndarray, "*#shape"] | float | int
Result = Float[Array, "*#shape"]

# Terms of the Taylor sum of 1 - exp(-z) up to z = 1/2, by bytes a number: what follows is less than a rounding.
_TAYLOR_TERMS = {4: 8, 8: 15}


def hill(x: Values, half_saturation: Values, slope: Values = 1.0) -> Result:
    """Hill saturation, h = x^s / (x^s + k^s) = sigmoid(s (log x - log k)).

    Args:
        x: spend, >= 0; any unit.
        half_saturation: k, the spend at which h = 1/2; > 0, in the unit of x.
        slope: s, >= 0; above 1 the curve is S-shaped.

    Returns:
        Between 0 and 1, of the broadcast shape; 0 at x = 0. A spend below the smallest normal number counts
        as 0.

    Raises:
        TypeError or ValueError: shapes that do not broadcast.

    One logarithm and one exponential an element, kept for the derivatives:
    dh/ds = h (1-h) log(x/k), dh/dk = -h (1-h) s/k, dh/dx = h (1-h) s/x; at x = 0, dh/dx is 1/k where s = 1,
    else 0.

    Source: Jin et al. 2017, equation (5); `hill_function` of PyMC-Marketing; Meridian's HillTransformer.

    >>> hill(2.0, 2.0, 3.0)
    Array(0.5, dtype=float32)
    """
    return _hill(*as_floats(x, half_saturation, slope))


def exponential(x: Values, rate: Values) -> Result:
    """Exponential saturation, 1 - exp(-a x).

    Args:
        x: spend, >= 0.
        rate: a, >= 0, in one over the unit of x.

    Returns:
        Between 0 and 1, of the broadcast shape.

    Raises:
        TypeError or ValueError: shapes that do not broadcast.

    Source: the saturation of the hierarchical country model (Garve 2022); as 1 - exp(-rate x) in common use.

    >>> exponential(1.0, 1.0)
    Array(0.63212055, dtype=float32)
    """
    return _exponential(*as_floats(x, rate))


def logistic(x: Values, rate: Values) -> Result:
    """Logistic saturation, (1 - exp(-lam x)) / (1 + exp(-lam x)) = tanh(lam x / 2).

    Args:
        x: spend, >= 0.
        rate: lam, >= 0, in one over the unit of x.

    Returns:
        Between 0 and 1, of the broadcast shape.

    Raises:
        TypeError or ValueError: shapes that do not broadcast.

    Source: `logistic_saturation` of PyMC-Marketing.

    >>> logistic(1.0, 2.0)
    Array(0.7615942, dtype=float32)
    """
    x, rate = as_floats(x, rate)
    return _tanh_of_product(x, 0.5 * rate)


def michaelis_menten(x: Values, half_saturation: Values) -> Result:
    """Michaelis-Menten saturation, x / (k + x): the Hill curve of slope 1.

    Args:
        x: spend, >= 0.
        half_saturation: k, the spend at which the response is 1/2; >= 0, in the unit of x.

    Returns:
        Between 0 and 1, of the broadcast shape; 0 at x = 0.

    Raises:
        TypeError or ValueError: shapes that do not broadcast.

    Source: `michaelis_menten` of PyMC-Marketing, with its maximum alpha = 1.

    >>> michaelis_menten(1.0, 3.0)
    Array(0.25, dtype=float32)
    """
    return _michaelis_menten(*as_floats(x, half_saturation))


def tanh(x: Values, scale: Values) -> Result:
    """Hyperbolic tangent saturation, tanh(x / c).

    Args:
        x: spend, >= 0.
        scale: c, > 0, in the unit of x.

    Returns:
        Between 0 and 1, of the broadcast shape.

    Raises:
        TypeError or ValueError: shapes that do not broadcast.

    Source: `tanh_saturation` of PyMC-Marketing with b = 1.

    >>> tanh(1.0, 2.0)
    Array(0.46211717, dtype=float32)
    """
    return _tanh_of_ratio(*as_floats(x, scale))


def root(x: Values, power: Values) -> Result:
    """Root saturation, x^p; it flattens but has no bound.

    Args:
        x: spend, >= 0.
        power: p, in [0, 1].

    Returns:
        Of the broadcast shape; 0 at x = 0 for every p, p = 0 included.

    Raises:
        TypeError or ValueError: shapes that do not broadcast.

    At x = 0 the derivative by p is 0, and the derivative by x is 1 where p = 1, else 0.

    Source: `root_saturation` of PyMC-Marketing.

    >>> root(9.0, 0.5)
    Array(3., dtype=float32)
    """
    return _root(*as_floats(x, power))


# Building blocks, shared with the fused path in media.py.


@jax.custom_jvp
def log_ratio(x: Array, k: Array) -> Array:
    """log(x / k) for x, k > 0, also where the ratio is out of the type's range; 0 for x below the smallest
    normal.

    The ratio is taken first: log x - log k would lose as many digits as log x has before the point.

    >>> import jax.numpy as jnp
    >>> log_ratio(jnp.array([0.0, 1e30]), jnp.array([1.0, 1e-30]))
    Array([  0.    , 138.1551], dtype=float32)
    """
    x, k = _normal(x), _normal(k)
    limits = jnp.finfo(x.dtype)
    ratio = x * (1.0 / k)
    inside = (ratio >= limits.tiny) & (ratio <= limits.max)
    logs = jnp.log(jnp.where(inside, ratio, x)) - jnp.where(inside, 0.0, jnp.log(k))
    return jnp.where(x > limits.tiny, logs, 0.0)


@log_ratio.defjvp
def _log_ratio_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    x, k = primals
    by_x, by_k = tangents
    return log_ratio(x, k), by_x * over(jnp.ones_like(x), x) - by_k * (1.0 / _normal(k))


@jax.custom_jvp
def sigmoid_and_slope(z: Array) -> tuple[Array, Array]:
    """The logistic function and its derivative q = h (1-h), from one exponential, without 1 - h.

    >>> import jax.numpy as jnp
    >>> sigmoid_and_slope(jnp.zeros(1))
    (Array([0.5], dtype=float32), Array([0.25], dtype=float32))
    """
    # The smaller of h and 1 - h: one number gives both results without a difference of near equals.
    small = jnp.exp(-jnp.abs(z))
    small = small / (1.0 + small)
    return jnp.where(z > 0, 1.0 - small, small), small * (1.0 - small)


@sigmoid_and_slope.defjvp
def _sigmoid_and_slope_jvp(primals: tuple, tangents: tuple) -> tuple[tuple, tuple]:
    (z,), (by_z,) = primals, tangents
    h, q = sigmoid_and_slope(z)
    return (h, q), (q * by_z, q * (1.0 - 2.0 * h) * by_z)


def over(value: Array, x: Array) -> Array:
    """value / x, and 0 where x is below the smallest normal number.

    >>> import jax.numpy as jnp
    >>> over(jnp.array([1.0, 1.0]), jnp.array([4.0, 0.0]))
    Array([0.25, 0.  ], dtype=float32)
    """
    positive = is_positive(x)
    return jnp.where(positive, value / jnp.where(positive, x, 1.0), 0.0)


def is_positive(x: Array) -> Array:
    """Whether x is at least the smallest normal number: below it a processor may flush to zero.

    >>> import jax.numpy as jnp
    >>> is_positive(jnp.array([0.0, 1e-40, 1e-30]))
    Array([False, False,  True], dtype=bool)
    """
    return x >= jnp.finfo(x.dtype).tiny


def _normal(x: Array) -> Array:
    return jnp.maximum(x, jnp.finfo(x.dtype).tiny)


def _hill_and_slope(x: Array, k: Array, s: Array) -> tuple[Array, Array, Array]:
    u = log_ratio(x, k)
    h, q = sigmoid_and_slope(s * u)
    positive = is_positive(x)
    return u, jnp.where(positive, h, 0.0), jnp.where(positive, q, 0.0)


@jax.custom_jvp
def _hill(x: Array, k: Array, s: Array) -> Array:
    return _hill_and_slope(x, k, s)[1]


@_hill.defjvp
def _hill_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    x, k, s = primals
    by_x, by_k, by_s = tangents
    u, h, q = _hill_and_slope(x, k, s)
    slope = over(q * s, x) + slope_at_zero(x, k, s)
    return h, by_x * slope - by_k * (q * s / _normal(k)) + by_s * (q * u)


def slope_at_zero(x: Array, k: Array, s: Array) -> Array:
    """dh/dx of the Hill curve where x is zero, and 0 elsewhere: 1/k where s = 1, else 0 (the limit, or
    infinite).

    >>> import jax.numpy as jnp
    >>> slope_at_zero(jnp.zeros(2), jnp.array(4.0), jnp.array([1.0, 2.0]))
    Array([0.25, 0.  ], dtype=float32)
    """
    return jnp.where(is_positive(x) | (s != 1.0), 0.0, 1.0 / _normal(k))


@jax.custom_jvp
def gone_and_rest(z: Array) -> tuple[Array, Array]:
    """1 - exp(-z) and exp(-z) for z >= 0, each to a few units in its last place, from one exponential.

    Below 1/2, where the difference would cancel, 1 - exp(-z) is the Taylor sum z (1 - z/2 (1 - z/3 (1 - ...)));
    `expm1` of XLA takes two exponentials and a division.

    >>> import jax.numpy as jnp
    >>> gone_and_rest(jnp.array([1e-10, jnp.inf]))
    (Array([1.e-10, 1.e+00], dtype=float32), Array([1., 0.], dtype=float32))
    """
    rest = jnp.exp(-z)
    small = jnp.minimum(z, 0.5)
    total = jnp.ones_like(z)
    for n in range(_TAYLOR_TERMS[z.dtype.itemsize], 1, -1):
        total = 1.0 - small * (1.0 / n) * total
    return jnp.where(jnp.abs(z) < 0.5, small * total, 1.0 - rest), rest


@gone_and_rest.defjvp
def _gone_and_rest_jvp(primals: tuple, tangents: tuple) -> tuple[tuple, tuple]:
    (z,), (by_z,) = primals, tangents
    gone, rest = gone_and_rest(z)
    return (gone, rest), (rest * by_z, -rest * by_z)


@jax.custom_jvp
def _exponential(x: Array, rate: Array) -> Array:
    return gone_and_rest(_product(x, rate))[0]


@_exponential.defjvp
def _exponential_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    x, rate = primals
    by_x, by_rate = tangents
    gone, rest = gone_and_rest(_product(x, rate))
    return gone, by_x * (rest * rate) + by_rate * (rest * x)


@jax.custom_jvp
def _tanh_and_slope(z: Array) -> tuple[Array, Array]:
    small = jnp.exp(-2.0 * jnp.abs(z))
    part = 1.0 / (1.0 + small)
    return jnp.tanh(z), 4.0 * small * part * part


@_tanh_and_slope.defjvp
def _tanh_and_slope_jvp(primals: tuple, tangents: tuple) -> tuple[tuple, tuple]:
    (z,), (by_z,) = primals, tangents
    t, q = _tanh_and_slope(z)
    return (t, q), (q * by_z, -2.0 * t * q * by_z)


@jax.custom_jvp
def _tanh_of_product(x: Array, rate: Array) -> Array:
    return jnp.tanh(_product(x, rate))


@_tanh_of_product.defjvp
def _tanh_of_product_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    x, rate = primals
    by_x, by_rate = tangents
    t, q = _tanh_and_slope(_product(x, rate))
    return t, by_x * (q * rate) + by_rate * (q * x)


@jax.custom_jvp
def _tanh_of_ratio(x: Array, scale: Array) -> Array:
    return jnp.tanh(_quotient(x, scale))


@_tanh_of_ratio.defjvp
def _tanh_of_ratio_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    x, scale = primals
    by_x, by_scale = tangents
    z = _quotient(x, scale)
    t, q = _tanh_and_slope(z)
    return t, by_x * (q / _normal(scale)) - by_scale * (q * z / _normal(scale))


@jax.custom_jvp
def _michaelis_menten(x: Array, k: Array) -> Array:
    return x * _one_over_sum(x, k)


@_michaelis_menten.defjvp
def _michaelis_menten_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    x, k = primals
    by_x, by_k = tangents
    part = _one_over_sum(x, k)
    h = x * part
    return h, by_x * (k * part * part) - by_k * (h * part)


@jax.custom_jvp
def _root(x: Array, power: Array) -> Array:
    positive = is_positive(x)
    return jnp.where(positive, jnp.where(positive, x, 1.0) ** power, 0.0)


@_root.defjvp
def _root_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    x, power = primals
    by_x, by_power = tangents
    y = _root(x, power)
    at_zero = jnp.where(is_positive(x) | (power != 1.0), 0.0, 1.0)
    return y, by_x * (over(power * y, x) + at_zero) + by_power * (y * log_ratio(x, jnp.ones_like(x)))


def _product(x: Array, rate: Array) -> Array:
    return jnp.minimum(x * rate, jnp.finfo(x.dtype).max)


def _quotient(x: Array, scale: Array) -> Array:
    return jnp.minimum(x / _normal(scale), jnp.finfo(x.dtype).max)


def _one_over_sum(x: Array, k: Array) -> Array:
    # Halves, since the sum of two finite numbers can overflow.
    half = 0.5 * x + 0.5 * k
    return 0.5 / jnp.where(half > 0, half, 1.0)
