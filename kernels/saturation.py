"""Saturation: how the response to spend flattens, as functions of one spend value at a time.

Every function works element by element and broadcasts as NumPy does: against a panel [geo, time, channel] a parameter
per geo and channel is `k[:, None]`, one per channel `k`. Spend is not negative. Values and gradients are finite at zero
spend and at the ends of the parameters' ranges, in float32 as in float64, and no intermediate overflows. Where the true
derivative by spend is infinite (a slope or a power below 1, at zero spend) the derivative is given as 0: a week without
spend then adds nothing to a gradient, as in a model that masks it.

Derivatives are written by hand with `jax.custom_jvp`: forward and reverse mode, to any order. Where a difference such as
1 - h would cancel, they use a form that does not.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from pelton.kernels.adstock import as_floats

Values = Num[Array | np.ndarray, "*#shape"] | float | int
Result = Float[Array, "*#shape"]


def hill(x: Values, half_saturation: Values, slope: Values = 1.0) -> Result:
    """Hill saturation, h = x^s / (x^s + k^s) = sigmoid(s (log x - log k)).

    Args:
        x: spend, >= 0; any unit.
        half_saturation: k, the spend at which h = 1/2; > 0, in the unit of x.
        slope: s, >= 0; above 1 the curve is S-shaped.

    Returns:
        Between 0 and 1, of the broadcast shape; 0 at x = 0. A spend below the smallest normal number counts as 0.

    Raises:
        TypeError or ValueError: shapes that do not broadcast.

    One logarithm and one exponential an element, kept for the derivatives:
    dh/ds = h (1-h) log(x/k), dh/dk = -h (1-h) s/k, dh/dx = h (1-h) s/x; at x = 0, dh/dx is 1/k where s = 1, else 0.

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
    return _tanh(_product(0.5 * x, rate))


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
    return _tanh(_ratio(*as_floats(x, scale)))


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
