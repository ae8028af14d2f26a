"""Adstock against plain loops, the published formulas of two libraries, and derivatives in high precision."""

import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from pelton.kernels import adstock

APPLIED = {
    "geometric": (adstock.geometric, adstock.geometric_weights, ("alpha",)),
    "delayed": (adstock.delayed, adstock.delayed_weights, ("alpha", "theta")),
    "binomial": (adstock.binomial, adstock.binomial_weights, ("alpha",)),
    "weibull_pdf": (adstock.weibull_pdf, adstock.weibull_pdf_weights, ("scale", "shape")),
    "weibull_cdf": (adstock.weibull_cdf, adstock.weibull_cdf_weights, ("scale", "shape")),
}
RANGES = {"alpha": (0.02, 0.98), "theta": (0.0, 3.0), "scale": (0.5, 8.0), "shape": (0.4, 4.0)}
EDGES = {
    "alpha": (0.0, 1e-30, 0.5, 1.0),
    "theta": (0.0, 1.5, 3.0),
    "scale": (1e-30, 1.0, 1e30),
    "shape": (1e-3, 1.0, 50.0),
}
FAMILY = pytest.mark.parametrize("family", sorted(APPLIED))
QUICK = settings(deadline=None, derandomize=True, max_examples=20)


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> Iterator[np.dtype]:
    with jax.enable_x64(request.param == "float64"):
        yield np.dtype(request.param)


def compiled(apply: Callable[..., jax.Array], **options: object) -> Callable[..., jax.Array]:
    """One compilation in place of one for every operation."""
    return jax.jit(functools.partial(apply, **options))


def tolerance(dtype: np.dtype, operations: int = 64) -> float:
    """So many roundings, each of one epsilon."""
    return operations * float(np.finfo(dtype).eps)


def weights_by_formula(family: str, params: tuple[float, ...], l_max: int, *, normalize: bool) -> np.ndarray:
    """The table of formulas, one lag at a time, in double precision."""
    lags = range(l_max)
    if family == "geometric":
        w = [params[0] ** lag for lag in lags]
    elif family == "delayed":
        w = [params[0] ** ((lag - params[1]) ** 2) for lag in lags]
    elif family == "binomial":
        w = [(1 - lag / (l_max + 1)) ** (1 / params[0] - 1) for lag in lags]
    elif family == "weibull_pdf":
        scale, shape = params
        f = [
            (shape / scale) * (t / scale) ** (shape - 1) * np.exp(-((t / scale) ** shape)) for t in range(1, l_max + 1)
        ]
        w = [(v - min(f)) / (max(f) - min(f)) for v in f]
    else:
        scale, shape = params
        w, left = [1.0], 1.0
        for t in range(1, l_max):
            left *= np.exp(-((t / scale) ** shape))
            w.append(left)
    w = np.array(w, float)
    return w / w.sum() if normalize else w


def loop(spend: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """y[g,t,c] = sum_l w[g,c,l] spend[g,t-l,c], one number at a time."""
    out = np.zeros(spend.shape)
    for g, t, c in np.ndindex(spend.shape):
        for lag in range(weights.shape[-1]):
            if t - lag >= 0:
                out[g, t, c] += weights[g, c, lag] * spend[g, t - lag, c]
    return out


def panel(
    family: str, dtype: np.dtype, *, geos: int = 2, weeks: int = 9, channels: int = 3, seed: int = 1
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Spend with three weeks in ten empty, and parameters [geo, channel] inside their ranges."""
    rng = np.random.default_rng(seed)
    spend = (rng.gamma(1.0, 2.0, (geos, weeks, channels)) * (rng.random((geos, weeks, channels)) < 0.7)).astype(dtype)
    params = tuple(rng.uniform(*RANGES[name], (geos, channels)).astype(dtype) for name in APPLIED[family][2])
    return spend, params


def all_weights(family: str, params: tuple[np.ndarray, ...], l_max: int, *, normalize: bool) -> np.ndarray:
    out = np.zeros((*params[0].shape, l_max))
    for cell in np.ndindex(params[0].shape):
        out[cell] = weights_by_formula(family, tuple(float(p[cell]) for p in params), l_max, normalize=normalize)
    return out


@FAMILY
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("l_max", [2, 12])
def test_against_loops(family: str, normalize: bool, l_max: int, dtype: np.dtype) -> None:
    apply, weights_of, _ = APPLIED[family]
    spend, params = panel(family, dtype)
    expected = all_weights(family, params, l_max, normalize=normalize)

    @jax.jit
    def run(spend, *params):
        weights = weights_of(*params, l_max, normalize=normalize)
        return weights, apply(spend, *params, l_max, normalize=normalize), adstock.convolve(spend, weights)

    weights, applied, convolved = run(spend, *params)
    assert weights.dtype == applied.dtype == convolved.dtype == dtype
    assert applied.shape == convolved.shape == spend.shape
    # A rescaled density is a difference of numbers up to 1: its error is one of the largest weight.
    np.testing.assert_allclose(weights, expected, rtol=tolerance(dtype, 256), atol=tolerance(dtype, 16))
    for result in (applied, convolved):
        np.testing.assert_allclose(
            result, loop(spend, expected), rtol=tolerance(dtype, 256), atol=tolerance(dtype, 64) * spend.max()
        )


@pytest.mark.parametrize("l_max", [1, 2, 3, 8, 13, 21])
def test_doubling_at_any_length(l_max: int, dtype: np.dtype) -> None:
    spend, (alpha,) = panel("geometric", dtype, weeks=17)
    expected = loop(spend, all_weights("geometric", (alpha,), l_max, normalize=True))
    result = compiled(adstock.geometric, l_max=l_max)(spend, alpha)
    np.testing.assert_allclose(result, expected, rtol=tolerance(dtype))


@pytest.mark.parametrize("weeks", [1, 2, 7, 37])
def test_recursion(weeks: int, dtype: np.dtype) -> None:
    spend, (alpha,) = panel("geometric", dtype, weeks=weeks)
    state, expected = np.zeros((2, 3)), np.zeros(spend.shape)
    for t in range(weeks):
        state = spend[:, t] + np.float64(alpha) * state
        expected[:, t] = state
    result, window, normalised = jax.jit(
        lambda x, a: (
            adstock.geometric(x, a, None, normalize=False),
            adstock.geometric(x, a, weeks, normalize=False),
            adstock.geometric(x, a, None),
        )
    )(spend, alpha)
    for found in (result, window):
        np.testing.assert_allclose(found, expected, rtol=tolerance(dtype))
    np.testing.assert_allclose(normalised, expected * (1 - alpha)[:, None], rtol=tolerance(dtype))


def pymc_marketing_weights(family: str, params: tuple[float, ...], l_max: int) -> np.ndarray:
    """`geometric_adstock`, `delayed_adstock`, `binomial_adstock` and `weibull_adstock` of version 1.3."""
    lags = np.arange(l_max)
    if family == "geometric":
        return np.power(params[0], lags)
    if family == "delayed":
        return np.power(params[0], (lags - params[1]) ** 2)
    if family == "binomial":
        return np.power(1 - lags / (l_max + 1), 1 / params[0] - 1)
    lam, k = params
    if family == "weibull_pdf":
        t = lags + 1
        w = k / lam * (t / lam) ** (k - 1) * np.exp(-((t / lam) ** k))
        return (w - w.min()) / (w.max() - w.min())
    t = np.arange(l_max - 1) + 1
    return np.cumprod(np.concatenate([[1.0], 1 - (1 - np.exp(-((t / lam) ** k)))]))


@FAMILY
def test_pymc_marketing_window(family: str) -> None:
    with jax.enable_x64(True):
        spend, params = panel(family, np.dtype("float64"), geos=1, channels=1)
        weights = pymc_marketing_weights(family, tuple(float(p[0, 0]) for p in params), 5)
        # `batched_convolution`, mode After: the full convolution cut to the length of the series.
        expected = np.convolve(spend[0, :, 0], weights)[: spend.shape[1]]
        result = APPLIED[family][0](spend, *params, 5, normalize=False)[0, :, 0]
        np.testing.assert_allclose(result, expected, rtol=1e-12)
        normalised = APPLIED[family][0](spend, *params, 5)[0, :, 0]
        np.testing.assert_allclose(normalised, expected / weights.sum(), rtol=1e-12)


@pytest.mark.parametrize("decay", ["geometric", "binomial"])
def test_meridian_window(decay: str) -> None:
    """Meridian's `_adstock`: lags 0 .. max_lag, normalised; binomial decay divides by max_lag + 1."""
    max_lag = 4
    with jax.enable_x64(True):
        spend, (alpha,) = panel("geometric", np.dtype("float64"), geos=1, channels=1)
        window = max_lag + 1
        l_range = np.arange(window - 1, -1, -1)
        a = float(alpha[0, 0])
        weights = a**l_range if decay == "geometric" else (1 - l_range / window) ** (1 / a - 1)
        weights = weights / weights.sum()
        padded = np.concatenate([np.zeros(max_lag), spend[0, :, 0]])
        expected = [padded[t : t + window] @ weights for t in range(spend.shape[1])]
        if decay == "geometric":
            result = adstock.geometric(spend, alpha, max_lag + 1)
        else:
            result = adstock.binomial(spend, alpha, max_lag + 1, reach=max_lag + 1)
        np.testing.assert_allclose(result[0, :, 0], expected, rtol=1e-12)


def mp_weight(family: str, params: list, l_max: int, lag: int, normalize: bool):
    """One weight in mpmath, from the table."""
    power = mpmath.power

    def weight(j: int):
        if family == "geometric":
            return power(params[0], j)
        if family == "delayed":
            return power(params[0], (j - params[1]) ** 2)
        if family == "binomial":
            return power(1 - mpmath.mpf(j) / (l_max + 1), 1 / params[0] - 1)
        scale, shape = params
        if family == "weibull_cdf":
            return mpmath.exp(-sum((power(i / scale, shape) for i in range(1, j + 1)), mpmath.mpf(0)))

        def density(t: int):
            return power(t / scale, shape - 1) * mpmath.exp(-power(t / scale, shape))

        f = [density(t) for t in range(1, l_max + 1)]
        return (f[j] - min(f)) / (max(f) - min(f))

    total = sum(weight(j) for j in range(l_max)) if normalize else 1
    return weight(lag) / total


@FAMILY
@pytest.mark.parametrize("normalize", [True, False])
def test_derivatives_in_high_precision(family: str, normalize: bool, dtype: np.dtype) -> None:
    l_max = 5
    apply, _, names = APPLIED[family]
    spend, params = panel(family, dtype, geos=1, channels=1)
    params = tuple(p[0, 0] for p in params)
    cotangent = np.linspace(-1, 2, spend.shape[1]).astype(dtype)

    def projected(spend, *params):
        return jnp.vdot(jnp.asarray(cotangent), apply(spend, *params, l_max, normalize=normalize)[0, :, 0])

    gradient = jax.jit(jax.grad(projected, argnums=tuple(range(1 + len(params)))))
    by_spend, *by_params = gradient(spend, *params)
    x, g = spend[0, :, 0].astype(float), cotangent.astype(float)
    lagged = [sum(g[t] * x[t - lag] for t in range(lag, len(x))) for lag in range(l_max)]
    with mpmath.workdps(40):
        exact = [mpmath.mpf(float(p)) for p in params]
        for i, got in enumerate(by_params):
            terms = []
            for lag in range(l_max):

                def moved(value, lag=lag, i=i):
                    return mp_weight(family, [*exact[:i], value, *exact[i + 1 :]], l_max, lag, normalize)

                terms.append(float(mpmath.diff(moved, exact[i])) * lagged[lag])
            size = sum(map(abs, terms))
            assert abs(float(got) - sum(terms)) <= tolerance(dtype, 256) * size, names[i]
        w = [float(mp_weight(family, exact, l_max, lag, normalize)) for lag in range(l_max)]
    expected = [sum(w[lag] * g[t + lag] for lag in range(min(l_max, len(g) - t))) for t in range(len(g))]
    np.testing.assert_allclose(by_spend[0, :, 0], expected, atol=tolerance(dtype) * np.abs(g).sum())


def composed(family: str, spend: jax.Array, params: tuple[jax.Array, ...], l_max: int | None) -> jax.Array:
    """The same function of plain operations, without a derivative of its own."""
    if l_max is None:
        weights = params[0][..., None] ** jnp.arange(spend.shape[-2]) * (1 - params[0])[..., None]
    else:
        weights = APPLIED[family][1](*params, l_max)
    weeks = spend.shape[-2]
    return sum(
        weights[:, None, :, lag] * jnp.pad(spend, ((0, 0), (lag, 0), (0, 0)))[:, :weeks]
        for lag in range(min(weights.shape[-1], weeks))
    )


@pytest.mark.parametrize(("family", "l_max"), [*((family, 3) for family in sorted(APPLIED)), ("geometric", None)])
def test_second_derivatives_in_both_modes(family: str, l_max: int | None) -> None:
    with jax.enable_x64(True):
        spend, params = panel(family, np.dtype("float64"), geos=1, weeks=5, channels=1)

        def ours(args):
            return (APPLIED[family][0](args[0], *args[1], l_max) ** 3).sum()

        def plain(args):
            return (composed(family, args[0], args[1], l_max) ** 3).sum()

        args = jax.tree.map(jnp.asarray, (spend, params))
        direction = jax.tree.map(lambda x: jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape), args)

        def forward_over_reverse(f):
            return jax.jvp(jax.grad(f), (args,), (direction,))[1]

        def reverse_over_forward(f):
            return jax.grad(lambda at: jax.jvp(f, (at,), (direction,))[1])(args)

        products = jax.jit(
            lambda: (forward_over_reverse(plain), forward_over_reverse(ours), reverse_over_forward(ours))
        )
        expected, *found = products()
        for product in found:
            jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-9), product, expected)


def test_derivatives_of_given_weights() -> None:
    with jax.enable_x64(True):
        spend, _ = panel("geometric", np.dtype("float64"), geos=2, weeks=6, channels=1)
        weights = np.random.default_rng(2).random((2, 1, 3))
        check_grads(compiled(adstock.convolve), (spend, weights), order=2, modes=["fwd", "rev"], rtol=1e-6)


@FAMILY
def test_jit_vmap_and_broadcasting(family: str) -> None:
    spend, params = panel(family, np.dtype("float32"), geos=4)
    apply = compiled(APPLIED[family][0], l_max=5)
    whole = apply(spend, *params)
    same = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    same(APPLIED[family][0](spend, *params, 5), whole)
    same(jax.jit(jax.vmap(apply))(spend, *params), whole)
    per_channel = tuple(p[0] for p in params)
    same(apply(spend, *per_channel), apply(spend, *(np.broadcast_to(p, (4, 3)) for p in per_channel)))
    draws = tuple(np.stack([p, p[::-1]]) for p in params)
    assert apply(spend, *draws).shape == (2, *spend.shape)
    same(apply(spend, *draws)[0], whole)
    same(apply(np.stack([spend, 2 * spend]), *params)[1], 2 * whole)
    scalars = tuple(float(p[0, 0]) for p in params)
    minor = compiled(APPLIED[family][0], l_max=5, axis=-1)
    same(minor(spend[0, :, 0], *scalars), whole[0, :, 0])
    same(minor(spend.swapaxes(1, 2), *params), whole.swapaxes(1, 2))
    major = compiled(APPLIED[family][0], l_max=5, axis=0)
    same(major(spend.swapaxes(0, 1), *params), whole.swapaxes(0, 1))


@FAMILY
def test_gradients_under_vmap_and_broadcasting(family: str) -> None:
    spend, params = panel(family, np.dtype("float32"), geos=4)
    apply = functools.partial(APPLIED[family][0], l_max=5)
    every = tuple(range(1, 1 + len(params)))
    gradient = jax.grad(lambda x, *p: (apply(x, *p) ** 2).sum(), argnums=every)
    whole = jax.jit(gradient)(spend, *params)
    for a, b in zip(jax.jit(jax.vmap(gradient))(spend, *params), whole, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    shared = tuple(np.broadcast_to(p[:1], p.shape) for p in params)
    by_channel = jax.jit(gradient)(spend, *(p[0] for p in params))
    for a, b in zip(by_channel, jax.jit(gradient)(spend, *shared), strict=True):
        np.testing.assert_allclose(a, b.sum(0), rtol=1e-4, atol=1e-4)


@FAMILY
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("l_max", [1, 60])
def test_ends_of_the_ranges_are_finite(family: str, normalize: bool, l_max: int) -> None:
    dtype = np.dtype("float32")
    apply, weights_of, names = APPLIED[family]
    grid = np.meshgrid(*(np.array(EDGES[name], dtype) for name in names), indexing="ij")
    params = tuple(g.ravel() for g in grid)
    spend = np.zeros((6, params[0].size), dtype)
    spend[1] = 3.0

    def total(*params):
        y = apply(spend, *params, l_max, normalize=normalize)
        return (y * y).sum(), y

    (gradient, y), weights = jax.jit(
        lambda *p: (
            jax.grad(total, argnums=tuple(range(len(p))), has_aux=True)(*p),
            weights_of(*p, l_max, normalize=normalize),
        )
    )(*params)
    assert np.isfinite(y).all()
    assert np.isfinite(weights).all()
    assert (np.asarray(weights) >= 0).all()
    for name, value in zip(names, gradient, strict=True):
        assert np.isfinite(value).all(), name
    if normalize:
        np.testing.assert_allclose(weights.sum(-1), 1, rtol=tolerance(dtype))


def test_recursion_at_the_ends() -> None:
    spend, alpha = np.ones((5, 2), np.float32), np.float32([0.0, 1.0])
    for normalize, at_one in ((True, np.zeros(5)), (False, np.arange(1, 6))):
        apply = compiled(adstock.geometric, l_max=None, normalize=normalize)
        value, moved = jax.jvp(functools.partial(apply, spend), (alpha,), (np.ones_like(alpha),))
        np.testing.assert_array_equal(value, np.stack([np.ones(5), at_one], 1))
        assert np.isfinite(moved).all()


def test_exact_derivatives_at_no_carryover(dtype: np.dtype) -> None:
    """At alpha = 0 the weights are (1, 0, 0, ..) and only lag 1 moves, at rate 1."""
    spend = np.array([[2.0], [3.0], [0.0], [1.0]], dtype)
    for apply, options in (
        (adstock.geometric, {"l_max": 4}),
        (adstock.geometric, {"l_max": None}),
        (adstock.delayed, {"l_max": 4, "theta": 0.0}),
    ):
        at = compiled(apply, normalize=False, **options)
        value, moved = jax.jvp(lambda a, at=at: at(spend, alpha=a), (np.zeros((), dtype),), (np.ones((), dtype),))
        np.testing.assert_array_equal(value, spend)
        np.testing.assert_array_equal(moved[:, 0], [0, 2, 3, 0])


def test_weibull_weights_survive_underflow() -> None:
    """With scale 0.05 and shape 2 every density underflows in float32; the exact ratios do not."""
    with mpmath.workdps(40):
        exact = [float(mp_weight("weibull_cdf", [mpmath.mpf("0.05"), mpmath.mpf(2)], 4, lag, True)) for lag in range(4)]
    np.testing.assert_allclose(adstock.weibull_cdf_weights(0.05, 2.0, 4), exact, atol=1e-6)
    np.testing.assert_allclose(adstock.weibull_pdf_weights(0.05, 2.0, 4), [1, 0, 0, 0], atol=1e-6)


def test_delayed_limit_at_no_retention() -> None:
    np.testing.assert_array_equal(adstock.delayed_weights(0.0, 1.3, 4), [0, 1, 0, 0])
    np.testing.assert_allclose(adstock.delayed_weights(1e-30, 1.3, 4), [0, 1, 0, 0], atol=1e-6)


def test_errors_name_the_argument() -> None:
    spend = np.ones((2, 5, 3), np.float32)
    with pytest.raises(ValueError, match="l_max is 0"):
        adstock.geometric(spend, 0.5, 0)
    with pytest.raises(ValueError, match="l_max is 0"):
        adstock.delayed(spend, 0.5, 1.0, 0)
    with pytest.raises(ValueError, match=r"theta has shape \(4,\).*\(2, 3\)"):
        adstock.delayed(spend, 0.5, np.ones(4, np.float32), 3)
    with pytest.raises(ValueError, match="no axis -2"):
        adstock.geometric(spend[0, :, 0], 0.5)
    with pytest.raises(ValueError, match=r"reach is 2; .* = 3"):
        adstock.binomial(spend, 0.5, 4, reach=2.0)
    with pytest.raises(ValueError, match="at least one"):
        adstock.convolve(spend, np.ones((3, 0), np.float32))


@functools.cache
def cached(family: str, l_max: int, normalize: bool) -> Callable[..., jax.Array]:
    return compiled(APPLIED[family][0], l_max=l_max, normalize=normalize)


CASE = {
    "family": st.sampled_from(sorted(APPLIED)),
    "l_max": st.sampled_from([1, 6]),
    "normalize": st.booleans(),
    "seed": st.integers(0, 2**16),
}


@QUICK
@given(**CASE)
def test_linear_in_spend(family: str, l_max: int, normalize: bool, seed: int) -> None:
    apply = cached(family, l_max, normalize)
    a, params = panel(family, np.dtype("float32"), seed=seed)
    b, _ = panel(family, np.dtype("float32"), seed=seed + 1)
    np.testing.assert_allclose(
        apply(a + 3 * b, *params), apply(a, *params) + 3 * apply(b, *params), rtol=1e-5, atol=1e-4
    )


@QUICK
@given(**CASE, week=st.integers(0, 8))
def test_causal_and_no_longer_than_the_window(family: str, l_max: int, normalize: bool, seed: int, week: int) -> None:
    spend, params = panel(family, np.dtype("float32"), seed=seed)
    more = spend.copy()
    more[:, week] += 5
    apply = cached(family, l_max, normalize)
    change = np.asarray(apply(more, *params) - apply(spend, *params))
    assert not change[:, :week].any()
    np.testing.assert_allclose(change[:, week + l_max :], 0, atol=1e-4)


@QUICK
@given(**CASE, pad=st.sampled_from([1, 5]))
def test_padding_with_zeros_is_harmless(family: str, l_max: int, normalize: bool, seed: int, pad: int) -> None:
    spend, params = panel(family, np.dtype("float32"), seed=seed)
    apply = cached(family, l_max, normalize)
    plain = apply(spend, *params)
    before = apply(np.pad(spend, ((0, 0), (pad, 0), (0, 0))), *params)
    after = apply(np.pad(spend, ((0, 0), (0, pad), (0, 0))), *params)
    np.testing.assert_allclose(before[:, pad:], plain, rtol=1e-5, atol=1e-6)
    assert not np.asarray(before[:, :pad]).any()
    np.testing.assert_allclose(after[:, : spend.shape[1]], plain, rtol=1e-5, atol=1e-6)


@QUICK
@given(
    family=st.sampled_from(sorted(APPLIED)),
    l_max=st.sampled_from([1, 2, 13, 60]),
    u=st.floats(0, 1, width=32),
    v=st.floats(0, 1, width=32),
)
def test_normalised_weights_sum_to_one(family: str, l_max: int, u: float, v: float) -> None:
    _, weights_of, names = APPLIED[family]
    bounds = {"alpha": (0.0, 1.0), "theta": (0.0, l_max - 1.0), "scale": (0.01, 100.0), "shape": (0.01, 20.0)}
    params = [bounds[name][0] + x * (bounds[name][1] - bounds[name][0]) for name, x in zip(names, (u, v), strict=False)]
    weights = np.asarray(compiled(weights_of, l_max=l_max)(*params))
    assert (weights >= 0).all()
    assert abs(weights.sum() - 1) < 1e-5
