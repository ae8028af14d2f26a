"""BlackJAX's NUTS behind the sampler interface, with its window adaptation taken a step at a time."""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from blackjax.adaptation.mass_matrix import MassMatrixAdaptationState, mass_matrix_adaptation
from blackjax.adaptation.step_size import DualAveragingAdaptationState, dual_averaging_adaptation
from blackjax.adaptation.window_adaptation import build_schedule
from blackjax.mcmc import nuts
from blackjax.mcmc.hmc import HMCState
from jaxtyping import Array, PRNGKeyArray

from pelton.engine.samplers.base import BoundLogDensity, Chainwise, Info


class State(NamedTuple):
    """A chain and what its adaptation has learned."""

    chain: HMCState
    dual_averaging: DualAveragingAdaptationState
    mass_matrix: MassMatrixAdaptationState
    step_size: Array
    inverse_mass_matrix: Array


@dataclass(frozen=True)
class BlackjaxNuts(Chainwise):
    """Multinomial NUTS with Stan's schedule of windows, by BlackJAX's parts.

    BlackJAX runs a whole window adaptation in one call; here the same updates are made one iteration at a time,
    so that a long warm-up reports its progress and can be interrupted.
    """

    name: ClassVar[str] = "blackjax-nuts"

    def _transition(
        self, logdensity: BoundLogDensity, state: State, key: PRNGKeyArray
    ) -> tuple[HMCState, nuts.NUTSInfo, Info]:
        # BlackJAX annotates its arrays as floats and ints.
        kernel: Any = nuts.build_kernel()
        chain, found = kernel(
            key,
            state.chain,
            logdensity,
            state.step_size,
            state.inverse_mass_matrix,
            max_num_doublings=self.max_tree_depth,
        )
        depth = found.num_trajectory_expansions
        return (
            chain,
            found,
            Info(
                lp=chain.logdensity,
                energy=found.energy,
                acceptance_rate=found.acceptance_rate,
                n_steps=found.num_integration_steps.astype(jnp.int32),
                tree_depth=depth.astype(jnp.int32),
                step_size=state.step_size,
                diverging=found.is_divergent,
                reached_max_tree_depth=(depth >= self.max_tree_depth) & ~found.is_divergent & ~found.is_turning,
            ),
        )

    def init(self, logdensity: BoundLogDensity, position: Array, key: PRNGKeyArray) -> State:
        start_averaging, _, _ = dual_averaging_adaptation(self.target_accept)
        start_matrix, _, _ = mass_matrix_adaptation(is_diagonal_matrix=self.metric == "diagonal")
        chain = nuts.init(position, logdensity)
        mass_matrix = start_matrix(position.shape[0])
        step_size = jnp.ones((), position.dtype)
        return State(chain, start_averaging(step_size), mass_matrix, step_size, mass_matrix.inverse_mass_matrix)

    def warmup(self, logdensity: BoundLogDensity, state: Any, key: PRNGKeyArray, index: Array) -> tuple[State, Info]:
        start_averaging, update_averaging, average = dual_averaging_adaptation(self.target_accept)
        _, update_matrix, close_window = mass_matrix_adaptation(is_diagonal_matrix=self.metric == "diagonal")
        slow, closes = jnp.asarray(build_schedule(self.warmup_steps), jnp.int32)[index]

        chain, _, info = self._transition(logdensity, state, key)
        averaging = update_averaging(state.dual_averaging, info.acceptance_rate)
        matrix = jax.lax.cond(
            slow == 1,
            lambda m: update_matrix(m, chain.position, chain.logdensity_grad),
            lambda m: m,
            state.mass_matrix,
        )

        def close(averaging: Any, matrix: Any) -> tuple[Any, Any]:
            return start_averaging(average(averaging)), close_window(matrix)

        averaging, matrix = jax.lax.cond(closes == 1, close, lambda a, m: (a, m), averaging, matrix)
        # The last step hands the averaged step size, not the last proposal, to the sampling phase.
        last = index == self.warmup_steps - 1
        step_size = jnp.exp(jnp.where(last, averaging.log_step_size_avg, averaging.log_step_size))
        return State(chain, averaging, matrix, step_size, matrix.inverse_mass_matrix), info

    def step(self, logdensity: BoundLogDensity, state: Any, key: PRNGKeyArray) -> tuple[State, Info]:
        chain, _, info = self._transition(logdensity, state, key)
        return state._replace(chain=chain), info

    def position(self, state: Any) -> Array:
        return state.chain.position
