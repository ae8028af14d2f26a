"""Log-gamma differences against 200-digit arithmetic, in both precisions."""

import itertools

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pelton.kernels import special

XS = (1e-6, 1e-3, 0.3, 1.0, 2.7, 3.99, 4.0, 7.9, 8.0, 9.3, 100.0, 1e5, 1e12, 1e18)
MS = (0.0, 1.0, 2.0, 3.0, 5.0, 8.0, 9.0, 30.0, 1e3, 1e7, 1e9)
PRECISIONS = ("float32", "float64")
# Where numbers are this small float32 has no full mantissa left
LEAST = 1e-34


def exact(function):
    """The function at the exact values of its floating arguments, with digits to spare for what cancels."""

    def at(*args):
        with mp.workdps(200):
            return function(*(mp.mpf(float(arg)) for arg in args))

    return at


R = exact(lambda x, m: mp.loggamma(x + m) - mp.loggamma(x) - m * mp.log(x))
R_SLOPE = exact(lambda x, m: mp.psi(0, x + m) - mp.psi(0, x) - m / x)
R_BEND = exact(lambda x, m: mp.psi(1, x + m) - mp.psi(1, x) + m / x**2)
R_BY_COUNT = exact(lambda x, m: mp.psi(0, x + m) - mp.log(x))
S = exact(lambda x, m: mp.loggamma(x + m) - mp.loggamma(x))
S_SLOPE = exact(lambda x, m: mp.psi(0, x + m) - mp.psi(0, x))
S_BY_COUNT = exact(lambda x, m: mp.psi(0, x + m))
REMAINDER = exact(lambda x: mp.loggamma(x) - ((x - 0.5) * mp.log(x) - x + mp.log(2 * mp.pi) / 2))
REMAINDER_SLOPE = exact(lambda x: mp.psi(0, x) - mp.log(x) + 1 / (2 * x))


def grid(dtype):
    return np.array(list(itertools.product(XS, MS)), dtype).T


def assert_close(got, wanted, ulps, args, floor=0.0):
    """Within so many ULP of each wanted number (or of `floor`, the size of what it is a difference of)."""
    got = np.asarray(got)
    limits = np.finfo(got.dtype)
    for value, want, *at in zip(got, wanted, *args, strict=True):
        if abs(want) > limits.max:
            continue
        if got.dtype == np.float32 and abs(want) < LEAST:
            assert abs(value) < 2 * LEAST, (at, value, float(want))
            continue
        error = abs(mp.mpf(float(value)) - want)
        size = max(abs(want), mp.mpf(floor))
        # Below 1e-100 what the reference leaves of an exact zero
        assert error <= ulps * limits.eps * size or error < 1e-100, (
            at,
            value,
            float(want),
            float(error / size),
        )


def per_element(function, argnum):
    return jax.jit(jax.vmap(jax.grad(function, argnum)))


@pytest.fixture(params=PRECISIONS)
def dtype(request):
    with jax.enable_x64(request.param == "float64"):
        yield np.dtype(request.param)


@pytest.mark.parametrize(
    ("function", "reference", "ulps"),
    [
        (special.log_rising_ratio, R, 8),
        (per_element(special.log_rising_ratio, 0), R_SLOPE, 8),
        (special.log_rising, S, 8),
        (per_element(special.log_rising, 0), S_SLOPE, 8),
        (special.digamma_difference, S_SLOPE, 8),
    ],
    ids=["R", "dR/dx", "S", "dS/dx", "digamma difference"],
)
def test_two_argument_functions_are_relatively_accurate(function, reference, ulps, dtype):
    x, m = grid(dtype)
    wanted = [reference(*at) for at in zip(x, m, strict=True)]
    got = function(x, m)
    assert got.dtype == dtype
    assert_close(got, wanted, ulps, (x, m))


def test_second_derivative_of_the_ratio(dtype):
    x, m = grid(dtype)
    got = np.asarray(per_element(jax.grad(special.log_rising_ratio), 0)(x, m))
    some = m > 1
    wanted = [R_BEND(*at) for at in zip(x[some], m[some], strict=True)]
    assert_close(got[some], wanted, 16, (x[some], m[some]))
    # An exact zero, made of four terms of size 1 / x^2
    assert np.all(np.abs(got[~some]) <= 8 * np.finfo(dtype).eps / x[~some].astype(float) ** 2)


def test_derivatives_by_count(dtype):
    x, m = grid(dtype)
    for function, reference in ((special.log_rising_ratio, R_BY_COUNT), (special.log_rising, S_BY_COUNT)):
        got = per_element(function, 1)(x, m)
        wanted = [reference(*at) for at in zip(x, m, strict=True)]
        # psi(x) passes zero near 1.46, where only the logarithm it is made of sets the scale
        assert_close(got, wanted, 8, (x, m), floor=0.1 if function is special.log_rising else 0)


def test_fractional_counts(dtype):
    x, m = np.array(list(itertools.product((1e-3, 0.7, 2.5, 6.0, 30.0, 1e6), (0.25, 0.5, 2.5, 7.75, 40.5))), dtype).T
    assert_close(special.log_rising_ratio(x, m), [R(*at) for at in zip(x, m, strict=True)], 40, (x, m))
    assert_close(special.log_rising(x, m), [S(*at) for at in zip(x, m, strict=True)], 40, (x, m), floor=0.1)


def test_second_derivatives_in_both_arguments():
    with jax.enable_x64(True), mp.workdps(40):
        x, m = jnp.asarray(2.5), jnp.asarray(6.0)
        for function, less in ((special.log_rising_ratio, 1 / mp.mpf("2.5")), (special.log_rising, 0)):
            forward = np.array(jax.jit(jax.hessian(function, (0, 1)))(x, m))
            reverse = np.array(jax.jit(jax.jacrev(jax.jacrev(function, (0, 1)), (0, 1)))(x, m))
            np.testing.assert_allclose(forward, reverse, rtol=1e-14)
            mixed = float(mp.psi(1, mp.mpf("8.5")) - less)
            np.testing.assert_allclose([forward[0, 1], forward[1, 0]], mixed, rtol=1e-14)


def test_mixed_derivative_at_the_roots_of_the_ratio(dtype):
    x, m = np.array([(2.0, 0.0), (2.0, 1.0), (20.0, 0.0), (20.0, 1.0)], dtype).T
    hessian = jax.jit(jax.vmap(jax.hessian(special.log_rising_ratio, (0, 1))))(x, m)
    mixed = [float(exact(lambda x, m: mp.psi(1, x + m) - 1 / x)(*at)) for at in zip(x, m, strict=True)]
    # psi'(x) - 1/x is 1 / (2 x^2), 2 x times smaller than either: 40 at most
    for got in (hessian[0][1], hessian[1][0]):
        np.testing.assert_allclose(got, mixed, rtol=8 * 40 * np.finfo(dtype).eps)


def test_ratio_is_exactly_zero_at_none_and_one(dtype):
    x = np.array(XS, dtype)
    for m in (0, 1):
        assert not np.any(special.log_rising_ratio(x, m))
        assert not np.any(jax.jit(jax.vmap(jax.grad(special.log_rising_ratio), (0, None)))(x, float(m)))


def test_ratio_of_log_reaches_where_x_itself_cannot(dtype):
    log_x = np.array([-1000.0, -60.0, -9.0, -2.0, 0.5, 3.0, 40.0, 80.0], dtype)
    m = np.array([0.0, 1.0, 2.0, 7.0, 500.0], dtype)
    t, m = (v.ravel() for v in np.meshgrid(log_x, m))

    def of_log(function):
        def at(t, m):
            with mp.workdps(200):
                return function(mp.exp(mp.mpf(float(t))), mp.mpf(float(m)))

        return at

    def slope(x, m):
        return x * (mp.psi(0, x + m) - mp.psi(0, x)) - m

    # dR/dt is at most m, so that an ULP of t is worth |t| ULP of R
    for function, reference in (
        (special.log_rising_ratio_of_log, lambda x, m: mp.loggamma(x + m) - mp.loggamma(x) - m * mp.log(x)),
        (per_element(special.log_rising_ratio_of_log, 0), slope),
    ):
        wanted = [of_log(reference)(*at) for at in zip(t, m, strict=True)]
        # exp(80) carries 80 half-ULPs of its argument
        assert_close(function(t, m), wanted, 100, (t, m))
    second = jax.jit(jax.vmap(jax.hessian(special.log_rising_ratio_of_log)))(t, m)
    assert np.all(np.isfinite(second))


def test_stirling_remainder(dtype):
    x = np.array([*XS, 0.01, 0.5, 0.999, 1.5, 5.0, 12.0, 1e30], dtype)
    assert_close(special.stirling_remainder(x), [REMAINDER(v) for v in x], 8, (x,))
    # What is left of psi - log and 1/(2x) after they meet, 1/(12 x^2), is 1/(6x) of either
    slopes = jax.vmap(jax.grad(special.stirling_remainder))(x)
    for value, at in zip(slopes, x, strict=True):
        assert abs(value - float(REMAINDER_SLOPE(at))) <= 8 * jnp.finfo(dtype).eps * max(1 / at, 0.0)


def test_log1pmx(dtype):
    x = np.array([-0.999, -0.9, -0.51, -0.5, -0.3, -1e-3, -1e-8, 0, 1e-12, 1e-5, 0.1, 0.7, 1, 1.1, 3, 100, 1e6], dtype)
    assert_close(special.log1pmx(x), [exact(lambda v: mp.log1p(v) - v)(v) for v in x], 4, (x,))
    assert_close(jax.vmap(jax.grad(special.log1pmx))(x), [exact(lambda v: -v / (1 + v))(v) for v in x], 4, (x,))
    assert np.isnan(special.log1pmx(-2.0))


def test_out_of_range_is_nan():
    for function in (special.log_rising_ratio, special.log_rising):
        assert np.all(np.isnan(function(jnp.array([-1.0, 0.0, 2.0]), jnp.array([2.0, 2.0, -1.0]))))
    assert np.isnan(special.stirling_remainder(-1.0))
    assert np.isnan(special.digamma_difference(0.0, 1.0))


def test_integers_become_floats_and_types_are_kept():
    assert special.log_rising(2, 3).dtype == jnp.float32
    with jax.enable_x64(True):
        assert special.log_rising(jnp.float32(2), 3).dtype == jnp.float32
        assert special.log_rising(2, 3).dtype == jnp.float64
        np.testing.assert_allclose(special.log_rising(2, np.array([0, 1, 3])), np.log([1, 2, 24]), rtol=1e-15)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.floats(1e-6, 1e18), st.integers(0, 10**9), st.integers(0, 10**9))
def test_rising_factorials_chain(x, m, more):
    """S(x, m + k) = S(x, m) + S(x + m, k)."""
    with jax.enable_x64(True):
        whole = special.log_rising(x, m + more)
        parts = special.log_rising(x, m), special.log_rising(x + m, more)
        # x + m is itself rounded, which moves the second part by a few ULP of `more`
        allowed = 16 * np.finfo(float).eps * (abs(parts[0]) + abs(parts[1]) + more)
        assert abs(whole - sum(parts)) <= allowed


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.floats(1e-6, 1e18), st.integers(2, 10**9))
def test_signs_and_order(x, m):
    with jax.enable_x64(True):
        value, slope = jax.value_and_grad(special.log_rising_ratio)(x, float(m))
        assert value > 0 > slope
        assert value <= m * np.log1p(m / x)
        assert special.digamma_difference(x, float(m)) > 0
