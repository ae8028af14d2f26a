"""MEADS: generalised HMC of one leapfrog at a time, whose chains tune one another's step, damping and scales."""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from blackjax.adaptation.meads_adaptation import base
from blackjax.mcmc import ghmc
from jaxtyping import Array, Float, Int, PRNGKeyArray

from pelton.engine.samplers.base import BoundLogDensity, Ensemble, Info

# Chains are divided into so many folds; each is tuned by the one before it.
FOLDS = 4
# Share of the warm-up after which the parameters that it hands on are averaged.
AVERAGE_FROM = 0.5
# Step size and damping of a run without a warm-up.
FIXED_STEP, FIXED_DAMPING = 0.3, 0.3


class Tuned(NamedTuple):
    """What all chains are moved by in the end, as logarithms.

    Attributes:
        step: of the leapfrog's size.
        damping: of -log(1 - alpha), alpha being the share of the momentum that is renewed before a leapfrog.
        scale: of the coordinates' standard deviations [d].
        seen: warm-up transitions that were averaged.
    """

    step: Float[Array, ""]
    damping: Float[Array, ""]
    scale: Float[Array, " d"]
    seen: Float[Array, ""]


class State(NamedTuple):
    """All chains, and what they share.

    Attributes:
        chains: BlackJAX's GHMCState of positions, momenta (of a unit metric), log densities, scores and slices
            [chain, ...] (it annotates arrays as floats).
        order: the chains fold by fold.
        folds: BlackJAX's MEADSAdaptationState, the folds' parameters.
        tuned: their averages.
    """

    chains: Any
    order: Int[Array, " chain"]
    folds: Any
    tuned: Tuned


class Parameters(NamedTuple):
    """Of a transition, for each chain.

    Attributes:
        step: leapfrog's size [chain].
        scale: the metric's standard deviations [chain, d].
        alpha: share of the momentum that is renewed [chain].
    """

    step: Float[Array, " chain"]
    scale: Float[Array, "chain d"]
    alpha: Float[Array, " chain"]


@dataclass(frozen=True)
class Meads(Ensemble):
    """Generalised HMC: the momentum persists but for a share alpha, and refusals are rare events of a moving slice.

    Chains are in four folds, shuffled now and then. Each takes from the chains of the fold before it the scales (their
    standard deviations), the step 0.5 / sqrt(l(g)) and from its own the damping c = 1 / sqrt(l(x)), where l is the
    largest eigenvalue of the scaled scores' or positions' covariance and alpha = 1 - exp(-2 c step). The parameters of
    the warm-up's second half, averaged in their logarithms over folds and transitions, stay fixed afterwards: chains
    are then independent, and draws exact. There is no acceptance to aim at: target_accept is not used, and
    acceptance_rate is about 0.9 or more where the posterior's curvature is even.

    A draw is made of as many leapfrogs as the momentum persists for, 1 / (c step), the same for all chains. Momenta
    not being drawn afresh, energies say nothing of the energy's exploration: energy is -lp.

    Fewer than 32 chains estimate scales and eigenvalues too roughly; chains beyond a multiple of four are tuned with
    the others but tune none.

    Source: Hoffman & Sountsov 2022, Tuning-free generalized HMC, algorithm 3; by BlackJAX's parts.
    """

    name: ClassVar[str] = "meads"
    least_chains: ClassVar[int] = 32
    metrics: ClassVar[tuple[str, ...]] = ("diagonal",)

    def init(self, logdensity: BoundLogDensity, position: Array, key: PRNGKeyArray) -> State:
        count, dimension = position.shape
        chains: Any = jax.vmap(lambda x, key: ghmc.init(x, logdensity, key))(position, jax.random.split(key, count))
        start, _ = base(FOLDS)
        zero = jnp.zeros((), position.dtype)
        tuned = Tuned(
            jnp.log(zero + FIXED_STEP), jnp.log(zero + FIXED_DAMPING), jnp.zeros(dimension, position.dtype), zero
        )
        folds = start(position, chains.logdensity_grad)
        folds = folds._replace(current_iteration=jnp.zeros((), jnp.int32))
        return State(chains, jnp.arange(count, dtype=jnp.int32), folds, tuned)

    def _leapfrogs(self, damping: Array) -> Array:
        """Of a draw: as many as the momentum persists for."""
        return jnp.clip(jnp.rint(2 / damping), 1, 2**self.max_tree_depth - 1).astype(jnp.int32)

    def _transition(
        self, logdensity: BoundLogDensity, chains: Any, parameters: Parameters, count: Array, key: PRNGKeyArray
    ) -> tuple[Any, Info]:
        """That many leapfrogs of every chain."""
        kernel: Any = ghmc.build_kernel()
        delta = parameters.alpha / 2

        def one(
            key: PRNGKeyArray, chain: Any, step: Array, scale: Array, alpha: Array, delta: Array
        ) -> tuple[Any, Array, Array]:
            # The momentum is kept in a unit metric, so that it stays a normal draw when the scales change.
            moved, found = kernel(
                key, chain._replace(momentum=chain.momentum / scale), logdensity, step, scale, alpha, delta
            )
            # BlackJAX's slice is NaN after a refusal whose energy error overflows the exponential.
            refused = (chain.slice + 1 + delta) % 2 - 1
            moved = moved._replace(
                momentum=moved.momentum * scale, slice=jnp.where(found.is_accepted, moved.slice, refused)
            )
            return moved, found.acceptance_rate, found.is_divergent

        def leapfrog(index: Any, carry: tuple) -> tuple:
            chains, accepted, diverging = carry
            keys = jax.random.split(jax.random.fold_in(key, index), chains.logdensity.shape[0])
            chains, rate, diverged = jax.vmap(one)(keys, chains, *parameters, delta)
            return chains, accepted + rate / count, diverging | diverged

        lp = chains.logdensity
        carry = chains, jnp.zeros_like(lp), jnp.zeros(lp.shape, bool)
        chains, accepted, diverging = jax.lax.fori_loop(0, count, leapfrog, carry)
        none = jnp.zeros(lp.shape, jnp.int32)
        return chains, Info(
            lp=chains.logdensity,
            energy=-chains.logdensity,
            acceptance_rate=accepted,
            n_steps=none + count,
            tree_depth=none,
            step_size=parameters.step,
            diverging=diverging,
            reached_max_tree_depth=none > 0,
        )

    def warmup(self, logdensity: BoundLogDensity, state: Any, key: PRNGKeyArray, index: Array) -> tuple[State, Info]:
        key_move, key_shuffle = jax.random.split(key)
        count = state.order.shape[0]
        each = count // FOLDS
        # A transition tunes every fold once.
        update: Any = base(FOLDS)[1]
        folds = state.folds
        for fold in range(FOLDS):
            members = state.order[fold * each : (fold + 1) * each]
            x, g = state.chains.position[members], state.chains.logdensity_grad[members]
            folds = update(folds._replace(current_iteration=index.astype(jnp.int32)), x, g, fold)
        # Chains beyond the last whole fold go with it.
        of_rank = jnp.minimum(jnp.arange(count) // each, FOLDS - 1)
        fold_of = jnp.zeros_like(state.order).at[state.order].set(of_rank.astype(state.order.dtype))
        alpha = jnp.clip(folds.alpha, 1e-6, 1 - 1e-6)
        damping = -jnp.log1p(-alpha)
        parameters = Parameters(folds.step_size[fold_of], folds.position_sigma[fold_of], alpha[fold_of])
        chains, info = self._transition(
            logdensity, state.chains, parameters, self._leapfrogs(jnp.exp(jnp.mean(jnp.log(damping)))), key_move
        )
        # Averages begin again where the averaged part of the warm-up does.
        seen = jnp.where(index <= AVERAGE_FROM * self.warmup_steps, 0.0, state.tuned.seen) + 1

        def average(old: Array, new: Array) -> Array:
            new = jnp.mean(jnp.log(new), axis=0)
            return old + (new - old) / seen

        tuned = Tuned(
            average(state.tuned.step, folds.step_size),
            average(state.tuned.damping, damping),
            average(state.tuned.scale, folds.position_sigma),
            seen.astype(state.tuned.seen.dtype),
        )
        return State(chains, jax.random.permutation(key_shuffle, state.order), folds, tuned), info

    def step(self, logdensity: BoundLogDensity, state: Any, key: PRNGKeyArray) -> tuple[State, Info]:
        chains, tuned = state.order.shape[0], state.tuned
        damping = jnp.exp(tuned.damping)
        parameters = Parameters(
            jnp.broadcast_to(jnp.exp(tuned.step), (chains,)),
            jnp.broadcast_to(jnp.exp(tuned.scale), state.chains.position.shape),
            jnp.broadcast_to(-jnp.expm1(-damping), (chains,)),
        )
        moved, info = self._transition(logdensity, state.chains, parameters, self._leapfrogs(damping), key)
        return state._replace(chains=moved), info

    def position(self, state: Any) -> Array:
        return state.chains.position
