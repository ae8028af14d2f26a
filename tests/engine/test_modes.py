"""Chains in separate modes, told apart and weighed against known weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pelton
from pelton.engine.modes import modes
from pelton.engine.posterior import Posterior

WEIGHTS, SCALES, CENTRES = (0.3, 0.7), (0.5, 2.0), (-30.0, 30.0)


def two(position, data):
    """Two normal modes of unequal widths, correlated 0.8."""
    del data
    precision = jnp.linalg.inv(jnp.array([[1.0, 0.8], [0.8, 1.0]]))
    parts = []
    for weight, scale, centre in zip(WEIGHTS, SCALES, CENTRES, strict=True):
        z = (position - centre) / scale
        parts.append(jnp.log(weight) - 2 * jnp.log(scale) - 0.5 * z @ precision @ z)
    return jnp.logaddexp(*parts)


def start(key, data):
    del data
    side = jnp.where(jax.random.bernoulli(key), *CENTRES)
    return side + 0.1 * jax.random.normal(key, (2,))


def identity(position, data):
    del data
    return {"x": position}


def test_modes_are_found_and_weighed():
    target = Posterior(2, two, identity, start, (), dims={"x": ("axis",)})
    with pytest.warns(pelton.errors.ConvergenceWarning) as caught:
        tree = pelton.sample(target, chains=6, draws=2000, seed=2, sampler="numpyro-nuts")
    words = [str(one.message) for one in caught]
    assert any(word.startswith("chains are in 2 separate modes, ") for word in words)
    x = np.asarray(tree["posterior"]["x"])
    found = modes(x, np.asarray(tree["sample_stats"]["lp"]))
    right = np.flatnonzero(x[:, 0, 0] > 0)
    assert {mode.chains for mode in found} == {tuple(right), tuple(np.flatnonzero(x[:, 0, 0] < 0))}
    heavy = found[0]
    assert heavy.chains == tuple(right)
    # Normal modes are weighed exactly but for the error of a mean of 2,000 and more draws a mode.
    assert abs(heavy.weight - 0.7) < 0.05


def test_chains_that_meet_are_one_mode():
    x = np.random.default_rng(0).normal(size=(8, 100, 300))
    (mode,) = modes(x, -0.5 * np.sum(x**2, axis=-1))
    assert mode.chains == tuple(range(8))
    assert mode.weight == 1
