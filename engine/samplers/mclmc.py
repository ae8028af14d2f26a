"""Adjusted microcanonical Langevin Monte Carlo: momenta of unit length, corrected by a Metropolis step."""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from blackjax.mcmc import adjusted_mclmc_dynamic
from jaxtyping import Array, Float, PRNGKeyArray

from pelton.engine.moments import Moments, first_inverse_mass, inverse_mass
from pelton.engine.samplers.base import BoundLogDensity, Chainwise, Info
from pelton.engine.warmup import FIRST_STEP, LONG_WINDOW, DualAverage, windows

# Step size of a run without a warm-up, in units of the root of the dimension.
FIXED_STEP = 0.3
# Mean length of a trajectory, in units of the root of the dimension and of the widest direction's sd.
LENGTH = 1.6
# A step is McLachlan's, of two gradients; while the metric is unknown trajectories are kept short.
GRADIENTS_A_STEP = 2
EARLY_STEPS = 32


class State(NamedTuple):
    """A chain and what it has learnt.

    Attributes:
        chain: BlackJAX's DynamicHMCState of position, log density and score (it annotates arrays as floats); of a
            posterior in one dimension with a second coordinate.
        draw: the position.
        averaging: of the step size.
        moments: of the window's draws and scores.
        centre: mean of the last window's draws.
        widest, pulled: direction of the scaled coordinates [d] that the last window found widest, and the sum over this
            window of z (z . widest), by which this one finds its own: a power iteration a window.
        inverse_mass: the diagonal metric.
        step_size: of the integrator.
        length: a trajectory's mean length.
    """

    chain: Any
    draw: Float[Array, " d"]
    averaging: DualAverage
    moments: Moments
    centre: Float[Array, " p"]
    widest: Float[Array, " p"]
    pulled: Float[Array, " p"]
    inverse_mass: Float[Array, " p"]
    step_size: Float[Array, ""]
    length: Float[Array, ""]


class _Padded(NamedTuple):
    """A log density of one dimension with an independent standard normal beside it."""

    density: BoundLogDensity

    def __call__(self, position: Float[Array, " 2"]) -> Float[Array, ""]:
        return self.density(position[:1]) - 0.5 * position[1] ** 2


def _extended(logdensity: BoundLogDensity, dimension: int) -> BoundLogDensity:
    return _Padded(logdensity) if dimension == 1 else logdensity


@dataclass(frozen=True)
class Mclmc(Chainwise):
    """Microcanonical trajectories of random lengths, accepted or refused as a whole, so that draws are exact.

    The momentum keeps unit length and turns towards the score: x' = M^(-1/2) u, u' = (1 - u u') M^(-1/2) g / (d - 1).
    It is drawn afresh before each trajectory. Numbers of steps are uniform, of mean length / step size.

    Each chain adapts on its own: the step size by dual averaging towards an acceptance of 0.9, the diagonal metric by
    draws and scores, sd(x) / sd(g), in windows each half as long again as the last, and the length to 1.6 sqrt(d w),
    the speed being one; w is the largest variance of any direction of the scaled coordinates, found by one step of the
    power iteration a window. In one dimension, where the momentum could only flip, the sampler adds a standard normal
    coordinate of its own. There is no Hamiltonian of a drawn momentum: energy is -lp.

    Source: Robnik, De Luca, Silverstein & Seljak 2023; Robnik, Cohn-Gordon & Seljak 2025, Metropolis adjusted
    microcanonical Hamiltonian Monte Carlo; the step is BlackJAX's.
    """

    name: ClassVar[str] = "mclmc"
    metrics: ClassVar[tuple[str, ...]] = ("diagonal",)
    default_target_accept: ClassVar[float] = 0.9

    @property
    def _most_steps(self) -> int:
        return max(1, 2**self.max_tree_depth // GRADIENTS_A_STEP)

    def init(self, logdensity: BoundLogDensity, position: Array, key: PRNGKeyArray) -> State:
        dimension = position.shape[0]
        whole = jnp.concatenate([position, jnp.zeros(1, position.dtype)]) if dimension == 1 else position
        chain: Any = adjusted_mclmc_dynamic.init(whole, _extended(logdensity, dimension), key)
        root = np.sqrt(whole.shape[0])
        step_size = jnp.asarray((FIRST_STEP if self.warmup_steps else FIXED_STEP) * root, position.dtype)
        rows = jnp.stack([chain.position, chain.logdensity_grad])
        metric = first_inverse_mass(rows[1:]) if self.warmup_steps else jnp.ones_like(whole)
        return State(
            chain,
            position,
            DualAverage.at(jnp.log(step_size)),
            Moments.none_like(rows),
            chain.position,
            jnp.ones_like(whole) / root,
            jnp.zeros_like(whole),
            metric,
            step_size,
            jnp.asarray(LENGTH * root, position.dtype),
        )

    def _transition(self, logdensity: BoundLogDensity, state: State, key: PRNGKeyArray, most: Any) -> tuple[Any, Info]:
        dimension = state.draw.shape[0]
        key_steps, key_move = jax.random.split(key)
        mean = jnp.clip(state.length / state.step_size, 1.0, most)
        # Uniform on the whole numbers from 1 up, of that mean.
        steps = jnp.ceil(jax.random.uniform(key_steps, (), mean.dtype) * (2 * mean - 1)).astype(jnp.int32)
        steps = jnp.maximum(steps, 1)
        # BlackJAX annotates its arrays as floats and ints.
        kernel: Any = adjusted_mclmc_dynamic.build_kernel(
            integration_steps_fn=lambda unused, count: count, next_random_arg_fn=lambda unused: unused
        )
        chain, found = kernel(
            key_move,
            state.chain,
            _extended(logdensity, dimension),
            state.step_size,
            inverse_mass_matrix=state.inverse_mass,
            integration_steps_params=(steps,),
        )
        beside = 0.5 * chain.position[1] ** 2 if dimension == 1 else 0.0
        lp = chain.logdensity + beside
        return chain, Info(
            lp=lp,
            energy=-lp,
            acceptance_rate=found.acceptance_rate,
            n_steps=steps * GRADIENTS_A_STEP,
            tree_depth=jnp.zeros((), jnp.int32),
            step_size=state.step_size,
            diverging=found.is_divergent,
            reached_max_tree_depth=state.length / state.step_size > most,
        )

    def warmup(self, logdensity: BoundLogDensity, state: Any, key: PRNGKeyArray, index: Array) -> tuple[State, Info]:
        ends = windows(self.warmup_steps)
        # The lengths of the first windows say little: few draws, and a metric that knows nothing.
        early = index < next((end for end in ends if end >= LONG_WINDOW), self.warmup_steps)
        chain, info = self._transition(logdensity, state, key, jnp.where(early, EARLY_STEPS, self._most_steps))
        averaging = state.averaging.updated(self.target_accept - info.acceptance_rate)
        z = (chain.position - state.centre) / jnp.sqrt(state.inverse_mass)
        state = state._replace(
            chain=chain,
            draw=chain.position[: state.draw.shape[0]],
            averaging=averaging,
            moments=state.moments.updated(jnp.stack([chain.position, chain.logdensity_grad])[None]),
            pulled=state.pulled + z * (z @ state.widest),
            step_size=jnp.exp(averaging.log_step),
        )
        closes = jnp.any(index + 1 == jnp.asarray(ends[:-1], jnp.int32))
        state = jax.lax.cond(closes, self._close, lambda state: state, state)
        # The last transition hands on the average, not the last proposal.
        last = index == self.warmup_steps - 1
        return state._replace(step_size=jnp.where(last, jnp.exp(averaging.log_average), state.step_size)), info

    def _close(self, state: State) -> State:
        """The window's metric and length in use, and the step begun again from as far as it went in the old metric."""
        metric = inverse_mass(state.moments, state.inverse_mass)
        scaled = state.pulled * jnp.sqrt(state.inverse_mass / metric)
        size = jnp.linalg.norm(scaled)
        variance = jnp.maximum(size / state.moments.number, 1.0)
        step_size = jnp.exp(state.averaging.log_average + 0.5 * jnp.mean(jnp.log(state.inverse_mass / metric)))
        return state._replace(
            averaging=DualAverage.at(jnp.log(step_size)),
            moments=Moments.none_like(state.moments.mean),
            centre=state.moments.mean[0],
            widest=jnp.where(size > 0, scaled / size, state.widest),
            pulled=jnp.zeros_like(state.pulled),
            inverse_mass=metric,
            step_size=step_size,
            length=LENGTH * jnp.sqrt(state.chain.position.shape[0] * variance),
        )

    def step(self, logdensity: BoundLogDensity, state: Any, key: PRNGKeyArray) -> tuple[State, Info]:
        chain, info = self._transition(logdensity, state, key, self._most_steps)
        return state._replace(chain=chain, draw=chain.position[: state.draw.shape[0]]), info

    def position(self, state: Any) -> Array:
        return state.draw
