"""The beta-binomial against 90-digit arithmetic, sums over small tables, the distribution of its draws."""

import functools
import itertools

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pelton.kernels import beta_binomial as bb

PRECISIONS = ("float32", "float64")
# Errors allowed: absolute up to a value of 10, relative above; relative for derivatives
VALUE = {"float32": 1e-5, "float64": 1e-11}
GRADIENT = {"float32": 1e-5, "float64": 1e-11}
SECOND = {"float32": 1e-3, "float64": 1e-7}


@pytest.fixture(params=PRECISIONS)
def dtype(request):
    with jax.enable_x64(request.param == "float64"):
        yield np.dtype(request.param)


def exact_pmf(k, n, a, b):
    """Value, gradient and second derivatives in (alpha, beta) at the exact floating arguments."""
    with mp.workdps(90):
        k, n, a, b = mp.mpf(int(k)), mp.mpf(int(n)), mp.mpf(float(a)), mp.mpf(float(b))
        m, s = n - k, a + b
        lg = mp.loggamma
        value = lg(n + 1) - lg(k + 1) - lg(m + 1) + lg(a + k) - lg(a) + lg(b + m) - lg(b) + lg(s) - lg(s + n)
        first, second = (mp.psi(i, s) - mp.psi(i, s + n) for i in (0, 1))
        return (
            value,
            mp.psi(0, a + k) - mp.psi(0, a) + first,
            mp.psi(0, b + m) - mp.psi(0, b) + first,
            mp.psi(1, a + k) - mp.psi(1, a) + second,
            second,
            mp.psi(1, b + m) - mp.psi(1, b) + second,
        )


def cases(dtype):
    rng = np.random.default_rng(20)
    rows = []
    concentrations = (1e-3, 0.1, 3.0, 7.0, 40.0, 1e4, 1e7, 1e12, 1e18)
    for n, kappa, mu in itertools.product((1, 2, 10, 1000, 10**6, 10**9), concentrations, (1e-4, 0.3, 0.5, 0.9999)):
        near = min(n, int(n * mu) + int(rng.integers(0, 3)))
        rows += [(k, n, mu * kappa, (1 - mu) * kappa) for k in {0, n, near, int(rng.integers(0, n + 1))}]
    rows = [rows[i] for i in rng.permutation(len(rows))[:250]]
    k, n, a, b = zip(*rows, strict=True)
    return np.array(k, np.int32), np.array(n, np.int32), np.array(a, dtype), np.array(b, dtype)


def value_error(got, want):
    return float(abs(mp.mpf(float(got)) - want) / max(1, abs(want) / 10)) if abs(want) < 10 else relative(got, want)


def relative(got, want):
    return float(abs(mp.mpf(float(got)) - want) / abs(want))


def test_log_pmf_and_its_derivatives_against_exact_arithmetic(dtype):
    k, n, a, b = cases(dtype)
    exact = [exact_pmf(*at) for at in zip(k, n, a, b, strict=True)]
    values = bb.log_pmf(k, n, a, b)
    gradient = jax.jit(jax.vmap(jax.grad(bb.log_pmf, (2, 3))))(k, n, a, b)
    (aa, ab), (_, bb_) = jax.jit(jax.vmap(jax.hessian(bb.log_pmf, (2, 3))))(k, n, a, b)
    assert values.dtype == dtype
    for i, want in enumerate(exact):
        at = (k[i], n[i], a[i], b[i])
        assert value_error(values[i], want[0]) < VALUE[dtype.name], at
        for got, truth in zip((gradient[0][i], gradient[1][i]), want[1:3], strict=True):
            if abs(truth) > 1e-35:
                assert relative(got, truth) < GRADIENT[dtype.name], (*at, got, float(truth))
        for got, truth in zip((aa[i], ab[i], bb_[i]), want[3:], strict=True):
            # Below this float32 squares underflow
            if abs(truth) > 1e-30:
                assert relative(got, truth) < SECOND[dtype.name], (*at, got, float(truth))


def test_a_compiler_does_not_undo_the_exact_products():
    # Near-balance at counts of 1e9, where a k and b m agree to all digits of float32
    k, n = np.array([300_000_017, 299_999_983], np.int32), np.int32(10**9)
    a, b = np.float32([3e9, 3e5]), np.float32([7e9, 7e5])
    with jax.disable_jit():
        step_by_step = bb.log_pmf(k, n, a, b)
    np.testing.assert_allclose(step_by_step, jax.jit(bb.log_pmf)(k, n, a, b), rtol=1e-6)
    for i in range(2):
        assert value_error(step_by_step[i], exact_pmf(k[i], n, a[i], b[i])[0]) < 1e-5


def test_counts_past_the_mantissa_of_float32_are_exact():
    n = np.int32(10**9)
    a, b = np.float32(3e8), np.float32(7e8)
    for k in (16_777_217, 299_999_999, 300_000_001, 10**9 - 1):
        want = exact_pmf(k, n, a, b)
        assert value_error(bb.log_pmf(np.int32(k), n, a, b), want[0]) < 1e-5
        assert relative(jax.grad(bb.log_pmf, 2)(np.int32(k), n, a, b), want[1]) < 1e-5


def test_binomial_limit(dtype):
    # https://github.com/stan-dev/math/issues/2508
    assert abs(float(bb.log_pmf(500, 1000, dtype.type(5e18), dtype.type(5e18))) + 3.68) < 0.005
    binomial = stats.binom.logpmf([0, 3, 500, 1000], 1000, 0.25)
    got = bb.log_pmf(np.array([0, 3, 500, 1000]), 1000, dtype.type(2.0**60), dtype.type(3 * 2.0**60))
    # scipy's own error is that of lgamma(1000) in float64
    np.testing.assert_allclose(got, binomial, rtol=1e-6 if dtype == np.float32 else 1e-12)


def test_degenerate_counts():
    assert bb.log_pmf(0, 0, 2.0, 3.0) == 0
    assert np.all(np.isneginf(bb.log_pmf(jnp.array([-1, 4]), 3, 2.0, 3.0)))
    assert np.all(np.isnan(bb.log_pmf(1, 3, jnp.array([0.0, -1.0, 2.0]), jnp.array([2.0, 2.0, -1.0]))))
    gradient = jax.vmap(jax.grad(bb.log_pmf, (2, 3)), (0, 0, None, None))
    assert not np.any(gradient(jnp.array([0, -1, 4]), jnp.array([0, 3, 3]), 2.0, 3.0))
    np.testing.assert_allclose(bb.log_pmf(jnp.arange(4), 3, 1.0, 1.0), np.log(0.25), rtol=1e-6)


def test_mass_sums_to_one(dtype):
    n = np.array([1, 7, 100, 1000, 1000])[:, None]
    a = np.array([0.2, 1e-3, 3.0, 1e6, 1e15], dtype)[:, None]
    b = np.array([0.1, 2.0, 50.0, 2e6, 1e13], dtype)[:, None]
    # Past n there is no mass: -inf
    mass = np.exp(np.asarray(bb.log_pmf(np.arange(1002), n, a, b), float)).sum(1)
    np.testing.assert_allclose(mass, 1, rtol=VALUE[dtype.name])


@settings(deadline=None, max_examples=100, derandomize=True)
@given(st.integers(0, 10**9), st.integers(0, 10**9), st.floats(1e-3, 1e12), st.floats(1e-3, 1e12))
def test_swapping_success_and_failure_changes_nothing(k, m, a, b):
    with jax.enable_x64(True):
        one, other = bb.log_pmf(k, k + m, a, b), bb.log_pmf(m, k + m, b, a)
        assert abs(one - other) <= 1e-13 * max(1, abs(one))
        assert one <= 1e-13
        gradient = jax.grad(bb.log_pmf, (2, 3))(k, k + m, a, b)
        mirrored = jax.grad(bb.log_pmf, (3, 2))(m, k + m, b, a)
        np.testing.assert_allclose(gradient, mirrored, rtol=1e-11)


def test_float_counts_are_data_and_say_so():
    def of_counts(k):
        return bb.log_pmf(k, 5.0, 2.0, 3.0)

    np.testing.assert_allclose(of_counts(2.0), bb.log_pmf(2, 5, 2.0, 3.0))
    with pytest.raises(TypeError, match="no derivative with respect to successes"):
        jax.grad(of_counts)(2.0)

    def total(a, counts):
        return jax.lax.scan(lambda sum_, k: (sum_ + bb.log_pmf(k, 5.0, a, 3.0), None), 0.0, counts)[0]

    counts = jnp.array([1.0, 2.0, 5.0])
    expected = sum(jax.grad(bb.log_pmf, 2)(k, 5.0, 2.0, 3.0) for k in counts)
    np.testing.assert_allclose(jax.grad(total)(2.0, counts), expected, rtol=1e-6)


def test_broadcasting_and_types():
    assert bb.log_pmf(np.arange(3)[:, None], 5, jnp.ones(4), 2.0).shape == (3, 4)
    assert bb.log_pmf(np.arange(3, dtype=np.uint8), 5, 1.0, 2.0).dtype == jnp.float32
    with jax.enable_x64(True):
        assert bb.log_pmf(1, 5, np.float32(1), np.float32(2)).dtype == jnp.float32
        assert bb.log_pmf(np.int64(2**40), np.int64(2**41), 1.0, 1.0) == pytest.approx(-np.log(2.0**41 + 1))


# Tables


def small_data(rng, units=40, largest=30):
    n = rng.integers(0, largest, units)
    return rng.binomial(n, rng.beta(1.0, 2.0, units)), n


@functools.cache
def brute_force(x, t, k, n):
    """sum log[B(a+k, b+m)/B(a,b)] with its gradient and second derivatives in (x, t)."""
    with mp.workdps(60):
        x, t = mp.mpf(float(x)), mp.mpf(float(t))
        kappa, mu = mp.exp(t), 1 / (1 + mp.exp(-x))
        a, b = kappa * mu, kappa / (1 + mp.exp(x))
        totals = [mp.mpf(0)] * 6
        for successes, trials in zip(k, n, strict=True):
            i, j, m = int(successes), int(trials), int(trials - successes)
            value = mp.log(mp.rf(a, i)) + mp.log(mp.rf(b, m)) - mp.log(mp.rf(kappa, j))
            ga, gb, gs = (mp.psi(0, v + c) - mp.psi(0, v) for v, c in ((a, i), (b, m), (kappa, j)))
            ha, hb, hs = (mp.psi(1, v + c) - mp.psi(1, v) for v, c in ((a, i), (b, m), (kappa, j)))
            nu = 1 - mu
            ax, bx = a * nu, -b * mu
            dx, dt = ga * ax + gb * bx, ga * a + gb * b - gs * kappa
            xx = ha * ax**2 + hb * bx**2 + ga * ax * (nu - mu) + gb * bx * (nu - mu)
            xt = ha * ax * a + hb * bx * b + dx
            tt = ha * a**2 + hb * b**2 - hs * kappa**2 + dt
            totals = [p + q for p, q in zip(totals, (value, dx, dt, xx, xt, tt), strict=True)]
        return [float(v) for v in totals]


@pytest.mark.parametrize("form", ["histogram", "unique"])
def test_log_likelihood_is_the_sum_over_units(form, dtype):
    k, n = small_data(np.random.default_rng(1), 15)
    tables = bb.count_tables(k, n, form=form)
    value_and_gradient = jax.jit(jax.value_and_grad(bb.log_likelihood, (0, 1)))
    hessian_of = jax.jit(jax.hessian(bb.log_likelihood, (0, 1)))
    for x, t in itertools.product((-4.0, 0.25, 9.0), (-30.0, -3.0, 0.5, 3.0, 12.0)):
        # Halves and quarters: the same in both precisions
        want = brute_force(x, t, tuple(k), tuple(n))
        x, t = dtype.type(x), dtype.type(t)  # noqa: PLW2901
        value, gradient = value_and_gradient(x, t, tables)
        hessian = hessian_of(x, t, tables)
        units = bb.log_likelihood_units(x, t, k, n)
        assert value.dtype == dtype
        # Terms are of the size of K |log mu| + M |log nu| + n log(n/x); each carries a few ULP
        terms = n.sum() * (abs(float(x)) + abs(float(t)) + np.log(n.max()))
        slack = 4 * np.finfo(dtype).eps * terms
        np.testing.assert_allclose(value, want[0], rtol=0, atol=slack)
        np.testing.assert_allclose(np.asarray(units, float).sum(), want[0], rtol=0, atol=slack)
        np.testing.assert_allclose(gradient, want[1:3], rtol=0, atol=slack)
        flat = [hessian[0][0], hessian[0][1], hessian[1][1]]
        np.testing.assert_allclose(flat, want[3:], rtol=0, atol=slack)
        np.testing.assert_allclose(hessian[1][0], hessian[0][1], rtol=0, atol=slack)


def test_log_likelihood_and_log_pmf_differ_by_the_binomial_coefficient():
    k, n = small_data(np.random.default_rng(2))
    with jax.enable_x64(True), mp.workdps(30):
        a, b = 1.7, 4.1
        coefficient = float(sum(mp.log(mp.binomial(int(j), int(i))) for i, j in zip(k, n, strict=True)))
        tables = bb.count_tables(k, n)
        got = bb.log_likelihood(np.log(a / b), np.log(a + b), tables)
        np.testing.assert_allclose(bb.log_pmf(k, n, a, b).sum() - coefficient, got, rtol=1e-13)


@pytest.mark.parametrize("form", ["histogram", "unique", "auto"])
@pytest.mark.parametrize("pad", [True, False])
def test_groups_are_a_loop_over_groups(form, pad):
    rng = np.random.default_rng(3)
    k, n = small_data(rng, 60)
    group = rng.choice([0, 1, 3], 60)
    tables = bb.count_tables(k, n, group, num_groups=5, form=form, pad=pad)
    x, t = np.linspace(-1.0, 1.0, 5), np.linspace(-2.0, 5.0, 5)
    with jax.enable_x64(True):
        together = bb.log_likelihood(x, t, tables)
        assert together.shape == (5,)
        for g in range(5):
            alone = bb.count_tables(k[group == g], n[group == g], form=form, pad=pad)
            np.testing.assert_allclose(together[g], bb.log_likelihood(x[g], t[g], alone), rtol=1e-13, atol=1e-13)
        shared = bb.log_likelihood(0.3, 1.0, tables)
        np.testing.assert_allclose(shared.sum(), bb.log_likelihood(0.3, 1.0, bb.count_tables(k, n)), rtol=1e-13)
        by_group = jax.vmap(bb.log_likelihood)(x, t, jax.tree.map(jnp.asarray, tables))
        np.testing.assert_allclose(by_group, together, rtol=1e-13)


def test_exceedance_counts():
    k, n = small_data(np.random.default_rng(4))
    tables = bb.count_tables(k, n, form="histogram")
    for values, table in ((k, tables.successes), (n - k, tables.failures), (n, tables.trials)):
        assert table.above.dtype == np.float64
        assert table.above.tolist() == [int((values > j).sum()) for j in range(1, table.above.size + 1)]
    assert (tables.total_successes, tables.total_failures) == (k.sum(), (n - k).sum())


def test_forms_are_chosen_by_cost():
    n = np.full(50, 1000)
    tables = bb.count_tables(np.arange(50), n)
    assert isinstance(tables.trials, bb.UniqueCounts)
    assert isinstance(tables.successes, bb.Exceedance)
    large = bb.count_tables(np.full(50, 5), np.full(50, 10**9))
    assert isinstance(large.trials, bb.UniqueCounts)
    assert large.trials.values.max() == 10**9


def test_new_data_of_similar_size_compile_nothing():
    traces = []

    @jax.jit
    def run(tables):
        traces.append(1)
        return bb.log_likelihood(0.1, 2.0, tables)

    rng = np.random.default_rng(5)
    for largest in (80, 84, 89):
        k, n = small_data(rng, 500, largest)
        run(bb.count_tables(k, n, form="histogram"))
    assert len(traces) == 1


@pytest.mark.parametrize("form", ["histogram", "unique"])
def test_binomial_limit_of_the_likelihood(form, dtype):
    k, n = small_data(np.random.default_rng(6))
    tables = bb.count_tables(k, n, form=form)
    top = 80.0 if dtype == np.float32 else 700.0
    for t in (top, top - 20, 45.0):
        value, (dx, dt) = jax.value_and_grad(bb.log_likelihood, (0, 1))(dtype.type(0.4), dtype.type(t), tables)
        mu = 1 / (1 + np.exp(-float(dtype.type(0.4))))
        want = k.sum() * np.log(mu) + (n - k).sum() * np.log1p(-mu)
        tolerance = 8 * np.finfo(dtype).eps * n.sum()
        assert abs(value - want) < tolerance
        assert abs(dx - (k.sum() - n.sum() * mu)) < tolerance
        # What is left falls as n^2 / kappa
        assert abs(dt) <= (n.astype(float) ** 2).sum() * np.exp(-t) * 4
        assert np.all(np.isfinite(np.array(jax.hessian(bb.log_likelihood, (0, 1))(0.4, dtype.type(t), tables))))


# Counts that fill the shortest tables only: longer ones compile programs of their own
@settings(deadline=None, max_examples=40, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=12, max_size=12),
    st.floats(-8, 8),
    st.floats(-20, 40),
)
def test_forms_agree(pairs, x, t):
    k, m = np.array(pairs).T
    with jax.enable_x64(True):
        values = [bb.log_likelihood(x, t, bb.count_tables(k, k + m, form=f)) for f in ("histogram", "unique")]
        values.append(bb.log_likelihood_units(x, t, k, k + m).sum())
        scale = (k + m).sum() * (abs(x) + abs(t) + 5) + 1
        assert np.ptp(np.array(values)) <= 8 * np.finfo(float).eps * scale


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([3], [2]), "unit 0 has 3 of 2 trials"),
        (([0, -1], [2, 2]), "unit 1 has -1 of 2 trials"),
        (([0.5], [2]), "whole numbers; unit 0 has 0.5"),
        (([1, 1], [2]), r"shapes are \(2,\) and \(1,\)"),
        (([[1]], [[2]]), "one-dimensional"),
        (([1, 1], [2, 2], [0, 3], 3), "unit 1 has 3"),
        (([1, 1], [2, 2], [0, -1]), "unit 1 has -1"),
        (([1, 1], [2, 2], None, 3), "without group"),
        (([1, 1], [2, 2], None, None, "other"), "'other'"),
        ((["a"], [2]), "whole numbers"),
    ],
)
def test_errors_say_where(arguments, message):
    with pytest.raises(ValueError, match=message):
        bb.count_tables(*arguments)


def test_blocks_and_sorting_build_the_same_tables(monkeypatch):
    rng = np.random.default_rng(7)
    k, n = small_data(rng, 300)
    group = rng.integers(0, 4, 300)
    plain = bb.count_tables(k, n, group)
    monkeypatch.setattr(bb, "_BLOCK", 37)
    blocks = bb.count_tables(k, n, group)
    monkeypatch.setattr(bb, "_DENSE_CELLS", 0)
    sorted_ = bb.count_tables(np.repeat(k, 1)[:10], n[:10], group[:10], num_groups=4)
    monkeypatch.undo()
    dense = bb.count_tables(k[:10], n[:10], group[:10], num_groups=4)
    for one, other in ((plain, blocks), (sorted_, dense)):
        assert jax.tree.structure(one) == jax.tree.structure(other)
        assert all(jax.tree.leaves(jax.tree.map(np.array_equal, one, other)))


# Draws


@pytest.mark.parametrize(
    ("a", "b"),
    [(2.0, 5.0), (1.0, 1.0), (0.3, 0.7), (0.1, 3.0), (40.0, 1.2), (1e4, 3e4), (1e8, 1e7)],
)
def test_draws_follow_the_beta_distribution(a, b, dtype):
    draws = 20_000
    rates = np.asarray(bb.draw_rates(jax.random.key(11), 0, np.zeros(draws, np.int32), dtype.type(a), dtype.type(b)))
    assert rates.dtype == dtype
    law = stats.beta(float(dtype.type(a)), float(dtype.type(b)))
    mean, variance, _, excess = law.stats("mvsk")
    x = rates.astype(float)
    assert abs(x.mean() - mean) < 5 * np.sqrt(variance / draws)
    assert abs(x.var() - variance) < 5 * variance * np.sqrt((excess + 2) / draws)
    assert stats.kstest(x, law.cdf).statistic < 2.2 / np.sqrt(draws)  # probability 1e-4


def test_draws_at_tiny_and_huge_shapes(dtype):
    draws = 20_000
    zeros = np.zeros(draws, np.int32)
    tiny = np.asarray(bb.draw_rates(jax.random.key(1), zeros, 0, dtype.type(1e-3), dtype.type(3e-3)), float)
    assert np.all((tiny >= 0) & (tiny <= 1))
    assert abs((tiny > 0.5).mean() - stats.beta(1e-3, 3e-3).sf(0.5)) < 5 * np.sqrt(0.25 * 0.75 / draws)
    # The lower tail, P(theta < 1e-30), is at 93 percent of the mass below a half
    below = stats.beta(1e-3, 3e-3).cdf(1e-30)
    assert abs((tiny < 1e-30).mean() - below) < 5 * np.sqrt(below * (1 - below) / draws)
    huge = np.asarray(bb.draw_rates(jax.random.key(2), zeros, 0, dtype.type(1e30), dtype.type(1e30)), float)
    # sd of Beta(a, a) is 1 / sqrt(8 a); six of them are passed once in 25000 such tests
    assert np.abs(huge - 0.5).max() < 6 / np.sqrt(8e30) + 2 * np.finfo(dtype).eps
    least = bb.draw_rates(jax.random.key(3), zeros, 0, np.finfo(dtype).tiny, np.finfo(dtype).tiny)
    assert not np.any(np.isnan(least))


def test_draws_are_conjugate_and_independent():
    k, n = np.array([0, 3, 10]), np.array([10, 10, 10])
    rates = np.asarray(bb.draw_rates(jax.random.key(4), np.repeat(k, 20_000), np.repeat(n, 20_000), 2.0, 3.0), float)
    rates = rates.reshape(3, -1)
    for i in range(3):
        law = stats.beta(2 + k[i], 3 + n[i] - k[i])
        assert abs(rates[i].mean() - law.mean()) < 5 * law.std() / np.sqrt(20_000)
    assert np.all(np.abs(np.corrcoef(rates)[np.triu_indices(3, 1)]) < 5 / np.sqrt(20_000))
    lag = np.corrcoef(rates[1, 1:], rates[1, :-1])[0, 1]
    assert abs(lag) < 5 / np.sqrt(20_000)
    # No value twice because a chunk met the key of another
    assert np.unique(rates[1]).size > 19_900


def test_draws_repeat_broadcast_and_mark_bad_shapes():
    key = jax.random.key(5)
    one = bb.draw_rates(key, np.arange(3)[:, None], 10, jnp.ones(4), 2.0)
    assert one.shape == (3, 4)
    np.testing.assert_array_equal(one, bb.draw_rates(key, np.arange(3)[:, None], 10, jnp.ones(4), 2.0))
    assert bb.draw_rates(key, np.zeros(0, int), 10, 1.0, 1.0).shape == (0,)
    bad = np.asarray(bb.draw_rates(key, 0, 1, jnp.array([-1.0, jnp.nan, 1.0]), 2.0))
    assert np.isnan(bad).tolist() == [True, True, False]
    keys = jax.random.split(key, 7)
    many = jax.jit(jax.vmap(lambda each: bb.draw_rates(each, np.arange(5), 10, 1.0, 2.0)))(keys)
    np.testing.assert_allclose(many[2], bb.draw_rates(keys[2], np.arange(5), 10, 1.0, 2.0), rtol=1e-6)
