"""Automatic differentiation variational inference: the normal of greatest evidence lower bound, by Adam."""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from blackjax.vi import fullrank_vi, meanfield_vi
from jaxtyping import Array, Float, Int, PRNGKeyArray

from pelton.engine.approximations.base import LOG_TWO_PI, Distribution, Found
from pelton.engine.approximations.normals import LowRank
from pelton.engine.approximations.pathfinder import best_normal
from pelton.engine.errors import ModelError
from pelton.engine.samplers.base import Bound

# Climbs that find the coordinates; the approximation itself is fitted afterwards.
CLIMB_STEPS = 1000
# Draws behind each gradient of the evidence lower bound.
DRAWS_A_STEP = 10
# In coordinates of unit scale; it falls to nothing along a cosine, so that the last steps average the noise away.
LEARNING_RATE = 0.05


class Fitted(NamedTuple):
    """Normal(centre, F F').

    Attributes:
        centre: [d].
        factor: F [d, d], or its diagonal [d].
        log_det: log |F|.
    """

    centre: Float[Array, " d"]
    factor: Float[Array, " d *d"]
    log_det: Float[Array, ""]


@dataclass(frozen=True)
class Advi(Distribution):
    """Gaussian variational inference with BlackJAX's steps, in coordinates that Pathfinder's best normal whitens.

    Full rank: x = mu + W (m + C u) with W of the best path's normal, C lower triangular, u standard normal; mean field:
    W and C diagonal. The gradient is that of the path alone, without the score ("sticking the landing"), so that its
    noise vanishes where the approximation is exact.
    """

    name: ClassVar[str] = "advi"
    default_steps: ClassVar[int] = 3000
    offers_diagonal: ClassVar[bool] = True

    def explore(self, density: Bound, position: Float[Array, " d"], key: PRNGKeyArray) -> Found:
        return best_normal(density, position, key, CLIMB_STEPS)

    def refine(self, density: Bound, fit: Any, key: PRNGKeyArray) -> tuple[Any, Int[Array, ""]]:
        whitening: LowRank = fit
        dimension = whitening.mean.shape[0]
        full = self.covariance == "full"
        sd = whitening.marginal_sd()

        def coloured(inner: Array) -> Array:
            return whitening.mean + (whitening.spread(inner) if full else sd * inner)

        def inner_density(inner: Array) -> Array:
            return density(coloured(inner))

        schedule = optax.cosine_decay_schedule(LEARNING_RATE, self.steps)
        # One draw where the density breaks down must not end the fit.
        optimizer: Any = optax.apply_if_finite(optax.adam(schedule), self.steps)
        kind: Any = fullrank_vi if full else meanfield_vi
        state = kind.init(jnp.zeros(dimension, whitening.mean.dtype), optimizer)
        if not full:
            state = state._replace(rho=jnp.zeros_like(state.rho))

        def step(index: Any, state: Any) -> Any:
            at = jax.random.fold_in(key, index)
            return kind.step(at, state, inner_density, optimizer, num_samples=DRAWS_A_STEP)[0]

        state = jax.lax.fori_loop(0, self.steps, step, state)
        count = jnp.asarray(self.steps * DRAWS_A_STEP, jnp.int32)
        if not full:
            scale = sd * jnp.exp(state.rho)
            return Fitted(coloured(state.mu), scale, jnp.sum(jnp.log(scale))), count
        diagonal, below = state.chol_params[:dimension], state.chol_params[dimension:]
        inner = jnp.zeros((dimension, dimension), diagonal.dtype).at[jnp.tril_indices(dimension, -1)].set(below)
        inner = inner + jnp.diag(jnp.exp(diagonal))
        factor = whitening.spread(inner.T).T
        return Fitted(coloured(state.mu), factor, whitening.log_det + jnp.sum(diagonal)), count

    def check(self, fit: Any, starts: int) -> dict[str, float]:
        if not all(np.all(np.isfinite(leaf)) for leaf in fit):
            raise ModelError(
                f"the variational fit broke down from the best of {starts} starts: its normal is not finite; use "
                "pelton.sample"
            )
        return {}

    def draw(self, fit: Any, key: PRNGKeyArray, count: int) -> tuple[Float[Array, "n d"], Float[Array, " n"]]:
        dimension = fit.centre.shape[0]
        noise = jax.random.normal(key, (count, dimension), fit.centre.dtype)
        spread = noise @ fit.factor.T if fit.factor.ndim == 2 else noise * fit.factor
        log_q = -0.5 * (jnp.sum(noise**2, axis=1) + LOG_TWO_PI * dimension) - fit.log_det
        return fit.centre + spread, log_q
