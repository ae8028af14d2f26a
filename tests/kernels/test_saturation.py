"""Saturation against loops, the published formulas of two libraries, and derivatives in high precision."""

import functools
import math
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pelton.kernels import saturation

# Each function, its formula for one number, and its formula in mpmath.
FORMULAS: dict[str, tuple[Callable, Callable, Callable]] = {
    "hill": (
        saturation.hill,
        lambda x, k, s: x**s / (x**s + k**s),
        lambda x, k, s: 1 / (1 + mpmath.power(k / x, s)),
    ),
    "exponential": (
        saturation.exponential,
        lambda x, a: 1 - math.exp(-a * x),
        lambda x, a: -mpmath.expm1(-a * x),
    ),
    "logistic": (
        saturation.logistic,
        lambda x, lam: (1 - math.exp(-lam * x)) / (1 + math.exp(-lam * x)),
        lambda x, lam: mpmath.tanh(lam * x / 2),
    ),
    "michaelis_menten": (saturation.michaelis_menten, lambda x, k: x / (k + x), lambda x, k: x / (k + x)),
    "tanh": (saturation.tanh, lambda x, c: math.tanh(x / c), lambda x, c: mpmath.tanh(x / c)),
    "root": (saturation.root, lambda x, p: x**p, mpmath.power),
}
PARAMS = {
    "hill": [(0.3, 0.5), (2.0, 1.0), (1.5, 3.0), (40.0, 2.2)],
    "exponential": [(0.01,), (0.5,), (3.0,)],
    "logistic": [(0.01,), (0.5,), (3.0,)],
    "michaelis_menten": [(0.1,), (2.0,), (300.0,)],
    "tanh": [(0.1,), (2.0,), (300.0,)],
    "root": [(0.1,), (0.5,), (1.0,)],
}
SPENDS = (1e-6, 0.02, 0.9, 1.5, 7.0, 40.0, 2e3, 1e6)
# Scales are positive, rates and slopes may be zero.
EXTREMES = {
    "hill": ((1e-30, 1.0, 1e30), (0.0, 1e-3, 1.0, 50.0, 1e6)),
    "exponential": ((0.0, 1e-30, 1.0, 1e30),),
    "logistic": ((0.0, 1e-30, 1.0, 1e30),),
    "michaelis_menten": ((0.0, 1e-30, 1.0, 1e36),),
    "tanh": ((1e-30, 1.0, 1e30),),
    "root": ((0.0, 1e-3, 0.5, 1.0),),
}
NAME = pytest.mark.parametrize("name", sorted(FORMULAS))
QUICK = settings(deadline=None, derandomize=True, max_examples=60)


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> Iterator[np.dtype]:
    with jax.enable_x64(request.param == "float64"):
        yield np.dtype(request.param)


def cases(name: str, dtype: np.dtype) -> tuple[np.ndarray, ...]:
    """Spends and parameters as equally long columns."""
    rows = [(x, *params) for params in PARAMS[name] for x in SPENDS]
    return tuple(np.array(column, dtype) for column in zip(*rows, strict=True))


@functools.cache
def compiled(name: str) -> Callable[..., jax.Array]:
    return jax.jit(FORMULAS[name][0])


@functools.cache
def gradients(name: str, arguments: int) -> Callable[..., tuple[jax.Array, ...]]:
    return jax.jit(jax.vmap(jax.grad(FORMULAS[name][0], argnums=tuple(range(arguments)))))


@NAME
def test_against_loops(name: str, dtype: np.dtype) -> None:
    columns = cases(name, dtype)
    result = compiled(name)(*columns)
    assert result.dtype == dtype
    expected = [FORMULAS[name][1](*(float(v) for v in row)) for row in zip(*columns, strict=True)]
    # The double-precision loop itself loses 1e-16 / (1 - exp(-z)) at small z, hence the absolute part.
    np.testing.assert_allclose(result, expected, rtol=64 * np.finfo(dtype).eps, atol=4e-16)


@NAME
def test_values_and_derivatives_in_high_precision(name: str, dtype: np.dtype) -> None:
    columns = cases(name, dtype)
    found = gradients(name, len(columns))(*columns)
    values = compiled(name)(*columns)
    eps, tiny = float(np.finfo(dtype).eps), float(np.finfo(dtype).tiny)
    formula = FORMULAS[name][2]
    with mpmath.workdps(60):
        for row in range(columns[0].size):
            at = [mpmath.mpf(float(column[row])) for column in columns]
            exact = formula(*at)
            # An exponential of z carries z roundings: |log| of the result and of the power bound it.
            roundings = 16 + 4 * condition(name, at)
            assert abs(float(values[row]) - float(exact)) <= roundings * eps * abs(float(exact)) + tiny
            for i, gradient in enumerate(found):
                slope = mpmath.diff(
                    lambda v, i=i, at=at: formula(*at[:i], v, *at[i + 1 :]),
                    at[i],
                    h=at[i] * mpmath.mpf(10) ** -25,
                )
                error = abs(float(gradient[row]) - float(slope))
                # Near log(x/k) = 0 the derivative by the slope is a small number: bound it by its factor.
                floor = eps * float(exact) if name in ("hill", "root") else 0.0
                assert error <= roundings * eps * abs(float(slope)) + tiny + floor, (
                    i,
                    [float(v) for v in at],
                )


def condition(name: str, at: list) -> float:
    if name == "hill":
        return abs(float(at[2])) * (1 + abs(float(mpmath.log(at[0] / at[1]))))
    if name == "root":
        return abs(float(at[1] * mpmath.log(at[0])))
    if name == "michaelis_menten":
        return 1.0
    return float(at[0] / at[1] if name == "tanh" else at[0] * at[1])


def pymc_marketing(name: str, x: np.ndarray, *params: float) -> np.ndarray:
    """`hill_function`, `logistic_saturation`, `michaelis_menten`, `tanh_saturation`, `root_saturation`."""
    if name == "hill":
        kappa, slope = params
        return np.where(x > 0, 1 / (1 + np.exp(-slope * (np.log(np.maximum(x, 1e-30)) - np.log(kappa)))), 0.0)
    if name == "logistic":
        return (1 - np.exp(-params[0] * x)) / (1 + np.exp(-params[0] * x))
    if name == "michaelis_menten":
        return 1.0 * x / (params[0] + x)
    if name == "tanh":
        return 1.0 * np.tanh(x / (1.0 * params[0]))
    return np.where(x > 0, np.where(x > 0, x, 1.0) ** params[0], 0.0)


@pytest.mark.parametrize("name", sorted(set(FORMULAS) - {"exponential"}))
def test_pymc_marketing(name: str) -> None:
    with jax.enable_x64(True):
        x = np.array([0.0, 0.1, 1.0, 30.0])
        for params in PARAMS[name]:
            np.testing.assert_allclose(compiled(name)(x, *params), pymc_marketing(name, x, *params), rtol=1e-12)


def test_meridian_hill() -> None:
    """`_hill`: media**slope / (media**slope + ec**slope)."""
    with jax.enable_x64(True):
        media = np.array([0.0, 0.1, 1.0, 30.0])
        for ec, slope in PARAMS["hill"]:
            t1, t2 = media**slope, ec**slope
            np.testing.assert_allclose(saturation.hill(media, ec, slope), t1 / (t1 + t2), rtol=1e-12)


@NAME
def test_second_derivatives_in_both_modes(name: str) -> None:
    """Against the derivatives of the plain formula, by plain operations."""
    plain = {
        "hill": lambda x, k, s: x**s / (x**s + k**s),
        "exponential": lambda x, a: 1 - jnp.exp(-a * x),
        "logistic": lambda x, lam: jnp.tanh(0.5 * lam * x),
        "michaelis_menten": lambda x, k: x / (k + x),
        "tanh": lambda x, c: jnp.tanh(x / c),
        "root": lambda x, p: x**p,
    }[name]
    with jax.enable_x64(True):
        columns = tuple(np.array(v) for v in ((0.7, 2.0, 3.1), (1.3, 2.0, 0.4), (0.6, 1.0, 2.5)))
        rows = columns if name == "hill" else columns[:2]
        every = tuple(range(len(rows)))
        expected = jax.vmap(jax.hessian(plain, every))(*rows)
        for outer in (jax.jacfwd, jax.jacrev):
            found = jax.jit(jax.vmap(outer(jax.grad(FORMULAS[name][0], every), every)))(*rows)
            np.testing.assert_allclose(np.array(found), np.array(expected), rtol=1e-10, atol=1e-12)


@NAME
def test_zero_spend(name: str, dtype: np.dtype) -> None:
    params = tuple(np.array(column, dtype) for column in zip(*PARAMS[name], strict=True))
    x = np.zeros(params[0].size, dtype)
    assert not np.asarray(compiled(name)(x, *params)).any()
    by_x, *by_params = gradients(name, 1 + len(params))(x, *params)
    for gradient in by_params:
        np.testing.assert_array_equal(gradient, 0)
    limit = {
        "hill": lambda k, s: np.where(s == 1, 1 / k, 0),
        "exponential": lambda a: a,
        "logistic": lambda lam: lam / 2,
        "michaelis_menten": lambda k: 1 / k,
        "tanh": lambda c: 1 / c,
        "root": lambda p: np.where(p == 1, 1, 0),
    }[name]
    np.testing.assert_allclose(by_x, limit(*params), rtol=4 * np.finfo(dtype).eps)


@NAME
def test_extremes_are_finite(name: str, dtype: np.dtype) -> None:
    # Every true value and derivative on this grid has a float32; some of x**s and k**s do not.
    spends = (0.0, 1e-45, 1e-30, 1.0, 1e30, 1e36)
    grid = np.meshgrid(spends, *EXTREMES[name], indexing="ij")
    columns = tuple(g.ravel().astype(dtype) for g in grid)
    value = np.asarray(compiled(name)(*columns))
    assert np.isfinite(value).all()
    assert (value >= 0).all()
    if name != "root":
        assert (value <= 1).all()
    for gradient in gradients(name, len(columns))(*columns):
        bad = ~np.isfinite(gradient)
        assert not bad.any(), [column[bad] for column in columns]


def test_hill_far_outside_the_range_of_the_ratio() -> None:
    """x / k = 1e60 and 1e-60 have no float32, log(x/k) and the curve do."""
    found = saturation.hill(np.float32([1e30, 1e-30]), np.float32([1e-30, 1e30]), 0.1)
    np.testing.assert_allclose(found, [1 / (1 + 1e-6), 1e-6 / (1 + 1e-6)], rtol=1e-5)


def test_hill_of_slope_one_is_michaelis_menten(dtype: np.dtype) -> None:
    x = np.array([0.0, 0.1, 2.0, 50.0], dtype)
    k = np.array([1.0, 0.2, 2.0, 300.0], dtype)
    rtol = 16 * np.finfo(dtype).eps
    np.testing.assert_allclose(saturation.hill(x, k), saturation.michaelis_menten(x, k), rtol=rtol)
    ones = np.ones_like(x)
    np.testing.assert_allclose(gradients("hill", 2)(x, k, ones), gradients("michaelis_menten", 2)(x, k), rtol=rtol)


def test_numbers_take_the_type_of_the_arrays_beside_them() -> None:
    assert saturation.hill(np.ones(3, np.float32), 2, 1.5).dtype == np.float32
    assert saturation.root(np.arange(3), 0.5).dtype == np.float32
    panel = np.ones((2, 5, 3), np.float32)
    assert saturation.hill(panel, np.ones((2, 1, 3), np.float32), 2.0).shape == panel.shape


POSITIVE = st.floats(2.0**-20, 2.0**20, width=32)


@QUICK
@given(
    name=st.sampled_from(sorted(FORMULAS)),
    x=POSITIVE,
    y=POSITIVE,
    p=st.floats(2.0**-10, 16, width=32),
    s=st.floats(0.125, 4, width=32),
)
def test_rising_and_bounded(name: str, x: float, y: float, p: float, s: float) -> None:
    params = {"hill": (p, s), "root": (min(p, 1.0),)}.get(name, (p,))
    low, high = (float(compiled(name)(np.float32(v).reshape(1), *params)[0]) for v in (min(x, y), max(x, y)))
    # Rounding may turn a rise of less than a few epsilons around.
    assert low <= high + 4e-7 * high
    assert low >= 0
    if name != "root":
        assert high <= 1


@QUICK
@given(k=POSITIVE, s=st.floats(0.125, 8, width=32), ratio=st.floats(2.0**-10, 2.0**10, width=32))
def test_hill_is_half_at_k_and_mirrored_about_it(k: float, s: float, ratio: float) -> None:
    x = np.float32([k, k * ratio, k / ratio])
    half, above, below = (float(v) for v in compiled("hill")(x, k, s))
    # x * (1/k) is rounded twice, and the curve's slope there is s/4.
    assert abs(half - 0.5) <= (1 + s) * np.finfo(np.float32).eps
    assert abs(above + below - 1) < 1e-5 * (1 + s)
