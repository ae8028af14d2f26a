"""ChEES-HMC: trajectories of one jittered length for all chains, which learn it, step and metric from one another."""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax
from blackjax.adaptation.chees_adaptation import ChEESAdaptationState, base
from blackjax.mcmc import dynamic_hmc
from jaxtyping import Array, Float, PRNGKeyArray

from pelton.engine.moments import Moments, first_inverse_mass, inverse_mass
from pelton.engine.samplers.base import BoundLogDensity, Ensemble, Info
from pelton.engine.warmup import FIRST_STEP, windows

# Step size and trajectory length, in the metric's units, of a run without a warm-up.
FIXED_STEP, FIXED_LENGTH = 0.5, 3.0
# Adam on the logarithm of the trajectory's length; BlackJAX damps its moves by the root of their number.
RATE, SQUARES_DECAY = 0.1, 0.95
FORGETTING = 0.5
# Fractions of the longest trajectory repeat after so many bits.
HALTON_BITS = 16


class State(NamedTuple):
    """All chains, and what they share.

    Attributes:
        chains: BlackJAX's DynamicHMCState of positions, log densities and scores [chain, ...] and the transition's
            number (it annotates arrays as floats).
        tuning: BlackJAX's state of the step size and the trajectory length.
        moments: of the window's draws and scores, over all chains.
        inverse_mass: the diagonal metric.
        step_size: of a leapfrog.
        length: of the longest trajectory, in the time of the dynamics.
    """

    chains: Any
    tuning: ChEESAdaptationState
    moments: Moments
    inverse_mass: Float[Array, " d"]
    step_size: Float[Array, ""]
    length: Float[Array, ""]


def _fraction(number: Any) -> Array:
    """Of the longest trajectory, for a transition of that number: the van der Corput sequence in (0, 1)."""
    return jnp.asarray(dynamic_hmc.halton_sequence(jnp.asarray(number, jnp.int32), HALTON_BITS))


def _following(number: Any) -> Any:
    return number + 1


@dataclass(frozen=True)
class Chees(Ensemble):
    """HMC whose trajectories have the length h T for the h of a Halton sequence, the same for all chains at a time.

    T maximises the change in the estimator of the expected square, E[(|x' - E x|^2 - |x - E x|^2)^2] / 4, by stochastic
    gradients from all chains; the step size brings the harmonic mean of their acceptance to its target. The metric is
    diagonal, sd(x) / sd(g) of all chains' draws and scores in windows each half as long again as the last. Chains of
    one program take the same number of steps, so that none waits for another: meant for tens to thousands of chains.
    Chains are independent once the warm-up is over.

    By BlackJAX's parts; the metric and its windows are ours. Criterion and step are found afresh when the metric
    changes.

    Source: Hoffman, Radul & Sountsov 2021, An adaptive MCMC scheme for setting trajectory lengths in HMC.
    """

    name: ClassVar[str] = "chees"
    least_chains: ClassVar[int] = 8
    metrics: ClassVar[tuple[str, ...]] = ("diagonal",)
    default_target_accept: ClassVar[float] = 0.651

    @property
    def _most_steps(self) -> int:
        return 2**self.max_tree_depth - 1

    def _tuner(self) -> Any:
        """BlackJAX's (init, update)."""
        adam = optax.adam(RATE, b1=0.0, b2=SQUARES_DECAY)
        return base(_fraction, _following, adam, self.target_accept, FORGETTING, self._most_steps)

    def init(self, logdensity: BoundLogDensity, position: Array, key: PRNGKeyArray) -> State:
        del key
        first = jnp.zeros((), jnp.int32)
        chains: Any = jax.vmap(lambda x: dynamic_hmc.init(x, logdensity, first))(position)
        step, length = (FIRST_STEP, FIRST_STEP) if self.warmup_steps else (FIXED_STEP, FIXED_LENGTH)
        step_size = jnp.asarray(step, position.dtype)
        start, _ = self._tuner()
        rows = jnp.stack([chains.position, chains.logdensity_grad], axis=1)
        return State(
            chains,
            start(first, step_size),
            Moments.none_like(rows[0]),
            first_inverse_mass(chains.logdensity_grad),
            step_size,
            jnp.asarray(length, position.dtype),
        )

    def _transition(self, logdensity: BoundLogDensity, state: State, key: PRNGKeyArray) -> tuple[Any, Any, Info]:
        # Reckoned once for all chains, so that their loop has one length.
        fraction = _fraction(state.chains.random_generator_arg[0])
        steps = jnp.clip(jnp.ceil(fraction * state.length / state.step_size), 1, self._most_steps).astype(jnp.int32)
        kernel: Any = dynamic_hmc.build_kernel(
            next_random_arg_fn=_following, integration_steps_fn=lambda number, count: count
        )

        def one(key: PRNGKeyArray, chain: Any) -> tuple[Any, Any]:
            return kernel(key, chain, logdensity, state.step_size, state.inverse_mass, (steps,))

        keys = jax.random.split(key, state.chains.logdensity.shape[0])
        chains, found = jax.vmap(one)(keys, state.chains)
        # BlackJAX reports the proposal's energy even where it was refused.
        stayed = -state.chains.logdensity + 0.5 * jnp.sum(state.inverse_mass * found.momentum**2, axis=-1)
        whole = jnp.zeros_like(state.chains.random_generator_arg)
        info = Info(
            lp=chains.logdensity,
            energy=jnp.where(found.is_accepted, found.energy, stayed),
            acceptance_rate=found.acceptance_rate,
            n_steps=whole + steps,
            tree_depth=whole,
            step_size=jnp.broadcast_to(state.step_size, stayed.shape),
            diverging=found.is_divergent,
            reached_max_tree_depth=jnp.broadcast_to(steps == self._most_steps, stayed.shape),
        )
        return chains, found, info

    def warmup(self, logdensity: BoundLogDensity, state: Any, key: PRNGKeyArray, index: Array) -> tuple[State, Info]:
        chains, found, info = self._transition(logdensity, state, key)
        # BlackJAX leaves divergent chains out, so that one of which nothing but divergences can come would stay where
        # it is. Here they count as refused: the step shrinks until every chain moves.
        diverged = found.is_divergent[:, None]
        _, update = self._tuner()
        tuning = update(
            state.tuning,
            jnp.where(diverged, state.chains.position, found.proposal.position),
            jnp.where(diverged, 0.0, found.proposal.momentum),
            state.chains.position,
            found.acceptance_rate,
            jnp.zeros_like(found.is_divergent),
            state.inverse_mass,
        )
        moments = state.moments.updated(jnp.stack([chains.position, chains.logdensity_grad], axis=1))
        state = State(chains, tuning, moments, state.inverse_mass, tuning.step_size, tuning.trajectory_length)
        ends = jnp.asarray(windows(self.warmup_steps)[:-1], jnp.int32)
        state = jax.lax.cond(jnp.any(index + 1 == ends), self._close, lambda state: state, state)
        # The last transition hands on averages, not the last proposals.
        last = index == self.warmup_steps - 1
        average = jnp.exp(tuning.log_step_size_moving_average)
        return state._replace(step_size=jnp.where(last, average, state.step_size)), info

    def _close(self, state: State) -> State:
        """The window's metric in use, and step and length begun again from as far as they went in the old one."""
        metric = inverse_mass(state.moments, state.inverse_mass)
        shrunk = jnp.exp(0.5 * jnp.mean(jnp.log(state.inverse_mass / metric)))
        start, _ = self._tuner()
        tuning = start(state.tuning.random_generator_arg, state.step_size * shrunk)
        length = state.length * shrunk
        tuning = tuning._replace(trajectory_length=length, log_trajectory_length_moving_average=jnp.log(length))
        # What BlackJAX begins with as Python's numbers is of the types that it goes on with.
        tuning = jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), tuning, state.tuning)
        return State(state.chains, tuning, Moments.none_like(state.moments.mean), metric, tuning.step_size, length)

    def step(self, logdensity: BoundLogDensity, state: Any, key: PRNGKeyArray) -> tuple[State, Info]:
        chains, _, info = self._transition(logdensity, state, key)
        return state._replace(chains=chains), info

    def position(self, state: Any) -> Array:
        return state.chains.position
