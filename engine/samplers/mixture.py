"""Gibbs sampling of blocks by independent candidates from fitted mixtures, for posteriors of several modes."""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from pelton.engine import mixture
from pelton.engine.mixture import Mixture
from pelton.engine.posterior import Hierarchy
from pelton.engine.refine import flatten, foremost, refine
from pelton.engine.samplers.base import Bound, BoundLogDensity, Chainwise, Info
from pelton.engine.start import Pilot, pilot

# Candidates of one renewal of a block and of the shared coordinates.
CANDIDATES = 192
SHARED_CANDIDATES = 32
# Transitions from one draw to the next.
TRANSITIONS = 2
# Steps of a transition near each block, and candidates of each.
LOCAL_STEPS = 8
LOCAL_CANDIDATES = 12
# Scales of the candidates near the current block, in those of a component.
SCALES = (0.05, 3.0)
# Members of a pilot population, and components fitted to one. Too many components are too narrow each, and the tails
# between them thin: a component of 11 dimensions has 77 numbers, so it wants two hundred points.
MEMBERS = 512
COMPONENTS = 3
SHARED_COMPONENTS = 6
# A settling population, its rounds of sweeps, candidates of each, components fitted to it, and what the pilot's keep.
SETTLERS = 512
SETTLING_ROUNDS = 3
SETTLING_SWEEPS = 4
FEW_CANDIDATES = 32
CLASS_COMPONENTS = 12
# Components of a block's proposals.
PROPOSAL_COMPONENTS = 48
# Starts from which a reference is made where the posterior names none, and how much broader than they it is.
STARTS = 256
BROADER = 1.5


class State(NamedTuple):
    """A chain, the population that it starts from, and the mixtures that propose.

    Attributes:
        current: shared coordinates [shared], blocks [block, size] and their log-likelihoods [block].
        fresh: whether the chain has not started yet: its first transition is from a member drawn by its own key.
        members: as current, with a leading axis.
        shared_mixture: of the shared coordinates.
        block_mixtures: of the blocks, stacked.
    """

    current: tuple[Float[Array, " shared"], Float[Array, "block size"], Float[Array, " block"]]
    fresh: Bool[Array, ""]
    members: tuple[Float[Array, "member shared"], Float[Array, "member block size"], Float[Array, "member block"]]
    shared_mixture: Mixture
    block_mixtures: Mixture


def _one_block(bound: Bound) -> Hierarchy:
    """Any log density as one block without shared coordinates, its reference as broad as its starts."""

    def references(data: Any) -> tuple[Array, Array]:
        keys = jax.random.split(jax.random.key(0), STARTS)
        starts = jax.vmap(bound.start, (0, None))(keys, data)
        return jnp.mean(starts, axis=0)[None], BROADER * jnp.std(starts, axis=0)[None]

    def nothing(*_: Any) -> Array:
        return jnp.zeros((), jnp.result_type(float))

    def likelihood(block: Array, index: Any, data: Any) -> Array:
        del index
        return bound.density(block, data)

    size = jax.eval_shape(bound.start, jax.random.key(0), bound.data).shape[0]
    return Hierarchy(0, 1, size, nothing, nothing, likelihood, references)


def _choose(key: PRNGKeyArray, log_weights: Array) -> tuple[Array, Array]:
    """An index in proportion to its weight, and the probability that it is not the first, the current state."""
    log_weights = jnp.where(jnp.isnan(log_weights), -jnp.inf, log_weights)
    return jax.random.categorical(key, log_weights), 1 - jax.nn.softmax(log_weights)[0]


def _nearby(proposal: Mixture, current: Array, key: PRNGKeyArray, count: int) -> Array:
    """Candidates round a centre that is itself drawn round the current block, in a random shape and at a random scale.

    Current block and candidates then stand in the same relation to the centre, so that each weighs its density.
    """
    key_shape, key_scale, key_steps, key_axis = jax.random.split(key, 4)
    shape = jax.random.categorical(key_shape, proposal.log_weight)
    low, high = np.log(SCALES)
    scale = jnp.exp(jax.random.uniform(key_scale, (), current.dtype, low, high))
    steps = jax.random.normal(key_steps, (count + 1, current.shape[0]), current.dtype) @ proposal.factor[shape].T
    # Half of the times along one axis: the ends of a ridge on which a coordinate hardly matters are reached so.
    along, axis = jax.random.bernoulli(key_axis), jax.random.randint(key_axis, (), 0, current.shape[0])
    steps = scale * jnp.where(~along | (jnp.arange(current.shape[0]) == axis), steps, 0.0)
    return current + steps[0] + steps[1:]


def _prior(h: Hierarchy, data: Any, shared: Array, blocks: Array) -> Array:
    """Log density of the shared coordinates and all blocks."""
    return h.shared_density(shared, data) + jnp.sum(jax.vmap(h.block_prior, (0, None, None))(blocks, shared, data))


def _transition(
    h: Hierarchy,
    data: Any,
    current: tuple,
    shared_mixture: Mixture,
    block_mixtures: Mixture,
    key: PRNGKeyArray,
    count: int,
) -> tuple[tuple, Array, Array]:
    """From and to (shared, blocks, likelihood); beside them the log density and the mean probability to have moved."""
    shared, blocks, likelihood = current
    key_blocks, key_shared, key_which, key_pick, key_each, key_last = jax.random.split(key, 6)

    def candidates_of(index: Array) -> tuple[Array, Array, Array]:
        proposal = jax.tree.map(lambda leaf: leaf[index], block_mixtures)
        drawn = mixture.draw(proposal, jax.random.fold_in(key_blocks, index), count)
        values = jax.vmap(h.block_likelihood, (0, None, None))(drawn, index, data)
        drawn = jnp.concatenate([blocks[index][None], drawn])
        values = jnp.concatenate([likelihood[index][None], values])
        return drawn, values, values - mixture.logpdf(proposal, drawn)

    drawn, values, gains = jax.lax.map(candidates_of, jnp.arange(h.blocks))

    def weights(shared: Array) -> Array:
        """Log weights [block, candidate] of all blocks' candidates at given shared coordinates."""
        prior = jax.vmap(jax.vmap(h.block_prior, (0, None, None)), (0, None, None))(drawn, shared, data)
        total = prior + gains
        return jnp.where(jnp.isnan(total), -jnp.inf, total)

    if h.shared:
        proposed = jnp.concatenate([shared[None], mixture.draw(shared_mixture, key_shared, SHARED_CANDIDATES)])

        def summed(shared: Array) -> Array:
            return h.shared_density(shared, data) + jnp.sum(logsumexp(weights(shared), axis=1))

        totals = jax.vmap(summed)(proposed) - mixture.logpdf(shared_mixture, proposed)
        shared = proposed[_choose(key_which, totals)[0]]
    chosen, _ = jax.vmap(_choose)(jax.random.split(key_pick, h.blocks), weights(shared))
    each = jnp.arange(h.blocks)
    blocks, likelihood = drawn[each, chosen], values[each, chosen]

    def prior(candidate: Array, index: Array, blocks: Array) -> Array:
        if h.conjugate is None:
            return h.block_prior(candidate, shared, data)
        return h.conjugate.prior(blocks.at[index].set(candidate), shared[: h.kept], data)

    def renew(index: Array, carry: tuple) -> tuple:
        blocks, likelihood, moved = carry
        key_again, key_local = jax.random.split(jax.random.fold_in(key_each, index))
        again = jax.vmap(prior, (0, None, None))(drawn[index], index, blocks) + gains[index]
        chosen, chance = _choose(key_again, again)
        block, own = drawn[index, chosen], values[index, chosen]
        proposal = jax.tree.map(lambda leaf: leaf[index], block_mixtures)

        def near(at: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            # Out of places that the mixture hardly reaches.
            block, own = carry
            key_around, key_choice = jax.random.split(jax.random.fold_in(key_local, at))
            around = _nearby(proposal, block, key_around, LOCAL_CANDIDATES)
            found = jax.vmap(h.block_likelihood, (0, None, None))(around, index, data)
            around, found = jnp.concatenate([block[None], around]), jnp.concatenate([own[None], found])
            chosen, _ = _choose(key_choice, jax.vmap(prior, (0, None, None))(around, index, blocks) + found)
            return around[chosen], found[chosen]

        block, own = jax.lax.fori_loop(0, LOCAL_STEPS, near, (block, own))
        moved = moved + chance / h.blocks
        return blocks.at[index].set(block), likelihood.at[index].set(own), moved

    carry = (blocks, likelihood, jnp.zeros((), blocks.dtype))
    blocks, likelihood, moved = jax.lax.fori_loop(0, h.blocks, renew, carry)
    shared, value = _renew_shared(h, data, shared_mixture, shared, blocks, key_last)
    return (shared, blocks, likelihood), value + jnp.sum(likelihood), moved


def _renew_shared(
    h: Hierarchy, data: Any, proposal: Mixture, shared: Array, blocks: Array, key: PRNGKeyArray
) -> tuple[Array, Array]:
    """The shared coordinates given the blocks, and the log density of both without the likelihood."""
    key_draw, key_choose, key_conjugate = jax.random.split(key, 3)
    if h.conjugate is not None:
        shared = shared.at[h.conjugate.kept :].set(h.conjugate.draw(key_conjugate, blocks, data))
    kept = h.kept
    candidates = shared[None]
    if kept:
        proposal = mixture.leading(proposal, kept)
        drawn = mixture.draw(proposal, key_draw, SHARED_CANDIDATES)
        rest = jnp.broadcast_to(shared[kept:], (SHARED_CANDIDATES, h.shared - kept))
        candidates = jnp.concatenate([candidates, jnp.concatenate([drawn, rest], axis=1)])

    values = jax.vmap(lambda shared: _prior(h, data, shared, blocks))(candidates)
    proposed = mixture.logpdf(proposal, candidates[:, :kept]) if kept else jnp.zeros(1, values.dtype)
    chosen, _ = _choose(key_choose, values - proposed)
    return candidates[chosen], values[chosen]


def _settle(h: Hierarchy, data: Any, found: Pilot, key: PRNGKeyArray) -> tuple[tuple, Mixture, Mixture]:
    """A population of whole states moved as the chains will be, the mixtures refined after every round.

    The pilot's populations knew the shared coordinates from the blocks before them alone; here a block's mixture is
    fitted to what the whole posterior says of it. Without shared coordinates the pilot knew that already, and one round
    serves.

    Returns:
        The members' shared coordinates, blocks and log-likelihoods, and the mixtures of shared coordinates and blocks.
    """
    dtype = found.shared_members.dtype
    key_members, key_rounds = jax.random.split(key)
    member = jax.random.randint(key_members, (SETTLERS,), 0, found.shared_members.shape[0])
    states = (
        found.shared_members[member],
        jnp.zeros((SETTLERS, h.blocks, h.size), dtype),
        jnp.full((SETTLERS, h.blocks), -jnp.inf, dtype),
    )
    # Every class begins with the components of its reference's population, each for several of its own.
    several = CLASS_COMPONENTS // COMPONENTS
    classes = jax.tree.map(lambda leaf: jnp.repeat(leaf, several, axis=2), found.classes)
    classes = classes._replace(log_weight=classes.log_weight - np.log(several))

    def proposals(classes: Mixture, shares: Array) -> Mixture:
        return jax.vmap(lambda one, share: foremost(flatten(one, share), PROPOSAL_COMPONENTS))(classes, shares)

    def round_(carry: tuple, index: Array) -> tuple[tuple, None]:
        states, shared_mixture, classes, shares = carry
        key_sweeps, key_shared, key_blocks = jax.random.split(jax.random.fold_in(key_rounds, index), 3)
        block_mixtures = proposals(classes, shares)

        def sweep(states: tuple, at: Array) -> tuple[tuple, tuple[Array, Array]]:
            keys = jax.random.split(jax.random.fold_in(key_sweeps, at), SETTLERS)
            states = jax.vmap(
                lambda state, key: _transition(h, data, state, shared_mixture, block_mixtures, key, FEW_CANDIDATES)[0]
            )(states, keys)
            return states, states[:2]

        states, (shared, blocks) = jax.lax.scan(sweep, states, jnp.arange(SETTLING_SWEEPS))
        shared = shared.reshape(SETTLING_SWEEPS * SETTLERS, h.shared)
        points = jnp.moveaxis(blocks.reshape(SETTLING_SWEEPS * SETTLERS, h.blocks, h.size), 1, 0)
        classes, shares = jax.lax.map(
            lambda each: refine(h, data, each[0], each[1], shared, each[2], each[3]),
            (jnp.arange(h.blocks), classes, points, jax.random.split(key_blocks, h.blocks)),
        )
        if h.shared:
            shared_mixture = mixture.fit(shared, key_shared, SHARED_COMPONENTS)
        return (states, shared_mixture, classes, shares), None

    (states, shared_mixture, classes, shares), _ = jax.lax.scan(
        round_, (states, found.shared, classes, found.log_shares), jnp.arange(SETTLING_ROUNDS if h.shared else 1)
    )
    return states, shared_mixture, proposals(classes, shares)


@dataclass(frozen=True)
class MixtureGibbs(Chainwise):
    """All blocks and the shared coordinates at once, each from many independent candidates.

        p(s, z) = p(s) prod_b f_b(z_b, s),  f_b = block prior times likelihood

    For every block n candidates z_b1, ..., z_bn are drawn from a mixture q_b of t distributions; z_b0 is the current
    block. For the shared coordinates s_1, ..., s_m are drawn from a mixture q; s_0 are the current ones. Then

        s = s_j     with probability in proportion to  p(s_j) prod_b [ sum_i f_b(z_bi, s_j) / q_b(z_bi) ] / q(s_j)
        z_b = z_bi  with probability in proportion to  f_b(z_bi, s) / q_b(z_bi)

    which leaves p as it is whatever the mixtures are, and crosses between modes as easily as they do, in all blocks
    together. The mixtures are fitted to populations that `engine.start.pilot` tempers from broad references to the
    posterior, and fitted again by `engine.refine` while a population moves as the chains will, once for all chains,
    before the first draw; each chain takes its start among them and all its candidates from its own key. Two more steps
    follow: every block once more among the same candidates, the conjugate shared coordinates integrated out, then
    several times among a few near it. A posterior without a hierarchy is one block. There is no step size, and nothing
    diverges: where a mixture fits badly, chains stand still, as their effective sample size and R-hat show.

    Source: Andrieu, Doucet & Holenstein 2010, Particle Markov chain Monte Carlo methods (iterated sampling importance
    resampling, with the choice among candidates summed out); Tjelmeland 2004.
    """

    name: ClassVar[str] = "mixture"
    shared_init: ClassVar[bool] = True
    # The settling population is the warm-up, of all chains at once.
    needs_warmup: ClassVar[bool] = False
    # A mixture of as many components needs more members than a pilot has, from there on.
    max_dimension: ClassVar[int | None] = 20
    by_blocks: ClassVar[bool] = True

    def _hierarchy(self, logdensity: BoundLogDensity) -> tuple[Hierarchy, Any]:
        if not isinstance(logdensity, Bound):
            raise TypeError(f"the sampler {self.name!r} takes a Bound log density, not {type(logdensity).__name__}")
        return logdensity.hierarchy or _one_block(logdensity), logdensity.data

    def init(self, logdensity: BoundLogDensity, position: Array, key: PRNGKeyArray) -> State:
        hierarchy, data = self._hierarchy(logdensity)
        key_pilot, key_settle = jax.random.split(key)
        found = pilot(
            hierarchy, data, key_pilot, size=MEMBERS, components=COMPONENTS, shared_components=SHARED_COMPONENTS
        )
        members, shared_mixture, block_mixtures = _settle(hierarchy, data, found, key_settle)
        current = jax.tree.map(lambda leaf: leaf[0], members)
        return State(current, jnp.asarray(True), members, shared_mixture, block_mixtures)

    def step(self, logdensity: BoundLogDensity, state: Any, key: PRNGKeyArray) -> tuple[State, Info]:
        h, data = self._hierarchy(logdensity)
        key_start, key_steps = jax.random.split(key)
        member = jax.random.randint(key_start, (), 0, SETTLERS)
        current = jax.tree.map(
            lambda members, own: jnp.where(state.fresh, members[member], own), state.members, state.current
        )

        def transition(at: Any, carry: tuple) -> tuple:
            current, _, moved = carry
            current, lp, chance = _transition(
                h,
                data,
                current,
                state.shared_mixture,
                state.block_mixtures,
                jax.random.fold_in(key_steps, at),
                CANDIDATES,
            )
            return current, lp, moved + chance / TRANSITIONS

        none = jnp.zeros((), current[1].dtype)
        current, lp, moved = jax.lax.fori_loop(0, TRANSITIONS, transition, (current, none, none))
        state = state._replace(current=current, fresh=jnp.asarray(False))
        return state, Info(
            lp=lp,
            energy=-lp,
            acceptance_rate=moved,
            n_steps=jnp.asarray(TRANSITIONS * h.blocks * (CANDIDATES + LOCAL_STEPS * LOCAL_CANDIDATES), jnp.int32),
            tree_depth=jnp.zeros((), jnp.int32),
            step_size=jnp.zeros((), lp.dtype),
            diverging=jnp.zeros((), bool),
            reached_max_tree_depth=jnp.zeros((), bool),
        )

    def position(self, state: Any) -> Array:
        shared, blocks, _ = state.current
        return jnp.concatenate([shared, blocks.reshape(-1)])
