"""The Laplace approximation: the normal with the posterior's mode and its curvature there."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from pelton.engine.approximations import ascent, optimum
from pelton.engine.approximations.base import LOG_TWO_PI, Distribution, Found
from pelton.engine.samplers.base import Bound


@dataclass(frozen=True)
class Laplace(Distribution):
    """Normal(mode, H^-1) with H the negative Hessian of the log density at its mode, by Cholesky H = C C'."""

    name: ClassVar[str] = "laplace"
    # A Hessian of 2000 dimensions takes 32 MB and its factor a few seconds.
    max_dimension: ClassVar[int | None] = 2000

    def explore(self, density: Bound, position: Float[Array, " d"], key: PRNGKeyArray) -> Found:
        del key
        climb = ascent.ascend(density, position, self.steps)
        return Found(climb.position, climb.value, climb.gradients, jnp.zeros((), jnp.int32))

    def refine(self, density: Bound, fit: Any, key: PRNGKeyArray) -> tuple[Any, Int[Array, ""]]:
        del key
        top = optimum.polished(density, fit)
        return top, top.gradients

    def check(self, fit: Any, starts: int) -> dict[str, float]:
        optimum.refuse_slope(fit, starts)
        return {"gradient_norm": float(np.linalg.norm(fit.gradient)), "mode_lp": float(fit.value)}

    def draw(self, fit: Any, key: PRNGKeyArray, count: int) -> tuple[Float[Array, "n d"], Float[Array, " n"]]:
        dimension = fit.position.shape[0]
        noise = jax.random.normal(key, (count, dimension), fit.position.dtype)
        # x = mode + C'^-1 u has the covariance H^-1.
        spread = jax.scipy.linalg.solve_triangular(fit.factor, noise.T, lower=True, trans="T").T
        log_det: Array = jnp.sum(jnp.log(jnp.diag(fit.factor)))
        log_q = -0.5 * (jnp.sum(noise**2, axis=1) + LOG_TWO_PI * dimension) + log_det
        return fit.position + spread, log_q
