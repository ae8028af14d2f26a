"""Where chains start: populations carried from a broad reference to the posterior, block after block, by tempering."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from pelton.engine import mixture
from pelton.engine.mixture import Mixture
from pelton.engine.posterior import Hierarchy

# Effective share of the population that a rise of the power may leave before it is resampled.
LEAST_SHARE = 0.8
MOST_RISES = 200
BISECTIONS = 30
# Moves of every member after each rise, more in a block that is cheaper, at the most so many; refits of the mixture at
# full power, and by how much more moves stand after each.
MOVES = 8
MOST_MOVES = 40
REFITS = 3
LAST_MOVES = 1
# Factors of a move by the difference of two members: 2.38 / sqrt(2 d) on average, spread so that ridges are crossed.
LOG_SCALE = (-0.3, 0.7)
# Share of a block's mixture that all references' populations have between them at the least, in equal parts: proposals
# that visit a rare mode too often cost little, ones that visit it too seldom leave chains stuck in it.
LEAST_WEIGHT = 0.25


class Members(NamedTuple):
    """A population of one block with the shared coordinates; its log densities under the reference and the target."""

    shared: Float[Array, "member shared"]
    block: Float[Array, "member size"]
    low: Float[Array, " member"]
    high: Float[Array, " member"]


class Pilot(NamedTuple):
    """What the tempered populations say of the posterior.

    Attributes:
        shared: mixture of the shared coordinates, from all blocks.
        classes: mixtures of the blocks, each from that block and those before it, one for each reference from which a
            population rose; stacked [block, reference, component, ...], weights summing to one in each.
        log_shares: logarithms of the references' shares of a block's mixture [block, reference].
        shared_members: [member, shared].
        block_members: [block, member, size].
        evidence: log evidence of each block where each reference is the greatest, given the blocks before it
            [block, reference].
        rises: rises of the power that took [block, reference].
    """

    shared: Mixture
    classes: Mixture
    log_shares: Float[Array, "block reference"]
    shared_members: Float[Array, "member shared"]
    block_members: Float[Array, "block member size"]
    evidence: Float[Array, "block reference"]
    rises: Array


def _normal_logpdf(x: Array, mean: Array, sd: Array) -> Array:
    return jnp.sum(-0.5 * ((x - mean) / sd) ** 2 - jnp.log(sd))


def _tempered(members: Members, power: Array) -> Array:
    # At power 0 the target does not count, not even where it is -inf.
    return (1 - power) * members.low + jnp.where(power > 0, power * members.high, 0.0)


def classify(hierarchy: Hierarchy, data: Any, block: Array, points: Float[Array, "point d"]) -> Array:
    """The reference in which a block's points have the greatest density [point]: the class of their mode."""
    at = hierarchy.shared + block * hierarchy.size
    mean, sd = (jax.lax.dynamic_slice_in_dim(whole, at, hierarchy.size, axis=1) for whole in hierarchy.references(data))
    apart = (points[:, None] - mean) / sd
    return jnp.argmax(-0.5 * jnp.sum(apart**2, axis=-1) - jnp.sum(jnp.log(sd), axis=-1), axis=1)


class _Phase(NamedTuple):
    """One block being taken in, what the blocks before it say of the shared coordinates being a mixture."""

    hierarchy: Hierarchy
    data: Any
    block: Array
    reference: Array
    earlier: Mixture

    def _reference(self) -> tuple[Array, Array, Array, Array]:
        h = self.hierarchy
        mean, sd = (values[self.reference] for values in h.references(self.data))
        at = h.shared + self.block * h.size
        block_mean, block_sd = (jax.lax.dynamic_slice_in_dim(whole, at, h.size) for whole in (mean, sd))
        return mean[: h.shared], sd[: h.shared], block_mean, block_sd

    def begin(self, key: PRNGKeyArray, size: int) -> tuple[Array, Array]:
        """Shared coordinates and blocks drawn from the reference, and past the first block from the mixture."""
        h = self.hierarchy
        shared_mean, shared_sd, mean, sd = self._reference()
        key_shared, key_block = jax.random.split(key)
        shared = shared_mean + shared_sd * jax.random.normal(key_shared, (size, h.shared), mean.dtype)
        known = mixture.draw(self.earlier, key_shared, size, normal=True)
        block = mean + sd * jax.random.normal(key_block, (size, h.size), mean.dtype)
        return jnp.where(self.block == 0, shared, known), block

    def densities(self, shared: Array, block: Array) -> tuple[Array, Array]:
        """Log densities [member] of the reference, past the first block with the earlier ones, and of the target."""
        h = self.hierarchy
        shared_mean, shared_sd, mean, sd = self._reference()

        def own(shared: Array, block: Array) -> tuple[Array, Array, Array, Array]:
            return (
                _normal_logpdf(shared, shared_mean, shared_sd),
                h.shared_density(shared, self.data),
                _normal_logpdf(block, mean, sd),
                h.block_prior(block, shared, self.data) + h.block_likelihood(block, self.block, self.data),
            )

        shared_low, shared_high, block_low, block_high = jax.vmap(own)(shared, block)
        known = mixture.logpdf(self.earlier, shared, normal=True)
        first = self.block == 0
        low = block_low + jnp.where(first, shared_low, known)
        high = block_high + jnp.where(first, shared_high, known)
        # A population stays in its own mode to the end: it would leave for the one of the most mass as soon as it can.
        inside = classify(h, self.data, self.block, block) == self.reference
        return low, jnp.where(jnp.isnan(high) | ~inside, -jnp.inf, high)

    def differ(self, members: Members, key: PRNGKeyArray) -> tuple[Array, Array]:
        """Each member moved by a multiple of the difference of two others: a third in the shared coordinates alone.

        Source: ter Braak 2006, differential evolution MCMC. Members move at once: a start is all that is asked of them.
        """
        h = self.hierarchy
        size, dtype = members.block.shape[0], members.block.dtype
        key_pair, key_mask, key_chance, key_scale, key_which = jax.random.split(key, 5)
        first, second = jax.random.randint(key_pair, (2, size), 0, size)
        chance = jax.random.uniform(key_chance, (size, 1), dtype, 0.2, 1.5)
        mask = jax.random.uniform(key_mask, (size, h.shared + h.size), dtype) < chance
        if h.shared:
            which = jax.random.randint(key_which, (size, 1), 0, 3)
            mask = mask & jnp.where(jnp.arange(h.shared + h.size) < h.shared, which != 0, which != 1)
        scale = jnp.exp(LOG_SCALE[0] + LOG_SCALE[1] * jax.random.normal(key_scale, (size, 1), dtype))
        factor = mask * scale * 2.38 / jnp.sqrt(2 * jnp.maximum(jnp.sum(mask, axis=1, keepdims=True), 1))
        shared = members.shared + factor[:, : h.shared] * (members.shared[first] - members.shared[second])
        return shared, members.block + factor[:, h.shared :] * (members.block[first] - members.block[second])


def moves_of(hierarchy: Hierarchy, data: Any) -> Array:
    """Moves after each rise [block]: MOVES in the dearest block, in the others as many as cost the same, to a limit.

    What is bought with them is the weight of modes that only few members reach.
    """
    if hierarchy.cost is None:
        return jnp.full(hierarchy.blocks, MOVES)
    cost = hierarchy.cost(data)
    return jnp.clip(MOVES * jnp.max(cost) // cost, MOVES, MOST_MOVES).astype(jnp.int32)


def _next_power(gain: Array, power: Array) -> Array:
    """The largest power up to 1 at which the population's effective share is still LEAST_SHARE."""

    def share(rise: Array) -> Array:
        weights = jax.nn.softmax(rise * gain)
        return 1 / jnp.sum(weights**2) / gain.shape[0]

    def halve(_: Any, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        # Rises span many orders of magnitude, so the middle is the geometric one.
        middle = jnp.sqrt(low * high)
        enough = share(middle) >= LEAST_SHARE
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    whole = 1 - power
    low, _ = jax.lax.fori_loop(0, BISECTIONS, halve, (whole * 1e-9, whole))
    return jnp.where(share(whole) >= LEAST_SHARE, 1.0, power + low)


def resample(weights: Float[Array, " point"], key: PRNGKeyArray, count: int) -> Int[Array, " count"]:
    """Indices in proportion to the weights (systematic resampling)."""
    total = jnp.cumsum(weights)
    points = (jnp.arange(count) + jax.random.uniform(key, (), weights.dtype)) / count
    return jnp.minimum(jnp.searchsorted(total / total[-1], points), weights.shape[0] - 1)


def _chosen(members: Members, weights: Array, key: PRNGKeyArray) -> Members:
    """As many members as before, each in proportion to its weight."""
    chosen = resample(weights, key, weights.shape[0])
    return jax.tree.map(lambda leaf: leaf[chosen], members)


class _Progress(NamedTuple):
    """Where the taking in of a block stands; steps are counted afresh once the power is 1."""

    members: Members
    fitted: Mixture
    power: Array
    evidence: Array
    rises: Array
    step: Array
    key: PRNGKeyArray


def _take_in(phase: _Phase, key: PRNGKeyArray, size: int, components: int) -> _Progress:
    """The population of one block at full power, its mixture and the log evidence of the block."""
    h, dtype = phase.hierarchy, jnp.result_type(float)

    def rise(state: _Progress, key: PRNGKeyArray) -> _Progress:
        members = state.members
        gain = members.high - members.low
        higher = _next_power(gain, state.power)
        members = _chosen(members, jax.nn.softmax((higher - state.power) * gain), key)
        done = (higher >= 1) | (state.rises + 1 == MOST_RISES)
        return state._replace(
            members=members,
            power=jnp.where(done, 1.0, higher),
            evidence=state.evidence + logsumexp((higher - state.power) * gain) - np.log(size),
            rises=state.rises + 1,
            step=jnp.where(done, 0, state.step),
        )

    def advance(state: _Progress) -> _Progress:
        key, key_begin, key_rise, key_differ, key_fit, key_renew, key_accept = jax.random.split(state.key, 7)
        beginning = (state.step == 0) & (state.rises == 0)
        rising = state.power < 1
        state = jax.lax.cond(
            rising & (state.step % moves == 1), lambda s: rise(s, key_rise), lambda s: s, state._replace(key=key)
        )
        refitting = ~rising & (state.step % (LAST_MOVES * moves) == 0)
        fitted = jax.lax.cond(
            refitting,
            lambda s: mixture.fit(s.members.block, key_fit, components),
            lambda s: s.fitted,
            state,
        )
        old = state.members

        # One place evaluates the density, whatever is proposed: each place is compiled on its own.
        def begin() -> tuple[Array, Array, Array]:
            shared, block = phase.begin(key_begin, size)
            return shared, block, jnp.full(size, jnp.inf, dtype)

        def differ() -> tuple[Array, Array, Array]:
            shared, block = phase.differ(old, key_differ)
            return shared, block, jnp.zeros(size, dtype)

        def renew() -> tuple[Array, Array, Array]:
            block = mixture.draw(fitted, key_renew, size)
            return old.shared, block, mixture.logpdf(fitted, old.block) - mixture.logpdf(fitted, block)

        kind = jnp.where(beginning, 0, jnp.where(rising | (state.step % 2 == 0), 1, 2))
        shared, block, weight = jax.lax.switch(kind, (begin, differ, renew))
        new = Members(shared, block, *phase.densities(shared, block))
        ratio = _tempered(new, state.power) - _tempered(old, state.power) + weight
        keep = jnp.log(jax.random.uniform(key_accept, (size,), dtype)) < ratio
        members = jax.tree.map(lambda a, b: jnp.where(keep.reshape(size, *[1] * (a.ndim - 1)), a, b), new, old)
        return state._replace(members=members, fitted=fitted, step=state.step + 1)

    moves = moves_of(h, phase.data)[phase.block]
    nothing = jnp.zeros(size, dtype)
    state = _Progress(
        members=Members(jnp.zeros((size, h.shared), dtype), jnp.zeros((size, h.size), dtype), nothing, nothing),
        fitted=mixture.empty(h.size, components, dtype),
        power=jnp.zeros((), dtype),
        evidence=jnp.zeros((), dtype),
        rises=jnp.zeros((), jnp.int32),
        step=jnp.zeros((), jnp.int32),
        key=key,
    )
    # It ends with the refit that follows the last move.
    return jax.lax.while_loop(lambda s: (s.power < 1) | (s.step <= REFITS * LAST_MOVES * moves), advance, state)


def pilot(
    hierarchy: Hierarchy, data: Any, key: PRNGKeyArray, *, size: int, components: int, shared_components: int
) -> Pilot:
    """Populations of all blocks and of the shared coordinates, and mixtures fitted to them.

    Blocks are taken in one after the other, in their order. A block and the shared coordinates rise together from each
    reference r to their target p where r is the greatest of the references, in powers r^(1-b) p^b, chosen so that the
    effective share of the population stays LEAST_SHARE, each rise followed by resampling and moves. What the blocks
    before say of the shared coordinates stands in p as the mixture fitted to their population, so a population never
    holds more than one block; the first has the shared coordinates' own density there.

    Args:
        hierarchy: the log density's blocks.
        data: of the posterior.
        key: of all randomness.
        size: members of a population.
        components, shared_components: of the mixtures of a block and of the shared coordinates.

    Source: Del Moral, Doucet & Jasra 2006, sequential Monte Carlo samplers; powers after Jasra et al. 2011.
    """
    dtype = jnp.result_type(float)
    references = jax.eval_shape(hierarchy.references, data)[0].shape[0]

    def phase(carry: tuple, index: Array) -> tuple[tuple, tuple]:
        earlier, _ = carry
        key_members, key_choose, key_fit = jax.random.split(jax.random.fold_in(key, index), 3)

        def from_reference(reference: Array) -> _Progress:
            one = _Phase(hierarchy, data, index, reference, earlier)
            return _take_in(one, jax.random.fold_in(key_members, reference), size, components)

        # One after the other, so that a population's loop is compiled once and ends when it is done.
        found = jax.lax.map(from_reference, jnp.arange(references))
        share = jax.nn.softmax(found.evidence)
        members = jax.tree.map(lambda leaf: leaf.reshape(references * size, *leaf.shape[2:]), found.members)
        members = _chosen(members, jnp.repeat(share / size, size), key_choose)
        floored = jnp.maximum(share, LEAST_WEIGHT / references)
        if hierarchy.shared:
            earlier = mixture.fit(members.shared, key_fit, shared_components)
        log_shares = jnp.log(floored / jnp.sum(floored))
        return (earlier, members.shared), (found.fitted, log_shares, members.block, found.evidence, found.rises)

    start = (
        mixture.empty(hierarchy.shared, shared_components, dtype),
        jnp.zeros((references * size, hierarchy.shared), dtype),
    )
    (shared, shared_members), found = jax.lax.scan(phase, start, jnp.arange(hierarchy.blocks))
    classes, log_shares, block_members, evidence, rises = found
    return Pilot(shared, classes, log_shares, shared_members, block_members, evidence, rises)
