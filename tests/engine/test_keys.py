"""Keys against JAX's own threefry, whose numbers they must give."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from pelton.engine.keys import IMPL, key_of, log_uniform

WORD = st.integers(0, 2**32 - 1)


def both(high: int, low: int) -> tuple[jax.Array, jax.Array]:
    words = jnp.array([high, low], jnp.uint32)
    return key_of(words), jax.random.wrap_key_data(words, impl="threefry2x32")


def same(one: jax.Array, other: jax.Array) -> None:
    if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
        one, other = jax.random.key_data(one), jax.random.key_data(other)
    assert one.dtype == other.dtype
    np.testing.assert_array_equal(one, other)


@settings(deadline=None)
@given(WORD, WORD, WORD)
def test_folding_and_splitting_are_those_of_jax(high: int, low: int, number: int) -> None:
    one, other = both(high, low)
    same(jax.random.fold_in(one, np.uint32(number)), jax.random.fold_in(other, np.uint32(number)))
    same(jax.random.split(one, 3), jax.random.split(other, 3))
    same(jax.random.split(one, (2, 2)), jax.random.split(other, (2, 2)))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "uint64"])
def test_bits_are_those_of_jax(dtype: str) -> None:
    one, other = both(3, 4)
    with jax.enable_x64(True):
        same(jax.random.bits(one, (7, 3), dtype), jax.random.bits(other, (7, 3), dtype))


@pytest.mark.parametrize("seed", [0, 42, 2**31 - 1, 2**32 - 1, 2**40 + 5, -1])
def test_a_seed_makes_the_key_that_jax_makes_of_it(seed: int) -> None:
    with jax.enable_x64(True):
        same(jax.random.key(seed, impl=IMPL), jax.random.key(seed, impl="threefry2x32"))


@pytest.mark.parametrize("x64", [False, True])
def test_draws_are_those_of_jax_in_loops_and_mapped(x64: bool) -> None:
    def drawn(key: jax.Array) -> jax.Array:
        def step(total: jax.Array, key: jax.Array) -> tuple[jax.Array, None]:
            return total + jax.random.normal(key, (5,)) + jax.random.gamma(key, 2.0), None

        return jax.lax.scan(step, jnp.zeros(5), jax.random.split(key, 4))[0]

    with jax.enable_x64(x64):
        one, other = (jax.random.split(key, 6) for key in both(1, 2))
        np.testing.assert_allclose(
            jax.jit(jax.vmap(drawn))(one), jax.jit(jax.vmap(drawn))(other), rtol=1e-5 if not x64 else 1e-12
        )


def test_log_uniforms_are_uniform_and_finite() -> None:
    key, _ = both(5, 6)
    with jax.enable_x64(True):
        found = np.asarray(jax.vmap(lambda number: log_uniform(key, number, jnp.float64))(jnp.arange(100_000)))
        again = log_uniform(key, jnp.int32(-1), jnp.float32)
    assert np.all(np.isfinite(found))
    assert np.all(found < 0)
    assert scipy.stats.kstest(np.exp(found), "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(found[1:], found[:-1])[0, 1]) < 5 / np.sqrt(len(found))
    assert again.dtype == jnp.float32
    assert np.isfinite(again)
