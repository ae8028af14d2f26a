"""NumPyro's NUTS behind the sampler interface."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray
from numpyro.infer import NUTS
from numpyro.infer.hmc import HMCState

from pelton.engine.samplers.base import BoundLogDensity, Chainwise, Info
from pelton.engine.warmup import EARLY_DEPTH


@dataclass(frozen=True)
class NumpyroNuts(Chainwise):
    """Multinomial NUTS with Stan's windowed adaptation (Hoffman & Gelman 2014; Betancourt 2017), by NumPyro."""

    name: ClassVar[str] = "numpyro-nuts"
    adapts_in_step: ClassVar[bool] = True

    def _kernel(self, logdensity: BoundLogDensity) -> NUTS:
        depths: Any = (min(self.max_tree_depth, EARLY_DEPTH), self.max_tree_depth)
        return NUTS(
            potential_fn=lambda position: -logdensity(position),
            target_accept_prob=self.target_accept,
            max_tree_depth=depths,
            dense_mass=self.metric == "dense",
        )

    def _init(self, kernel: NUTS, position: Array, key: PRNGKeyArray) -> HMCState:
        return kernel.init(key, self.warmup_steps, init_params=position, model_args=(), model_kwargs={})

    def init(self, logdensity: BoundLogDensity, position: Array, key: PRNGKeyArray) -> HMCState:
        return self._init(self._kernel(logdensity), position, key)

    def step(self, logdensity: BoundLogDensity, state: Any, key: PRNGKeyArray) -> tuple[HMCState, Info]:
        kernel = self._kernel(logdensity)
        # NumPyro's kernel learns its schedule in init, so each program that steps must have called it.
        jax.eval_shape(lambda z, k: self._init(kernel, z, k), state.z, key)
        state = kernel.sample(state._replace(rng_key=key), (), {})
        depth = jnp.ceil(jnp.log2(state.num_steps + 1.0)).astype(jnp.int32)
        return state, Info(
            lp=-state.potential_energy,
            energy=state.energy,
            acceptance_rate=state.accept_prob,
            n_steps=state.num_steps.astype(jnp.int32),
            tree_depth=depth,
            step_size=state.adapt_state.step_size,
            diverging=state.diverging,
            reached_max_tree_depth=(state.num_steps >= 2**self.max_tree_depth - 1) & ~state.diverging,
        )

    def position(self, state: Any) -> Array:
        return state.z
