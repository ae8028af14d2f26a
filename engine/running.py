"""Convergence figures of a run that is still going on, at constant memory."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Num

from pelton.engine.arguments import whole
from pelton.engine.errors import ArgumentError


class Running(NamedTuple):
    """Moments of the draws so far, in a small number of equal batches of each chain.

    Batch b of a chain holds its draws b L to (b + 1) L - 1. The length L is the least power of two for which all draws
    fit, so that between half of the batches and all of them are in use; where they would overflow, neighbours are
    joined two by two. How the draws were cut into chunks changes nothing but the rounding.

    The figures are for display and for deciding whether to look closer: they are not rank-normalised, and a tail can be
    bad where they are good. The final judgement is that of `pelton.engine.convergence.summary` on the stored draws.

    Attributes:
        draws: a chain, so far.
        length: L, draws in a full batch.
        centre: first draw of the first chain, from which moments are taken, so that a large mean costs no digits.
        mean: of a batch's draws less the centre.
        squares: sum of the squared deviations from the batch's mean.
    """

    draws: Int[Array, ""]
    length: Int[Array, ""]
    centre: Float[Array, " parameter"]
    mean: Float[Array, "chain batch parameter"]
    squares: Float[Array, "chain batch parameter"]

    @classmethod
    def empty(cls, chains: int, parameters: int, batches: int = 32) -> "Running":
        """Before the first draw, in the precision in force.

        Args:
            chains: at least 1.
            parameters: at least 1.
            batches: most batches a chain, an even number: more make the ESS surer and, where draws are few for their
                correlation, larger than it should be.

        Raises:
            ArgumentError: a number is out of range.
        """
        whole("chains", chains, 1)
        whole("parameters", parameters, 1)
        if whole("batches", batches, 4) % 2:
            raise ArgumentError(f"batches is an even number, for they are joined two by two, not {batches}")
        room = jnp.zeros((chains, batches, parameters), jnp.result_type(float))
        return cls(jnp.zeros((), jnp.int32), jnp.ones((), jnp.int32), room[0, 0], room, room)

    def updated(self, chunk: Num[Array | np.ndarray, "chain chunk parameter"]) -> "Running":
        """With the next draws of all chains; compiled once for a length of chunks.

        Raises:
            ArgumentError: the chunk is of other chains or parameters.
        """
        chains, _, parameters = self.mean.shape
        if (chunk.shape[0], chunk.shape[2]) != (chains, parameters):
            raise ArgumentError(
                f"a chunk is [chain, draw, parameter] of {chains} chains and {parameters} parameters, not of shape "
                f"{chunk.shape}; begin another Running.empty for it"
            )
        return _updated(self, jnp.asarray(chunk)) if chunk.shape[1] else self

    def rhat(self) -> Float[Array, " parameter"]:
        """Split R-hat, sqrt((B / W + N - 1) / N), over the first and second half of each chain's full batches.

        Of an odd number of full batches the middle one is left out. NaN before each half has two draws, for one chain,
        where no parameter moved, and where a draw is not finite.
        """
        return _rhat(self)

    def ess(self) -> Float[Array, " parameter"]:
        """Effective sample size of the mean by batch means, S s^2 / (L s_b^2), at most S log10(S).

        S, s^2 and s_b^2 are the number and variance of the draws in full batches and the variance of the batches'
        means, over all chains: chains that disagree make it as small as it can be, the number of batches. Its relative
        standard error is about sqrt(2 / batches in use), and it is too large where L is not large against the
        autocorrelation time. NaN before there are four full batches, where no parameter moved, and where a draw is not
        finite. Flegal & Jones 2010.
        """
        return _ess(self)


def _counts(draws: Any, length: Any, batches: int) -> Array:
    """Draws in each batch."""
    return jnp.clip(draws - jnp.arange(batches) * length, 0, length)


def _joined(counts: Array, mean: Array, squares: Array) -> tuple[Array, Array]:
    """Moments of neighbouring batches as one, in the first half of the places (Chan et al. 1983)."""
    chains, batches, parameters = mean.shape
    pairs = mean.reshape(chains, batches // 2, 2, parameters)
    first, second = counts[0::2, None], counts[1::2, None]
    share = second / jnp.maximum(first + second, 1)
    apart = pairs[:, :, 1] - pairs[:, :, 0]
    joint = pairs[:, :, 0] + share * apart
    around = jnp.sum(squares.reshape(pairs.shape), axis=2) + first * share * apart**2
    room = jnp.zeros_like(joint)
    return jnp.concatenate([joint, room], axis=1), jnp.concatenate([around, room], axis=1)


@jax.jit
def _updated(running: Running, chunk: Array) -> Running:
    batches, dtype = running.mean.shape[1], running.mean.dtype
    added = chunk.shape[1]
    chunk = chunk.astype(dtype)
    centre = jnp.where(running.draws == 0, chunk[0, 0], running.centre)

    def longer(carry: tuple) -> tuple:
        length, mean, squares = carry
        return 2 * length, *_joined(_counts(running.draws, length, batches).astype(dtype), mean, squares)

    length, mean, squares = lax.while_loop(
        lambda carry: carry[0] * batches < running.draws + added,
        longer,
        (running.length, running.mean, running.squares),
    )
    batch = (running.draws + jnp.arange(added)) // length
    before = _counts(running.draws, length, batches).astype(dtype)[:, None]
    after = _counts(running.draws + added, length, batches).astype(dtype)[:, None]
    new = after - before
    centred = jnp.moveaxis(chunk - centre, 1, 0)
    sums = partial(jax.ops.segment_sum, segment_ids=batch, num_segments=batches, indices_are_sorted=True)
    new_mean = jnp.moveaxis(sums(centred), 0, 1) / jnp.maximum(new, 1)
    deviations = centred - jnp.moveaxis(new_mean, 1, 0)[batch]
    new_squares = jnp.moveaxis(sums(deviations**2), 0, 1)
    share = new / jnp.maximum(after, 1)
    apart = new_mean - mean
    return Running(
        running.draws + added,
        length,
        centre,
        jnp.where(new > 0, mean + share * apart, mean),
        squares + new_squares + before * share * apart**2,
    )


def _pooled(weights: Array, running: Running) -> tuple[Array, Array]:
    """Mean [chain, parameter] and variance of the draws in the batches with weight 1."""
    weights = weights[:, None]
    count = jnp.sum(weights)
    mean = jnp.sum(weights * running.mean, axis=1, keepdims=True) / count
    around = running.squares + running.length * (running.mean - mean) ** 2
    return mean[:, 0], jnp.sum(weights * around, axis=1) / (count * running.length - 1)


@jax.jit
def _rhat(running: Running) -> Array:
    chains, batches, parameters = running.mean.shape
    if chains == 1:
        return jnp.full(parameters, jnp.nan, running.mean.dtype)
    full = running.draws // running.length
    half, at = full // 2, jnp.arange(batches)
    parts = [
        _pooled(inside.astype(running.mean.dtype), running) for inside in (at < half, (at >= full - half) & (at < full))
    ]
    mean, variance = (jnp.concatenate(part) for part in zip(*parts, strict=True))
    count = half * running.length
    within = jnp.mean(variance, axis=0)
    ratio = count * jnp.var(mean, axis=0, ddof=1) / within
    return jnp.where(count > 1, jnp.sqrt((ratio + count - 1) / count), jnp.nan)


@jax.jit
def _ess(running: Running) -> Array:
    chains, batches, _ = running.mean.shape
    full = running.draws // running.length
    inside = (jnp.arange(batches) < full).astype(running.mean.dtype)[:, None]
    many = chains * full
    size = many * running.length
    grand = jnp.sum(inside * running.mean, axis=(0, 1)) / many
    apart = jnp.sum(inside * (running.mean - grand) ** 2, axis=(0, 1))
    around = jnp.sum(inside * running.squares, axis=(0, 1)) + running.length * apart
    ratio = (around / (size - 1)) / (running.length * apart / (many - 1))
    ess = size * jnp.minimum(ratio, jnp.log10(size.astype(running.mean.dtype)))
    return jnp.where((full >= 4) & (around > 0), ess, jnp.nan)
