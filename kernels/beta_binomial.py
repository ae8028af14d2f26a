"""Owns the beta-binomial: log-density from counts or sufficient statistics, conjugate draws of rates."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key, Num, UInt32

from pelton.kernels.special import (
    HALF_LOG_2PI,
    asymptotic_from,
    curvature,
    digamma_remainder_difference,
    digamma_series_difference,
    log1pmx,
    log_rising_ratio_of_log,
    one_program,
    stirling_remainder,
)

__all__ = [
    "CountTables",
    "Exceedance",
    "Nodes",
    "UniqueCounts",
    "count_tables",
    "draw_rates",
    "log_likelihood",
    "log_likelihood_units",
    "log_pmf",
    "tables_of_occurrences",
]

# What one term of the "unique" form costs in terms of the "histogram" form.
UNIQUE_COST = 5
# Of an x below exp(-40), log1p(j/x) is log(j/x) to rounding, and j/x might overflow.
LEAST_LOG = -40.0


class _Counts(NamedTuple):
    """Whole numbers as unevaluated sums hi + lo, exact past the 24 bits of float32."""

    k: Array
    k_lo: Array
    m: Array
    m_lo: Array
    n: Array


def _two_sum(x: Array, y: Array) -> tuple[Array, Array]:
    s = x + y
    t = s - x
    return s, (x - (s - t)) + (y - t)


def _split(x: Array) -> tuple[Array, Array]:
    """x = head + tail with so few bits in each that products of heads and tails are exact.

    Bits are masked rather than rounded away by arithmetic: no compiler can simplify that, and exact products
    are the same whether or not it contracts them to fused multiply-adds.
    """
    bits, mask = (np.uint64, -(1 << 27) % (1 << 64)) if x.dtype == jnp.float64 else (np.uint32, 0xFFFFF000)
    head = jax.lax.bitcast_convert_type(jax.lax.bitcast_convert_type(x, bits) & bits(mask), x.dtype)
    return head, x - head


def _halves(count: Array, dtype: jnp.dtype) -> tuple[Array, Array]:
    if jnp.issubdtype(count.dtype, jnp.floating):
        high = count.astype(dtype)
        low = (count - high.astype(count.dtype)).astype(dtype)
        return high, low
    if count.dtype.itemsize < 4:
        return count.astype(dtype), jnp.zeros(count.shape, dtype)
    bits = 27 if count.dtype.itemsize == 8 and dtype == jnp.float64 else 12
    high = (count >> bits) << bits
    return _two_sum(high.astype(dtype), (count - high).astype(dtype))


def _prepare(successes, trials, alpha, beta) -> tuple[Array, Array, _Counts]:
    # Not broadcast: with one alpha and beta for all units, what depends on them alone is computed once
    k, n, a, b = (jnp.asarray(v) for v in (successes, trials, alpha, beta))
    dtype = jnp.result_type(a, b)
    if not jnp.issubdtype(dtype, jnp.floating):
        dtype = jnp.result_type(float)
    if jnp.issubdtype(k.dtype, jnp.floating) or jnp.issubdtype(n.dtype, jnp.floating):
        # float64 counts keep a float64 density; float32 counts leave the parameters' precision as it is
        dtype = jnp.result_type(dtype, *(v.dtype for v in (k, n) if jnp.issubdtype(v.dtype, jnp.floating)))
    k_hi, k_lo = _halves(k, dtype)
    n_hi, n_lo = _halves(n, dtype)
    m, e = _two_sum(n_hi, -k_hi)
    m, m_lo = _two_sum(m, e + (n_lo - k_lo))
    return a.astype(dtype), b.astype(dtype), _Counts(k_hi, k_lo, m, m_lo, n_hi)


def _discrepancy(a: Array, b: Array, c: _Counts) -> Array:
    """(b k - a m) / (a + b + n), how far the successes lie from their share, without cancellation.

    A constant to differentiation: `_excess` and `_log_excess` carry its derivatives in closed form.
    """
    a, b, c = jax.lax.stop_gradient((a, b, c))
    # A power of two, so that the products stay in range and exact.
    scale = jnp.where(a + b > 2.0**40, jnp.asarray(2.0**-40, a.dtype), 1)
    a, b = a * scale, b * scale
    (a1, a2), (b1, b2), (k1, k2), (m1, m2) = _split(a), _split(b), _split(c.k), _split(c.m)
    # The largest terms meet first
    total, error = _two_sum(b1 * k1, -(a1 * m1))
    for term in (b1 * k2, -(a1 * m2), b2 * k1, -(a2 * m1), b2 * k2, -(a2 * m2)):
        total, e = _two_sum(total, term)
        error = error + e
    error = error + (b * c.k_lo - a * c.m_lo)
    return (total + error) / (a + b + scale * c.n)


def _deviance(x: Array, u: Array, ratio: Array) -> Array:
    """x (log(1 + u) - u), where `ratio` gives 1 + u as a product that does not cancel as u nears -1."""
    low = u < -0.5
    return x * jnp.where(low, jnp.log(jnp.where(low, ratio, 1)) - u, log1pmx(jnp.where(low, 0, u)))


@jax.custom_jvp
def _log_pmf(a: Array, b: Array, c: _Counts) -> Array:
    k, m, n = c.k, c.m, c.n
    inside = (k >= 0) & (m >= 0)
    some_k, some_m = inside & (k > 0), inside & (m > 0)
    # Stand-ins where a branch is not taken
    k1, m1, n1 = jnp.where(some_k, k, 1), jnp.where(some_m, m, 1), jnp.where(some_k | some_m, n, 1)
    s = a + b
    delta = _discrepancy(a, b, c)
    miss, hit = s / (s + n), n / (s + n)

    gain = _deviance(a, delta / a, (1 + k1 / a) * miss) + _deviance(k1, -delta / k1, (1 + a / k1) * hit)
    loss = _deviance(b, -delta / b, (1 + m1 / b) * miss) + _deviance(m1, delta / m1, (1 + b / m1) * hit)
    d_gain = stirling_remainder(a + k) - stirling_remainder(a) - stirling_remainder(k1)
    d_loss = stirling_remainder(b + m) - stirling_remainder(b) - stirling_remainder(m1)
    d_all = stirling_remainder(s + n) - stirling_remainder(s) - stirling_remainder(n1)
    none = jnp.log1p(n / s)
    value = jnp.where(some_k, gain + d_gain, -a * none) + jnp.where(some_m, loss + d_loss, -b * none) - d_all

    one = jnp.ones_like(s)
    roots = (jnp.where(some_k, a / (a + k), one) * jnp.where(some_m, b / (b + m), one)) / miss
    both = some_k & some_m
    value = value + 0.5 * jnp.log(roots * jnp.where(both, n1 / k1 / m1, one))
    value = value - jnp.where(both, HALF_LOG_2PI, 0)
    value = jnp.where(some_k | some_m, value, 0)
    value = jnp.where(inside, value, -jnp.inf)
    return jnp.where((a > 0) & (b > 0), value, jnp.nan)


def _swap(c: _Counts) -> _Counts:
    return _Counts(c.m, c.m_lo, c.k, c.k_lo, c.n)


def _one_plus(a: Array, b: Array, c: _Counts, u: Array) -> Array:
    s = a + b
    return jnp.where(u < -0.5, (1 + c.k / a) * (s / (s + c.n)), 1 + u)


@jax.custom_jvp
def _excess(a: Array, b: Array, c: _Counts, delta: Array) -> Array:
    """u = delta / a; 1 + u = [(a + k) / (s + n)] / (a / s) is the posterior mean over the prior mean."""
    return delta / a


@_excess.defjvp
def _excess_jvp(primals, tangents):
    a, b, c, delta = primals
    u = _excess(a, b, c, delta)
    return u, _one_plus(a, b, c, u) * _log_excess_tangent(a, b, c, delta, *tangents[:2])


@jax.custom_jvp
def _log_excess(a: Array, b: Array, c: _Counts, delta: Array) -> Array:
    """log(1 + u)."""
    u = _excess(a, b, c, delta)
    low = u < -0.5
    return jnp.where(low, jnp.log(jnp.where(low, _one_plus(a, b, c, u), 1)), jnp.log1p(jnp.where(low, 0, u)))


@_log_excess.defjvp
def _log_excess_jvp(primals, tangents):
    return _log_excess(*primals), _log_excess_tangent(*primals, *tangents[:2])


def _log_excess_tangent(a, b, c, delta, da, db):
    s = a + b
    return -2 * _half_step(a, b, c, delta) * da + (c.n / (s + c.n)) / s * db


def _half_step(a: Array, b: Array, c: _Counts, delta: Array) -> Array:
    """1/2 [1/a - 1/(a+k) - 1/s + 1/(s+n)], by whichever form does not cancel."""
    s = a + b
    total = s + c.n
    u = _excess(a, b, c, delta)
    part = (b / s) * (c.n / total)
    lean = u * (s / total) / _one_plus(a, b, c, u)
    by_unit = (c.k / a) / (a + c.k) - (c.n / s) / total
    by_margin = (b / a) / s - ((b + c.m) / (a + c.k)) / total
    other = jnp.where(_pair_by_margin(a, b, c), by_margin, by_unit)
    return 0.5 * jnp.where(lean > -0.5 * part, (part + lean) / a, other)


def _pair_by_margin(a: Array, b: Array, c: _Counts) -> Array:
    """Of a difference of differences over a, a+k, s, s+n: whether (a, s), (a+k, s+n) are the closer pairs."""
    s = a + b
    margins = jnp.maximum((b / a) / s, ((b + c.m) / (a + c.k)) / (s + c.n))
    units = jnp.maximum((c.k / a) / (a + c.k), (c.n / s) / (s + c.n))
    return (b < a) & (margins < units)


def _slope(a: Array, b: Array, c: _Counts, delta: Array) -> Array:
    """dL/da = psi(a+k) - psi(a) - psi(s+n) + psi(s): log(1 + u) holds the logarithms, the rest is small."""
    # psi - log at a, a + k, s, s + n: paired so that the two differences do not cancel
    near = _pair_by_margin(a, b, c)
    x1, h1 = a, jnp.where(near, b, c.k)
    x2, h2 = jnp.where(near, a + c.k, a + b), jnp.where(near, b + c.m, c.n)
    small = a < asymptotic_from(a.dtype)
    low1, low2 = jnp.where(small, x1, 1), jnp.where(small, x2, 1)
    high1, high2 = jnp.where(small, 10, x1), jnp.where(small, 10, x2)
    low = digamma_remainder_difference(low1, h1) - digamma_remainder_difference(low2, h2)
    high = digamma_series_difference(high1, h1) - digamma_series_difference(high2, h2)
    return _log_excess(a, b, c, delta) + jnp.where(small, low, _half_step(a, b, c, delta) + high)


@functools.partial(_log_pmf.defjvp, symbolic_zeros=True)
def _log_pmf_jvp(primals, tangents):
    a, b, c = primals
    da, db, dc = tangents
    absent = jax.custom_derivatives.SymbolicZero
    if not all(isinstance(t, absent) or t.dtype == jax.dtypes.float0 for t in dc):
        raise TypeError(
            "log_pmf has no derivative with respect to successes or trials: they are data. Differentiate "
            "with respect to alpha and beta only, or pass the counts through jax.lax.stop_gradient."
        )
    value = _log_pmf(a, b, c)
    inside = (c.k >= 0) & (c.m >= 0)
    c = jax.tree.map(lambda part: jnp.where(inside, part, 0), c)
    delta = _discrepancy(a, b, c)
    tangent = jnp.zeros_like(value)
    if not isinstance(da, absent):
        tangent = tangent + jnp.where(inside, _slope(a, b, c, delta), 0) * da
    if not isinstance(db, absent):
        tangent = tangent + jnp.where(inside, _slope(b, a, _swap(c), -delta), 0) * db
    return value, tangent


@one_program
def _log_pmf_program(successes, trials, alpha, beta):
    return _log_pmf(*_prepare(successes, trials, alpha, beta))


def log_pmf(
    successes: Num[ArrayLike, "*#shape"],
    trials: Num[ArrayLike, "*#shape"],
    alpha: Num[ArrayLike, "*#shape"],
    beta: Num[ArrayLike, "*#shape"],
) -> Float[Array, "..."]:
    """log C(n, k) B(alpha + k, beta + n - k) / B(alpha, beta), the log-density of one unit's successes.

    Deviance form: with s = alpha + beta, m = n - k and delta = (beta k - alpha m) / (s + n),

        log P = alpha log1pmx(delta/alpha) + k log1pmx(-delta/k)
              + beta log1pmx(-delta/beta) + m log1pmx(delta/m)
              + 1/2 log[alpha beta (s+n) n / ((alpha+k) (beta+m) s k m)] - 1/2 log 2 pi
              + remainders of Stirling's formula,

    delta in doubled precision, k = 0 and k = n in branches of their own. Nothing large is subtracted, so that
    the binomial limit holds at any concentration.

    Args:
        successes, trials: counts, 0 <= k <= n (-inf outside). Integers are taken exactly; floating ones to
            the precision of their type (float32 holds whole numbers to 2^24). They are data: asking for a
            derivative with respect to floating counts raises a TypeError.
        alpha, beta: positive (nan otherwise), from 1e-25 in float32.

    Returns:
        The broadcast shape, in the floating type of alpha and beta. To n = 1e9 and alpha + beta = 1e18 errors
        stay below 1e-5 in float32 and 1e-13 in float64: absolute to a value of 10 in size, relative past it
        and for the gradients. That is for alpha and beta as given: where kappa and n are both past 1e7, their
        own rounding to float32 moves the value by more than that, and float64 is called for.

    Raises:
        TypeError: a derivative with respect to the counts was asked for.

    Source:
        C. Loader, Fast and accurate computation of binomial probabilities (2000), applied to the negative
        binomials of successes, failures and trials, whose quotient the beta-binomial is.

    >>> print(f"{log_pmf(500, 1000, 5e18, 5e18):.3f}")
    -3.680
    """
    return _log_pmf_program(successes, trials, alpha, beta)


class Exceedance(NamedTuple):
    """Counts of units past each value: `above[..., j-1]` is how many units have a count greater than j."""

    above: Num[Array, "*groups values"] | Num[np.ndarray, "*groups values"]


class UniqueCounts(NamedTuple):
    """The values past one that occur, and how often: pads have value and weight zero."""

    values: Num[Array, "*groups values"] | Num[np.ndarray, "*groups values"]
    weights: Num[Array, "*groups values"] | Num[np.ndarray, "*groups values"]


class Nodes(NamedTuple):
    """Points j > 0 and weights for which sum_q w_q log1p(j_q / x) is the margin's sum (`count_nodes.compressed`)."""

    points: Num[Array, "*groups nodes"] | Num[np.ndarray, "*groups nodes"]
    weights: Num[Array, "*groups nodes"] | Num[np.ndarray, "*groups nodes"]


type Margin = Exceedance | UniqueCounts | Nodes


class CountTables(NamedTuple):
    """Sufficient statistics of the hyperparameter likelihood: two totals and a table for each margin.

    The kind of each table (`Exceedance`, `UniqueCounts` or `Nodes`) belongs to the pytree's structure, so that a
    compiled program is reused for new data unless a kind or a length changes. Leaves have the leading axis of
    the groups, if there are groups.
    """

    total_successes: Num[Array, "*groups"] | Num[np.ndarray, "*groups"]
    total_failures: Num[Array, "*groups"] | Num[np.ndarray, "*groups"]
    successes: Margin
    failures: Margin
    trials: Margin


def _bucket(length: int, pad: bool) -> int:
    """The next of 16, 23, 32, 46, 64, ...: at most 41 percent more, and few different lengths."""
    if not pad:
        return length
    i = 0
    while int(16 * 2 ** (i / 2) + 0.5) < length:
        i += 1
    return int(16 * 2 ** (i / 2) + 0.5)


_BLOCK = 1 << 22
# Above this many cells a dense table of counts gives way to sorting.
_DENSE_CELLS = 1 << 25


def _occurrences(values: np.ndarray, group: np.ndarray | None, groups: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Sorted keys group * size + value that occur, their multiplicities, and size."""
    size = int(values.max(initial=0)) + 1
    cells = groups * size
    if cells > max(_DENSE_CELLS, 2 * values.size):
        keys = values.astype(np.int64) if group is None else group.astype(np.int64) * size + values
        unique, counts = np.unique(keys, return_counts=True)
        return unique, counts, size
    total = np.zeros(cells, np.int64)
    for start in range(0, values.size, _BLOCK):
        block = values[start : start + _BLOCK]
        keys = block if group is None else group[start : start + _BLOCK].astype(np.int64) * size + block
        total += np.bincount(keys, minlength=cells)
    unique = np.flatnonzero(total)
    return unique, total[unique], size


def _margin(
    values: np.ndarray, group: np.ndarray | None, groups: int, form: str, pad: bool
) -> Exceedance | UniqueCounts:
    return _table(*_occurrences(values, group, groups), groups, form, pad)


def _table(
    keys: np.ndarray, counts: np.ndarray, size: int, groups: int, form: str, pad: bool
) -> Exceedance | UniqueCounts:
    row, value = np.divmod(keys, size)
    # R(x, 0) = R(x, 1) = 0
    kept = value > 1
    row, value, counts = row[kept], value[kept], counts[kept]
    per_row = np.bincount(row, minlength=groups)
    widest = int(per_row.max(initial=0))
    longest = max(size - 2, 0)
    if form == "auto":
        form = "histogram" if longest <= UNIQUE_COST * widest else "unique"
    if form == "histogram":
        table = np.zeros((groups, _bucket(longest, pad)))
        # A unit with count v is past 1, ..., v - 1: mark v - 1, then add up from the right
        table[row, value - 2] = counts
        return Exceedance(np.flip(np.cumsum(np.flip(table, 1), 1), 1).copy())
    width = _bucket(widest, pad)
    column = np.arange(row.size) - np.repeat(np.cumsum(per_row) - per_row, per_row)
    shown, weights = np.zeros((groups, width)), np.zeros((groups, width))
    shown[row, column] = value
    weights[row, column] = counts
    return UniqueCounts(shown, weights)


def _whole(name: str, values: npt.ArrayLike) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional, one entry a unit; its shape is {array.shape}.")
    if array.dtype.kind in "iu":
        return array
    whole = array.astype(np.int64, copy=False) if array.dtype.kind == "b" else _from_floats(name, array)
    return whole


def _from_floats(name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind != "f":
        raise ValueError(f"{name} must be whole numbers; its type is {array.dtype}.")
    bad = np.flatnonzero(~(np.isfinite(array) & (array == np.floor(array))))
    if bad.size:
        raise ValueError(f"{name} must be whole numbers; unit {bad[0]} has {array[bad[0]]}.")
    return array.astype(np.int64)


def count_tables(
    successes: npt.ArrayLike,
    trials: npt.ArrayLike,
    group: npt.ArrayLike | None = None,
    num_groups: int | None = None,
    form: str = "auto",
    pad: bool = True,
) -> CountTables:
    """Sufficient statistics of (mean, concentration) for units that share them, built on the host.

    "histogram" keeps, for each margin (successes k, failures n - k, trials n), the number of units past a
    value: U_j = #{i: k_i > j}, j = 1 ... max - 1. "unique" keeps the distinct values and how often they come.
    "auto" takes for each margin the cheaper one, a term of "unique" costing as much as five of "histogram".

    Args:
        successes, trials: counts [units], 0 <= successes <= trials.
        group: index of each unit's group [units], 0 <= group < num_groups; None for one pool.
        num_groups: number of groups; by default the largest index and one.
        form: "auto", "histogram" or "unique".
        pad: round lengths up to 16 2^(i/2) with weight zero, so that similar data compile nothing new.

    Returns:
        `CountTables` of float64 NumPy arrays, exact to 2^53, with a leading axis [num_groups] if grouped.

    Raises:
        ValueError: counts out of range or not whole, shapes that differ, a group index out of range.

    Source:
        The rising factorials of Minka (2000), Estimating a Dirichlet distribution, counted by value.

    >>> tables = count_tables([3, 0, 1], [4, 2, 5])
    >>> tables.total_successes.tolist(), tables.successes.above[:3].tolist()
    (4.0, [1.0, 1.0, 0.0])
    """
    k, n = _whole("successes", successes), _whole("trials", trials)
    if k.shape != n.shape:
        raise ValueError(f"successes and trials must have one entry a unit; their shapes are {k.shape} and {n.shape}.")
    bad = np.flatnonzero((k < 0) | (k > n))
    if bad.size:
        i = bad[0]
        raise ValueError(f"successes must lie between 0 and trials; unit {i} has {k[i]} of {n[i]} trials.")
    if form not in ("auto", "histogram", "unique"):
        raise ValueError(f'form must be "auto", "histogram" or "unique"; it is {form!r}.')
    rows, groups = None, 1
    if group is not None:
        rows = _whole("group", group)
        if rows.shape != k.shape:
            raise ValueError(f"group must have one entry a unit; shapes are {rows.shape} and {k.shape}.")
        groups = int(rows.max(initial=-1)) + 1 if num_groups is None else num_groups
        bad = np.flatnonzero((rows < 0) | (rows >= groups))
        if bad.size:
            raise ValueError(
                f"group must lie in 0 ... {groups - 1}; unit {bad[0]} has {rows[bad[0]]}. Raise num_groups."
            )
    elif num_groups is not None:
        raise ValueError("num_groups is given without group; pass the group index of each unit as well.")
    failures = n - k
    totals, tables = [], []
    for values in (k, failures, n):
        totals.append(_totals(values, rows, groups))
        tables.append(_margin(values, rows, groups, form, pad))
    result = CountTables(totals[0], totals[1], *tables)
    return result if rows is not None else jax.tree.map(lambda leaf: leaf[0], result)


def tables_of_occurrences(
    successes: tuple[np.ndarray, np.ndarray],
    failures: tuple[np.ndarray, np.ndarray],
    trials: tuple[np.ndarray, np.ndarray],
) -> CountTables:
    """`count_tables` of one pool, from the distinct values of each margin and how often each occurs.

    For tables that are read in parts. The result is to the bit that of `count_tables` on all the counts.

    Args:
        successes, failures, trials: (values, units with each), both int64 [values], values ascending and at least one.

    Returns:
        `CountTables` without an axis of groups.

    >>> ones = np.array([1, 1, 1])
    >>> k, m, n = np.array([0, 1, 3]), np.array([1, 2, 4]), np.array([2, 4, 5])
    >>> tables_of_occurrences((k, ones), (m, ones), (n, ones)).successes.above[:3].tolist()
    [1.0, 1.0, 0.0]
    """
    totals = [np.float64(int(values @ counts)) for values, counts in (successes, failures)]
    tables = [
        _table(values, counts, int(values.max()) + 1, 1, "auto", True)
        for values, counts in (successes, failures, trials)
    ]
    return CountTables(*totals, *jax.tree.map(lambda leaf: leaf[0], tables))  # pyright: ignore


def _totals(values: np.ndarray, group: np.ndarray | None, groups: int) -> np.ndarray:
    if group is None:
        return np.array([values.sum(dtype=np.int64)], np.float64)
    # bincount adds in float64: exact while the totals stay below 2^53
    return np.bincount(group, weights=values, minlength=groups)


def _scaled(log_x: Array) -> tuple[Array, Array]:
    """1/x, or so much of it that j/x does not overflow, and the logarithm of the rest."""
    return jnp.exp(-jnp.maximum(log_x, LEAST_LOG)), jnp.maximum(LEAST_LOG - log_x, 0)


@jax.custom_jvp
def _log1p_quotient(log_x: Array, j: Array) -> Array:
    """log1p(j / exp(log_x)) for j >= 1."""
    scale, rest = _scaled(log_x)
    return jnp.log1p(scale * j) + rest


@_log1p_quotient.defjvp
def _log1p_quotient_jvp(primals, tangents):
    log_x, j = primals
    return _log1p_quotient(log_x, j), -_share(log_x, j) * tangents[0]


@jax.custom_jvp
def _share(log_x: Array, j: Array) -> Array:
    """j / (x + j)."""
    quotient = _scaled(log_x)[0] * j
    return quotient / (1 + quotient)


@_share.defjvp
def _share_jvp(primals, tangents):
    log_x, j = primals
    share = _share(log_x, j)
    return share, -share * (1 - share) * tangents[0]


def _margin_sum(log_x: Array, table: Margin, dtype: jnp.dtype) -> Array:
    log_x = log_x[..., None]
    if isinstance(table, Nodes):
        points, weights = jnp.asarray(table.points, dtype), jnp.asarray(table.weights, dtype)
        return jnp.sum(weights * _log1p_quotient(log_x, points), -1)
    if isinstance(table, Exceedance):
        above = jnp.asarray(table.above, dtype)
        j = jnp.arange(1, above.shape[-1] + 1, dtype=dtype)
        return jnp.sum(above * _log1p_quotient(log_x, j), -1)
    values, weights = jnp.asarray(table.values, dtype), jnp.asarray(table.weights, dtype)
    return jnp.sum(weights * log_rising_ratio_of_log(log_x, values), -1)


def _logs(logit_mean: ArrayLike, log_concentration: ArrayLike):
    x, t = jnp.asarray(logit_mean), jnp.asarray(log_concentration)
    dtype = jnp.result_type(x, t)
    if not jnp.issubdtype(dtype, jnp.floating):
        dtype = jnp.result_type(float)
    x, t = x.astype(dtype), t.astype(dtype)
    return jax.nn.log_sigmoid(x), jax.nn.log_sigmoid(-x), t, dtype


def log_likelihood(
    logit_mean: Num[ArrayLike, "*#groups"], log_concentration: Num[ArrayLike, "*#groups"], tables: CountTables
) -> Float[Array, "*groups"]:
    """sum_i log[B(a + k_i, b + n_i - k_i) / B(a, b)] with a = mu kappa and b = (1 - mu) kappa, from tables.

    With R(x, m) = sum_{j<m} log1p(j/x), K and M the totals of successes and failures,

        K log mu + M log(1 - mu) + sum_i R(a, k_i) + sum_i R(b, n_i - k_i) - sum_i R(kappa, n_i).

    The first two terms are the binomial limit; the others vanish as 1/kappa, so that value and derivatives
    stay finite up to log_concentration = 80 in float32 and 700 in float64. log C(n, k), free of the
    parameters, is left out.

    Args:
        logit_mean: logit of mu, scalar or [groups].
        log_concentration: log of kappa = a + b (pseudo-trials), scalar or [groups].
        tables: from `count_tables`; with groups, the leading axis of its leaves is [groups].

    Returns:
        Scalar, or [groups], in the floating type of the two parameters. In float32 value and gradient are
        known to about 1e-7 of K |log mu| + M |log(1 - mu)| + the three sums: a log-likelihood of 1e9 moves in
        steps of 64, and counts past 2^24 are rounded. Past 1e6 in that sum the value, past 1e8 the gradient
        need float64 (its error there nears what one posterior standard deviation changes).

    Source:
        `count_tables`; the form of the terms is that of `log_rising_ratio`.

    >>> tables = count_tables([3, 0, 1], [4, 2, 5])
    >>> print(f"{log_likelihood(0.0, 2.0, tables):.4f}")
    -7.4203
    """
    return _log_likelihood(logit_mean, log_concentration, tables)


@one_program
def _log_likelihood(logit_mean, log_concentration, tables):
    log_mu, log_nu, t, dtype = _logs(logit_mean, log_concentration)
    binomial = jnp.asarray(tables.total_successes, dtype) * log_mu
    binomial = binomial + jnp.asarray(tables.total_failures, dtype) * log_nu
    gains = _margin_sum(log_mu + t, tables.successes, dtype) + _margin_sum(log_nu + t, tables.failures, dtype)
    return binomial + (gains - _margin_sum(t, tables.trials, dtype))


def log_likelihood_units(
    logit_mean: Num[ArrayLike, "*#shape"],
    log_concentration: Num[ArrayLike, "*#shape"],
    successes: Num[ArrayLike, "*#shape"],
    trials: Num[ArrayLike, "*#shape"],
) -> Float[Array, "..."]:
    """log[B(a + k, b + n - k) / B(a, b)] of each unit, for means or concentrations that differ by unit.

    k log mu + (n - k) log(1 - mu) + R(a, k) + R(b, n - k) - R(kappa, n), as in `log_likelihood`; log C(n, k)
    is left out. Use `log_pmf` where the absolute level counts: here the error is a few ULP of k log mu.

    Args:
        logit_mean: logit of mu.
        log_concentration: log of kappa.
        successes, trials: counts, 0 <= k <= n.

    Returns:
        The broadcast shape, in the floating type of the parameters.

    Source:
        `log_rising_ratio`.

    >>> print(f"{log_likelihood_units(0.0, 2.0, 3, 4):.4f}")
    -2.8076
    """
    return _log_likelihood_units(logit_mean, log_concentration, successes, trials)


@one_program
def _log_likelihood_units(logit_mean, log_concentration, successes, trials):
    log_mu, log_nu, t, dtype = _logs(logit_mean, log_concentration)
    k, n = jnp.asarray(successes), jnp.asarray(trials)
    m = (n - k).astype(dtype)
    k, n = k.astype(dtype), n.astype(dtype)
    ratio = log_rising_ratio_of_log
    return (k * log_mu + m * log_nu) + (ratio(log_mu + t, k) + ratio(log_nu + t, m) - ratio(t, n))


# Small enough to stay in a CPU's cache; accelerators take all at once.
_CHUNK = 4096


def _uniform(key: Array, shape: tuple[int, ...], dtype: jnp.dtype) -> Array:
    """Uniform on (0, 1], with the full resolution of the random bits near 0."""
    wide = dtype == jnp.float64
    bits = jax.random.bits(key, shape, jnp.uint64 if wide else jnp.uint32)
    return (bits.astype(dtype) + 0.5) * (2.0**-64 if wide else 2.0**-32)


def _octave(w: Array) -> tuple[Array, Array]:
    """w = 2^e (1 + f) with f in [-1/2, 0), for positive normal w."""
    kind, bits = (np.int64, 52) if w.dtype == jnp.float64 else (np.int32, 23)
    bias = (1 << (w.dtype.itemsize * 8 - bits - 2)) - 2
    whole = jax.lax.bitcast_convert_type(w, kind)
    fraction = (whole & kind((1 << bits) - 1)) | kind(bias << bits)
    return ((whole >> bits) - bias).astype(w.dtype), jax.lax.bitcast_convert_type(fraction, w.dtype) - 1


def _gamma_candidate(key: Array, scale: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """log1p(c x) of a candidate d (1 + c x)^3, and whether it is accepted; `scale` is c = 1 / sqrt(9 d)."""
    key_x, key_u = jax.random.split(key)
    x = jax.random.normal(key_x, shape, scale.dtype)
    y = scale * x
    inside = y > -1
    y = jnp.where(inside, y, 0)
    # log1p(y) = y - y^2 bend. Octaves of 1 + y rather than the library's logarithm, which is three times the
    # time of all else here in float64
    near = (y >= -0.5) & (y <= 1)
    e, f = _octave(1 + y)
    f = jnp.where(near, y, f)
    bend = curvature(f)
    logs = f - f * f * bend + jnp.where(near, 0, e * math.log(2))
    bend = jnp.where(near, bend, (y - logs) / (y * y))
    # x^2/2 + d - d v + d log v with v = (1 + y)^3 and 9 d y^2 = x^2: d cancels, however large
    accept = _uniform(key_u, shape, scale.dtype) < jnp.exp(-(x * x / 9) * (3 * (bend - 0.5) + y))
    return logs, inside & accept


def _chunk_of_rates(key: Array, shapes: Array) -> Array:
    """Beta draws, for shape parameters [2, chunk]."""
    dtype, size = shapes.dtype, shapes.size
    first_key, boost_key, loop_key = jax.random.split(key, 3)
    below = shapes < 1
    d = jnp.where(below, shapes + 1, shapes) - 1 / 3
    scale = jax.lax.rsqrt(9 * d).ravel()
    logs, accepted = _gamma_candidate(first_key, scale, scale.shape)
    # One in twenty is refused at worst (shape 1): these go on alone, three tries a round
    slots = max(size // 16, 1)

    def retry(state):
        i, logs, pending = state
        where = jnp.nonzero(pending, size=slots, fill_value=size)[0]
        tries, good = _gamma_candidate(jax.random.fold_in(loop_key, i), scale.at[where].get(mode="clip"), (3, slots))
        chosen = jnp.take_along_axis(tries, jnp.argmax(good, 0)[None], 0)[0]
        found = jnp.where(jnp.any(good, 0), where, size)
        return i + 1, logs.at[found].set(chosen, mode="drop"), pending.at[found].set(False, mode="drop")

    _, logs, _ = jax.lax.while_loop(lambda state: jnp.any(state[2]), retry, (0, logs, ~accepted))
    logs = 3 * logs.reshape(shapes.shape)

    def boosted(logs):
        # Gamma(a) = Gamma(a + 1) U^(1/a), as logarithms: at a = 0.001 the draw itself would underflow
        return logs + jnp.where(below, jnp.log(_uniform(boost_key, shapes.shape, dtype)) / shapes, 0)

    logs = jax.lax.cond(jnp.any(below), boosted, lambda logs: logs, logs)
    return 1 / (1 + (d[1] / d[0]) * jnp.exp(logs[1] - logs[0]))


@functools.partial(jax.jit, static_argnames="chunk")
def _draw(key: Array, successes: Array, trials: Array, alpha: Array, beta: Array, *, chunk: int) -> Array:
    a, b, c = _prepare(successes, trials, alpha, beta)
    a, b = jnp.broadcast_arrays(a + c.k, b + c.m)
    valid = (a > 0) & (b > 0)
    least, largest = 1e4 * jnp.finfo(a.dtype).tiny, jnp.finfo(a.dtype).max / 16
    # The loop would not end on shapes that are not finite; the least one keeps log(U) / shape finite
    shapes = jnp.stack([jnp.where(valid, jnp.clip(v, least, largest), 1).ravel() for v in (a, b)])
    size = shapes.shape[1]
    if size == 0:
        return a
    chunk = min(chunk, size)
    chunks = -(-size // chunk)
    shapes = jnp.pad(shapes, ((0, 0), (0, chunks * chunk - size)), constant_values=1)
    shapes = shapes.reshape(2, chunks, chunk).swapaxes(0, 1)
    rates = jax.lax.map(lambda each: _chunk_of_rates(*each), (jax.random.split(key, chunks), shapes))
    return jnp.where(valid, rates.ravel()[:size].reshape(a.shape), jnp.nan)


def draw_rates(
    key: Key[Array, ""] | UInt32[Array, " _"],
    successes: Num[ArrayLike, "*#shape"],
    trials: Num[ArrayLike, "*#shape"],
    alpha: Num[ArrayLike, "*#shape"],
    beta: Num[ArrayLike, "*#shape"],
) -> Float[Array, "..."]:
    """Draws of the rates given the hyperparameters: theta ~ Beta(alpha + k, beta + n - k).

    theta = G_a / (G_a + G_b) with G gamma variables by Marsaglia and Tsang's rejection, kept as logarithms so
    that neither tiny nor huge shapes underflow or overflow: theta = sigmoid(log G_a - log G_b). Reproducible
    for a key and a shape on one kind of device.

    Args:
        key: a JAX random key.
        successes, trials: counts, 0 <= k <= n.
        alpha, beta: of the prior Beta(alpha, beta); nan where alpha + k or beta + n - k is not positive.

    Returns:
        The broadcast shape, in the floating type of alpha and beta; 0 or 1 only where theta rounds to it.

    Source:
        G. Marsaglia and W. W. Tsang, ACM TOMS 26 (2000) 363.

    >>> rates = draw_rates(jax.random.key(0), 3, jnp.full(10_000, 10), 2.0, 5.0)
    >>> bool(abs(rates.mean() - 5 / 17) < 0.005)
    True
    """
    args = [jnp.asarray(v) for v in (successes, trials, alpha, beta)]
    size = math.prod(jnp.broadcast_shapes(*(v.shape for v in args)))
    return _draw(key, *args, chunk=max(_CHUNK if jax.default_backend() == "cpu" else size, 1))
