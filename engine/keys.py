"""Random keys whose hash is one fused computation."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.random import define_prng_impl
from jaxtyping import Array, UInt32

_ROTATIONS = (13, 15, 26, 6), (17, 29, 16, 24)
_PARITY = 0x1BD11BDA


def threefry(key: UInt32[Array, "2"], high: Array, low: Array) -> tuple[Array, Array]:
    """Threefry-2x32 of 20 rounds: two words for the counter (high, low), arrays of uint32.

    JAX's own is a loop of five steps on a processor, which a sampler that asks for two numbers a step spends most of
    its time in; here the rounds are written out.

    Source: Salmon, Moraes, Dror & Shaw 2011, Parallel random numbers: as easy as 1, 2, 3.
    """
    words = key[0], key[1], key[0] ^ key[1] ^ jnp.uint32(_PARITY)
    x, y = high + words[0], low + words[1]
    for part in range(5):
        for rotation in _ROTATIONS[part % 2]:
            x = x + y
            y = x ^ ((y << jnp.uint32(rotation)) | (y >> jnp.uint32(32 - rotation)))
        x, y = x + words[(part + 1) % 3], y + words[(part + 2) % 3] + jnp.uint32(part + 1)
    # Without this XLA computes a chain of keys anew for each number drawn from its end, for minutes of compiling.
    return jax.lax.optimization_barrier((x, y))


def _counted(key: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Two words for each index of the shape."""
    low = jnp.arange(math.prod(shape), dtype=jnp.uint32).reshape(shape)
    return threefry(key, jnp.zeros_like(low), low)


def _seed(number: Array) -> Array:
    wide = number.dtype.itemsize > 4
    high = (number >> 32 if wide else jnp.zeros_like(number)).astype(jnp.uint32)
    return jnp.stack([high, number.astype(jnp.uint32)])


def _split(key: Array, shape: tuple[int, ...]) -> Array:
    return jnp.stack(_counted(key, shape), axis=-1)


def _fold_in(key: Array, number: Any) -> Array:
    return jnp.stack(threefry(key, jnp.uint32(0), jnp.asarray(number).astype(jnp.uint32)))


def _bits(key: Array, width: int, shape: tuple[int, ...]) -> Array:
    high, low = _counted(key, shape)
    if width == 64:
        return (high.astype(jnp.uint64) << jnp.uint64(32)) | low.astype(jnp.uint64)
    return (high ^ low).astype(jnp.dtype(f"uint{width}"))


IMPL = define_prng_impl(
    key_shape=(2,), seed=_seed, split=_split, random_bits=_bits, fold_in=_fold_in, name="pelton_threefry2x32", tag="ptf"
)


def key_of(words: UInt32[Array, "... 2"]) -> Any:
    """The key of two words: all that JAX draws from it is what it draws from its own key of these words.

    >>> words = jnp.array([0, 42], jnp.uint32)
    >>> one, other = key_of(words), jax.random.key(42, impl="threefry2x32")
    >>> bool(jnp.all(jax.random.normal(one, (3,)) == jax.random.normal(other, (3,))))
    True
    """
    return jax.random.wrap_key_data(words, impl=IMPL)


def log_uniform(key: Any, number: Any, dtype: Any) -> Array:
    """log U, the number-th of a key: one hash instead of the two of a folded key, and 32 random bits.

    U is in the middle of one of 2^32 equal parts of (0, 1).

    >>> float(log_uniform(key_of(jnp.array([0, 42], jnp.uint32)), 0, float)) < 0
    True
    """
    bits, _ = threefry(jax.random.key_data(key), jnp.uint32(1), jnp.asarray(number).astype(jnp.uint32))
    return jnp.log((bits.astype(dtype) + 0.5) * 2.0**-32)
