"""Integrated normal effects against the dense multivariate normal."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from pelton.engine.precision import using
from pelton.kernels.random_effects import draw_effects, log_marginal

UNITS, WEEKS, EFFECTS = 3, 17, 4


def case(seed) -> list[Any]:
    rng = np.random.default_rng(seed)
    seen = rng.uniform(size=(UNITS, WEEKS)) < 0.8
    design = rng.standard_normal((UNITS, WEEKS, EFFECTS)) * seen[..., None]
    residual = rng.standard_normal((UNITS, WEEKS)) * seen
    wide, sd = np.exp(rng.standard_normal((2, EFFECTS)))
    sigma = np.exp(0.5 * rng.standard_normal(UNITS))
    return [seen, residual, design, wide, sd, sigma]


def arguments(seen, residual, design, wide, sd, sigma) -> list[Any]:
    gram = np.einsum("utk,utl->ukl", design, design)
    count = seen.sum(axis=1).astype(float)
    return [jnp.asarray(value) for value in (residual, design, gram, wide, sd, sigma, count)]


def stacked(seen, residual, design, sigma):
    """One regression on the effects of the population, then those of every unit."""
    rows: Any = [design[u, seen[u]] for u in range(UNITS)]
    wide = np.vstack(rows)
    full = np.concatenate([wide, scipy.linalg.block_diag(*rows)], axis=1)
    noise = np.repeat(sigma, seen.sum(axis=1))
    return full, residual[seen], noise


def dense(*inputs: Any) -> float:
    seen, residual, design, wide, sd, sigma = inputs
    full, y, noise = stacked(seen, residual, design, sigma)
    spread: Any = np.concatenate([wide, np.tile(sd, UNITS)])
    covariance = (full * spread**2) @ full.T + np.diag(noise**2)
    return scipy.stats.multivariate_normal.logpdf(y, np.zeros(len(y)), covariance) + 0.5 * len(y) * np.log(2 * np.pi)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("precision", "tolerance"), [("float64", 1e-11), ("float32", 2e-5)])
def test_value_is_that_of_the_dense_normal(seed, precision, tolerance):
    inputs = case(seed)
    with using(precision):
        found = float(jax.jit(log_marginal)(*arguments(*inputs)))
    assert found == pytest.approx(dense(*inputs), rel=tolerance)


@pytest.mark.parametrize("seed", range(3))
def test_gradient_is_that_of_the_dense_normal(seed):
    inputs = case(seed)
    with using("float64"):
        found = jax.grad(log_marginal, argnums=(0, 3, 4, 5))(*arguments(*inputs))
    # Residual, wide, sd and sigma stand at 1, 3, 4 and 5 of a case.
    for which, slopes in zip((1, 3, 4, 5), found, strict=True):
        value, slope = inputs[which], np.asarray(slopes)
        for at in np.ndindex(value.shape):
            if which == 1 and (at[1] % 5 or not inputs[0][at]):
                continue
            step = 1e-5 * max(abs(value[at]), 0.1)
            ends = []
            for sign in (1, -1):
                moved = value.copy()
                moved[at] += sign * step
                ends.append(dense(*inputs[:which], moved, *inputs[which + 1 :]))
            assert slope[at] == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=2e-6, abs=2e-6)


@pytest.mark.parametrize("seed", range(3))
def test_effects_have_the_joint_conditional_mean_and_covariance(seed):
    seen, residual, design, wide, sd, sigma = case(seed)
    size = EFFECTS * (1 + UNITS)
    with using("float64"):
        rest = arguments(seen, residual, design, wide, sd, sigma)[:-1]

        def joint(noise):
            population, deviations = draw_effects(
                jnp.asarray(noise[:EFFECTS]), jnp.asarray(noise[EFFECTS:].reshape(UNITS, EFFECTS)), *rest
            )
            return np.concatenate([np.asarray(population), np.asarray(deviations).ravel()])

        mean = joint(np.zeros(size))
        root = np.stack([joint(row) - mean for row in np.eye(size)], axis=-1)
    full, y, noise = stacked(seen, residual, design, sigma)
    spread = np.concatenate([wide, np.tile(sd, UNITS)])
    weighted = full / noise[:, None]
    covariance = np.linalg.inv(weighted.T @ weighted + np.diag(1 / spread**2))
    np.testing.assert_allclose(mean, covariance @ weighted.T @ (y / noise), rtol=1e-8, atol=1e-11)
    np.testing.assert_allclose(root @ root.T, covariance, rtol=1e-8, atol=1e-11)


@settings(max_examples=40, deadline=None)
@given(st.floats(-14, 4), st.floats(-4, 4), st.floats(-4, 4))
def test_extreme_spreads_stay_finite(log_sd, log_wide, log_sigma):
    seen, residual, design, *_ = case(0)
    # The population's precision is a difference, of which float32 keeps nothing past some spread of the noise.
    ratio = max(log_sd, log_wide) - log_sigma
    for precision in ("float64", "float32") if ratio < np.log(300) else ("float64",):
        with using(precision):
            spreads = np.full(EFFECTS, np.exp(log_wide)), np.full(EFFECTS, np.exp(log_sd))
            args = arguments(seen, residual, design, *spreads, np.full(UNITS, np.exp(log_sigma)))
            value, slopes = jax.value_and_grad(log_marginal, argnums=(0, 3, 4, 5))(*args)
            assert np.isfinite(float(value))
            assert all(np.isfinite(np.asarray(one)).all() for one in slopes)


def test_a_unit_without_observations_adds_nothing():
    inputs = case(2)
    seen, residual, design, wide, sd, sigma = (value.copy() for value in inputs)
    seen[1], residual[1], design[1] = False, 0.0, 0.0
    with using("float64"):
        args = arguments(seen, residual, design, wide, sd, sigma)
        fewer = [value[jnp.array([0, 2])] if value.shape[0] == UNITS else value for value in args]
        assert float(log_marginal(*args)) == pytest.approx(float(log_marginal(*fewer)), rel=1e-13)
        _, deviations = draw_effects(jnp.zeros(EFFECTS), jnp.ones((UNITS, EFFECTS)), *args[:-1])
    # Its deviations are those of the prior.
    np.testing.assert_allclose(np.asarray(deviations)[1], sd, rtol=1e-12)


def test_vmap_agrees_with_a_loop():
    with using("float64"):
        sets = [arguments(*case(seed)) for seed in (5, 6)]
        together = jax.vmap(log_marginal)(*[jnp.stack(pair) for pair in zip(*sets, strict=True)])
        apart = [float(log_marginal(*one)) for one in sets]
    np.testing.assert_allclose(np.asarray(together), apart, rtol=1e-12)
