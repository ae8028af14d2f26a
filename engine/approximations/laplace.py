"""The Laplace approximation: the normal with the posterior's mode and its curvature there."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from pelton.engine.approximations import optimum
from pelton.engine.approximations.base import LOG_TWO_PI, Distribution
from pelton.engine.approximations.optimum import Climbing
from pelton.engine.samplers.base import Bound


@dataclass(frozen=True)
class Laplace(Climbing, Distribution):
    """Normal(mode, H^-1) with H the negative Hessian of the log density at its mode, by Cholesky H = C C'."""

    name: ClassVar[str] = "laplace"
    # A Hessian of 2000 dimensions takes 32 MB and its factor a few seconds.
    max_dimension: ClassVar[int | None] = 2000

    def refine(self, density: Bound, fit: Any, key: PRNGKeyArray) -> tuple[Any, Int[Array, ""]]:
        del key
        top = optimum.polished(density, fit)
        return top, top.gradients

    def draw(self, fit: Any, key: PRNGKeyArray, count: int) -> tuple[Float[Array, "n d"], Float[Array, " n"]]:
        dimension = fit.position.shape[0]
        noise = jax.random.normal(key, (count, dimension), fit.position.dtype)
        # x = mode + C'^-1 u has the covariance H^-1.
        spread = jax.scipy.linalg.solve_triangular(fit.factor, noise.T, lower=True, trans="T").T
        log_det: Array = jnp.sum(jnp.log(jnp.diag(fit.factor)))
        log_q = -0.5 * (jnp.sum(noise**2, axis=1) + LOG_TWO_PI * dimension) + log_det
        return fit.position + spread, log_q
