"""The fused media term against a loop, its own parts, and derivatives of the plain composition."""

import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pelton.kernels import adstock, saturation
from pelton.kernels.media import geometric_hill

WINDOWS = pytest.mark.parametrize(("l_max", "normalize"), [(1, True), (13, True), (5, False), (None, True)])
QUICK = settings(deadline=None, derandomize=True, max_examples=20)


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> Iterator[np.dtype]:
    with jax.enable_x64(request.param == "float64"):
        yield np.dtype(request.param)


def panel(
    dtype: np.dtype, geos: int = 2, weeks: int = 9, channels: int = 3, seed: int = 0
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Spend with zeros, also in the first weeks, and (alpha, k, slope, coef)."""
    rng = np.random.default_rng(seed)
    spend = rng.gamma(1.0, 2.0, (geos, weeks, channels)) * (rng.random((geos, weeks, channels)) < 0.7)
    spend[0, :3] = 0
    bounds = ((0.05, 0.95), (0.5, 3.0), (0.6, 3.0), (-1.0, 2.0))
    params = tuple(rng.uniform(*bound, (geos, channels)).astype(dtype) for bound in bounds)
    return spend.astype(dtype), params


@functools.cache
def fused(l_max: int | None, normalize: bool) -> Callable[..., jax.Array]:
    return jax.jit(functools.partial(geometric_hill, l_max=l_max, normalize=normalize))


def composed(spend, alpha, k, s, coef, *, l_max: int | None, normalize: bool):
    x = adstock.geometric(spend, alpha, l_max, normalize=normalize)
    h = saturation.hill(x, k[..., None, :], s[..., None, :])
    return (coef[..., None, :] * h).sum(-1)


def loop(spend: np.ndarray, params: tuple[np.ndarray, ...], l_max: int | None, normalize: bool) -> np.ndarray:
    geos, weeks, channels = spend.shape
    out = np.zeros((geos, weeks))
    for g, t, c in np.ndindex(geos, weeks, channels):
        alpha, k, s, coef = (float(p[g, c]) for p in params)
        lags = range(t + 1 if l_max is None else min(l_max, t + 1))
        x = sum(alpha**lag * float(spend[g, t - lag, c]) for lag in lags)
        if normalize:
            x = x * (1 - alpha) if l_max is None else x / sum(alpha**lag for lag in range(l_max))
        out[g, t] += coef * (x**s / (x**s + k**s)) if x > 0 else 0.0
    return out


@WINDOWS
def test_against_a_loop_and_its_parts(l_max: int | None, normalize: bool, dtype: np.dtype) -> None:
    spend, params = panel(dtype)
    result = fused(l_max, normalize)(spend, *params)
    assert result.dtype == dtype
    bound = 64 * np.finfo(dtype).eps * np.abs(params[3]).sum()
    np.testing.assert_allclose(result, loop(spend, params, l_max, normalize), atol=bound, rtol=0)
    parts = jax.jit(functools.partial(composed, l_max=l_max, normalize=normalize))(spend, *params)
    np.testing.assert_allclose(result, parts, atol=bound, rtol=0)


@WINDOWS
def test_gradients_against_its_parts(l_max: int | None, normalize: bool) -> None:
    dtype = np.dtype("float32")
    spend, params = panel(dtype)
    args = (spend + dtype.type(0.1) * (spend > 0), *params)
    weight = np.cos(np.arange(spend.shape[0] * spend.shape[1])).reshape(spend.shape[:2]).astype(dtype)

    def gradient(f):
        return jax.jit(jax.grad(lambda *a: (weight * f(*a, l_max=l_max, normalize=normalize)).sum(), range(5)))

    for a, b in zip(gradient(geometric_hill)(*args), gradient(composed)(*args), strict=True):
        assert a.dtype == dtype
        np.testing.assert_allclose(a, b, atol=256 * np.finfo(dtype).eps * np.abs(b).max(), rtol=0)


@pytest.mark.parametrize(("l_max", "normalize"), [(4, True), (4, False), (None, True)])
def test_gradient_in_high_precision(l_max: int | None, normalize: bool, dtype: np.dtype) -> None:
    spend, params = panel(dtype, geos=1, weeks=7, channels=1, seed=3)
    spend = spend + dtype.type(0.5)
    weight = np.linspace(-1, 1.5, 7).astype(dtype)
    function = functools.partial(geometric_hill, l_max=l_max, normalize=normalize)
    found = jax.jit(jax.grad(lambda *p: (weight * function(spend, *p)[0]).sum(), range(4)))(*params)
    with mpmath.workdps(40):
        at = [mpmath.mpf(float(p[0, 0])) for p in params]
        x = [mpmath.mpf(float(v)) for v in spend[0, :, 0]]

        def week(t: int, alpha, k, s, coef):
            lags = range(t + 1 if l_max is None else min(l_max, t + 1))
            total = sum(alpha**lag * x[t - lag] for lag in lags)
            if normalize:
                total *= (1 - alpha) if l_max is None else 1 / sum(alpha**lag for lag in range(l_max))
            return coef * total**s / (total**s + k**s)

        for i, gradient in enumerate(found):
            terms = [
                float(weight[t]) * float(mpmath.diff(lambda v, t=t, i=i: week(t, *at[:i], v, *at[i + 1 :]), at[i]))
                for t in range(7)
            ]
            assert abs(float(gradient[0, 0]) - sum(terms)) <= 64 * np.finfo(dtype).eps * sum(map(abs, terms)), i


@pytest.mark.parametrize("l_max", [3, None])
def test_second_derivatives_in_both_modes(l_max: int | None) -> None:
    """Against derivatives of the plain formulas, by plain operations."""
    with jax.enable_x64(True):
        spend, params = panel(np.dtype("float64"), geos=1, weeks=5, channels=2)
        args = jax.tree.map(jnp.asarray, (spend + 0.5, *params))
        direction = tuple(jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape) for x in args)

        def plain(spend, alpha, k, s, coef):
            lags = range(spend.shape[-2] if l_max is None else l_max)
            x = sum(
                (alpha**lag)[:, None] * jnp.pad(spend, ((0, 0), (lag, 0), (0, 0)))[:, : spend.shape[1]] for lag in lags
            )
            scale = 1 - alpha if l_max is None else 1 / sum(alpha**lag for lag in lags)
            z = (scale[:, None] * x) ** s[:, None]
            return ((coef[:, None] * z / (z + (k**s)[:, None])).sum(-1) ** 2).sum()

        def ours(*args):
            return (geometric_hill(*args, l_max=l_max) ** 2).sum()

        every = tuple(range(5))

        def forward_over_reverse(f):
            return jax.jvp(jax.grad(f, every), args, direction)[1]

        def reverse_over_forward(f):
            return jax.grad(lambda *at: jax.jvp(f, at, direction)[1], every)(*args)

        expected, *found = jax.jit(
            lambda: (forward_over_reverse(plain), forward_over_reverse(ours), reverse_over_forward(ours))
        )()
        for product in found:
            for a, b in zip(product, expected, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def test_broadcasting_vmap_and_jit() -> None:
    spend, params = panel(np.dtype("float32"), geos=4)
    function = fused(5, True)
    whole = function(spend, *params)
    same = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
    same(geometric_hill(spend, *params, l_max=5), whole)
    same(jax.jit(jax.vmap(function))(spend, *params), whole)
    same(function(spend[0], *(p[0] for p in params)), whole[0])
    alpha, k, s, coef = params
    shared = function(spend, 0.5, k[0], 1.0, coef)
    full = [np.broadcast_to(np.float32(v), alpha.shape) for v in (0.5, k[0], 1.0)]
    same(shared, function(spend, *full, coef))
    draws = np.stack([coef, 2 * coef])
    same(function(spend, alpha, k, s, draws)[1], 2 * whole)
    gradient = jax.grad(lambda x, *p: (function(x, *p) ** 2).sum(), range(5))
    for a, b in zip(jax.jit(jax.vmap(gradient))(spend, *params), jax.jit(gradient)(spend, *params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    by_params = jax.jit(jax.grad(lambda *p: function(spend, *p).sum(), range(4)))
    by_channel = by_params(*(p[0] for p in params))
    for a, b in zip(by_channel, by_params(*(np.broadcast_to(p[0], p.shape) for p in params)), strict=True):
        np.testing.assert_allclose(a, b.sum(0), rtol=1e-4, atol=1e-5)


@WINDOWS
def test_ends_of_the_ranges_are_finite(l_max: int | None, normalize: bool) -> None:
    dtype = np.dtype("float32")
    # Every true value and derivative on this grid has a float32; x**s and k**s do not.
    edges = ((0.0, 1e-30, 0.5, 1.0), (1e-20, 1.0, 1e20), (0.0, 0.5, 1.0, 2.0, 1e3), (-3.0, 0.0, 1e6))
    params = tuple(np.array(v.ravel(), dtype) for v in np.meshgrid(*edges))
    spend = np.array([0.0, 0.0, 1e-20, 0.0, 1.0, 1e10, 0.0], dtype)[:, None] * np.ones(params[0].size, dtype)
    by_week, pull = jax.vjp(fused(l_max, normalize), spend, *params)
    assert np.isfinite(by_week).all()
    for gradient in jax.jit(pull)(jnp.ones_like(by_week)):
        assert np.isfinite(gradient).all()


def test_no_spend_has_no_effect_and_no_gradient() -> None:
    _, params = panel(np.dtype("float32"))
    spend = np.zeros((2, 9, 3), np.float32)
    by_week, pull = jax.vjp(functools.partial(fused(5, True), spend), *params)
    assert not np.asarray(by_week).any()
    for gradient in pull(jnp.ones_like(by_week)):
        assert not np.asarray(gradient).any()


def test_errors_name_the_argument() -> None:
    spend = np.ones((2, 5, 3), np.float32)
    with pytest.raises(ValueError, match="l_max is 0"):
        geometric_hill(spend, 0.5, 1.0, 1.0, 1.0, l_max=0)
    with pytest.raises(ValueError, match=r"half_saturation \(4,\).*\(2, 3\)"):
        geometric_hill(spend, 0.5, np.ones(4, np.float32), 1.0, 1.0)
    with pytest.raises(ValueError, match=r"shape \(5,\)"):
        geometric_hill(spend[0, :, 0], 0.5, 1.0, 1.0, 1.0)


@QUICK
@given(
    l_max=st.sampled_from([1, 6, None]),
    pad=st.sampled_from([1, 5]),
    seed=st.integers(0, 2**16),
    week=st.integers(0, 8),
)
def test_causal_and_padding_is_harmless(l_max: int | None, pad: int, seed: int, week: int) -> None:
    spend, params = panel(np.dtype("float32"), seed=seed)
    function = fused(l_max, True)
    plain = function(spend, *params)
    more = spend.copy()
    more[:, week] += 5
    np.testing.assert_array_equal(function(more, *params)[:, :week], plain[:, :week])
    padded = function(np.pad(spend, ((0, 0), (pad, 0), (0, 0))), *params)
    np.testing.assert_allclose(padded[:, pad:], plain, rtol=1e-5, atol=1e-5)
    assert not np.asarray(padded[:, :pad]).any()


@QUICK
@given(seed=st.integers(0, 2**16), factor=st.floats(-4, 4, width=32))
def test_linear_in_the_coefficient(seed: int, factor: float) -> None:
    spend, (*shape, coef) = panel(np.dtype("float32"), seed=seed)
    function = fused(6, True)
    scaled = function(spend, *shape, np.float32(factor) * coef)
    np.testing.assert_allclose(scaled, factor * function(spend, *shape, coef), rtol=1e-5, atol=1e-5)
