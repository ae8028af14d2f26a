"""Owns the log-gamma differences that keep their accuracy in float32 where differences of lgamma lose it."""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

__all__ = [
    "digamma_difference",
    "log1pmx",
    "log_rising",
    "log_rising_ratio",
    "log_rising_ratio_of_log",
    "stirling_remainder",
]

HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)

# B_{2j} / (2j (2j-1)), the series of log Gamma in odd powers of 1/x (Abramowitz & Stegun 6.1.41).
_STIRLING = (
    1 / 12,
    -1 / 360,
    1 / 1260,
    -1 / 1680,
    1 / 1188,
    -691 / 360360,
    1 / 156,
    -3617 / 122400,
    43867 / 244188,
    -174611 / 125400,
)
# -B_{2j} / (2j), the series of psi(x) - log x + 1/(2x) in even powers of 1/x (Abramowitz & Stegun 6.3.18).
_DIGAMMA = tuple(-(2 * j + 1) * c for j, c in enumerate(_STIRLING))

# Below this x the ratio forms keep powers of 1/x out of the products, so that a tiny x overflows nothing.
_TINY_X = 1e-3


def one_program(function: Callable[..., Array]) -> Callable[..., Array]:
    """Compiled as a whole where it is called by itself, and no call of its own inside a larger program."""
    return jax.jit(function, inline=True)


def _floats(*args: ArrayLike) -> tuple[Array, ...]:
    """Broadcast-ready arrays of the floating type that the arguments promote to."""
    arrays = [jnp.asarray(arg) for arg in args]
    dtype = jnp.result_type(*arrays)
    if not jnp.issubdtype(dtype, jnp.floating):
        dtype = jnp.result_type(float)
    return tuple(jnp.asarray(array, dtype) for array in arrays)


def asymptotic_from(dtype: jnp.dtype) -> int:
    """Where the asymptotic series take over: its last kept terms are below half an ULP from here on."""
    return 8 if dtype == jnp.float64 else 4


def _stirling_coefficients(dtype: jnp.dtype) -> tuple[float, ...]:
    return _STIRLING if dtype == jnp.float64 else _STIRLING[:4]


def _digamma_coefficients(dtype: jnp.dtype) -> tuple[float, ...]:
    return _DIGAMMA if dtype == jnp.float64 else _DIGAMMA[:5]


def _horner(coefficients: tuple[float, ...], w: Array) -> Array:
    total = jnp.full_like(w, coefficients[-1])
    for c in coefficients[-2::-1]:
        total = total * w + c
    return total


def _atanh_tail(y: Array, largest: float = 1 / 9) -> Array:
    """1/3 + y/5 + y^2/7 + ... for 0 <= y <= largest: what is left of atanh after its first term."""
    digits = 17 if y.dtype == jnp.float64 else 7.5
    terms = math.ceil(digits * math.log(10) / -math.log(largest))
    return _horner(tuple(1 / (2 * j + 3) for j in range(terms)), y)


def curvature(x: Array) -> Array:
    """(x - log1p(x)) / x^2 for -1/2 <= x <= 1; no cancellation, 1/2 at zero."""
    # With q = x/(2+x): log1p(x) = 2 atanh(q) and 2q - x = -x q.
    p = 1 / (2 + x)
    q = x * p
    return p * (1 - 2 * p * q * _atanh_tail(q * q))


def log1pmx(x: ArrayLike) -> Float[Array, "..."]:
    """log(1 + x) - x, relatively accurate for every x > -1.

    Inside [-1/2, 1]: with q = x / (2 + x), log1p(x) - x = -q (x - 2 q^2 (1/3 + q^2/5 + q^4/7 + ...));
    outside, the difference as it stands, which there loses two bits at most.

    Args:
        x: any shape, above -1 (-inf at -1, nan below).

    Source:
        M. Abramowitz and I. Stegun, Handbook of Mathematical Functions, 4.1.27; the form follows R's nmath.

    >>> print(f"{log1pmx(1e-4):.5e}")
    -4.99967e-09
    """
    return _log1pmx_program(*_floats(x))


@jax.custom_jvp
def _log1pmx(x: Array) -> Array:
    near = (x >= -0.5) & (x <= 1)
    inner = jnp.where(near, x, 0)
    outer = jnp.where(near, 1, x)
    return jnp.where(near, -inner * inner * curvature(inner), jnp.log1p(outer) - outer)


@_log1pmx.defjvp
def _log1pmx_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    return _log1pmx(x), -x / (1 + x) * dx


def _stirling_series(x: Array) -> Array:
    v = 1 / x
    return v * _horner(_stirling_coefficients(x.dtype), v * v)


def stirling_remainder(x: ArrayLike) -> Float[Array, "..."]:
    """D(x) = log Gamma(x) - [(x - 1/2) log x - x + log(2 pi)/2], what Stirling's formula leaves.

    From 8 on (4 in float32) the series 1/(12x) - 1/(360x^3) + ...; below, D(x) = D(x + 1) + y/3 + y^2/5 + ...
    with y = (2x + 1)^-2, one unit at a time, and for x < 1/2 its closed form (x + 1/2) log1p(1/x) - 1.

    Args:
        x: any shape, positive (nan otherwise).

    Source:
        A. DiDonato and A. Morris, ACM TOMS 18 (1992) 360; Abramowitz & Stegun 6.1.41.

    >>> print(f"{stirling_remainder(1.0):.6f}")
    0.081061
    """
    return _stirling_remainder_program(*_floats(x))


@jax.custom_jvp
def _stirling_remainder(x: Array) -> Array:
    n = asymptotic_from(x.dtype)
    small = x < n
    low = jnp.where(small, x, 1.0)
    direct = low < 0.5
    first = jnp.where(direct, low, 0.5)
    y = 1 / jnp.square(2 * jnp.maximum(low, 0.5) + 1)
    total = jnp.where(direct, (first + 0.5) * jnp.log1p(1 / first) - 1, y * _atanh_tail(y, 1 / 4))
    for i in range(1, n):
        y = 1 / jnp.square(2 * (low + i) + 1)
        total = total + y * _atanh_tail(y, 1 / (2 * i + 1) ** 2)
    value = _stirling_series(jnp.where(small, x + n, x)) + jnp.where(small, total, 0)
    return jnp.where(x > 0, value, jnp.nan)


@_stirling_remainder.defjvp
def _stirling_remainder_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    # D' = psi - log x + 1/(2x)
    return _stirling_remainder(x), (digamma_minus_log(x) + 0.5 / x) * dx


def digamma_minus_log(x: ArrayLike) -> Float[Array, "..."]:
    """psi(x) - log x for x > 0, without forming either."""
    (x,) = _floats(x)
    n = asymptotic_from(x.dtype)
    small = x < n
    low = jnp.where(small, x, 1)
    y = jnp.where(small, x + n, x)
    v = 1 / y
    total = -0.5 * v + v * v * _horner(_digamma_coefficients(x.dtype), v * v)
    lift = jnp.log1p(n / low)
    for i in range(n):
        lift = lift - 1 / (low + i)
    return jnp.where(x > 0, total + jnp.where(small, lift, 0), jnp.nan)


def digamma_series_difference(x: Array, m: Array) -> Array:
    """E(x+m) - E(x), E(x) = psi(x) - log x + 1/(2x), for large x: by a divided difference."""
    top = x + m
    v1, v2 = 1 / x, 1 / top
    w1, w2 = v1 * v1, v2 * v2
    *rest, last = _digamma_coefficients(x.dtype)
    p = jnp.full_like(w1, last)
    d = jnp.zeros_like(w1 + w2)
    for c in rest[::-1]:
        d = d * w2 + p
        p = p * w1 + c
    d = d * w2 + p
    return -(m * v1 * v2) * (v1 + v2) * d


def digamma_remainder_difference(x: Array, m: Array) -> Float[Array, "..."]:
    """[psi(x+m) - log(x+m)] - [psi(x) - log x] for x > 0, m >= 0, relatively accurate; takes arrays only."""
    n = asymptotic_from(x.dtype)
    small = x < n
    y = jnp.where(small, x + n, x)
    total = 0.5 * (m / y) / (y + m) + digamma_series_difference(y, m)
    low = jnp.where(small, x, 1)
    lift = -jnp.log1p((m / low) * (n / (low + m + n)))
    for i in range(n):
        lift = lift + (m / (low + i + m)) / (low + i)
    return total + jnp.where(small, lift, 0)


def digamma_difference(x: ArrayLike, m: ArrayLike) -> Float[Array, "..."]:
    """psi(x + m) - psi(x), relatively accurate for x > 0, m >= 0.

    For x >= 8 (4 in float32): log1p(m/x) + m/(2x(x+m)) - ((x+m)^-2 - x^-2)/12 + ...; below, the argument is
    shifted up by psi(x+m) - psi(x) = psi(x+1+m) - psi(x+1) + m/(x(x+m)). Every term is positive.

    Args:
        x, m: any shapes that broadcast.

    Source:
        Abramowitz & Stegun 6.3.18 and 6.3.6.

    >>> print(f"{digamma_difference(2.0, 3.0):.5f}")  # 1/2 + 1/3 + 1/4
    1.08333
    """
    return _digamma_difference(*_floats(x, m))


@one_program
def _digamma_difference(x: Array, m: Array) -> Array:
    n = asymptotic_from(x.dtype)
    small = x < n
    y = jnp.where(small, x + n, x)
    total = jnp.log1p(m / y) + 0.5 * (m / y) / (y + m) + digamma_series_difference(y, m)
    low = jnp.where(small, x, 1)
    lift = jnp.zeros_like(total)
    for i in range(n):
        lift = lift + (m / (low + i + m)) / (low + i)
    return jnp.where(x > 0, total + jnp.where(small, lift, 0), jnp.nan)


def _split_steps(x: Array, m: Array) -> tuple[Array, Array, Array, Array]:
    """How R walks up to the asymptotic range.

    Of the n unit steps, the first `steps` peel off whole factors of the rising factorial (terms of one sign,
    so nothing cancels); the others shift the argument, which whole m meet only with rest = 0: they add 0.
    """
    n = asymptotic_from(x.dtype)
    small = x < n
    steps = jnp.where(small, jnp.minimum(jnp.floor(jax.lax.stop_gradient(m)), n), 0)
    rest = m - steps
    y = jnp.where(small, x + n, x)
    return small, steps, rest, y


def _ratio_series(y: Array, m: Array) -> Array:
    """R(y, m) for y in the asymptotic range."""
    r = m / y
    near = r <= 1
    r_near = jnp.where(near, r, 0)
    # (y + m - 1/2) log1pmx(r) + r (m - 1/2), with r^2 taken out so that it cannot underflow first
    close = r_near * ((m - 0.5) - m * (1 + r_near - 0.5 / y) * curvature(r_near))
    far = (y + m - 0.5) * jnp.log1p(jnp.where(near, 1, r)) - m
    value = jnp.where(near, close, far) + (_stirling_series(y + m) - _stirling_series(y))
    # A compiler may contract the last difference to a fused multiply-add, which leaves its rounding at m = 0
    return jnp.where((m == 0) | (m == 1), 0, value)


@jax.custom_jvp
def _vanish(value: Array) -> Array:
    """Exactly 0, with the derivative of `value`, which is 0 but for rounding."""
    return jnp.zeros_like(value)


@_vanish.defjvp
def _vanish_jvp(primals, tangents):
    return _vanish(*primals), tangents[0]


def _ratio_value(x: Array, log_x: Array | None, m: Array) -> Array:
    n = asymptotic_from(x.dtype)
    x = jnp.minimum(x, jnp.finfo(x.dtype).max / 8)
    small, steps, rest, y = _split_steps(x, m)
    low = jnp.where(small, x, 1)
    c = jnp.maximum(low, _TINY_X)
    # c / x as a logarithm: zero but for tiny x
    tiny = low < _TINY_X
    lift = jnp.where(tiny, math.log(_TINY_X) - (jnp.log(low) if log_x is None else log_x), 0)
    # p + 1 is the product of the factors (x + i)/c and (x + i)/(x + i + rest) but for x / (x + rest), which
    # alone can be near 0
    p = jnp.zeros_like(rest)
    for i in range(1, n):
        q = jnp.where(i < steps, (low - c + i) / c, -rest / (low + i + rest))
        p = p + q + p * q
    first = jnp.where((steps > 0) | (rest == 0), 1, low / (low + rest))
    logs = jnp.log1p(p) + jnp.log(first)
    shifted = logs + jnp.maximum(steps - 1, 0) * lift + rest * (jnp.log((low + n) / c) + lift)
    return _ratio_series(y, rest) + jnp.where(small, shifted, 0)


def _ratio_slope(x: Array, m: Array) -> Array:
    """x dR/dx = x (psi(x+m) - psi(x)) - m: bounded as x -> 0, without cancellation for whole m."""
    n = asymptotic_from(x.dtype)
    x = jnp.minimum(x, jnp.finfo(x.dtype).max / 8)
    small, steps, rest, y = _split_steps(x, m)
    r = rest / y
    near = r <= 1
    r_near = jnp.where(near, r, 0)
    r_far = jnp.where(near, 1, r)
    bend = jnp.where(near, -r_near * r_near * curvature(r_near), jnp.log1p(r_far) - r_far)
    # For y = x, x * bend is formed as rest * (r * curvature): r^2 may underflow
    times_y = jnp.where(near, -rest * r_near * curvature(r_near), y * bend)
    share = jnp.where(small, x / y, 1)
    series = share * (times_y + 0.5 * rest / (y + rest) + y * digamma_series_difference(y, rest))
    series = jnp.where((rest == 0) | (rest == 1), _vanish(series), series)
    low = jnp.where(small, x, 1)
    shifted = -rest * n / (low + n)
    bare = rest == 0
    # At rest = 0 only the derivative by m is left, 1/x; the bound keeps its own derivative from 0/0 at tiny x
    first = rest / jnp.where(bare, jnp.maximum(low, 1e-9), low + rest)
    shifted = shifted + jnp.where(steps > 0, 0, first)
    for i in range(1, n):
        moved = rest / (low + i + rest) * (low / (low + i))
        shifted = shifted + jnp.where(i < steps, -i / (low + i), moved)
    return series + jnp.where(small, shifted, 0)


def _ratio_by_count(x: Array, m: Array) -> Array:
    """dR/dm = psi(x+m) - log x."""
    tiny = x < _TINY_X
    safe = jnp.where(tiny, 1, x)
    logs = jnp.where(tiny, jnp.log(x + m) - jnp.log(x), jnp.log1p(m / safe))
    return logs + digamma_minus_log(x + m)


@jax.custom_jvp
def _ratio(x: Array, m: Array) -> Array:
    valid = (x > 0) & (m >= 0)
    return jnp.where(valid, _ratio_value(jnp.where(valid, x, 1), None, jnp.where(valid, m, 0)), jnp.nan)


@functools.partial(_ratio.defjvp, symbolic_zeros=True)
def _ratio_jvp(primals, tangents):
    (x, m), (dx, dm) = primals, tangents
    slope = lambda: _ratio_slope(x, m) / x  # noqa: E731
    return _ratio(x, m), _chain((dx, slope), (dm, lambda: _ratio_by_count(x, m)), x + m)


def _chain(first, second, like):
    """The sum of slope * tangent over the tangents that are there."""
    total = jnp.zeros_like(like)
    for tangent, slope in (first, second):
        if not isinstance(tangent, jax.custom_derivatives.SymbolicZero):
            total = total + slope() * tangent
    return total


def log_rising_ratio(x: ArrayLike, m: ArrayLike) -> Float[Array, "..."]:
    """R(x, m) = log Gamma(x+m) - log Gamma(x) - m log x = sum_{j<m} log1p(j/x), relatively accurate.

    For x >= 8 (4 in float32), with r = m/x and D the Stirling remainder,
    R = (x + m - 1/2) log1pmx(r) + r (m - 1/2) + D(x+m) - D(x); below, whole factors are taken off first. R is
    exactly 0 at m = 0 and m = 1 and falls as m(m-1)/(2x) for large x. Derivatives: dR/dx = psi(x+m) - psi(x)
    - m/x without cancellation, dR/dm = psi(x+m) - log x; both can be differentiated again.

    Args:
        x: any shape, positive (nan otherwise).
        m: any shape that broadcasts, at least 0 (nan otherwise); counts as a rule. For fractions near the
            roots 0 and 1 the error is a few ULP of m/x rather than of R.

    Source:
        A. DiDonato and A. Morris, ACM TOMS 18 (1992) 360, for the remainder form.

    >>> print(f"{log_rising_ratio(10.0, 3.0):.5f}")  # log(1.1) + log(1.2)
    0.27763
    """
    return _ratio_program(*jnp.broadcast_arrays(*_floats(x, m)))


@jax.custom_jvp
def _ratio_of_log(log_x: Array, m: Array) -> Array:
    return _ratio_value(jnp.exp(log_x), log_x, m)


@functools.partial(_ratio_of_log.defjvp, symbolic_zeros=True)
def _ratio_of_log_jvp(primals, tangents):
    (log_x, m), (dlog_x, dm) = primals, tangents
    slope = functools.partial(_ratio_slope_of_log, log_x, m)
    by_count = lambda: _ratio_by_count(jnp.exp(log_x), m)  # noqa: E731
    return _ratio_of_log(log_x, m), _chain((dlog_x, slope), (dm, by_count), log_x + m)


def _ratio_slope_of_log(log_x: Array, m: Array) -> Array:
    return _ratio_slope(jnp.exp(log_x), m)


def log_rising_ratio_of_log(log_x: ArrayLike, m: ArrayLike) -> Float[Array, "..."]:
    """R(exp(log_x), m): `log_rising_ratio` on the logarithm of x, which may be far below what x can be.

    Args:
        log_x, m: any shapes that broadcast; m at least 0.

    Source:
        as `log_rising_ratio`; d/dlog_x = x (psi(x+m) - psi(x)) - m stays in [-m, 0].

    >>> print(log_rising_ratio_of_log(-200.0, 2.0))
    200.0
    """
    return _ratio_of_log_program(*jnp.broadcast_arrays(*_floats(log_x, m)))


@jax.custom_jvp
def _rising(x: Array, m: Array) -> Array:
    n = asymptotic_from(x.dtype)
    valid = (x > 0) & (m >= 0)
    x, m = jnp.where(valid, x, 1), jnp.where(valid, m, 0)
    small, steps, rest, y = _split_steps(x, m)
    low = jnp.where(small, x, 1)
    p = jnp.ones_like(low)
    for i in range(n):
        p = p * jnp.where(i < steps, low + i, jnp.where(rest == 0, 1, (low + i) / (low + i + rest)))
    value = rest * jnp.log(y) + _ratio_series(y, rest) + jnp.where(small, jnp.log(p), 0)
    return jnp.where(valid, value, jnp.nan)


@functools.partial(_rising.defjvp, symbolic_zeros=True)
def _rising_jvp(primals, tangents):
    (x, m), (dx, dm) = primals, tangents
    by_count = lambda: jnp.log(x + m) + digamma_minus_log(x + m)  # noqa: E731
    return _rising(x, m), _chain((dx, lambda: digamma_difference(x, m)), (dm, by_count), x + m)


def log_rising(x: ArrayLike, m: ArrayLike) -> Float[Array, "..."]:
    """S(x, m) = log Gamma(x+m) - log Gamma(x), the logarithm of the rising factorial x (x+1) ... (x+m-1).

    S = m log x + R(x, m) (see `log_rising_ratio`); below x = 8 (4 in float32) whole factors are taken off
    first. Derivatives: dS/dx = psi(x+m) - psi(x), dS/dm = psi(x+m).

    Args:
        x: any shape, positive (nan otherwise).
        m: any shape that broadcasts, at least 0 (nan otherwise).

    Source:
        A. DiDonato and A. Morris, ACM TOMS 18 (1992) 360.

    >>> print(f"{log_rising(2.0, 3.0):.5f}")  # log(2 * 3 * 4)
    3.17805
    """
    return _rising_program(*jnp.broadcast_arrays(*_floats(x, m)))


# A rule is registered on the function itself, hence no decorators.
_log1pmx_program = one_program(_log1pmx)
_stirling_remainder_program = one_program(_stirling_remainder)
_ratio_program = one_program(_ratio)
_ratio_of_log_program = one_program(_ratio_of_log)
_rising_program = one_program(_rising)
