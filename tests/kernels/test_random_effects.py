"""Integrated normal effects against the dense multivariate normal."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from pelton.engine.precision import using
from pelton.kernels.random_effects import draw_effects, log_marginal


def case(seed, units=3, weeks=17, effects=4):
    rng = np.random.default_rng(seed)
    design = rng.standard_normal((units, weeks, effects))
    seen = rng.uniform(size=(units, weeks)) < 0.8
    design = design * seen[..., None]
    residual = rng.standard_normal((units, weeks)) * seen
    sd = np.exp(rng.standard_normal(effects))
    sigma = np.exp(0.5 * rng.standard_normal(units))
    return seen, residual, design, sd, sigma


def arguments(seen, residual, design, sd, sigma):
    gram = np.einsum("utk,utl->ukl", design, design)
    return [jnp.asarray(value) for value in (residual, design, gram, sd, sigma, seen.sum(axis=1).astype(float))]


def dense(seen, residual, design, sd, sigma):
    found = []
    for unit in range(len(seen)):
        rows = seen[unit]
        d = design[unit, rows]
        covariance = sigma[unit] ** 2 * np.eye(rows.sum()) + (d * sd**2) @ d.T
        value = scipy.stats.multivariate_normal.logpdf(residual[unit, rows], np.zeros(rows.sum()), covariance)
        found.append(value + 0.5 * rows.sum() * np.log(2 * np.pi))
    return np.array(found)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("precision", "tolerance"), [("float64", 1e-11), ("float32", 2e-5)])
def test_value_is_that_of_the_dense_normal(seed, precision, tolerance):
    inputs = case(seed)
    with using(precision):
        found = np.asarray(jax.jit(log_marginal)(*arguments(*inputs)))
    np.testing.assert_allclose(found, dense(*inputs), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("seed", range(3))
def test_gradient_is_that_of_the_dense_normal(seed):
    seen, residual, design, sd, sigma = case(seed)

    def total(residual, sd, sigma):
        return dense(seen, residual, design, sd, sigma).sum()

    with using("float64"):
        args = arguments(seen, residual, design, sd, sigma)
        by_residual, by_sd, by_sigma = jax.grad(lambda *a: jnp.sum(log_marginal(*a)), argnums=(0, 3, 4))(*args)
    step = 1e-5
    for values, found in ((sd, by_sd), (sigma, by_sigma)):
        for at in range(len(values)):
            moved = np.zeros_like(values)
            moved[at] = step * values[at]
            pair = [
                total(residual, sd + sign * moved, sigma) if values is sd else total(residual, sd, sigma + sign * moved)
                for sign in (1, -1)
            ]
            assert float(found[at]) == pytest.approx((pair[0] - pair[1]) / (2 * step * values[at]), rel=1e-6, abs=1e-6)
    unit, week = 1, int(np.flatnonzero(seen[1])[2])
    moved = np.zeros_like(residual)
    moved[unit, week] = step
    numeric = (total(residual + moved, sd, sigma) - total(residual - moved, sd, sigma)) / (2 * step)
    assert float(by_residual[unit, week]) == pytest.approx(numeric, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_effects_have_the_conditional_mean_and_covariance(seed):
    seen, residual, design, sd, sigma = case(seed)
    size = len(sd)
    with using("float64"):
        rest = arguments(seen, residual, design, sd, sigma)[:-1]
        mean = np.asarray(draw_effects(jnp.zeros((3, size)), *rest))
        root = np.stack(
            [np.asarray(draw_effects(jnp.tile(jnp.eye(size)[i], (3, 1)), *rest)) - mean for i in range(size)], -1
        )
    for unit in range(3):
        d = design[unit] / sigma[unit]
        covariance = np.linalg.inv(d.T @ d + np.diag(1 / sd**2))
        np.testing.assert_allclose(mean[unit], covariance @ d.T @ residual[unit] / sigma[unit], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(root[unit] @ root[unit].T, covariance, rtol=1e-9, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.floats(-20, 5), st.floats(-6, 6))
def test_extreme_spreads_stay_finite(log_sd, log_sigma):
    seen, residual, design, _, _ = case(0)
    for precision in ("float64", "float32"):
        with using(precision):
            args = arguments(seen, residual, design, np.full(4, np.exp(log_sd)), np.full(3, np.exp(log_sigma)))
            value, slopes = jax.value_and_grad(lambda *a: jnp.sum(log_marginal(*a)), argnums=(0, 3, 4))(*args)
            assert np.isfinite(float(value))
            assert all(np.isfinite(np.asarray(one)).all() for one in slopes)


def test_a_unit_without_observations_adds_nothing_and_keeps_its_prior():
    seen, residual, design, sd, sigma = case(2)
    seen, residual, design = seen * 0.0, residual * 0.0, design * 0.0
    with using("float64"):
        args = arguments(seen, residual, design, sd, sigma)
        np.testing.assert_array_equal(np.asarray(log_marginal(*args)), np.zeros(3))
        np.testing.assert_allclose(np.asarray(draw_effects(jnp.ones((3, 4)), *args[:-1])), np.tile(sd, (3, 1)))


def test_vmap_agrees_with_a_loop():
    with using("float64"):
        sets = [arguments(*case(seed)) for seed in (5, 6)]
        together = jax.vmap(log_marginal)(*[jnp.stack(pair) for pair in zip(*sets, strict=True)])
        apart = np.stack([np.asarray(log_marginal(*one)) for one in sets])
    np.testing.assert_allclose(np.asarray(together), apart, rtol=1e-12)
